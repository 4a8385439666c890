"""Private keys as bytes: PKCS #8 in PEM with and without a passphrase; no files."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from chargepki.pki import der, oids
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import PRIVATE_TYPES, KeyAlgorithm, PrivateKey, algorithm_of, unsupported

__all__ = [
    "MIN_SCRYPT_N",
    "decrypt_private_key",
    "encrypt_private_key",
    "load_private_key",
    "serialise_private_key",
]

MIN_SCRYPT_N: Final = 2**15
"""Least scrypt cost that we write: 28 MiB and about 0.1 s for each guess of a passphrase."""
_MAX_SCRYPT_BYTES: Final = 1 << 30
"""Most memory that a key file may make us allocate (128 * N * r)."""
# Not the customary 8: `openssl pkey` refuses a derivation of more than 32 MiB, and with N = 2^15 and r = 8 one needs
# 8 KiB more than that. Seven keeps N and 28 MiB.
_SCRYPT_R: Final = 7
_SCRYPT_P: Final = 1
_MAX_KEY_BYTES: Final = 8192
"""Longest private key (octets of DER, or of base64 in PEM). RSA of 4096 bits has 3300 in PEM; a longer prime is held
against its factors for longer than anybody waits: 100 KiB take OpenSSL 82 s, 7 KiB half a second."""
_MAX_PBKDF2_ROUNDS: Final = 10_000_000


def serialise_private_key(key: PrivateKey) -> bytes:
    """Return *key* as unencrypted PKCS #8 PEM."""
    return der.to_pem("PRIVATE KEY", _pkcs8(key)).encode("ascii")


def _pkcs8(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypt_private_key(key: PrivateKey, passphrase: bytes, n: int = MIN_SCRYPT_N) -> bytes:
    """Return *key* as PKCS #8 PEM under PBES2: scrypt (r 7, p 1) and AES-256-CBC; ``openssl pkey`` reads it.

    Our own encoding, because the one of `cryptography` derives the key with 2,048 rounds of PBKDF2 only.

    Args:
        n: scrypt cost, a power of two of at least `MIN_SCRYPT_N`.

    Raises:
        SignerError: the passphrase is empty.

    Clause: RFC 8018 6.2; RFC 7914 7.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # only key files need ciphers

    if not passphrase:
        raise SignerError("the passphrase is empty", fix="choose one that protects the key")
    if n < MIN_SCRYPT_N or n & (n - 1):
        raise ValueError(f"scrypt cost must be a power of two of at least {MIN_SCRYPT_N}")
    salt, iv = os.urandom(16), os.urandom(16)
    plain = _pkcs8(key)
    pad = 16 - len(plain) % 16
    encryptor = Cipher(algorithms.AES256(_derive(passphrase, salt, n)), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(plain + bytes([pad]) * pad) + encryptor.finalize()
    scrypt = der.sequence(
        der.octet_string(salt), der.integer(n), der.integer(_SCRYPT_R), der.integer(_SCRYPT_P), der.integer(32)
    )
    parameters = der.sequence(
        der.sequence(der.oid(oids.SCRYPT), scrypt),
        der.sequence(der.oid(oids.AES256_CBC), der.octet_string(iv)),
    )
    info = der.sequence(der.sequence(der.oid(oids.PBES2), parameters), der.octet_string(sealed))
    return der.to_pem("ENCRYPTED PRIVATE KEY", info).encode("ascii")


def _derive(passphrase: bytes, salt: bytes, n: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # only key files need it

    return Scrypt(salt=salt, length=32, n=n, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)


def decrypt_private_key(pem: bytes, passphrase: bytes) -> PrivateKey:
    """Return the key in an encrypted PEM block; any PBES2 form is read, not only our own.

    Raises:
        SignerError: the passphrase is wrong, or the file is not an encrypted key, or it demands absurd memory.
    """
    try:
        _refuse_costly(pem)
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError, InputError) as exc:
        # InternalError is how the library passes on OpenSSL's refusal of damaged scrypt parameters.
        # Which of the two it is cannot be told apart reliably, and telling would help a guesser only.
        raise SignerError(
            "the private key cannot be opened",
            why="wrong passphrase or damaged key; all keys of a workspace share one passphrase",
            fix="check the passphrase",
        ) from exc
    return _signing_key(key)


def _refuse_costly(pem: bytes) -> None:
    """Refuse a key file whose derivation would eat the machine."""
    for block in der.pem_blocks(pem, max_bytes=65536):
        if block.label != "ENCRYPTED PRIVATE KEY":
            continue
        _refuse_long(block.der)
        algorithm = _parts(_parts(der.parse(block.der), 2)[0], 2)
        if algorithm[0].as_oid() != oids.PBES2:
            _refuse_rounds(algorithm[1])
            continue
        derivation = _parts(_parts(algorithm[1], 2)[0], 2)
        scheme, parameters = derivation[0].as_oid(), derivation[1]
        if scheme == oids.SCRYPT:
            n, r, p = (part.as_integer() for part in _parts(parameters, 4)[1:4])
            # Memory is N times r, and work is p times that.
            memory = 128 * n * r
            if not (n > 0 and r > 0 and 0 < p <= 16 and max(memory, memory * p // 4) <= _MAX_SCRYPT_BYTES):
                raise InputError("the key file demands more memory than we allow", why=f"{_MAX_SCRYPT_BYTES} bytes")
        elif scheme == oids.PBKDF2:
            _refuse_rounds(parameters)


def _refuse_rounds(parameters: der.Tlv) -> None:
    """Refuse PBKDF2, PBES1 and the schemes of PKCS #12 alike: salt, then rounds (RFC 8018 A; RFC 7292 C)."""
    parts = parameters.children() if parameters.constructed else ()
    if len(parts) >= 2 and parts[1].tag == der.INTEGER and parts[1].as_integer() > _MAX_PBKDF2_ROUNDS:
        raise InputError("the key file demands more rounds than we allow", why=f"{_MAX_PBKDF2_ROUNDS}")


def _parts(element: der.Tlv, least: int) -> tuple[der.Tlv, ...]:
    parts = element.children(der.SEQUENCE)
    if len(parts) < least:
        raise element.fail("wrong-count", f"{len(parts)} elements where {least} are expected")
    return parts


def load_private_key(data: bytes) -> PrivateKey:
    """Return the key in unencrypted PEM or DER: PKCS #8, SEC 1 or PKCS #1.

    Raises:
        SignerError: the key is encrypted.
        InputError: not a private key, or an algorithm outside `KeyAlgorithm`.
    """
    is_pem = b"-----BEGIN " in data
    # What stands between two lines of dashes is the base64 of one object.
    for part in data.split(b"-----") if is_pem else (data,):
        _refuse_long(part)
    load = serialization.load_pem_private_key if is_pem else serialization.load_der_private_key
    try:
        key = load(data, None)
    except TypeError as exc:
        raise SignerError("the private key is encrypted", fix="pass its passphrase") from exc
    except (ValueError, UnsupportedAlgorithm, InternalError) as exc:
        # InternalError is how the library passes on OpenSSL's refusal of an X448 key of another length.
        why = "OpenSSL refuses its octets" if isinstance(exc, InternalError) else str(exc)
        raise InputError("no private key can be read here", why=why, fix="expected PKCS #8, PEM or DER") from exc
    return _signing_key(key)


def _refuse_long(data: bytes) -> None:
    if len(data) > _MAX_KEY_BYTES:
        raise InputError(
            f"a private key of {len(data)} octets is not read",
            why=f"those of this product have fewer than {_MAX_KEY_BYTES}, and longer ones take very long to check",
            fix=f"use one of {', '.join(KeyAlgorithm)}",
        )


def _signing_key(key: object) -> PrivateKey:
    if not isinstance(key, PRIVATE_TYPES):
        raise unsupported(type(key).__name__.removesuffix("PrivateKey"))
    algorithm_of(key)
    return key
