"""What does validating a chain of four certificates cost, against its three bare signature checks?

Bare means: keys loaded, messages at hand, nothing but the verification. P-256 is the hardest case, because its
verification is the cheapest. Other people's validators are measured against the same bare checks in the same run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store
from pyhanko_certvalidator import CertificateValidator, ValidationContext

from benchmarks.harness import Case, Comparison, Limit, compare, main
from chargepki.pki import certificate_view, der_reader, der_tree, extension_view, keys, names
from chargepki.pki.chain import ChainVerifier, Purpose, verify_chain

BATCH = 40
AT = datetime.now(UTC).replace(microsecond=0)
# The table of the README holds the figures against the goals. A quiet machine reaches them and a busy one does not,
# since there what is no arithmetic suffers more than the checks do. So a run fails at a guard that holds on either.
GUARD_CACHED = Limit(1.6, "a guard against getting slower, for machines that are busy", goal=1.3)
GUARD_COLD = Limit(2.3, "a guard against getting slower, for machines that are busy", goal=1.8)
REMEMBERED = (
    certificate_view.parse_time,
    der_reader._dotted,
    der_tree._faultless,
    extension_view._faultless,
    names._remembered_text,
    keys._scheme,
)
"""What our decoders remember of earlier input."""


def make_chain(curve: ec.EllipticCurve, digest: hashes.SHA256 | hashes.SHA512) -> list[x509.Certificate]:
    """Return SECC leaf, sub-CA 2, sub-CA 1 and V2G root, with the extensions that such certificates have."""
    keypairs = [ec.generate_private_key(curve) for _ in range(4)]
    subjects = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme Charging"),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(NameOID.DOMAIN_COMPONENT, component),
            ]
        )
        for name, component in (("DE*ACM*E1", "CPO"), ("Sub-CA 2", "V2G"), ("Sub-CA 1", "V2G"), ("V2G Root", "V2G"))
    ]
    chain = []
    for level, subject in enumerate(subjects):
        above = min(level + 1, 3)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subjects[above])
            .public_key(keypairs[level].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(AT - timedelta(days=1, hours=level))
            .not_valid_after(AT + timedelta(days=30 << level))
            .add_extension(x509.BasicConstraints(level > 0, level - 1 if level in (1, 2) else None), critical=True)
            .add_extension(key_usage(is_ca=level > 0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keypairs[level].public_key()), critical=False)
        )
        if level < 3:
            key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(keypairs[above].public_key())
            point = x509.DistributionPoint(
                [x509.UniformResourceIdentifier(f"http://pki.example/crl/{level}.crl")], None, None, None
            )
            builder = builder.add_extension(key_id, critical=False)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        chain.append(builder.sign(keypairs[above], digest))
    return chain


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
    """Return what a CA or a leaf needs."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def forget() -> None:
    """Drop what our decoders remember."""
    for cache in REMEMBERED:
        cache.cache_clear()


def bare(chain: Sequence[x509.Certificate], before: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Return the three verifications alone, and *before* each time: timed with the subject, but not its cost."""
    work = []
    for child, issuer in itertools.pairwise(chain):
        key, digest = issuer.public_key(), child.signature_hash_algorithm
        assert isinstance(key, ec.EllipticCurvePublicKey) and digest is not None
        work.append((key, child.signature, child.tbs_certificate_bytes, ec.ECDSA(digest)))

    def run() -> None:
        for _ in range(BATCH):
            before()
            for key, signature, message, scheme in work:
                key.verify(signature, message, scheme)

    return run


def cached(ders: Sequence[bytes], purpose: Purpose) -> Callable[[], None]:
    """Return a validation that reads the leaf alone."""
    verifier = ChainVerifier([ders[3]], ders[1:3])
    leaf = ders[0]

    def run() -> None:
        for _ in range(BATCH):
            # Another object each time, so that nothing can be remembered by identity.
            verifier.verify(bytes(bytearray(leaf)), purpose=purpose, at=AT)

    return run


def cold(ders: Sequence[bytes], purpose: Purpose) -> Callable[[], None]:
    """Return a validation that reads everything; what our decoders remember of earlier input is dropped each time."""

    def run() -> None:
        for _ in range(BATCH):
            forget()
            verify_chain(ders[0], ders[1:3], [ders[3]], purpose=purpose, at=AT)

    return run


def primitives(chain: Sequence[x509.Certificate]) -> Callable[[], None]:
    """Return the least that starts from bytes: three keys loaded from SubjectPublicKeyInfo, and the three checks."""
    work = []
    for child, issuer in itertools.pairwise(chain):
        spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = child.signature_hash_algorithm
        assert digest is not None
        work.append((spki, child.signature, child.tbs_certificate_bytes, ec.ECDSA(digest)))

    def run() -> None:
        for _ in range(BATCH):
            loaded = [load_der_public_key(spki) for spki, *_ in work]
            for key, (_, signature, message, scheme) in zip(loaded, work, strict=True):
                assert isinstance(key, ec.EllipticCurvePublicKey)
                key.verify(signature, message, scheme)

    return run


def cryptography_verifier(ders: Sequence[bytes], *, is_cold: bool) -> Callable[[], None]:
    """Return the validator of `cryptography`, with policies under which it accepts these chains."""

    def build(certificates: Sequence[x509.Certificate]) -> Callable[[x509.Certificate], object]:
        ca = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
        builder = PolicyBuilder().store(Store([certificates[3]])).time(AT).max_chain_depth(3)
        verifier = builder.extension_policies(
            ca_policy=ca, ee_policy=ExtensionPolicy.permit_all()
        ).build_client_verifier()
        return lambda leaf: verifier.verify(leaf, list(certificates[1:3]))

    load = x509.load_der_x509_certificate
    warm = build([load(der) for der in ders])

    def run() -> None:
        for _ in range(BATCH):
            if is_cold:
                certificates = [load(der) for der in ders]
                build(certificates)(certificates[0])
            else:
                warm(load(ders[0]))

    return run


def pyhanko(ders: Sequence[bytes]) -> Callable[[], None]:
    """Return pyhanko-certvalidator's validation; it has no form that keeps anything between two of them."""

    async def once() -> None:
        leaf, *rest, root = (asn1_x509.Certificate.load(der) for der in ders)
        context = ValidationContext(trust_roots=[root], other_certs=rest, moment=AT, revocation_mode="soft-fail")
        await CertificateValidator(leaf, rest, validation_context=context).async_validate_path()

    async def batch() -> None:
        for _ in range(BATCH):
            await once()

    return lambda: asyncio.run(batch())


def measure() -> Sequence[Comparison]:
    """Compare ours, cached and cold, and theirs, with the bare checks."""
    comparisons = []
    for label, curve, digest in (
        ("P-256", ec.SECP256R1(), hashes.SHA256()),
        ("P-521", ec.SECP521R1(), hashes.SHA512()),
    ):
        chain = make_chain(curve, digest)
        ders = [certificate.public_bytes(Encoding.DER) for certificate in chain]
        reference = Case("three bare signature checks", bare(chain), BATCH)
        forgetful = Case("three bare signature checks, and forgetting", bare(chain, forget), BATCH)
        cases: list[tuple[str, Callable[[], None], Case, Limit | None]] = [
            ("CA certificates cached", cached(ders, Purpose.ANY), reference, GUARD_CACHED),
            (
                "CA certificates cached, for the purpose secc",
                cached(ders, Purpose.SECC),
                reference,
                GUARD_CACHED,
            ),
            ("everything cold", cold(ders, Purpose.ANY), forgetful, GUARD_COLD),
            ("loading the keys and checking, no more", primitives(chain), reference, None),
            ("cryptography's verifier, cached", cryptography_verifier(ders, is_cold=False), reference, None),
            ("cryptography's verifier, cold", cryptography_verifier(ders, is_cold=True), reference, None),
            ("pyhanko-certvalidator", pyhanko(ders), reference, None),
        ]
        for name, run, against, limit in cases:
            comparisons.append(
                compare(
                    f"validate four certificates, {label}: {name}",
                    subject=Case(name, run, BATCH),
                    reference=against,
                    limit=limit,
                    seconds=0.25,
                )
            )
    return comparisons


if __name__ == "__main__":
    raise SystemExit(main("chain", measure))
