"""Wrap the private key of a contract for the vehicle that asked for it, and unwrap it as that vehicle does.

ISO 15118-2: ECDH on secp256r1, concatenation KDF with SHA-256, AES-128-CBC (V2G2-815 to 818). ISO 15118-20: ECDH on
secp521r1 or X448, concatenation KDF with SHA-512, AES-256-GCM (V2G20-2492 to 2502, 2535). The ephemeral key and the
initialisation vector are the caller's, and must never be used twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from chargepki.pki.edwards448 import ORDER, SCALAR_BYTES, public_key_of, secret_scalar
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from chargepki.pki.exi import Tree
from chargepki.pki.identifiers import Pcid

__all__ = [
    "CBC_IV_BYTES",
    "GCM_IV_BYTES",
    "WrapForm",
    "WrapRefused",
    "WrappedKey",
    "additional_data",
    "find_wrapped_key",
    "unwrap_ec_key",
    "unwrap_ed448_scalar",
    "unwrap_x448_key",
    "wrap_ec_key",
    "wrap_x448_key",
]

CBC_IV_BYTES: Final = 16
GCM_IV_BYTES: Final = 12
_TAG_BYTES: Final = 16

# AlgorithmID, PartyUInfo 'U', PartyVInfo 'V' (V2G2-818, V2G20-2535).
_OTHER_INFO: Final = b"\x01UV"
_UNCOMPRESSED: Final = 0x04


class WrapForm(StrEnum):
    """How a key is wrapped; the forms of -20 by the names of their elements."""

    ISO15118_2 = "ContractSignatureEncryptedPrivateKey"
    SECP521 = "SECP521_EncryptedPrivateKey"
    X448 = "X448_EncryptedPrivateKey"
    TPM = "TPM_EncryptedPrivateKey"
    """For the TPM of the vehicle (ISO/IEC 11889): recognised, and opened by nobody else."""


@dataclass(frozen=True, slots=True)
class _EllipticForm:
    """What differs between the two forms on a NIST curve."""

    curve: ec.EllipticCurve
    scalar_bytes: int
    order: int


_ELLIPTIC: Final[Mapping[WrapForm, _EllipticForm]] = {
    # Orders: SEC 2 sections 2.4.2 and 2.6.1.
    WrapForm.ISO15118_2: _EllipticForm(
        ec.SECP256R1(), 32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    ),
    WrapForm.SECP521: _EllipticForm(
        ec.SECP521R1(),
        66,
        (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
    ),
}


class WrapRefused(InputError):
    """A wrapped key that this vehicle cannot have been given: malformed, for another key, or of another contract."""

    code = "contract-key"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """What travels.

    Attributes:
        public: the sender's ephemeral public key: an uncompressed point, or 56 bytes of X448.
        encrypted: initialisation vector, ciphertext, and the tag of AES-GCM.
    """

    form: WrapForm
    public: bytes
    encrypted: bytes


def additional_data(pcid: str, subject_key_identifier: bytes) -> bytes:
    """Return what AES-GCM authenticates besides the key: PCID and the contract's key identifier, 34 characters.

    Args:
        pcid: of the vehicle, with its check digit; without it the boundary between the two would be open.
        subject_key_identifier: 8 bytes (RFC 5280 section 4.2.1.2 method 2).

    Raises:
        PolicyRefusal: the lengths are others.

    Clause: V2G20-2492.
    """
    text = Pcid.parse(pcid).normalised
    if len(text) != 18:
        raise PolicyRefusal(
            f"PCID {text} has {len(text)} characters; ISO 15118-20 authenticates 18",
            why="V2G20-2492: without the check digit the key would be bound to an ambiguous text",
            fix="use a provisioning certificate whose PCID has its check digit",
        )
    if len(subject_key_identifier) != 8:
        raise PolicyRefusal(
            f"the contract's subject key identifier has {len(subject_key_identifier)} bytes; ISO 15118-20 wants 8",
            why="V2G20-2492: 16 hexadecimal digits of it are authenticated",
            fix="issue the contract with a profile of iso15118-20",
        )
    return (text + subject_key_identifier.hex().upper()).encode("ascii")


# -- NIST curves -------------------------------------------------------------------------------------------------------


def wrap_ec_key(
    key: ec.EllipticCurvePrivateKey,
    recipient: ec.EllipticCurvePublicKey,
    *,
    form: WrapForm,
    ephemeral: ec.EllipticCurvePrivateKey,
    iv: bytes,
    aad: bytes = b"",
) -> WrappedKey:
    """Wrap a contract key on secp256r1 (-2) or secp521r1 (-20).

    Args:
        recipient: key of the OEM provisioning certificate, or of the old contract (CertificateUpdate).
        ephemeral: a key made for this message alone.
        iv: random; `CBC_IV_BYTES` for -2, `GCM_IV_BYTES` for -20.
        aad: of -20, from `additional_data`; -2 has none, and only the signature of the CPS protects its message.

    Raises:
        PolicyRefusal: a key is on another curve than *form* wants.

    Clause: V2G2-815, 817, 818; V2G20-2494, 2497, 2499, 2535, 2709 (contract and provisioning key share the curve).
    """
    parts = _elliptic(form)
    curves = {
        "the contract key": key.curve.name,
        "the recipient's key": recipient.curve.name,
        "the ephemeral key": ephemeral.curve.name,
    }
    for whose, curve in curves.items():
        if curve != parts.curve.name:
            raise PolicyRefusal(
                f"{whose} is on {curve}; {form} takes {parts.curve.name}",
                why="V2G2-818, V2G20-2709: contract and provisioning certificate have keys on the same curve",
                fix="issue the contract by the standard that the vehicle's provisioning certificate belongs to",
            )
    # Only this copy can be overwritten; the number it is made of cannot, nor what the library holds.
    plain = bytearray(key.private_numbers().private_value.to_bytes(parts.scalar_bytes, "big"))
    try:
        encrypted = _encrypt(form, ephemeral.exchange(ec.ECDH(), recipient), plain, iv, aad)
    finally:
        _erase(plain)
    point = ephemeral.public_key().public_numbers()
    size = parts.scalar_bytes
    public = bytes((_UNCOMPRESSED,)) + point.x.to_bytes(size, "big") + point.y.to_bytes(size, "big")
    return WrappedKey(form, public, encrypted)


def unwrap_ec_key(
    wrapped: WrappedKey,
    recipient: ec.EllipticCurvePrivateKey,
    *,
    contract: ec.EllipticCurvePublicKey,
    aad: bytes = b"",
) -> ec.EllipticCurvePrivateKey:
    """Unwrap a contract key as the vehicle does; the signature over it must have been verified before.

    Args:
        recipient: the private key of the provisioning certificate or of the old contract.
        contract: public key of the contract certificate that came with it.

    Raises:
        WrapRefused: it is malformed, was wrapped for another key, or is not the key of *contract*.

    Clause: V2G2-823; V2G20-2507, 2510, 2572, 2678.
    """
    parts = _elliptic(wrapped.form)
    if recipient.curve.name != parts.curve.name:
        raise WrapRefused(f"the recipient's key is on {recipient.curve.name}; {wrapped.form} takes {parts.curve.name}")
    if wrapped.public[:1] != bytes((_UNCOMPRESSED,)):
        raise WrapRefused("the ephemeral public key is no uncompressed point", why="V2G20-2572: it starts with 0x04")
    try:
        sender = ec.EllipticCurvePublicKey.from_encoded_point(parts.curve, wrapped.public)
    except ValueError as exc:
        raise WrapRefused(f"the ephemeral public key is no point of {parts.curve.name}") from exc
    plain = bytearray(_decrypt(wrapped, recipient.exchange(ec.ECDH(), sender), parts.scalar_bytes, aad))
    try:
        scalar = int.from_bytes(plain, "big")
    finally:
        _erase(plain)
    if not 0 < scalar < parts.order:
        raise WrapRefused("what was unwrapped is no private key", why="V2G2-823, V2G20-2507: it lies between 0 and n")
    key = ec.derive_private_key(scalar, parts.curve)
    if contract.curve.name != parts.curve.name or key.public_key().public_numbers() != contract.public_numbers():
        raise WrapRefused("the unwrapped key is not the contract certificate's", why="V2G2-823, V2G20-2510")
    return key


def _elliptic(form: WrapForm) -> _EllipticForm:
    parts = _ELLIPTIC.get(form)
    if parts is None:
        raise _not_ours(form)
    return parts


def _not_ours(form: WrapForm) -> StateError:
    if form is WrapForm.TPM:
        return StateError(
            "the key is wrapped for the vehicle's TPM", why="V2G20-2518 to 2521: only that TPM can open it"
        )
    return StateError(f"{form} is not wrapped by this function")


# -- X448 --------------------------------------------------------------------------------------------------------------


def wrap_x448_key(
    key: x448.X448PrivateKey | ed448.Ed448PrivateKey,
    recipient: x448.X448PublicKey,
    *,
    ephemeral: x448.X448PrivateKey,
    iv: bytes,
    aad: bytes,
) -> WrappedKey:
    """Wrap a key of 448 bits for a vehicle whose provisioning certificate has a key for X448.

    Of an Ed448 key, what travels is its secret scalar, reduced by the order of the base point, big-endian: the one
    number of 56 bytes with which the vehicle's check holds (V2G20-2510). RFC 8032's private key has 57.

    Clause: V2G20-2500 to 2502, 2535.
    """
    if isinstance(key, ed448.Ed448PrivateKey):
        plain = bytearray(secret_scalar(key.private_bytes_raw()).to_bytes(SCALAR_BYTES, "big"))
    else:
        plain = bytearray(key.private_bytes_raw())
    try:
        encrypted = _encrypt(WrapForm.X448, ephemeral.exchange(recipient), plain, iv, aad)
    finally:
        _erase(plain)
    return WrappedKey(WrapForm.X448, ephemeral.public_key().public_bytes_raw(), encrypted)


def unwrap_x448_key(
    wrapped: WrappedKey, recipient: x448.X448PrivateKey, *, contract: x448.X448PublicKey, aad: bytes
) -> x448.X448PrivateKey:
    """Unwrap a 56-byte key as the vehicle does.

    Raises:
        WrapRefused: it is malformed, was wrapped for another key, or is not the key of *contract*.
    """
    secret = _agree_x448(wrapped, recipient)
    plain = bytearray(_decrypt(wrapped, secret, SCALAR_BYTES, aad))
    try:
        key = x448.X448PrivateKey.from_private_bytes(bytes(plain))
    finally:
        _erase(plain)
    if key.public_key().public_bytes_raw() != contract.public_bytes_raw():
        raise WrapRefused("the unwrapped key is not the contract certificate's", why="V2G20-2510")
    return key


def unwrap_ed448_scalar(
    wrapped: WrappedKey, recipient: x448.X448PrivateKey, *, contract: ed448.Ed448PublicKey, aad: bytes
) -> int:
    """Unwrap the secret scalar of an Ed448 contract key as the vehicle does, and check it as it must.

    Args:
        recipient: the private half of the provisioning certificate's key for X448.

    Raises:
        WrapRefused: it is malformed, was wrapped for another key, or is not the key of *contract*.

    Clause: V2G20-2508 to 2510.
    """
    plain = bytearray(_decrypt(wrapped, _agree_x448(wrapped, recipient), SCALAR_BYTES, aad))
    try:
        scalar = int.from_bytes(plain, "big")
    finally:
        _erase(plain)
    if not 0 < scalar < ORDER:
        raise WrapRefused("what was unwrapped is no private key", why="V2G20-2510: it lies between 0 and the order")
    if public_key_of(scalar) != contract.public_bytes_raw():
        raise WrapRefused("the unwrapped key is not the contract certificate's", why="V2G20-2510")
    return scalar


def _agree_x448(wrapped: WrappedKey, recipient: x448.X448PrivateKey) -> bytes:
    if wrapped.form is not WrapForm.X448:
        raise _not_ours(wrapped.form)
    try:
        return recipient.exchange(x448.X448PublicKey.from_public_bytes(wrapped.public))
    except ValueError as exc:  # another length, or a point of low order
        raise WrapRefused("the ephemeral public key is none of X448") from exc


# -- what the forms share ----------------------------------------------------------------------------------------------


def find_wrapped_key(tree: Tree) -> WrappedKey:
    """Return the wrapped key of a response.

    Args:
        tree: the body of CertificateInstallationRes or CertificateUpdateRes of -2, or SignedInstallationData of -20.

    Raises:
        WrapRefused: there is none.
    """
    for form in WrapForm:
        value = tree.get(form)
        public = tree.get("DHpublickey" if form is WrapForm.ISO15118_2 else "DHPublicKey")
        if form is WrapForm.ISO15118_2 and isinstance(value, dict) and isinstance(public, dict):
            value, public = value.get("value"), public.get("value")
        if isinstance(value, bytes) and isinstance(public, bytes):
            return WrappedKey(form, public, value)
    raise WrapRefused("the response holds no wrapped key")


def _encrypt(form: WrapForm, secret: bytes, plain: bytearray, iv: bytes, aad: bytes) -> bytes:
    wanted = CBC_IV_BYTES if form is WrapForm.ISO15118_2 else GCM_IV_BYTES
    if len(iv) != wanted:
        raise ValueError(f"the initialisation vector of {form} has {wanted} bytes, not {len(iv)}")
    key = _derive(form, secret)
    if form is WrapForm.ISO15118_2:
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        return iv + encryptor.update(plain) + encryptor.finalize()
    return iv + AESGCM(key).encrypt(iv, plain, aad)


def _decrypt(wrapped: WrappedKey, secret: bytes, size: int, aad: bytes) -> bytes:
    is_cbc = wrapped.form is WrapForm.ISO15118_2
    start = CBC_IV_BYTES if is_cbc else GCM_IV_BYTES
    wanted = start + size + (0 if is_cbc else _TAG_BYTES)
    if len(wrapped.encrypted) != wanted:
        raise WrapRefused(f"the wrapped key has {len(wrapped.encrypted)} bytes; {wrapped.form} has {wanted}")
    iv, rest = wrapped.encrypted[:start], wrapped.encrypted[start:]
    key = _derive(wrapped.form, secret)
    if is_cbc:
        decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        return decryptor.update(rest) + decryptor.finalize()
    try:
        return AESGCM(key).decrypt(iv, rest, aad)
    except InvalidTag as exc:
        raise WrapRefused(
            "the wrapped key is not for this vehicle and this contract, or was changed",
            why="V2G20-2494: the tag of AES-GCM does not fit key, PCID and subject key identifier",
        ) from exc


def _derive(form: WrapForm, secret: bytes) -> bytes:
    """Return the session key: the concatenation KDF of NIST SP 800-56A, counter before secret."""
    if form is WrapForm.ISO15118_2:
        return ConcatKDFHash(hashes.SHA256(), 16, _OTHER_INFO).derive(secret)
    return ConcatKDFHash(hashes.SHA512(), 32, _OTHER_INFO).derive(secret)


def _erase(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))
