"""The CSMS's side of A02/A03: judging, issuing, delivering, and what the station's answer means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.errors import OcppRefusal
from chargepki.ocpp_security.pnc_transfer import Dialect, wrap
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.sign_certificate import (
    IssuePlan,
    MarkDelivered,
    MarkSuperseded,
    MarkUndelivered,
    MarkUnknown,
    RecordRefusal,
    SendCall,
)
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.pem import pem_blocks
from testkit.csms_flow import OWN, PLANS, USE, V16, V21, V201, accept, csr, deliver, issue, make_flow, request, waiting
from testkit.flows import NOW, new_key, operator, reason_code, station_record


@pytest.mark.parametrize("version", OcppVersion)
def test_a02_fr_11_a_sound_csr_is_accepted_issued_and_delivered_leaf_first_without_root(version: OcppVersion) -> None:
    flow = make_flow(version)
    order = accept(flow, request(version, csr(), request_id=7))
    assert (order.plan.ca, order.subject_defaults) == ("t-cso-sub", {"CN": "CS-0001", "O": "Example CSO"})
    call = deliver(flow, order)
    blocks = pem_blocks(str(call.payload["certificateChain"]).encode(), max_bytes=20_000)
    assert [block.der for block in blocks] == [blocks[0].der, operator().sub_der]
    assert x509.load_der_x509_certificate(blocks[0].der).public_key() == order.request.public_key
    assert flow.answered(order, "Accepted", NOW) == [MarkDelivered(order, "c1")]
    assert flow.open_order(USE) is None


def test_a02_fr_14_the_certificate_type_is_echoed_exactly_when_it_was_given() -> None:
    flow = make_flow(V201)
    typed = deliver(flow, accept(flow, request(V201, csr())))
    assert typed.payload["certificateType"] == "ChargingStationCertificate"
    untyped = deliver(flow, accept(flow, request(V201, csr(), None)))
    assert "certificateType" not in untyped.payload


def test_a02_fr_25_the_request_id_is_copied_in_2_1_and_unknown_before() -> None:
    flow = make_flow(V21)
    assert deliver(flow, accept(flow, request(V21, csr(), request_id=42))).payload["requestId"] == 42
    assert "requestId" not in deliver(flow, accept(flow, request(V21, csr()))).payload
    older = make_flow(V201)
    assert "requestId" not in deliver(older, accept(older, request(V201, csr()))).payload


def test_an_untyped_csr_is_for_a_combined_certificate_where_one_is_planned() -> None:
    plans = {**PLANS, CertificateUse.COMBINED: IssuePlan("t-cpo-sub2", "iso15118-2/secc", {"C": "DE"})}
    flow = CsmsCertificateFlow(V201, station_record(), plans)
    assert accept(flow, request(V201, csr(), None)).use is CertificateUse.COMBINED


@pytest.mark.parametrize("dialect", Dialect)
def test_in_1_6_a_v2g_leaf_goes_back_in_the_dialect_that_asked(dialect: Dialect) -> None:
    flow = make_flow(V16)
    text = csr("CN=DEABCEA00001,O=Example CSO,C=DE,DC=CPO")
    order = accept(flow, wrap("SignCertificate", {"csr": text, "certificateType": "V2GCertificate"}, dialect))
    assert (order.use, order.dialect) == (CertificateUse.V2G, dialect)
    call = deliver(flow, order)
    assert (call.action, call.payload["vendorId"]) == ("DataTransfer", dialect.value)
    # Another process takes it up in the same dialect.
    (again,) = make_flow(V16).reconnected([waiting(order, dialect=order.dialect)], NOW)
    assert isinstance(again, SendCall) and again.payload["vendorId"] == dialect.value
    for kind in ("ChargingStationCertificate", None):
        inner = {"csr": text, **({"certificateType": kind} if kind else {})}
        answer, (refusal,) = make_flow(V16).sign_requested(wrap("SignCertificate", inner, dialect), NOW)
        assert answer["status"] == "Rejected" and isinstance(refusal, RecordRefusal)


@pytest.mark.parametrize("version", OcppVersion)
@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("CN=CS-0002,O=Example CSO", "CN 'CS-0002'"),
        ("CN=CS-00011,O=Example CSO", "CN 'CS-00011'"),
        ("CN=CS-0001,O=Other CSO", "O 'Other CSO'"),
        ("CN=CS-0001,CN=CS-0002,O=Example CSO", "CN"),
    ],
)
def test_a02_fr_12_another_identity_is_refused(version: OcppVersion, subject: str, words: str) -> None:
    answer, effects = make_flow(version).sign_requested(request(version, csr(subject)), NOW)
    check_payload(version, "SignCertificate", Kind.RESPONSE, answer, sending=True)
    assert answer["status"] == "Rejected"
    assert ("statusInfo" in answer) == (version is not V16)
    if version is not V16:
        assert reason_code(answer) == "InvalidCSR"
        assert "CS-0002" not in str(answer["statusInfo"]) or "CN=CS-0001" in subject
    (refusal,) = effects
    assert isinstance(refusal, RecordRefusal) and words in refusal.what


def test_fields_that_the_csr_leaves_out_are_filled_from_the_record() -> None:
    order = accept(make_flow(), request(V201, csr("O=Example CSO")))
    assert order.subject_defaults["CN"] == "CS-0001"


def wanting(extension: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(names.parse_rdns(OWN))
    return builder.add_extension(extension, True).sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def tampered() -> str:
    der = bytearray(pem_blocks(csr().encode(), max_bytes=9999)[0].der)
    der[-1] ^= 1
    loaded = x509.load_der_x509_csr(bytes(der))
    return loaded.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("kind", ["ca", "tampered", "garbage", "empty", "certificate"])
def test_a02_fr_12_a_csr_that_asks_for_ca_true_or_proves_nothing_is_refused(kind: str) -> None:
    texts: dict[str, Callable[[], str]] = {
        "ca": lambda: wanting(x509.BasicConstraints(ca=True, path_length=None)),
        "tampered": tampered,
        "garbage": lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "empty": lambda: "",
        "certificate": lambda: operator().chain_pem(operator().issue(new_key().public_key())),
    }
    text = texts[kind]()
    answer, effects = make_flow().sign_requested({"csr": text, "certificateType": USE.value}, NOW)
    check_payload(V201, "SignCertificate", Kind.RESPONSE, answer, sending=True)
    assert answer["status"] == "Rejected"
    assert [type(effect) for effect in effects] == [RecordRefusal]


def test_crlf_in_the_csr_is_taken() -> None:
    accept(make_flow(), request(V201, csr().replace("\n", "\r\n")))


def test_a_use_without_a_ca_is_refused() -> None:
    answer, _ = make_flow(V21).sign_requested(request(V21, csr(), CertificateUse.V2G20), NOW)
    assert reason_code(answer) == "UnsupportedRequest"


def test_a02_fr_17_the_same_csr_again_continues_and_gets_the_newest_request_id() -> None:
    flow = make_flow(V21)
    text = csr()
    order = accept(flow, request(V21, text, request_id=1))
    answer, effects = flow.sign_requested(request(V21, text, request_id=2), NOW)
    assert (answer, effects) == ({"status": "Accepted"}, [])
    assert deliver(flow, order).payload["requestId"] == 2


def test_a_new_csr_replaces_the_open_one_whose_certificate_is_then_never_sent() -> None:
    flow = make_flow()
    first = accept(flow, request(V201, csr()))
    second = accept(flow, request(V201, csr()))
    (undelivered,) = flow.issued(first, issue(first), NOW, certificate_id="c1")
    assert isinstance(undelivered, MarkUndelivered) and undelivered.revoke == "cessationOfOperation"
    assert deliver(flow, second, "c2").order == second


def test_requests_of_different_uses_do_not_touch_each_other() -> None:
    flow = make_flow()
    own = accept(flow, request(V201, csr()))
    v2g = accept(
        flow,
        request(V201, csr("CN=DE-ICE-S-0003C4D5578786756453309675436,O=Example CSO,C=DE,DC=CPO"), CertificateUse.V2G),
    )
    assert flow.open_order(USE) == own and flow.open_order(CertificateUse.V2G) == v2g


def test_v2g_leaves_of_several_seccs_are_requested_at_once_and_replace_only_their_own_kind() -> None:
    """A02, prerequisites: one TriggerMessage for each distinct SeccId; the CSRs come in any order."""
    flow = make_flow()
    texts = [csr(f"CN=DE-ICE-S-{number:031d},O=Example CSO,C=DE,DC=CPO") for number in (1, 2)]
    first, second = (accept(flow, request(V201, text, CertificateUse.V2G)) for text in texts)
    # A new key for the second SECC replaces the second request, and not the first one.
    again = csr(f"CN=DE-ICE-S-{2:031d},O=Example CSO,C=DE,DC=CPO")
    third = accept(flow, request(V201, again, CertificateUse.V2G))
    assert isinstance(flow.issued(first, issue(first), NOW, certificate_id="c1")[0], SendCall)
    assert isinstance(flow.issued(second, issue(second), NOW, certificate_id="c2")[0], MarkUndelivered)
    assert isinstance(flow.issued(third, issue(third), NOW, certificate_id="c3")[0], SendCall)
    assert flow.answered(first, "Accepted", NOW) == [MarkDelivered(first, "c1")]
    assert flow.answered(third, "Accepted", NOW) == [MarkDelivered(third, "c3")]
    assert flow.open_order(CertificateUse.V2G) is None


def test_a_certificate_for_a_foreign_public_key_is_never_sent() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    (effect,) = flow.issued(order, issue(order, new_key().public_key()), NOW, certificate_id="c1")
    assert isinstance(effect, MarkUndelivered) and "public key" in effect.why


def test_a02_fr_16_a_chain_longer_than_the_station_takes_is_not_sent() -> None:
    flow = make_flow(station_chain_characters=600)
    order = accept(flow, request(V201, csr()))
    (effect,) = flow.issued(order, issue(order), NOW, certificate_id="c1")
    assert isinstance(effect, MarkUndelivered) and "the station takes 600" in effect.why


@pytest.mark.parametrize("status", ["Rejected", "NotSupported", "FormationViolation"])
def test_a02_fr_07_a_refused_certificate_is_undelivered_and_revoked_when_so_configured(status: str) -> None:
    for reason in ("cessationOfOperation", None):
        flow = make_flow(revoke_refused=reason)
        order = accept(flow, request(V201, csr()))
        deliver(flow, order)
        (effect,) = flow.answered(order, status, NOW)
        assert isinstance(effect, MarkUndelivered) and effect.revoke == reason


@pytest.mark.parametrize("status", [None, "InternalError", "GenericError"])
def test_without_a_usable_answer_the_outcome_is_unknown_and_a_reconnect_delivers_again(status: str | None) -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    call = deliver(flow, order)
    (unknown,) = flow.answered(order, status, NOW)
    assert isinstance(unknown, MarkUnknown)
    assert flow.reconnected([waiting(order)], NOW) == [replace(call, resumed=True)]


def test_rejected_after_an_unanswered_try_proves_nothing_and_revokes_nothing() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    deliver(flow, order)
    flow.answered(order, None, NOW)
    flow.reconnected([waiting(order)], NOW)
    (effect,) = flow.answered(order, "Rejected", NOW)
    assert isinstance(effect, MarkUnknown) and effect.final
    assert flow.open_order(USE) is None and flow.reconnected([waiting(order, given_up=True)], NOW) == []


def test_a_station_that_comes_back_with_the_certificate_has_received_it() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    deliver(flow, order)
    flow.answered(order, None, NOW)
    assert flow.reconnected([], NOW, certificate_id="c1") == [MarkDelivered(order, "c1")]
    assert flow.reconnected([], NOW) == []


def test_a_certificate_issued_while_the_station_was_away_is_delivered_when_it_is_back() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    call = deliver(flow, order)
    assert flow.not_sent(order, NOW) == []
    assert flow.reconnected([waiting(order)], NOW) == [replace(call, resumed=True)]
    (effect,) = flow.answered(order, "Rejected", NOW)
    assert isinstance(effect, MarkUndelivered)


def test_a_refusal_of_the_ca_closes_the_request() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    (effect,) = flow.refused(order, PolicyRefusal("the CA is retired", fix="choose another"), NOW)
    assert isinstance(effect, RecordRefusal) and effect.order == order
    accept(flow, request(V201, csr()))


def test_a_station_in_a_loop_is_stopped_before_it_becomes_a_signing_storm() -> None:
    flow = make_flow(max_requests_per_hour=3)
    for _ in range(3):
        accept(flow, request(V201, csr()))
    answer, effects = flow.sign_requested(request(V201, csr()), NOW)
    assert answer["status"] == "Rejected" and isinstance(effects[0], RecordRefusal)
    accept(flow, request(V201, csr()), NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("version", "use", "action", "requested"),
    [
        (V16, USE, "ExtendedTriggerMessage", "SignChargePointCertificate"),
        (V201, USE, "TriggerMessage", "SignChargingStationCertificate"),
        (V201, CertificateUse.V2G, "TriggerMessage", "SignV2GCertificate"),
        (V21, CertificateUse.V2G, "TriggerMessage", "SignV2GCertificate"),
    ],
)
def test_a02_fr_22_a_renewal_is_triggered_in_the_words_of_the_version(
    version: OcppVersion, use: CertificateUse, action: str, requested: str
) -> None:
    call = make_flow(version).trigger(use)
    assert (call.action, call.payload) == (action, {"requestedMessage": requested})
    check_payload(version, call.action, Kind.REQUEST, call.payload, sending=True)


def test_a_trigger_that_the_version_or_the_plans_do_not_have_is_refused() -> None:
    with pytest.raises(InputError):
        make_flow(V16).trigger(CertificateUse.V2G, evse_id=1)
    with pytest.raises(OcppRefusal, match="no CA is set"):
        make_flow(V21).trigger(CertificateUse.V2G20)


def test_a_naive_time_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        make_flow().sign_requested(request(V201, csr()), datetime(2026, 6, 1))  # noqa: DTZ001 - must be refused


# --- a process that has just started ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OcppVersion)
def test_another_process_delivers_what_the_inventory_has_with_type_and_request_id(version: OcppVersion) -> None:
    order = accept(make_flow(version), request(version, csr(), request_id=42))
    (call,) = make_flow(version).reconnected([waiting(order)], NOW)
    assert isinstance(call, SendCall) and call.resumed and call.certificate_id == "c1"
    check_payload(version, call.action, Kind.REQUEST, call.payload, sending=True)
    assert ("certificateType" in call.payload) == (version is not V16)
    assert call.payload.get("requestId") == (42 if version is V21 else None)


def test_a_taken_up_certificate_that_was_never_sent_and_is_rejected_is_undelivered_and_revoked() -> None:
    order = accept(make_flow(), request(V201, csr()))
    flow = make_flow()
    (call,) = flow.reconnected([waiting(order)], NOW)
    assert isinstance(call, SendCall) and call.order is not None
    (effect,) = flow.answered(call.order, "Rejected", NOW)
    assert isinstance(effect, MarkUndelivered) and effect.revoke == "cessationOfOperation"


def test_a_taken_up_certificate_that_may_have_arrived_is_never_revoked_for_being_rejected() -> None:
    order = accept(make_flow(), request(V201, csr()))
    flow = make_flow()
    (call,) = flow.reconnected([waiting(order, attempts=1)], NOW)
    assert isinstance(call, SendCall) and call.order is not None
    (effect,) = flow.answered(call.order, "Rejected", NOW)
    assert isinstance(effect, MarkUnknown) and effect.final


def test_a_certificate_that_a_newer_one_superseded_is_marked_and_not_delivered() -> None:
    order = accept(make_flow(), request(V201, csr()))
    (unsent,) = make_flow().reconnected([waiting(order, superseded_by="c2")], NOW)
    assert isinstance(unsent, MarkUndelivered)
    (doubtful,) = make_flow().reconnected([waiting(order, superseded_by="c2", attempts=1)], NOW)
    assert isinstance(doubtful, MarkSuperseded)


def test_a_new_csr_outruns_what_was_pending_from_before() -> None:
    order = accept(make_flow(), request(V201, csr()))
    flow = make_flow()
    accept(flow, request(V201, csr()))
    (effect,) = flow.reconnected([waiting(order)], NOW)
    assert isinstance(effect, MarkUndelivered)


def test_a_certificate_that_somebody_here_waits_for_is_not_delivered_twice() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    assert flow.noticed([waiting(order)], NOW) == []
    deliver(flow, order)
    assert flow.noticed([waiting(order, attempts=1)], NOW) == []
    flow.answered(order, "Accepted", NOW)
    assert flow.noticed([waiting(order, attempts=1)], NOW) == [], "the inventory has yet to record it"


def test_what_was_revoked_meanwhile_is_not_delivered() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    deliver(flow, order)
    assert flow.not_sent(order, NOW) == []
    assert flow.reconnected([], NOW) == [] and flow.open_order(USE) is None
    order = accept(flow, request(V201, csr()))
    deliver(flow, order)
    assert flow.withdrawn(order, NOW) == [] and flow.open_order(USE) is None


def test_the_same_csr_again_after_it_was_answered_revokes_nothing_when_it_is_rejected() -> None:
    flow = make_flow()
    order = accept(flow, request(V201, csr()))
    flow.issued(order, issue(order), NOW, certificate_id="c1", known_to_station=True)
    (effect,) = flow.answered(order, "Rejected", NOW)
    assert isinstance(effect, MarkUnknown)
