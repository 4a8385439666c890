"""Who signed a certificate, among as many certificates of CAs as an import may bring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.chain.policy import WorkBudget
from chargepki.pki.chain.pool import Pool
from chargepki.pki.questions import AuthorityCertificate, Provenance, authorities

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MANY = 40


def named(text: str, *, printable: bool = False) -> x509.Name:
    kind = x509.name._ASN1Type.PrintableString if printable else x509.name._ASN1Type.UTF8String
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])


def certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name | None = None,
    signer: ec.EllipticCurvePrivateKey | None = None,
    has_key_ids: bool = True,
) -> AuthorityCertificate:
    """Make a certificate of a CA, self-signed unless another one signs it."""
    by = signer or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if has_key_ids:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    der = builder.sign(by, hashes.SHA256()).public_bytes(Encoding.DER)
    return AuthorityCertificate("label", Provenance.IMPORTED, der, der.hex()[:64], None, view_certificate(der))


@pytest.fixture(scope="module")
def made_keys() -> list[ec.EllipticCurvePrivateKey]:
    return [ec.generate_private_key(ec.SECP256R1()) for _ in range(MANY)]


@pytest.mark.parametrize("same_name", [False, True])
def test_each_of_many_self_signed_ones_is_found_with_one_signature_check(
    made_keys: list[ec.EllipticCurvePrivateKey], monkeypatch: pytest.MonkeyPatch, same_name: bool
) -> None:
    many = [certificate(named("box" if same_name else f"box {n}"), key) for n, key in enumerate(made_keys)]
    checked = 0
    has_signed = authorities.has_signed

    def count(issuer: CertificateView, signed: CertificateView) -> bool:
        nonlocal checked
        checked += 1
        return has_signed(issuer, signed)

    monkeypatch.setattr(authorities, "has_signed", count)
    signers = authorities.Signers(many)
    assert [signers.of(each.view) for each in many] == [(each,) for each in many]
    assert checked == MANY


def test_every_certificate_of_the_key_that_signed_is_a_signer_whatever_it_is_called_by(
    made_keys: list[ec.EllipticCurvePrivateKey],
) -> None:
    key, other, leaf_key = made_keys[:3]
    root, elsewhere = named("Root"), named("Elsewhere")
    own = certificate(root, key)
    # A cross certificate spells the name in another way, and names no key.
    cross = certificate(named("root", printable=True), key, issuer=elsewhere, signer=other, has_key_ids=False)
    namesake = certificate(root, other)
    leaf = certificate(named("Leaf"), leaf_key, issuer=root, signer=key)
    signers = authorities.Signers((namesake, cross, own))
    assert signers.of(leaf.view) == (cross, own)
    assert signers.of(cross.view) == ()
    unnamed = certificate(named("Leaf"), leaf_key, issuer=root, signer=key, has_key_ids=False)
    assert signers.of(unnamed.view) == (cross, own)


def test_pool_finds_other_spellings_of_a_name_and_nothing_else(made_keys: list[ec.EllipticCurvePrivateKey]) -> None:
    names = [named("Root"), named("root", printable=True), named("Roots"), named("ROOT")]
    many = [certificate(name, key) for name, key in zip(names, made_keys, strict=False)]
    encoded = [name.public_bytes() for name in names]
    pool = Pool([many[0].der], [each.der for each in many[1:3]], WorkBudget())
    assert pool.spellings(encoded[0]) == [encoded[1]] and pool.spellings(encoded[2]) == []
    assert pool.spellings(b"no name") == []
    larger = pool.extended([many[3].der])
    assert sorted(larger.spellings(encoded[0])) == sorted([encoded[1], encoded[3]])
    assert pool.spellings(encoded[0]) == [encoded[1]]
