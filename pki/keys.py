"""Key algorithms and public keys: generate, identify, sign and verify; private keys as bytes are in `private_keys`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from chargepki.pki import der, oids
from chargepki.pki.curves import is_degenerate
from chargepki.pki.errors import InputError
from chargepki.pki.post_quantum import (
    ML_DSA_PRIVATE_TYPES,
    ML_DSA_PUBLIC_TYPES,
    ML_DSA_SIGNATURE_BYTES,
    MlDsaPrivateKey,
    MlDsaPublicKey,
    ml_dsa_oid,
)

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "PRIVATE_TYPES",
    "KeyAlgorithm",
    "PrivateKey",
    "PublicKey",
    "SignatureAlgorithm",
    "algorithm_of",
    "generate_private_key",
    "key_identifier",
    "load_public_key",
    "public_key_bits",
    "sign",
    "signature_algorithm",
    "spki_der",
    "spki_sha256",
    "unsupported",
    "verification",
    "verify",
]

PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | MlDsaPrivateKey
)
"""A key that signs; an adapter for a token is a subclass of one of these abstract classes."""
PublicKey: TypeAlias = (
    ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | MlDsaPublicKey
)

PRIVATE_TYPES: Final = (
    ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey,
    *ML_DSA_PRIVATE_TYPES,
)  # fmt: skip
"""The classes of `PrivateKey`, for `isinstance`."""
_PUBLIC_TYPES: Final = (
    ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey, *ML_DSA_PUBLIC_TYPES,
)  # fmt: skip


class KeyAlgorithm(StrEnum):
    """The key algorithms we make, certify and sign with; values are what users type."""

    SECP256R1 = "secp256r1"
    SECP384R1 = "secp384r1"
    SECP521R1 = "secp521r1"
    ED25519 = "ed25519"
    ED448 = "ed448"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    ML_DSA_44 = "ml-dsa-44"
    """Experimental, as are its two stronger siblings: see `post_quantum`."""
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """How a key signs: customary name, dotted identifier, and the complete AlgorithmIdentifier in DER."""

    name: str
    oid: str
    der: bytes


_CURVES: Final[Mapping[KeyAlgorithm, ec.EllipticCurve]] = MappingProxyType(
    {
        KeyAlgorithm.SECP256R1: ec.SECP256R1(),
        KeyAlgorithm.SECP384R1: ec.SECP384R1(),
        KeyAlgorithm.SECP521R1: ec.SECP521R1(),
    }
)
_RSA_BITS: Final[Mapping[KeyAlgorithm, int]] = MappingProxyType(
    {KeyAlgorithm.RSA2048: 2048, KeyAlgorithm.RSA3072: 3072, KeyAlgorithm.RSA4096: 4096}
)
_ML_DSA: Final[Mapping[KeyAlgorithm, type[MlDsaPrivateKey]]] = MappingProxyType(
    {
        KeyAlgorithm.ML_DSA_44: ML_DSA_PRIVATE_TYPES[0],
        KeyAlgorithm.ML_DSA_65: ML_DSA_PRIVATE_TYPES[1],
        KeyAlgorithm.ML_DSA_87: ML_DSA_PRIVATE_TYPES[2],
    }
)
_ML_DSA_BY_OID: Final = dict(zip(ML_DSA_SIGNATURE_BYTES, _ML_DSA, strict=True))
_RSA_BY_BITS: Final = {bits: algorithm for algorithm, bits in _RSA_BITS.items()}
_CURVE_NAMES: Final = {curve.name: algorithm for algorithm, curve in _CURVES.items()}
_ECDSA_BY_CURVE: Final = {
    "secp256r1": ec.ECDSA(hashes.SHA256()),
    "secp384r1": ec.ECDSA(hashes.SHA384()),
    "secp521r1": ec.ECDSA(hashes.SHA512()),
}
_SHA256: Final = hashes.SHA256()
_PSS: Final = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=32)

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {oids.SHA256: hashes.SHA256(), oids.SHA384: hashes.SHA384(), oids.SHA512: hashes.SHA512()}
)
_ECDSA_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        oids.ECDSA_WITH_SHA256: _HASHES[oids.SHA256],
        oids.ECDSA_WITH_SHA384: _HASHES[oids.SHA384],
        oids.ECDSA_WITH_SHA512: _HASHES[oids.SHA512],
    }
)
_PKCS1_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        oids.SHA256_WITH_RSA: _HASHES[oids.SHA256],
        oids.SHA384_WITH_RSA: _HASHES[oids.SHA384],
        oids.SHA512_WITH_RSA: _HASHES[oids.SHA512],
    }
)


def _pss_identifier() -> bytes:
    sha256 = der.sequence(der.oid(oids.SHA256), der.null())
    parameters = der.sequence(
        der.explicit(0, sha256),
        der.explicit(1, der.sequence(der.oid(oids.MGF1), sha256)),
        der.explicit(2, der.integer(32)),
    )
    return der.sequence(der.oid(oids.RSASSA_PSS), parameters)


def _simple(oid: str) -> SignatureAlgorithm:
    return SignatureAlgorithm(oids.name_of(oid), oid, der.sequence(der.oid(oid)))


# RSA signs with RSASSA-PSS because A00.FR.505 forbids relying on PKCS #1 v1.5; 32 is the length of its hash.
_RSA_PSS: Final = SignatureAlgorithm("rsassaPss-SHA256", oids.RSASSA_PSS, _pss_identifier())
_SIGNATURE_ALGORITHMS: Final[Mapping[KeyAlgorithm, SignatureAlgorithm]] = MappingProxyType(
    {
        KeyAlgorithm.SECP256R1: _simple(oids.ECDSA_WITH_SHA256),
        KeyAlgorithm.SECP384R1: _simple(oids.ECDSA_WITH_SHA384),
        KeyAlgorithm.SECP521R1: _simple(oids.ECDSA_WITH_SHA512),
        KeyAlgorithm.ED25519: _simple(oids.ED25519),
        KeyAlgorithm.ED448: _simple(oids.ED448),
        KeyAlgorithm.RSA2048: _RSA_PSS,
        KeyAlgorithm.RSA3072: _RSA_PSS,
        KeyAlgorithm.RSA4096: _RSA_PSS,
        KeyAlgorithm.ML_DSA_44: _simple(oids.ML_DSA_44),
        KeyAlgorithm.ML_DSA_65: _simple(oids.ML_DSA_65),
        KeyAlgorithm.ML_DSA_87: _simple(oids.ML_DSA_87),
    }
)


# ---------------------------------------------------------------- keys


def generate_private_key(algorithm: KeyAlgorithm) -> PrivateKey:
    """Return a fresh key from the operating system's random source."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm in _RSA_BITS:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[algorithm])
    if algorithm is KeyAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _ML_DSA:
        return _ML_DSA[algorithm].generate()
    return ed448.Ed448PrivateKey.generate()


def algorithm_of(key: object) -> KeyAlgorithm:
    """Return the algorithm of a public or private key object.

    Raises:
        InputError: an algorithm, curve or RSA size outside `KeyAlgorithm`.
    """
    algorithm: KeyAlgorithm | None = None
    what = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        what = f"curve {key.curve.name}"
        algorithm = _CURVE_NAMES.get(key.curve.name)
    elif isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        what = f"RSA of {key.key_size} bits"
        algorithm = _RSA_BY_BITS.get(key.key_size)
    elif isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        algorithm = KeyAlgorithm.ED25519
    elif isinstance(key, ed448.Ed448PublicKey | ed448.Ed448PrivateKey):
        algorithm = KeyAlgorithm.ED448
    else:
        algorithm = _ML_DSA_BY_OID.get(ml_dsa_oid(key) or "")
    if algorithm is None:
        raise unsupported(what)
    return algorithm


def unsupported(what: str) -> InputError:
    """Return the error for a key of a kind, *what* (in words), that this product does not handle."""
    return InputError(f"{what} is not a key algorithm of this product", fix=f"use one of {', '.join(KeyAlgorithm)}")


def spki_der(key: PublicKey | PrivateKey) -> bytes:
    """Return the SubjectPublicKeyInfo in DER; EC points are uncompressed (RFC 5480 2.2)."""
    public = key.public_key() if isinstance(key, PRIVATE_TYPES) else key
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki_sha256(spki: bytes) -> str:
    """Return the SHA-256 of a SubjectPublicKeyInfo in lower-case hex: our name for a key."""
    return hashlib.sha256(spki).hexdigest()


def load_public_key(spki: bytes) -> PublicKey:
    """Return the key object of a SubjectPublicKeyInfo in DER.

    Raises:
        InputError: not a SubjectPublicKeyInfo, a point off its curve or of small order, or a type of key that cannot
            sign.
    """
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm, InternalError) as exc:
        why = "OpenSSL refuses its octets" if isinstance(exc, InternalError) else str(exc)
        raise InputError("the public key cannot be read", why=why) from exc
    if _is_ec(key):
        return key
    if not isinstance(key, _PUBLIC_TYPES):
        raise unsupported(type(key).__name__.removesuffix("PublicKey"))
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        dotted = oids.ED25519 if isinstance(key, ed25519.Ed25519PublicKey) else oids.ED448
        if is_degenerate(dotted, key.public_bytes_raw()):
            raise InputError(
                "the public key is a point of small order",
                why="everybody can make signatures that verify with it (RFC 8032 5.1.3)",
                fix="make a new key with a maintained library",
            )
    return key


_EC_TYPES: Final[dict[type, bool]] = {}
_EC_PRIVATE_TYPES: Final[dict[type, bool]] = {}


def _is_private_ec(key: object) -> TypeIs[ec.EllipticCurvePrivateKey]:
    """Whether *key* is an EC private key; see `_is_ec`."""
    found = _EC_PRIVATE_TYPES.get(type(key))
    if found is None:
        found = _EC_PRIVATE_TYPES[type(key)] = isinstance(key, ec.EllipticCurvePrivateKey)
    return found


def _is_ec(key: object) -> TypeIs[ec.EllipticCurvePublicKey]:
    """Whether *key* is an EC public key. There are few types, and asking an abstract class takes 20 times as long."""
    found = _EC_TYPES.get(type(key))
    if found is None:
        found = _EC_TYPES[type(key)] = isinstance(key, ec.EllipticCurvePublicKey)
    return found


def public_key_bits(spki: bytes) -> bytes:
    """Return the value of the subjectPublicKey BIT STRING, without tag, length and the octet of unused bits.

    Raises:
        InputError: *spki* is not a SubjectPublicKeyInfo (DerError), or its bits are not whole octets.

    Clause: RFC 5280 4.2.1.2; RFC 6960 4.1.1 (issuerKeyHash).
    """
    parts = der.parse(spki).children(der.SEQUENCE)
    if len(parts) != 2:
        raise InputError("a SubjectPublicKeyInfo has two parts", why=f"this one has {len(parts)} (RFC 5280 4.1.2.7)")
    unused, bits = parts[1].as_bit_string()
    if unused:
        raise InputError("the public key is not a whole number of octets", why="RFC 5280 4.1.2.7")
    return bits


def key_identifier(spki: bytes, length: Literal[20, 8] = 20) -> bytes:
    """Return the key identifier of a SubjectPublicKeyInfo.

    Args:
        length: 20 for the SHA-1 of the key bits; 8 for the four bits 0100 and the low 60 bits of that hash.

    Clause: RFC 5280 4.2.1.2 methods (1) and (2).
    """
    # SHA-1 names a key here; nothing relies on collisions being hard.
    digest = hashlib.sha1(public_key_bits(spki), usedforsecurity=False).digest()
    if length == 20:
        return digest
    return bytes((0x40 | (digest[12] & 0x0F),)) + digest[13:]


# ---------------------------------------------------------------- signatures


def signature_algorithm(algorithm: KeyAlgorithm) -> SignatureAlgorithm:
    """Return how a key of *algorithm* (the signer's) signs; RSA is RSASSA-PSS with SHA-256 and salt 32 (A00.FR.505)."""
    return _SIGNATURE_ALGORITHMS[algorithm]


def sign(private_key: PrivateKey, data: bytes) -> bytes:
    """Return the signature over *data* that `signature_algorithm` names for this key (ECDSA: DER of r and s)."""
    if _is_private_ec(private_key):
        scheme = _ECDSA_BY_CURVE.get(private_key.curve.name)
        if scheme is None:
            raise unsupported(f"curve {private_key.curve.name}")
        return private_key.sign(data, scheme)
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(data, _PSS, _SHA256)
    return private_key.sign(data)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """A decoded signature AlgorithmIdentifier; `hash` and `pss` are None where the algorithm has none."""

    oid: str
    hash: hashes.HashAlgorithm | None = None
    pss: padding.PSS | None = None
    ecdsa: ec.ECDSA | None = None


def verify(public_key: PublicKey, signature: bytes, data: bytes, algorithm_der: bytes) -> bool:
    """Return whether *signature* over *data* was made with the private half of *public_key*.

    A key of another kind than the algorithm's gives False. High-s ECDSA signatures and any PSS salt are accepted, as
    X.509 does.

    Args:
        algorithm_der: complete AlgorithmIdentifier: ECDSA, RSASSA-PKCS1-v1_5 or RSASSA-PSS with SHA-256, SHA-384 or
            SHA-512, Ed25519, or Ed448.

    Raises:
        InputError: any other algorithm, SHA-1 included, or parameters that its standard forbids.
    """
    check = verification(public_key, algorithm_der)
    if check is None:
        return False
    try:
        check(signature, data)
    except InvalidSignature:
        return False
    return True


def verification(public_key: PublicKey, algorithm_der: bytes) -> Callable[[bytes, bytes], None] | None:
    """Return what checks a signature over data, both its arguments; ``None`` for a key of another kind.

    For those who have more than one to check, and want all else done before. What it returns raises
    `cryptography.exceptions.InvalidSignature`; arguments and errors of this function are those of `verify`.
    """
    algorithm_der = bytes(algorithm_der)
    scheme = _PLAIN_SCHEMES.get(algorithm_der) or _scheme(algorithm_der)
    if _is_ec(public_key):
        return partial(public_key.verify, signature_algorithm=scheme.ecdsa) if scheme.ecdsa else None
    if isinstance(public_key, rsa.RSAPublicKey):
        if scheme.hash is None or scheme.ecdsa is not None:
            return None
        return partial(public_key.verify, padding=scheme.pss or padding.PKCS1v15(), algorithm=scheme.hash)
    edwards = oids.ED25519 if isinstance(public_key, ed25519.Ed25519PublicKey) else oids.ED448
    wanted = ml_dsa_oid(public_key) or edwards
    return public_key.verify if scheme.oid == wanted else None


_BARE: Final = (oids.ED25519, oids.ED448, *ML_DSA_SIGNATURE_BYTES)
"""Algorithms that hash as they please: their identifier says all."""
# Identifiers without parameters have one encoding each, and are what nearly every signature names.
_PLAIN_SCHEMES: Final[Mapping[bytes, _Scheme]] = MappingProxyType(
    {
        _simple(oid).der: _Scheme(oid, digest, ecdsa=ec.ECDSA(digest) if digest else None)
        for oid, digest in (*_ECDSA_HASHES.items(), *((oid, None) for oid in _BARE))
    }
)


@lru_cache(maxsize=64)
def _scheme(algorithm_der: bytes) -> _Scheme:
    parts = der.parse(algorithm_der).children(der.SEQUENCE)
    if not 1 <= len(parts) <= 2:
        raise InputError("an AlgorithmIdentifier has one or two parts", why=f"this one has {len(parts)}")
    oid = parts[0].as_oid()
    parameters = parts[1] if len(parts) == 2 else None
    name = oids.name_of(oid)
    if oid in _ECDSA_HASHES or oid in _BARE:
        # Without parameters it would be one of `_PLAIN_SCHEMES`.
        raise InputError(f"{name} must have no parameters", why="RFC 5758 3.2; RFC 8410 3; RFC 9881 2")
    if oid in _PKCS1_HASHES:
        if parameters is None or parameters.raw != der.null():
            raise InputError(f"{name} must have NULL parameters", why="RFC 4055 5")
        return _Scheme(oid, _PKCS1_HASHES[oid])
    if oid == oids.RSASSA_PSS and parameters is not None:
        return _pss_scheme(parameters)
    raise InputError(
        f"signature algorithm {name} is not accepted",
        why="weak or unknown",
        fix="sign with ECDSA, RSA-PSS or RSA PKCS #1 v1.5 over SHA-256 or longer, or with Ed25519, Ed448 or ML-DSA",
    )


def _pss_scheme(parameters: der.Tlv) -> _Scheme:
    fields = {child.tag: child for child in parameters.children(der.SEQUENCE)}
    if not fields.keys() <= {0xA0, 0xA1, 0xA2, 0xA3} or 0xA0 not in fields or 0xA1 not in fields:
        # Hash and mask default to SHA-1 (RFC 4055 3.1), which is not accepted.
        raise InputError("RSASSA-PSS without a SHA-2 hash is not accepted", why="the default is SHA-1 (RFC 4055 3.1)")
    digest = _hash_of(fields[0xA0].child())
    mask = fields[0xA1].child().children(der.SEQUENCE)
    if len(mask) != 2 or mask[0].as_oid() != oids.MGF1:
        raise InputError("RSASSA-PSS with another mask than MGF1 is not accepted", why="RFC 4055 2.2")
    mask_digest = _hash_of(mask[1])
    salt = fields[0xA2].child().as_integer() if 0xA2 in fields else 20
    trailer = fields[0xA3].child().as_integer() if 0xA3 in fields else 1
    if trailer != 1 or not 0 <= salt <= 512:
        raise InputError("RSASSA-PSS with this salt length or trailer is not accepted", why="RFC 4055 3.1")
    return _Scheme(oids.RSASSA_PSS, digest, padding.PSS(mgf=padding.MGF1(mask_digest), salt_length=salt))


def _hash_of(identifier: der.Tlv) -> hashes.HashAlgorithm:
    parts = identifier.children(der.SEQUENCE)
    oid = parts[0].as_oid() if parts else ""
    if oid not in _HASHES or (len(parts) == 2 and parts[1].raw != der.null()) or len(parts) > 2:
        raise InputError(f"hash {oids.name_of(oid)} is not accepted in RSASSA-PSS", fix="use SHA-256 or stronger")
    return _HASHES[oid]
