"""ML-DSA (FIPS 204), experimental: its key types, identifiers and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import mldsa

from chargepki.pki import oids

__all__ = [
    "ML_DSA_OIDS",
    "ML_DSA_PRIVATE_TYPES",
    "ML_DSA_PUBLIC_TYPES",
    "ML_DSA_SIGNATURE_BYTES",
    "MlDsaPrivateKey",
    "MlDsaPublicKey",
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
