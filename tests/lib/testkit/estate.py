"""Certificates of somebody else, made from a seed: the same ones in every run, one key a CA to be cheap."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

__all__ = ["BORN", "Estate", "name_of"]

BORN = datetime(2026, 1, 1, tzinfo=UTC)


def name_of(common_name: str) -> x509.Name:
    """Return a subject."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Gone Charging"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _fresh_key(seed: str) -> ec.EllipticCurvePrivateKey:
    secret = int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big")
    return ec.derive_private_key(secret % (1 << 250) + 1, ec.SECP256R1())


_key = lru_cache(maxsize=8)(_fresh_key)


@dataclass(frozen=True)
class Estate:
    """A CA and what it issued."""

    name: str = "Gone Root"
    seed: int = 1
    has_own_keys: bool = False
    """Each certificate has another key; otherwise all have the CA's, which is cheaper."""

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the CA."""
        return _key(f"{self.name} {self.seed}")

    def certificate(self, number: int, *, lifetime: timedelta = timedelta(days=365)) -> bytes:
        """Return certificate *number* (DER); 0 is the root."""
        key = self.key
        subject = name_of(self.name if number == 0 else f"CS-{number:06}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name_of(self.name))
            .public_key((_fresh_key(f"{self.seed} {number}") if number and self.has_own_keys else key).public_key())
            .serial_number(4096 + number)
            .not_valid_before(BORN)
            .not_valid_after(BORN + lifetime)
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)

    def certificates(self, count: int) -> Iterator[bytes]:
        """Yield the root and so many others."""
        yield from (self.certificate(number) for number in range(count + 1))
