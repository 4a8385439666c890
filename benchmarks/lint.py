"""What does judging cost, against one P-256 verification? For a reader of certificates, and for a CA that issues.

Every certificate is another one: serial number, CN, key and key identifier differ. The CA's validity window changes
once a second, as it does when it issues a thousand certificates a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Comparison, Limit, compare, main
from chargepki.pki import keys, names
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_certificate, lint_issuance
from chargepki.pki.pointers import Pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile
from chargepki.pki.template import IssuerInfo, Window, assemble_certificate, build_tbs

COUNT = 1000
PER_SECOND = 1000
START = datetime(2026, 1, 1, tzinfo=UTC)
KIND = KeyAlgorithm.SECP256R1
POINTERS = Pointers(ocsp="http://pki.cso.eu/ocsp", crl="http://pki.cso.eu/ca.crl", ca_issuers=None)


def material(profile: Profile) -> tuple[list[bytes], list[bytes], bytes]:
    """Return to-be-signed certificates, the certificates, and the issuer's certificate."""
    ca_key = keys.generate_private_key(KIND)
    ca_spki = keys.spki_der(ca_key)
    ca_name = names.name_der(names.parse_rdns("CN=Sub2,O=Benchmark,DC=V2G"))
    algorithm = keys.signature_algorithm(KIND).der
    ca_profile = get_profile("iso15118-2/cpo-sub2")
    issuer = IssuerInfo(ca_name, keys.key_identifier(ca_spki), KIND)
    above = IssuerInfo(names.name_der(names.parse_rdns("CN=Sub1,O=Benchmark,DC=V2G")), bytes(20), KIND)

    def build(kind: Profile, number: int, subject: bytes, spki: bytes, days: int, issuer: IssuerInfo = issuer) -> bytes:
        start = START + timedelta(seconds=number // PER_SECOND)
        return build_tbs(
            kind,
            issuer=issuer,
            serial=0x5EED_0000_0000_0000_0000_0000 + number,
            subject_der=subject,
            spki_der=spki,
            window=Window(start, start + timedelta(days=days) - timedelta(seconds=1)),
            pointers=POINTERS,
        )

    unsigned = []
    for number in range(COUNT):
        pairs = [("DC", "CPO"), ("O", "Benchmark"), ("CN", f"DE*ABC*E{number:05d}")]
        subject = names.name_der(names.build_name(pairs))
        spki = keys.spki_der(ec.generate_private_key(ec.SECP256R1()))
        unsigned.append(build(profile, number, subject, spki, 60))
    signed = [assemble_certificate(tbs, algorithm, keys.sign(ca_key, tbs)) for tbs in unsigned]
    ca_tbs = build(ca_profile, 0, ca_name, ca_spki, 365, above)
    return unsigned, signed, assemble_certificate(ca_tbs, algorithm, keys.sign(ca_key, ca_tbs))


def verification(certificates: Sequence[bytes], issuer: bytes) -> Callable[[], None]:
    """Return what verifies one P-256 signature per certificate; parsing is not part of it."""
    public = x509.load_der_x509_certificate(issuer).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    parsed = [x509.load_der_x509_certificate(certificate) for certificate in certificates]
    pairs = [(each.signature, each.tbs_certificate_bytes) for each in parsed]
    algorithm = ec.ECDSA(hashes.SHA256())

    def run() -> None:
        for signature, tbs in pairs:
            public.verify(signature, tbs, algorithm)

    return run


def measure() -> Sequence[Comparison]:
    """Compare the full rule set, and linting for issuance, with a verification of each certificate."""
    profile = get_profile("iso15118-2/secc")
    unsigned, signed, issuer = material(profile)
    reference = Case("one P-256 verification", verification(signed, issuer), COUNT)

    def full() -> None:
        for certificate in signed:
            lint_certificate(certificate, profile=profile, now=START + timedelta(days=1), issuer_der=issuer)

    def issuing() -> None:
        for tbs in unsigned:
            lint_issuance(tbs, profile=profile, issuer_der=issuer)

    return [
        compare(
            "full rule set on a certificate, with issuer and time",
            subject=Case("lint_certificate", full, COUNT),
            reference=reference,
            limit=Limit(4.0, "linting must not be what a reader waits for"),
        ),
        compare(
            "rules of an issuance, template known",
            subject=Case("lint_issuance", issuing, COUNT),
            reference=reference,
            limit=Limit(0.4, "linting every certificate must not slow issuing down"),
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main("lint", measure))
