"""The signature over a firmware image's digest: made, encoded, and verified in the encodings of the standard alone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal, FirmwareStage
from chargepki.pki import der
from chargepki.pki.errors import InputError, PolicyRefusal, SignerError
from chargepki.pki.keys import PublicKey

if TYPE_CHECKING:
    from chargepki.pki.signer import Signer

__all__ = [
    "MAX_SIGNATURE_CHARACTERS",
    "SignatureScheme",
    "VerifiedSignature",
    "decode_signature",
    "encode_signature",
    "sign_digest",
    "verify_digest",
]

MAX_SIGNATURE_CHARACTERS: Final = 800
"""Longest signature in base64 (all versions)."""

_HASHES: Final[dict[FirmwareHash, hashes.HashAlgorithm]] = {
    FirmwareHash.SHA256: hashes.SHA256(),
    FirmwareHash.SHA384: hashes.SHA384(),
    FirmwareHash.SHA512: hashes.SHA512(),
}
# DER of the AlgorithmIdentifier in a DigestInfo, to say which hash a refused PKCS #1 v1.5 signature was made with.
_DIGEST_INFOS: Final = (
    ("MD5", bytes.fromhex("300c06082a864886f70d02050500")),
    ("SHA-1", bytes.fromhex("300906052b0e03021a0500")),
    ("SHA-256", bytes.fromhex("300d06096086480165030402010500")),
    ("SHA-384", bytes.fromhex("300d06096086480165030402020500")),
    ("SHA-512", bytes.fromhex("300d06096086480165030402030500")),
)
_CLAUSE: Final = "OCPP L01.FR.04"
_ORDERS: Final = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "secp521r1": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}


class SignatureScheme(StrEnum):
    """How the digest is signed."""

    ECDSA = "ecdsa"
    """DER of r and s (RFC 3279 2.2.3); the "ECSchnorr" of the standard has no implementation."""
    RSA_PSS = "rsa-pss"
    RSA_PKCS1_V15 = "rsa-pkcs1-v15"
    """Only with `FirmwareQuirk.PKCS1_V15`."""


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """What is known about a signature that holds."""

    scheme: SignatureScheme
    key: str
    """Curve, or RSA with its size in bits."""


def encode_signature(signature: bytes) -> str:
    """Return *signature* as the base64 text of ``firmware.signature``.

    Raises:
        PolicyRefusal: longer than the schema's 800 characters (an RSA key of more than 4,800 bits).
    """
    text = base64.b64encode(signature).decode("ascii")
    if len(text) > MAX_SIGNATURE_CHARACTERS:
        raise PolicyRefusal(
            f"the signature has {len(text)} characters",
            why=f"the message has room for {MAX_SIGNATURE_CHARACTERS} (OCPP UpdateFirmware)",
            fix="sign with an RSA key of at most 4,800 bits, or with an elliptic curve",
        )
    return text


def decode_signature(text: str | None) -> bytes:
    """Return the octets of ``firmware.signature``: base64 of RFC 4648 4, in one line, with padding.

    Raises:
        FirmwareRefusal: absent, too long, or other base64 than that.
    """
    if not text:
        raise _refuse("there is no signature", "signature-missing", why="a signed update carries one", fix="sign it")
    if len(text) > MAX_SIGNATURE_CHARACTERS:
        raise _refuse(
            f"the signature has {len(text)} characters",
            "signature-too-long",
            why=f"the message has room for {MAX_SIGNATURE_CHARACTERS}",
            fix="check that it is the signature, not a certificate or an envelope",
        )
    try:
        signature = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise _not_base64() from exc
    if base64.b64encode(signature).decode("ascii") != text:
        raise _not_base64()
    return signature


def _not_base64() -> FirmwareRefusal:
    return _refuse(
        "the signature is not base64",
        "signature-not-base64",
        why="expected is RFC 4648 section 4 with padding, without line breaks",
        fix="encode the raw signature once, for example with: openssl base64 -A",
    )


def _refuse(what: str, rule: str, *, why: str, fix: str = "sign the image again") -> FirmwareRefusal:
    return FirmwareRefusal(what, stage=FirmwareStage.SIGNATURE, rule=rule, clause=_CLAUSE, why=why, fix=fix)


# ---------------------------------------------------------------- signing


def sign_digest(
    signer: Signer, digest: bytes, hash_name: FirmwareHash, *, pkcs1_v15: bool = False
) -> tuple[bytes, SignatureScheme]:
    """Sign the *digest* of an image with a software key or a token's.

    Args:
        digest: of the whole image, by *hash_name*.
        pkcs1_v15: RSASSA-PKCS1-v1_5 in place of RSA-PSS with a salt of 32 octets (or of the longer hash's length).

    Raises:
        PolicyRefusal: the key is of a kind that the standard does not allow, or *pkcs1_v15* with an elliptic curve.
        SignerError: the key store failed.
    """
    algorithm = _HASHES[hash_name]
    prehashed = utils.Prehashed(algorithm)
    key = signer.private_key
    try:
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _ORDERS:
            if pkcs1_v15:
                raise PolicyRefusal("PKCS #1 v1.5 is a form of RSA signatures", fix="leave the quirk out")
            return key.sign(digest, ec.ECDSA(prehashed)), SignatureScheme.ECDSA
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
            if pkcs1_v15:
                return key.sign(digest, padding.PKCS1v15(), prehashed), SignatureScheme.RSA_PKCS1_V15
            pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
            return key.sign(digest, pss, prehashed), SignatureScheme.RSA_PSS
    except ValueError as exc:
        raise SignerError("the key could not sign", why=str(exc)) from exc
    raise PolicyRefusal(
        f"firmware is not signed with {signer.algorithm} keys",
        why=f"RSA of 2048 bits or more, or a NIST curve ({_CLAUSE}, A00.FR.504)",
        fix="use a key of the profile ocpp/firmware-signing",
    )


# ---------------------------------------------------------------- verifying


def verify_digest(
    key: PublicKey,
    signature: bytes,
    digest: bytes,
    hash_name: FirmwareHash = FirmwareHash.SHA256,
    quirks: Collection[FirmwareQuirk] = (),
) -> VerifiedSignature:
    """Verify *signature* over the *digest* of an image.

    High-s ECDSA signatures are valid: about half of all are. RSA-PSS takes any salt length.

    Args:
        signature: raw octets; ECDSA in DER, RSA as long as the modulus.

    Raises:
        FirmwareRefusal: with the encoding's fault where that can be told.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _ORDERS:
        _verify_ecdsa(key, signature, digest, _HASHES[hash_name])
        return VerifiedSignature(SignatureScheme.ECDSA, key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        scheme = _verify_rsa(key, signature, digest, _HASHES[hash_name], quirks)
        return VerifiedSignature(scheme, f"RSA {key.key_size}")
    raise _refuse("the key of the certificate cannot sign firmware", "key-type", why="neither RSA nor a NIST curve")


def _verify_ecdsa(
    key: ec.EllipticCurvePublicKey, signature: bytes, digest: bytes, algorithm: hashes.HashAlgorithm
) -> None:
    order = _ORDERS[key.curve.name]
    octets = (key.curve.key_size + 7) // 8
    try:
        r, s = _read_ecdsa(signature)
    except InputError as exc:
        if len(signature) == 2 * octets:
            raise _refuse(
                "the signature is r and s without DER",
                "ecdsa-raw",
                why="expected is the DER of SEQUENCE (r, s)",
                fix="encode it in DER, as openssl dgst -sign does",
            ) from exc
        raise _refuse("the signature is not DER", "ecdsa-not-der", why=exc.what) from exc
    if not (0 < r < order and 0 < s < order):
        raise _refuse(
            "r or s of the signature is out of range",
            "ecdsa-range",
            why="both lie between 1 and the order of the curve (FIPS 186-5 6.4.2)",
        )
    try:
        key.verify(signature, digest, ec.ECDSA(utils.Prehashed(algorithm)))
    except InvalidSignature as exc:
        raise _mismatch() from exc


def _read_ecdsa(signature: bytes) -> tuple[int, int]:
    parts = der.parse(signature).children(der.SEQUENCE)
    if len(parts) != 2:
        raise InputError(f"{len(parts)} numbers where r and s are expected")
    return parts[0].as_integer(), parts[1].as_integer()


def _verify_rsa(
    key: rsa.RSAPublicKey,
    signature: bytes,
    digest: bytes,
    algorithm: hashes.HashAlgorithm,
    quirks: Collection[FirmwareQuirk],
) -> SignatureScheme:
    octets = (key.key_size + 7) // 8
    if len(signature) != octets:
        raise _refuse(
            f"the signature has {len(signature)} octets",
            "rsa-length",
            why=f"one of this key has exactly {octets} (RFC 8017 8.1.2)",
        )
    if int.from_bytes(signature) >= key.public_numbers().n:
        raise _refuse(
            "the signature is no smaller than the modulus", "rsa-range", why="RFC 8017 5.2.2 calls it out of range"
        )
    prehashed = utils.Prehashed(algorithm)
    pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.AUTO)
    try:
        key.verify(signature, digest, pss, prehashed)
    except InvalidSignature as exc:
        if FirmwareQuirk.PKCS1_V15 not in quirks:
            raise _why_not_pss(key, signature) from exc
    else:
        return SignatureScheme.RSA_PSS
    try:
        key.verify(signature, digest, padding.PKCS1v15(), prehashed)
    except InvalidSignature as exc:
        raise _mismatch() from exc
    return SignatureScheme.RSA_PKCS1_V15


def _why_not_pss(key: rsa.RSAPublicKey, signature: bytes) -> FirmwareRefusal:
    """Tell a PKCS #1 v1.5 signature, the usual mistake, from one that fits nothing."""
    try:
        info = key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return _mismatch()
    # DigestInfo: SEQUENCE { AlgorithmIdentifier, OCTET STRING }
    name = next((name for name, prefix in _DIGEST_INFOS if info[2:].startswith(prefix)), "an unknown hash")
    return _refuse(
        f"the signature is RSASSA-PKCS1-v1_5 with {name}",
        "rsa-pkcs1-v15",
        why="the standard asks for RSA-PSS",
        fix="sign with RSA-PSS; for a station that knows nothing else: --quirk pkcs1-v15",
    )


def _mismatch() -> FirmwareRefusal:
    return _refuse(
        "the signature does not fit image and certificate",
        "signature-mismatch",
        why="the image was changed, or the signature was made over another image, with another key or another hash",
        fix="fetch the image again, or sign it with the key of this certificate",
    )
