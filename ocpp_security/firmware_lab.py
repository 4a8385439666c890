"""A throw-away manufacturer: the certificates, good and bad, with which a pack of firmware mutations is signed.

Nothing of it is trusted by anybody: whoever tests a station installs the pack's own root there. Its keys live in memory
only. The certificates are made with a plain builder, because our own templates make no bad ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chargepki.pki.der import to_pem
from chargepki.pki.keys import PrivateKey

__all__ = ["Lab", "LabCertificate"]

_YEAR: Final = timedelta(days=365)
_BITS: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_CA_BITS: Final = ("key_cert_sign", "crl_sign")
_SIGNS: Final = ("digital_signature",)


@dataclass(frozen=True, slots=True)
class LabCertificate:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate as it stands in a message."""
        return to_pem("CERTIFICATE", self.der)


class Lab:
    """Makes certificates around one instant, *now*."""

    def __init__(self, now: datetime) -> None:
        self.now = now.replace(microsecond=0)
        # pathLen 1: the root itself would let an intermediate pass, so that a station must know the rule of OCPP.
        self.root = self.make(
            "Mutation Pack Root", None, ec.generate_private_key(ec.SECP256R1()), ca=True, path_length=1
        )
        self.ec_key = ec.generate_private_key(ec.SECP256R1())
        self.other_key = ec.generate_private_key(ec.SECP256R1())
        self.rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ecdsa = self.leaf(self.ec_key)
        self.rsa = self.leaf(self.rsa_key)

    def leaf(self, key: PrivateKey, issuer: LabCertificate | None = None, **changes: object) -> LabCertificate:
        """Return a signing certificate for *key*, good but for *changes* (arguments of `make`)."""
        return self.make("Firmware Signing", issuer or self.root, key, **changes)  # type: ignore[arg-type]  # make() checks what they are

    def make(
        self,
        name: str,
        issuer: LabCertificate | None,
        key: PrivateKey,
        *,
        ca: bool = False,
        path_length: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        bits: Sequence[str] | None = None,
        usages: Sequence[x509.ObjectIdentifier] = (),
    ) -> LabCertificate:
        """Return a certificate for *key*; self-signed without *issuer*."""
        wanted = _CA_BITS if ca and bits is None else bits if bits is not None else _SIGNS
        signer = issuer.key if issuer else key
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start or self.now - timedelta(hours=1))
            .not_valid_after(end or self.now + _YEAR)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
            .add_extension(x509.KeyUsage(**{bit: bit in wanted for bit in _BITS}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if isinstance(signer, ed25519.Ed25519PrivateKey):
            return LabCertificate(builder.sign(signer, None), key)
        assert isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        return LabCertificate(builder.sign(signer, hashes.SHA256()), key)

    def crl(self, revoked: LabCertificate) -> bytes:
        """Return a list (DER) of the root that names *revoked*."""
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(revoked.certificate.serial_number)
            .revocation_date(self.now - timedelta(minutes=30))
            .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
            .build()
        )
        assert isinstance(self.root.key, ec.EllipticCurvePrivateKey)
        return (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.certificate.subject)
            .last_update(self.now - timedelta(minutes=20))
            .next_update(self.now + _YEAR)
            .add_revoked_certificate(entry)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.key.public_key()), critical=False
            )
            .sign(self.root.key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )

    def bad_certificates(self) -> dict[str, tuple[LabCertificate, str, str, str]]:
        """Return by case: the certificate, the PEM to send, the rule that it breaks, and why it must be refused."""
        key, day = self.ec_key, timedelta(days=1)
        sub = self.make(
            "Mutation Pack Sub-CA", self.root, ec.generate_private_key(ec.SECP256R1()), ca=True, path_length=0
        )
        below = self.leaf(key, sub)
        namesake = self.make("Mutation Pack Root", None, self.other_key, ca=True, path_length=1)
        damaged = self.leaf(key)
        broken = damaged.der[:-1] + bytes([damaged.der[-1] ^ 1])
        edwards = ed25519.Ed25519PrivateKey.generate()
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - must be refused
        plain = {
            "expired": (self.leaf(key, start=self.now - 2 * _YEAR, end=self.now - day), "expired", "it has expired"),
            "not-yet-valid": (self.leaf(key, start=self.now + 300 * day), "not-yet-valid", "it is not valid yet"),
            "wrong-key-usage": (
                self.leaf(key, bits=("key_agreement",)), "key-usage", "KeyUsage lacks digitalSignature",
            ),
            "wrong-extended-key-usage": (
                self.leaf(key, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), "extended-key-usage",
                "ExtendedKeyUsage allows TLS servers alone",
            ),
            "ca-certificate": (
                self.leaf(key, ca=True, path_length=0, bits=(*_CA_BITS, *_SIGNS)), "leaf-is-ca", "it is a CA's",
            ),
            "intermediate-not-sent": (below, "no-issuer", "a sub-CA issued it, which the station does not have"),
            "other-root-of-the-same-name": (
                self.leaf(key, namesake), "no-issuer", "a root of the same name and another key issued it",
            ),
            "self-signed": (self.make("Firmware Signing", None, key), "no-issuer", "nobody but itself issued it"),
            "ed25519-key": (self.leaf(edwards), "key-type", "its key is on Ed25519, which hashes otherwise"),
            "rsa-1024-key": (self.leaf(weak), "weak-key", "its RSA key has 1,024 bits (A00.FR.504)"),
            "root-signs-itself": (self.root, "leaf-is-ca", "the root signs firmware itself"),
        }  # fmt: skip
        cases = {name: (made, made.pem, rule, why) for name, (made, rule, why) in plain.items()}
        cases["intermediate-in-chain"] = (
            below, below.pem + sub.pem, "intermediate", "a sub-CA stands between it and the root; sent with it",
        )  # fmt: skip
        cases["damaged-certificate"] = (
            damaged, to_pem("CERTIFICATE", broken), "no-issuer", "one bit of its signature is changed",
        )  # fmt: skip
        return cases
