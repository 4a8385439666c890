"""ML-DSA (FIPS 204), experimental: its key types, identifiers and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa

from chargepki.pki import oids
from chargepki.pki.errors import PolicyRefusal

__all__ = [
    "ML_DSA_OIDS",
    "ML_DSA_PRIVATE_TYPES",
    "ML_DSA_PUBLIC_TYPES",
    "ML_DSA_SIGNATURE_BYTES",
    "MlDsaPrivateKey",
    "MlDsaPublicKey",
    "check_no_tls",
    "has_ml_dsa_key",
    "ml_dsa_oid",
]

MlDsaPrivateKey: TypeAlias = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublicKey: TypeAlias = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey

ML_DSA_PRIVATE_TYPES: Final = (mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey)
ML_DSA_PUBLIC_TYPES: Final = (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)
ML_DSA_SIGNATURE_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {oids.ML_DSA_44: 2420, oids.ML_DSA_65: 3309, oids.ML_DSA_87: 4627}
)
"""FIPS 204 table 2, by the identifier of the algorithm."""
ML_DSA_OIDS: Final = frozenset(ML_DSA_SIGNATURE_BYTES)


def ml_dsa_oid(key: object) -> str | None:
    """Return the identifier of an ML-DSA key object, public or private; ``None`` for any other."""
    for dotted, private, public in zip(ML_DSA_SIGNATURE_BYTES, ML_DSA_PRIVATE_TYPES, ML_DSA_PUBLIC_TYPES, strict=True):
        if isinstance(key, private | public):
            return dotted
    return None


def has_ml_dsa_key(certificate: x509.Certificate) -> bool:
    """Say whether the subject of a certificate has a key of ML-DSA."""
    try:
        return ml_dsa_oid(certificate.public_key()) is not None
    except (ValueError, UnsupportedAlgorithm):
        return False


def check_no_tls(certificate: x509.Certificate) -> None:
    """Refuse a certificate that would bring ML-DSA into a TLS connection, by its key or by what signed it.

    Raises:
        PolicyRefusal: it would.
    """
    by_key = has_ml_dsa_key(certificate)
    if by_key or certificate.signature_algorithm_oid.dotted_string in ML_DSA_OIDS:
        raise PolicyRefusal(
            f"{certificate.subject.rfc4514_string() or 'a certificate'} "
            f"{'has a key of' if by_key else 'is signed with'} ML-DSA, which is not used in TLS here",
            why="ML-DSA is experimental: no OCPP document names it, and TLS libraries in the field do not verify it",
            fix="use certificates with EC or RSA keys, signed by a CA with such a key, for TLS",
        )
