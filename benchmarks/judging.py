"""What do the linter and a revocation list cost, against what cryptography needs anyway?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.harness import Case, Comparison, compare, main
from benchmarks.issuance import orders_of
from benchmarks.material import make_authority, make_request
from chargepki.pki import keys
from chargepki.pki.authority import IssuedCertificate
from chargepki.pki.crl import ReasonCode, RevokedEntry, assemble_crl, build_crl_tbs
from chargepki.pki.lint import lint_certificate, lint_crl
from chargepki.pki.profiles import get_profile

CERTIFICATES = 100
ENTRIES = 10_000


def certificates() -> tuple[list[bytes], bytes]:
    """Return certificates of different stations and their issuer's, DER."""
    with tempfile.TemporaryDirectory() as folder:
        authority = make_authority(Path(folder))
        try:
            requests = [make_request(f"STATION-{number:04d}") for number in range(CERTIFICATES)]
            answers = authority.issue_many(orders_of(requests))
            made = [answer.certificate_der for answer in answers if isinstance(answer, IssuedCertificate)]
            issuer = authority.inventory.get_ca("sub").certificate_der
        finally:
            authority.inventory.close()
    assert issuer is not None and len(made) == CERTIFICATES
    return made, issuer


def lint_all(made: Sequence[bytes], issuer: bytes) -> Callable[[], None]:
    """Return what judges every certificate with every rule that applies."""
    profile = get_profile("ocpp/charging-station")

    def run() -> None:
        for der in made:
            assert lint_certificate(der, profile=profile, issuer_der=issuer).ok

    return run


def verify_all(made: Sequence[bytes], issuer: bytes) -> Callable[[], None]:
    """Return what reads every certificate with cryptography and verifies its issuer's signature."""
    authority = x509.load_der_x509_certificate(issuer)

    def run() -> None:
        for der in made:
            x509.load_der_x509_certificate(der).verify_directly_issued_by(authority)

    return run


def list_by_us(issuer: bytes, key: ec.EllipticCurvePrivateKey, now: datetime) -> Callable[[], bytes]:
    """Return what builds, signs and lints a list."""
    name = x509.load_der_x509_certificate(issuer).subject.public_bytes()
    entries = [
        RevokedEntry((number << 100) + 1, now, ReasonCode.KEY_COMPROMISE if number % 2 else None)
        for number in range(1, ENTRIES + 1)
    ]
    algorithm = keys.signature_algorithm(keys.KeyAlgorithm.SECP256R1).der

    def run() -> bytes:
        tbs = build_crl_tbs(
            issuer_name_der=name,
            authority_key_id=bytes(20),
            number=1,
            this_update=now,
            next_update=now + timedelta(days=7),
            entries=entries,
            signature_algorithm_der=algorithm,
        )
        der = assemble_crl(tbs, algorithm, keys.sign(key, tbs))
        assert not lint_crl(der).errors
        return der

    return run


def list_by_cryptography(issuer: bytes, key: ec.EllipticCurvePrivateKey, now: datetime) -> Callable[[], bytes]:
    """Return what builds and signs the same list with cryptography's builders."""
    name = x509.load_der_x509_certificate(issuer).subject
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)

    def entry(number: int) -> x509.RevokedCertificate:
        builder = x509.RevokedCertificateBuilder().serial_number((number << 100) + 1).revocation_date(now)
        return (builder.add_extension(reason, critical=False) if number % 2 else builder).build()

    def run() -> bytes:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=name,
            last_update=now,
            next_update=now + timedelta(days=7),
            # One by one the builder would copy its list each time.
            revoked_certificates=[entry(number) for number in range(1, ENTRIES + 1)],
        )
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(bytes(20), None, None), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    return run


def measure() -> Sequence[Comparison]:
    """Compare both."""
    made, issuer = certificates()
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        compare(
            "lint one certificate with its issuer",
            subject=Case("lint_certificate", lint_all(made, issuer), CERTIFICATES),
            reference=Case("read it, verify one signature", verify_all(made, issuer), CERTIFICATES),
        ),
        compare(
            f"build, sign and lint a CRL of {ENTRIES:,} entries",
            subject=Case("pki.crl", list_by_us(issuer, key, now)),
            reference=Case("cryptography's builders, no lint", list_by_cryptography(issuer, key, now)),
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main("judging", measure))
