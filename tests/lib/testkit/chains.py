"""Hierarchies for path validation, made with `cryptography` alone: the validator meets bytes that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.post_quantum import MlDsaPrivateKey
from testkit.requests import key_of, usage

__all__ = ["AT", "DAY", "Made", "hierarchy", "make"]

AT = datetime(2026, 3, 1, tzinfo=UTC)
P256 = KeyAlgorithm.SECP256R1
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def tbs(self) -> bytes:
        return self.certificate.tbs_certificate_bytes


def make(
    name: str,
    issuer: Made | None = None,
    *,
    ca: bool | None = None,
    path_length: int | None = None,
    algorithm: KeyAlgorithm = P256,
    nth: int = 0,
    start: datetime = AT - DAY,
    end: datetime = AT + DAY,
    bits: Sequence[str] | None = None,
    dc: str | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    bare: bool = False,
    serial: int | None = None,
    key: PrivateKey | None = None,
) -> Made:
    """Make a certificate for key *nth* of *algorithm*; self-signed without *issuer*, a CA if its name ends in CA.

    Args:
        key: this one instead.
        bare: leave every extension out but *extensions*.
        bits: KeyUsage; by default what a CA or a leaf needs.
    """
    is_ca = name.endswith("CA") if ca is None else ca
    key = key or key_of(algorithm, nth)
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if dc is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.DOMAIN_COMPONENT, dc))
    subject = x509.Name(attributes)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if not bare:
        wanted = bits if bits is not None else ("key_cert_sign", "crl_sign") if is_ca else ("digital_signature",)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
            .add_extension(usage(*wanted), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Made(_sign(builder, signer), key)


def _sign(builder: x509.CertificateBuilder, signer: PrivateKey) -> x509.Certificate:
    if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | MlDsaPrivateKey):
        return builder.sign(signer, None)
    if isinstance(signer, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return builder.sign(signer, hashes.SHA256(), rsa_padding=pss)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    sizes: dict[int, hashes.SHA384 | hashes.SHA512] = {384: hashes.SHA384(), 521: hashes.SHA512()}
    return builder.sign(signer, sizes.get(signer.curve.key_size, hashes.SHA256()))


def hierarchy(algorithm: KeyAlgorithm = P256) -> tuple[Made, Made, Made, Made]:
    """Return root, sub-CA 1, sub-CA 2 and leaf."""
    root = make("Root CA", algorithm=algorithm, nth=0)
    sub1 = make("Sub 1 CA", root, path_length=1, algorithm=algorithm, nth=1)
    sub2 = make("Sub 2 CA", sub1, path_length=0, algorithm=algorithm, nth=2)
    return root, sub1, sub2, make("Leaf", sub2, algorithm=algorithm, nth=3)
