"""Tell how a private key is stored, without ever opening it: its encryption, and what guessing the passphrase costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chargepki.pki import oids
from chargepki.pki.der import DerError, Tlv
from chargepki.pki.errors import printable_number
from chargepki.pki.lint.sniff import ObjectKind, kind_of

__all__ = ["KeyProtection", "protection_of", "read_private_key", "weakness_of"]

_MIN_PBKDF2_ROUNDS: Final = 100_000
_MIN_SCRYPT_BYTES: Final = 16 << 20
_OLD_SCHEMES: Final = {
    "1.2.840.113549.1.5.1": "MD2 and DES",
    "1.2.840.113549.1.5.3": "MD5 and DES",
    "1.2.840.113549.1.5.4": "MD2 and RC2",
    "1.2.840.113549.1.5.6": "MD5 and RC2",
    "1.2.840.113549.1.5.10": "SHA-1 and DES",
    "1.2.840.113549.1.5.11": "SHA-1 and RC2",
    "1.2.840.113549.1.12.1.1": "SHA-1 and 128-bit RC4",
    "1.2.840.113549.1.12.1.2": "SHA-1 and 40-bit RC4",
    "1.2.840.113549.1.12.1.3": "SHA-1 and 3DES",
    "1.2.840.113549.1.12.1.4": "SHA-1 and two-key 3DES",
    "1.2.840.113549.1.12.1.5": "SHA-1 and 128-bit RC2",
    "1.2.840.113549.1.12.1.6": "SHA-1 and 40-bit RC2",
}
"""PBES1 (RFC 8018 A.3) and the schemes of PKCS#12 (RFC 7292 C)."""
_OLD_CIPHERS: Final = {
    "1.3.14.3.2.7": "DES",
    "1.2.840.113549.3.2": "RC2",
    "1.2.840.113549.3.7": "3DES",
}


@dataclass(frozen=True, slots=True)
class KeyProtection:
    """How one private key is stored."""

    encrypted: bool
    weakness: str = ""
    """What makes guessing the passphrase cheap; empty when nothing does, or nothing is known."""


def read_private_key(der: bytes) -> KeyProtection:
    """Read the outside of a private key (DER): PKCS#8, encrypted or not, SEC 1, or PKCS#1.

    Raises:
        DerError: it is none; says where.
    """
    from chargepki.pki.der import check_strict, parse

    root = parse(der)
    check_strict(der)
    parts = root.children(0x30)
    if [part.tag for part in parts] == [0x30, 0x04]:
        return protection_of(parts[0])
    if kind_of(der) is not ObjectKind.PRIVATE_KEY:
        raise DerError("not-a-private-key", 0, "not a private key: expected PKCS#8, SEC 1 or PKCS#1")
    return KeyProtection(encrypted=False)


def protection_of(algorithm: Tlv) -> KeyProtection:
    """Return what an encryption AlgorithmIdentifier says. Raises `DerError` when it is none."""
    return KeyProtection(encrypted=True, weakness=weakness_of(algorithm))


def weakness_of(algorithm: Tlv) -> str:
    """Return why the encryption that *algorithm* names is weak, or the empty string."""
    parts = algorithm.children(0x30)
    scheme = parts[0].as_oid() if parts else ""
    if scheme in _OLD_SCHEMES:
        return f"it is encrypted with {_OLD_SCHEMES[scheme]}"
    if scheme != oids.PBES2 or len(parts) != 2:
        return ""
    derivation, cipher = _two(parts[1])
    named = cipher.children(0x30)
    cipher_oid = named[0].as_oid() if named else ""
    if cipher_oid in _OLD_CIPHERS:
        return f"it is encrypted with {_OLD_CIPHERS[cipher_oid]}"
    function, parameters = _two(derivation)
    name, fields = function.as_oid(), parameters.children(0x30)
    if name == oids.PBKDF2 and len(fields) >= 2:
        rounds = fields[1].as_integer()
        cheap = rounds < _MIN_PBKDF2_ROUNDS
        return f"its passphrase is hashed in {printable_number(rounds)} rounds of PBKDF2" if cheap else ""
    if name == oids.SCRYPT and len(fields) >= 3:
        memory = 128 * fields[1].as_integer() * fields[2].as_integer()
        cheap = memory < _MIN_SCRYPT_BYTES
        return f"its passphrase is hashed in {printable_number(memory)} bytes of scrypt" if cheap else ""
    return ""


def _two(element: Tlv) -> tuple[Tlv, Tlv]:
    parts = element.children(0x30)
    if len(parts) < 2:
        raise element.fail("wrong-count", f"{len(parts)} elements where two are expected")
    return parts[0], parts[1]
