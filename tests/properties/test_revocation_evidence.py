"""What is revoked is never accepted, what is stale is never good, and a changed octet of evidence proves nothing."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.chain import Revocation, RevocationMode, RevocationRefusal, Status, verify_chain
from chargepki.pki.lint import lint_crl, lint_ocsp_response
from testkit.chains import AT, DAY, Made, make
from testkit.effort import examples

ROOT = make("Root CA", nth=0)
SUB = make("Sub CA", ROOT, nth=1, path_length=0)
LEAF = make("Leaf", SUB, nth=2)
OTHER = make("Other", SUB, nth=5)
USAGE = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
DELEGATE = make("Responder", SUB, nth=3, extensions=[USAGE, (x509.OCSPNoCheck(), False)])
HOUR = timedelta(hours=1)
REASONS = [
    x509.ReasonFlags.key_compromise, x509.ReasonFlags.superseded, x509.ReasonFlags.cessation_of_operation,
    x509.ReasonFlags.certificate_hold, x509.ReasonFlags.privilege_withdrawn,
]  # fmt: skip
# Instants around the judgement, in hours; the validator allows five minutes of skew and no more.
STARTS, ENDS = st.integers(-72, 24), st.integers(-48, 72)


def status_of(*crls: bytes, responses: tuple[bytes, ...] = (), at: datetime = AT) -> Status:
    evidence = Revocation(RevocationMode.REQUIRE, crls, responses)
    try:
        found = verify_chain(LEAF.der, [], [SUB.der], at=at, revocation=evidence)
    except RevocationRefusal as refusal:
        assert refusal.status is not Status.GOOD
        return Status(refusal.status)
    assert found.statuses[0].status is Status.GOOD
    return Status.GOOD


def revocation_list(
    number: int,
    *listed: tuple[Made, x509.ReasonFlags],
    base: int | None = None,
    start: datetime = AT - HOUR,
    end: datetime = AT + DAY,
) -> bytes:
    """A list of SUB; a delta to list *base* with it."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(SUB.certificate.subject)
    builder = builder.last_update(start).next_update(end).add_extension(x509.CRLNumber(number), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(SUB.certificate.public_key())  # type: ignore[arg-type]  # it is an EC key
    builder = builder.add_extension(identifier, critical=False)
    if base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
    for made, reason in listed:
        entry = x509.RevokedCertificateBuilder().serial_number(made.certificate.serial_number)
        entry = entry.revocation_date(start).add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    assert isinstance(SUB.key, ec.EllipticCurvePrivateKey)
    return builder.sign(SUB.key, hashes.SHA256()).public_bytes(Encoding.DER)


def response(
    status: ocsp.OCSPCertStatus,
    signer: Made = SUB,
    *,
    start: datetime = AT - HOUR,
    end: datetime = AT + DAY,
    reason: x509.ReasonFlags = x509.ReasonFlags.superseded,
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        LEAF.certificate, SUB.certificate, hashes.SHA256(), status, start, end,
        start if revoked else None, reason if revoked else None,
    ).responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)  # fmt: skip
    if signer is not SUB:
        builder = builder.certificates([signer.certificate])
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def rules(report: object) -> set[str]:
    return {finding.rule for finding in getattr(report, "errors")}  # noqa: B009  # any report


@settings(max_examples=examples(30))
@given(
    st.sampled_from([SUB, DELEGATE]), st.sampled_from(REASONS), STARTS, st.integers(1, 72), st.permutations(range(3))
)
def test_a_revoking_response_is_never_outvoted(
    signer: Made, reason: x509.ReasonFlags, start: int, length: int, order: list[int]
) -> None:
    begun = AT + start * HOUR
    revoking = response(ocsp.OCSPCertStatus.REVOKED, signer, start=begun, end=begun + length * HOUR, reason=reason)
    # An older good answer and an empty list of the same time or earlier do not undo it.
    good = response(ocsp.OCSPCertStatus.GOOD, start=min(begun, AT) - HOUR, end=AT + DAY)
    evidence = [revoking, good, response(ocsp.OCSPCertStatus.UNKNOWN)]
    found = status_of(responses=tuple(evidence[index] for index in order))
    if begun <= AT <= begun + length * HOUR:
        assert found is Status.REVOKED
    alone = status_of(responses=(revoking,))
    assert alone in ((Status.REVOKED,) if begun <= AT <= begun + length * HOUR else (Status.REVOKED, Status.STALE))


@settings(max_examples=examples(30))
@given(st.sampled_from([SUB, DELEGATE]), STARTS, ENDS)
def test_a_stale_response_is_never_good_and_the_linter_agrees(signer: Made, start: int, end: int) -> None:
    begun, ended = AT + start * HOUR, AT + max(end, start + 1) * HOUR
    encoded = response(ocsp.OCSPCertStatus.GOOD, signer, start=begun, end=ended)
    current = begun <= AT <= ended
    assert status_of(responses=(encoded,)) is (Status.GOOD if current else Status.STALE)
    found = rules(lint_ocsp_response(encoded, issuer_der=SUB.der, now=AT))
    assert ("e_ocsp_stale" in found) == (not current)
    assert "e_ocsp_signer" not in found


@settings(max_examples=examples(30))
@given(STARTS, ENDS, st.booleans())
def test_a_stale_list_is_never_good_and_the_linter_agrees(start: int, end: int, lists_another: bool) -> None:
    begun, ended = AT + start * HOUR, AT + max(end, start + 1) * HOUR
    listed = [(OTHER, REASONS[0])] if lists_another else []
    encoded = revocation_list(7, *listed, start=begun, end=ended)
    current = begun <= AT <= ended
    assert status_of(encoded) is (Status.GOOD if current else Status.STALE)
    assert ("e_crl_expired" in rules(lint_crl(encoded, issuer_der=SUB.der, now=AT))) == (not current)


@settings(max_examples=examples(40))
@given(
    st.booleans(), st.booleans(), st.booleans(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9),
    st.sampled_from(REASONS), st.booleans(),
)  # fmt: skip
def test_a_delta_list_adds_revocations_and_takes_one_away_only_where_it_says_so(
    in_base: bool,
    in_delta: bool,
    removed: bool,
    number: int,
    base: int,
    delta: int,
    reason: x509.ReasonFlags,
    reversed_order: bool,
) -> None:
    full = revocation_list(number, *([(LEAF, reason)] if in_base else []))
    kind = x509.ReasonFlags.remove_from_crl if removed else reason
    change = revocation_list(delta, *([(LEAF, kind)] if in_delta else []), base=base, start=AT - HOUR / 2)
    found = status_of(*((change, full) if reversed_order else (full, change)))
    applies = base <= number < delta
    if applies and in_delta and not removed:
        assert found is Status.REVOKED
    # RFC 5280 6.3.3 (k): removeFromCRL lifts what the base says, whatever its reason; silence never does.
    if in_base and not (applies and in_delta and removed):
        assert found is Status.REVOKED
    if not in_base and not in_delta:
        assert found is Status.GOOD
    assert not rules(lint_crl(change, issuer_der=SUB.der, now=AT)) - {"e_crl_reason_code"}


def test_a_delta_alone_answers_nothing_good() -> None:
    assert status_of(revocation_list(9, base=7)) is not Status.GOOD


SIGNED = {
    "response": response(ocsp.OCSPCertStatus.GOOD),
    "delegated response": response(ocsp.OCSPCertStatus.GOOD, DELEGATE),
    "list": revocation_list(7, (OTHER, REASONS[0])),
}
DELTA = revocation_list(9, (OTHER, REASONS[0]), base=7, start=AT - HOUR / 2)


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_with_unused_bits_is_none(name: str) -> None:
    changed = bytearray(SIGNED[name])
    found = re.search(rb"\x03[\x46-\x49]\x00\x30[\x43-\x47]\x02", changed)  # its own comes before a delegate's
    assert found is not None
    changed[found.start() + 2] = 1
    assert status_of(bytes(changed), responses=(bytes(changed),)) is Status.UNKNOWN


@pytest.mark.parametrize("tag", [0x20, 0xA1, 0xA4])
def test_another_tag_around_a_response_is_refused(tag: int) -> None:
    whole = SIGNED["response"]
    assert whole[7] == 0xA0
    assert status_of(responses=(whole[:7] + bytes((tag,)) + whole[8:],)) is Status.UNKNOWN


@settings(max_examples=examples(100))
@given(st.sampled_from(sorted(SIGNED)), st.data())
def test_evidence_with_a_changed_octet_is_refused(name: str, data: st.DataObject) -> None:
    whole = SIGNED[name]
    position = data.draw(st.integers(0, len(whole) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != whole[position]))
    changed = whole[:position] + bytes((octet,)) + whole[position + 1 :]
    if name == "list":
        assert status_of(changed) is not Status.GOOD
    else:
        assert status_of(responses=(changed,)) is not Status.GOOD
        assert lint_ocsp_response(changed, issuer_der=SUB.der, now=AT).kind == "ocsp-response"


@settings(max_examples=examples(40))
@given(st.data())
def test_a_changed_delta_takes_back_no_revocation(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(DELTA) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != DELTA[position]))
    changed = DELTA[:position] + bytes((octet,)) + DELTA[position + 1 :]
    assert status_of(revocation_list(7, (LEAF, REASONS[0])), changed) is Status.REVOKED
