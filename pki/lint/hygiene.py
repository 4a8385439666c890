"""Known-weak keys and hashes, whatever the standard."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Final

from chargepki.pki import oids
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import decode_integer, read_tree
from chargepki.pki.errors import printable_number
from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.standards import V2G
from chargepki.pki.profiles.base import Standard

__all__ = ["rsa_numbers"]

_KEY: Final = "tbsCertificate.subjectPublicKeyInfo"


@lru_cache(maxsize=64)
def rsa_numbers(bits: bytes) -> tuple[int, int] | None:
    """Return modulus and exponent of an RSAPublicKey (RFC 8017 A.1.1); ``None`` when it is none."""
    try:
        root = read_tree(bits, 0, len(bits), [])
    except DerError:
        return None
    if root.tag != 0x30 or [kid.tag for kid in root.kids] != [0x02, 0x02]:
        return None
    modulus, exponent = (decode_integer(bits[kid.content : kid.end]) for kid in root.kids)
    return modulus, exponent


def _rsa(context: CertificateContext) -> tuple[int, int] | None:
    key = context.view.key
    return rsa_numbers(key.bits) if key.algorithm == oids.RSA_ENCRYPTION else None


@rule(
    "e_rsa_lt_2048",
    "OCPP 2.0.1 A00; SP 800-131A",
    "an RSA key has at least 2048 bits",
    hint="make a larger key",
    where=_KEY,
)
def rsa_lt_2048(context: CertificateContext) -> Verdict:
    """1024-bit keys are within reach of a state."""
    numbers = _rsa(context)
    return f"the RSA key has {numbers[0].bit_length()} bits" if numbers and numbers[0].bit_length() < 2048 else None


@rule(
    "w_rsa_in_v2g",
    "ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "no RSA in an ISO 15118 chain",
    hint="use the curve of the standard",
    standards=V2G,
    where=_KEY,
)
def rsa_in_v2g(context: CertificateContext) -> Verdict:
    """The algorithm rules of each document make it an error; this one says what it is."""
    return "the key is RSA" if context.view.key.algorithm == oids.RSA_ENCRYPTION else None


_SMALL_PRIMES: Final = tuple(n for n in range(3, 752) if all(n % d for d in range(2, isqrt(n) + 1)))
_FERMAT_ROUNDS: Final = 100
_MOST_RSA_BITS: Final = 16384
"""OpenSSL's limit; beyond it a key only serves to keep the reader busy."""


@rule(
    "e_rsa_exponent",
    "SP 800-56B 6.2; CVE-2022-26320",
    "the RSA numbers are sound",
    hint="make a new key with a maintained library",
    where=_KEY,
)
def rsa_exponent(context: CertificateContext) -> Verdict:
    """Exponent odd and above 65536, no small factor, primes not next to each other."""
    numbers = _rsa(context)
    if numbers is None:
        return None
    modulus, exponent = numbers
    if exponent < 3 or exponent % 2 == 0:
        return f"the exponent {printable_number(exponent)} is not odd and above 1"
    if modulus <= 0 or modulus % 2 == 0 or any(modulus % prime == 0 for prime in _SMALL_PRIMES):
        return "the modulus has a small factor"
    if modulus.bit_length() > _MOST_RSA_BITS:
        return f"the modulus has {modulus.bit_length()} bits, libraries take {_MOST_RSA_BITS} at most"
    if _primes_are_close(modulus):
        return "the primes of the modulus are so close that it can be factored"
    return [Problem(f"the exponent {exponent} is small", severity=Severity.WARNING)] if exponent < 65537 else None


@rule(
    "e_rsa_params_not_null",
    "RFC 3279 2.3.1; RFC 4055 1.2",
    "an RSA key is described with NULL parameters",
    hint="write NULL; peers that compare octets or parse strictly refuse anything else",
    where=_KEY,
)
def rsa_params_not_null(context: CertificateContext) -> Verdict:
    """Absent ones make another SubjectPublicKeyInfo, and so another fingerprint, of the same key."""
    key = context.view.key
    if key.algorithm == oids.RSA_ENCRYPTION and key.parameters != b"\5\0":
        return "the AlgorithmIdentifier of the RSA key has no NULL parameters"
    return None


@lru_cache(maxsize=64)
def _primes_are_close(modulus: int) -> bool:
    """Fermat's method: a few rounds suffice when p - q is tiny."""
    root = isqrt(modulus - 1) + 1
    for _ in range(_FERMAT_ROUNDS):
        square = root * root - modulus
        if isqrt(square) ** 2 == square:
            return True
        root += 1
    return False


@lru_cache(maxsize=1)
def _roca_subgroups() -> tuple[tuple[int, frozenset[int]], ...]:
    """Residues that a vulnerable modulus can have: the powers of 65537 modulo each small prime.

    Primes of which 65537 generates the whole group say nothing and are left out.
    """
    subgroups = []
    for prime in (p for p in _SMALL_PRIMES if p <= 167):
        powers, value = {1}, 65537 % prime
        while value not in powers:
            powers.add(value)
            value = value * 65537 % prime
        if len(powers) < prime - 1:
            subgroups.append((prime, frozenset(powers)))
    return tuple(subgroups)


@rule(
    "e_roca",
    "CVE-2017-15361",
    "the RSA key does not bear the ROCA fingerprint",
    hint="the key was made by a broken chip and can be factored: make a new one elsewhere",
    where=_KEY,
)
def roca(context: CertificateContext) -> Verdict:
    """Primes of that library are k*M + (65537^a mod M), so the modulus is a power of 65537 modulo every prime of M."""
    numbers = _rsa(context)
    if numbers and numbers[0] > 0 and all(numbers[0] % prime in powers for prime, powers in _roca_subgroups()):
        return "the modulus has the ROCA fingerprint"
    return None


@rule(
    "e_debian_weak_key",
    "CVE-2008-0166",
    "the key is not in the configured list of weak keys",
    hint="make a new key with a maintained library: everyone can compute the private half of this one",
    where=_KEY,
    needs=Needs(weak_keys=True),
)
def debian_weak_key(context: CertificateContext) -> Verdict:
    """The list is the operator's (``weak_keys`` of the configuration); none comes with this package."""
    key, weak, numbers = context.view.key, context.data.weak_keys, _rsa(context)
    listed = weak is not None and weak.lists(key.der, numbers[0] if numbers else None)
    return "the key is in the list of weak keys" if listed else None


_BROKEN_SIGNATURES: Final = frozenset(
    {oids.MD2_WITH_RSA, oids.MD4_WITH_RSA, oids.MD5_WITH_RSA, oids.SHA1_WITH_RSA, oids.ECDSA_WITH_SHA1}
)


@rule(
    "e_md5_sha1",
    "OCPP 2.0.1 A00; ISO 15118-2 Annex F",
    "no MD2, MD4, MD5 or SHA-1 signature",
    hint="sign with SHA-256 or better",
    where="tbsCertificate.signature",
)
def md5_sha1(context: CertificateContext) -> Verdict:
    """Collisions let an attacker move the signature to another certificate."""
    algorithm = context.view.signature_algorithm_oid
    return f"signed with {oids.name_of(algorithm)}" if algorithm in _BROKEN_SIGNATURES else None


_P224: Final = "1.3.132.0.33"
_KNOWN_CURVES: Final = frozenset({oids.SECP256R1, oids.SECP384R1, oids.SECP521R1})


@rule(
    "w_weak_curve",
    "OCPP 2.0.1 A00; ISO 15118",
    "a curve that the standards name",
    hint="use P-256, P-384 or P-521",
    where=_KEY,
)
def weak_curve(context: CertificateContext) -> Verdict:
    """P-192, secp256k1 and brainpool curves; P-224 meets OCPP's floor, so there it is a notice."""
    key = context.view.key
    if key.algorithm != oids.EC_PUBLIC_KEY or not key.curve or key.curve in _KNOWN_CURVES:
        return None
    mild = key.curve == _P224 and context.standard is Standard.OCPP
    return [Problem(f"the curve is {oids.name_of(key.curve)}", severity=Severity.NOTICE if mild else None)]
