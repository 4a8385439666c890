"""Name the algorithms of a certificate by looking at nothing else in it: for a census of very many."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from chargepki.pki import oids
from chargepki.pki.der_tree import decode_oid

__all__ = ["UNREADABLE", "Algorithms", "algorithms_of", "algorithms_of_tbs"]

UNREADABLE: Final = "unreadable"
_MAX_RSA_BITS: Final = 1 << 16


class Algorithms(NamedTuple):
    """What a certificate is made with."""

    key: str
    """Curve or algorithm as ``--key`` names it, RSA with its size: ``secp256r1``, ``rsa2048``; else a name or OID."""
    signature: str
    """Name of the signature algorithm, or its OID."""


_NONE: Final = Algorithms(UNREADABLE, UNREADABLE)


def algorithms_of(der: bytes) -> Algorithms:
    """Return what a certificate (DER) is made with; `UNREADABLE` for octets that are none.

    Only the outermost levels are read, and nothing is verified: the linter judges the rest.
    """
    try:
        return _algorithms(der, _open(der, 0)[0])
    except (IndexError, ValueError):
        return _NONE


def algorithms_of_tbs(tbs: bytes) -> Algorithms:
    """Return the same for the to-be-signed bytes alone."""
    try:
        return _algorithms(tbs, 0)
    except (IndexError, ValueError):
        return _NONE


def _algorithms(der: bytes, position: int) -> Algorithms:
    """Read the TBSCertificate at *position*.

    Raises:
        IndexError, ValueError: it is none.
    """
    position, end = _open(der, position)
    if der[position] == 0xA0:  # the version, which version 1 leaves out
        position = _open(der, position)[1]
    position = _open(der, position)[1]  # serial number
    algorithm = position
    position = _open(der, algorithm)[1]
    signature = der[algorithm:position]
    for _ in range(3):  # issuer, validity, subject
        position = _open(der, position)[1]
    key, key_end = _open(der, position)
    if key_end > end:
        return _NONE
    key_bits = _open(der, key)[1]
    name = _name_of_key(der[key:key_bits])
    if name == "rsa":
        name = f"rsa{_modulus_bits(der, key_bits)}"
    return Algorithms(name, _name_of_signature(signature))


def _open(der: bytes, position: int) -> tuple[int, int]:
    """Return where the content of the element at *position* begins, and where it ends.

    Raises:
        IndexError: it ends beyond the octets.
        ValueError: its length takes more than four octets, or is not given.
    """
    length = der[position + 1]
    start = position + 2
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise ValueError("length")
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    if start + length > len(der):
        raise IndexError("length")
    return start, start + length


@lru_cache(maxsize=256)
def _name_of_key(algorithm: bytes) -> str:
    """Return the name of a key's AlgorithmIdentifier."""
    start, end = _open(algorithm, 0)
    first, after = _open(algorithm, start)
    oid = decode_oid(algorithm[first:after])
    if oid == oids.RSA_ENCRYPTION:
        return "rsa"
    if oid == oids.EC_PUBLIC_KEY:
        if after >= end or algorithm[after] != 0x06:
            return "ec with explicit parameters"
        first, after = _open(algorithm, after)
        oid = decode_oid(algorithm[first:after])
    # As ``--key`` spells it: ed25519, where the document that assigns it writes Ed25519.
    return oids.name_of(oid).lower() or UNREADABLE


@lru_cache(maxsize=256)
def _name_of_signature(algorithm: bytes) -> str:
    start, _ = _open(algorithm, 0)
    first, after = _open(algorithm, start)
    return oids.name_of(decode_oid(algorithm[first:after])) or UNREADABLE


def _modulus_bits(der: bytes, position: int) -> int:
    """Return the size of the modulus in the RSAPublicKey inside the BIT STRING at *position*."""
    start, _ = _open(der, position)
    start, _ = _open(der, start + 1)  # after the count of unused bits
    start, end = _open(der, start)
    if end - start > _MAX_RSA_BITS // 8:
        raise ValueError("modulus")
    return int.from_bytes(der[start:end], "big").bit_length()
