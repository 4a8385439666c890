"""Certificates for the certificate flows, made with `cryptography` alone: any number of two-level hierarchies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki import names
from chargepki.pki.inventory.records import StationRecord, StationState
from chargepki.pki.keys import PrivateKey, PublicKey
from chargepki.pki.pem import to_pem

__all__ = ["NOW", "Ca", "new_key", "operator", "reason_code", "station_record"]

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)

_serials = itertools.count(1000)


def reason_code(answer: Mapping[str, object]) -> object:
    """Return why a 2.x request was refused."""
    told = answer["statusInfo"]
    assert isinstance(told, dict)
    return told["reasonCode"]


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key that nothing else in the run has."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Ca:
    """A root with one sub-CA that issues leaves."""

    root_der: bytes
    sub_der: bytes
    sub_key: ec.EllipticCurvePrivateKey

    def issue(
        self,
        public_key: PublicKey,
        *,
        common_name: str = "CS-0001",
        organization: str | None = "Example CSO",
        not_before: datetime = NOW - timedelta(minutes=5),
        lifetime: timedelta = timedelta(days=365),
        domain_component: str | None = None,
    ) -> bytes:
        """Issue a leaf; DER."""
        pairs = [("CN", common_name)]
        if organization is not None:
            pairs.append(("O", organization))
        if domain_component is not None:
            pairs.append(("DC", domain_component))
        sub = x509.load_der_x509_certificate(self.sub_der)
        return _sign(names.build_name(pairs), public_key, sub.subject, self.sub_key, not_before, lifetime, ca=False)

    def chain(self, leaf_der: bytes, *, root: bool = False) -> tuple[bytes, ...]:
        """The leaf and the sub-CA, with the root at the end on request."""
        return (leaf_der, self.sub_der, self.root_der) if root else (leaf_der, self.sub_der)

    def chain_pem(self, leaf_der: bytes, *, root: bool = False) -> str:
        """`chain` as PEM text."""
        return "".join(to_pem("CERTIFICATE", der) for der in self.chain(leaf_der, root=root))


@cache
def operator(name: str = "Example CSO") -> Ca:
    """Return the hierarchy called *name*; the same one each time."""
    root_key, sub_key = new_key(), new_key()
    root_name = names.build_name([("CN", f"{name} root")])
    start, life = NOW - timedelta(days=400), timedelta(days=4000)
    root = _sign(root_name, root_key.public_key(), root_name, root_key, start, life, ca=True, path_length=1)
    sub = _sign(
        names.build_name([("CN", f"{name} sub")]),
        sub_key.public_key(),
        root_name,
        root_key,
        start,
        life,
        ca=True,
        path_length=0,
    )
    return Ca(root, sub, sub_key)


def station_record(
    identity: str = "CS1", serial_number: str = "CS-0001", organization: str | None = "Example CSO", **more: str | None
) -> StationRecord:
    """Return a station on record."""
    return StationRecord(
        id=identity,
        serial_number=serial_number,
        organization=organization,
        security_profile=2,
        state=StationState.ACTIVE,
        created_at=NOW,
        **more,  # type: ignore[arg-type]  # the two password hashes
    )


def _sign(
    subject: x509.Name,
    public_key: PublicKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    not_before: datetime,
    lifetime: timedelta,
    *,
    ca: bool,
    path_length: int | None = None,
) -> bytes:
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(next(_serials))
        .not_valid_before(not_before)
        .not_valid_after(not_before + lifetime - timedelta(seconds=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )  # fmt: skip
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)
