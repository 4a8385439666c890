"""Revoked, unknown and stale are three answers; evidence counts only from who may give it, and while it is current."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from chargepki.pki.chain import Revocation, RevocationMode, RevocationRefusal, Status, VerifiedChain, verify_chain
from chargepki.pki.errors import ChainError, RevocationError
from testkit.chains import AT, DAY, Made, make

ROOT = make("Root CA", nth=0)
SUB = make("Sub CA", ROOT, nth=1, path_length=0)
LEAF = make("Leaf", SUB, nth=2)
DELEGATE_USAGE = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
NO_CHECK = (x509.OCSPNoCheck(), False)
DELEGATE = make("Responder", SUB, nth=3, extensions=[DELEGATE_USAGE, NO_CHECK])


def crl(
    issuer: Made,
    *revoked: Made,
    reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise,
    start: datetime = AT - DAY / 2,
    end: datetime = AT + DAY / 2,
    key: Made | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(end)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(start)
        builder = builder.add_revoked_certificate(entry.add_extension(x509.CRLReason(reason), critical=False).build())
    signer = (key or issuer).key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def response(
    about: Made,
    issuer: Made,
    signer: Made,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    *,
    start: datetime = AT - DAY / 2,
    end: datetime | None = AT + DAY / 2,
    nonce: bytes | None = None,
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            about.certificate,
            issuer.certificate,
            hashes.SHA256(),
            status,
            start,
            end,
            start if revoked else None,
            x509.ReasonFlags.superseded if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        .certificates([signer.certificate])
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


ROOT_CRL = crl(ROOT)


def judge(
    *crls: bytes,
    responses: Sequence[bytes] = (),
    mode: RevocationMode = RevocationMode.REQUIRE,
    bag: Sequence[Made] = (),
    leaf: Made = LEAF,
    nonce: bytes | None = None,
    max_age: timedelta | None = None,
) -> VerifiedChain:
    revocation = Revocation(mode, (ROOT_CRL, *crls), tuple(responses), nonce=nonce, max_age=max_age)
    bag_ders = [SUB.der, *(each.der for each in bag)]
    return verify_chain(leaf.der, bag_ders, [ROOT.der], at=AT, revocation=revocation)


def answer(*crls: bytes, responses: Sequence[bytes] = (), bag: Sequence[Made] = (), nonce: bytes | None = None) -> str:
    """Return the leaf's status in mode require: good, or that of the refusal."""
    try:
        return judge(*crls, responses=responses, bag=bag, nonce=nonce).statuses[0].status
    except RevocationRefusal as refusal:
        assert refusal.position == 0 and refusal.why and refusal.fix and refusal.clause
        return refusal.status


def test_good_revoked_unknown_and_stale() -> None:
    assert answer(crl(SUB)) == Status.GOOD
    assert answer(crl(SUB, LEAF)) == Status.REVOKED
    assert answer() == Status.UNKNOWN
    assert answer(crl(SUB, start=AT - DAY, end=AT - DAY / 2)) == Status.STALE
    assert answer(crl(SUB, start=AT + DAY / 4)) == Status.STALE


def test_a_refusal_is_a_chain_error_and_a_revocation_error() -> None:
    for kind in (ChainError, RevocationError):
        with pytest.raises(kind, match="revoked: CN=Leaf"):
            judge(crl(SUB, LEAF))


def test_a_revoked_ca_is_named_before_its_leaf() -> None:
    with pytest.raises(RevocationRefusal) as caught:
        verify_chain(
            LEAF.der, [SUB.der], [ROOT.der], at=AT,
            revocation=Revocation(RevocationMode.REQUIRE, (crl(ROOT, SUB), crl(SUB, LEAF))),
        )  # fmt: skip
    assert caught.value.position == 1


def test_if_present_lets_unknown_pass_and_nothing_else() -> None:
    mode = RevocationMode.IF_PRESENT
    assert judge(mode=mode).statuses[0].status is Status.UNKNOWN
    for bad in (crl(SUB, LEAF), crl(SUB, start=AT - DAY, end=AT - DAY / 2)):
        with pytest.raises(RevocationRefusal):
            judge(bad, mode=mode)
    assert judge(crl(SUB, LEAF), mode=RevocationMode.OFF).statuses == ()


def test_an_old_list_still_revokes_until_a_newer_one_answers() -> None:
    old = crl(SUB, LEAF, start=AT - DAY, end=AT - DAY / 2)
    hold = crl(SUB, LEAF, reason=x509.ReasonFlags.certificate_hold, start=AT - DAY, end=AT - DAY / 2)
    assert answer(old) == Status.REVOKED
    for outdated in (old, hold):
        assert answer(outdated, crl(SUB)) == Status.GOOD
        assert answer(crl(SUB), outdated) == Status.GOOD


def test_a_list_by_someone_else_under_the_cas_name_does_not_count() -> None:
    assert answer(crl(SUB, LEAF, key=LEAF)) == Status.UNKNOWN
    assert answer(crl(ROOT, LEAF)) == Status.UNKNOWN


def test_a_separate_key_for_lists_counts_when_the_ca_certified_it() -> None:
    signer = make("Sub CA", ROOT, nth=4, ca=False, bits=("crl_sign",))
    assert answer(crl(SUB, key=signer), bag=[signer]) == Status.GOOD
    mute = make("Sub CA", ROOT, nth=4, ca=False, bits=("digital_signature",))
    assert answer(crl(SUB, key=mute), bag=[mute]) == Status.UNKNOWN
    stranger = make("Sub CA", make("Stranger CA", nth=5), nth=4, ca=False, bits=("crl_sign",))
    assert answer(crl(SUB, key=stranger), bag=[stranger]) == Status.UNKNOWN


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"only_contains_user_certs": True}, Status.GOOD),
        ({"only_contains_ca_certs": True}, Status.UNKNOWN),
        ({"only_contains_attribute_certs": True}, Status.UNKNOWN),
        ({"only_some_reasons": frozenset({x509.ReasonFlags.key_compromise})}, Status.UNKNOWN),
        ({"indirect_crl": True}, Status.UNKNOWN),
        ({"full_name": [x509.UniformResourceIdentifier("http://other.test/1.crl")]}, Status.UNKNOWN),
        ({"full_name": [x509.DirectoryName(SUB.certificate.subject)]}, Status.GOOD),
    ],
)
def test_a_list_answers_within_its_scope_only(scope: dict[str, object], expected: Status) -> None:
    fields: dict[str, object] = {
        "full_name": None, "relative_name": None, "only_contains_user_certs": False, "only_contains_ca_certs": False,
        "only_some_reasons": None, "indirect_crl": False, "only_contains_attribute_certs": False, **scope,
    }  # fmt: skip
    point = x509.IssuingDistributionPoint(**fields)  # type: ignore[arg-type]  # a table of its keywords
    assert answer(crl(SUB, extensions=[(point, True)])) == expected


def test_an_unknown_critical_extension_stops_good_but_not_revoked() -> None:
    unknown = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    assert answer(crl(SUB, extensions=unknown)) == Status.UNKNOWN
    assert answer(crl(SUB, LEAF, extensions=unknown)) == Status.REVOKED


# ---------------------------------------------------------------- OCSP


@pytest.mark.parametrize("signer", [SUB, DELEGATE], ids=["issuer", "delegate"])
def test_the_issuer_and_its_delegate_may_answer(signer: Made) -> None:
    assert answer(responses=[response(LEAF, SUB, signer)]) == Status.GOOD
    assert answer(responses=[response(LEAF, SUB, signer, ocsp.OCSPCertStatus.REVOKED)]) == Status.REVOKED
    assert answer(responses=[response(LEAF, SUB, signer, ocsp.OCSPCertStatus.UNKNOWN)]) == Status.UNKNOWN
    assert answer(responses=[response(LEAF, SUB, signer, end=AT - DAY / 4)]) == Status.STALE


@pytest.mark.parametrize(
    "signer",
    [
        make("Responder", SUB, nth=3),
        make("Responder", SUB, nth=3, extensions=[NO_CHECK]),
        make("Responder", ROOT, nth=3, extensions=[DELEGATE_USAGE, NO_CHECK]),
        make("Responder", SUB, nth=3, extensions=[DELEGATE_USAGE, NO_CHECK], start=AT - 2 * DAY, end=AT - DAY),
        make("Responder", SUB, nth=3, extensions=[DELEGATE_USAGE]),
        make("Responder", nth=3, extensions=[DELEGATE_USAGE, NO_CHECK]),
        LEAF,
    ],
    ids=["no usage", "no-check alone", "another CA", "expired", "own status unknown", "self-signed", "the leaf itself"],
)
def test_nobody_else_may_answer(signer: Made) -> None:
    assert answer(responses=[response(LEAF, SUB, signer)]) == Status.UNKNOWN


def test_a_delegate_without_no_check_answers_while_it_is_known_to_be_good() -> None:
    delegate = make("Responder", SUB, nth=3, extensions=[DELEGATE_USAGE])
    good = response(LEAF, SUB, delegate)
    only_delegate = crl(SUB, delegate)
    assert answer(crl(SUB), responses=[good]) == Status.GOOD
    assert judge(crl(SUB), responses=[good]).statuses[0].source.startswith("CRL")
    assert "its own status is revoked" in str(judge(only_delegate, responses=[good]).statuses[0].notes)


def test_a_response_about_another_certificate_says_nothing() -> None:
    other = make("Leaf", SUB, nth=6)
    assert answer(responses=[response(other, SUB, SUB)]) == Status.UNKNOWN
    assert answer(responses=[response(LEAF, ROOT, SUB)]) == Status.UNKNOWN


def test_the_nonce_must_be_that_of_the_request() -> None:
    mine = response(LEAF, SUB, SUB, nonce=b"n" * 16)
    assert answer(responses=[mine], nonce=b"n" * 16) == Status.GOOD
    assert answer(responses=[mine], nonce=b"m" * 16) == Status.UNKNOWN
    assert answer(responses=[response(LEAF, SUB, SUB)], nonce=b"n" * 16) == Status.UNKNOWN


def test_a_response_without_end_needs_a_greatest_age() -> None:
    endless = response(LEAF, SUB, SUB, end=None)
    assert answer(responses=[endless]) == Status.STALE
    assert judge(responses=[endless], max_age=DAY).statuses[0].status is Status.GOOD


def test_revoked_wins_over_good() -> None:
    assert answer(crl(SUB, LEAF), responses=[response(LEAF, SUB, SUB)]) == Status.REVOKED


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x30\x03\x0a\x01\x06", b"\x30\x80", b"\x30\x00"])
def test_what_cannot_be_read_is_noted_and_answers_nothing(junk: bytes) -> None:
    revocation = Revocation(RevocationMode.REQUIRE, (ROOT_CRL, junk), (junk,))
    with pytest.raises(RevocationRefusal) as caught:
        verify_chain(LEAF.der, [SUB.der], [ROOT.der], at=AT, revocation=revocation)
    assert caught.value.status == Status.UNKNOWN
    assert len(caught.value.search.unusable) == 2
