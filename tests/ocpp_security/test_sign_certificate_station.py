"""The station's side of A02/A03: what it asks for and when, and what it accepts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from chargepki.ocpp_security.sign_certificate import (
    DropRequests,
    InstallCertificate,
    MakeKey,
    RaiseEvent,
    Reconnect,
    SendRequest,
    StoreRequest,
)
from chargepki.ocpp_security.sign_certificate_station import StationCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.csr import check_possession, parse_csr
from chargepki.pki.errors import Conflict, InputError
from chargepki.pki.keys import spki_der
from testkit.flows import NOW, new_key, operator, reason_code
from testkit.station_flow import RULES, SECOND, USE, V16, V21, V201, assert_refused, begin, enrol, make_flow, of, signed

# --- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OcppVersion)
def test_a02_fr_02_and_fr_03_a_trigger_makes_a_new_key_and_a_pkcs10_request(version: OcppVersion) -> None:
    flow = make_flow(version)
    action, message = (
        ("ExtendedTriggerMessage", "SignChargePointCertificate")
        if version is V16
        else ("TriggerMessage", "SignChargingStationCertificate")
    )
    answer, effects = flow.triggered(action, {"requestedMessage": message}, NOW)
    assert (answer, effects) == ({"status": "Accepted"}, [MakeKey(USE)])
    key = new_key()
    stored, sent = flow.start(USE, key, NOW)
    assert isinstance(stored, StoreRequest) and isinstance(sent, SendRequest)
    request = parse_csr(str(sent.payload["csr"]))
    check_possession(request)
    assert request.spki_der == spki_der(key) and request.extensions == ()
    assert names.get(request.subject_der, "CN") == "CS-0001"
    assert names.get(request.subject_der, "O") == "Example CSO"


def test_a02_fr_02_a_key_pair_is_never_used_twice() -> None:
    flow = make_flow()
    key, _ = begin(flow)
    with pytest.raises(Conflict, match="used before"):
        flow.start(USE, key, NOW)


def test_a02_fr_13_and_fr_24_the_request_names_its_type_and_in_2_1_its_request_id() -> None:
    (sent,) = of(SendRequest, make_flow(V21).start(USE, new_key(), NOW))
    assert sent.payload["certificateType"] == "ChargingStationCertificate" and sent.payload["requestId"] == 1
    (older,) = of(SendRequest, make_flow(V201).start(USE, new_key(), NOW))
    assert "requestId" not in older.payload
    (oldest,) = of(SendRequest, make_flow(V16).start(USE, new_key(), NOW))
    assert set(oldest.payload) == {"csr"}


def test_a_trigger_for_something_else_is_not_implemented() -> None:
    answer, effects = make_flow(V201).triggered("TriggerMessage", {"requestedMessage": "SignV2GCertificate"}, NOW)
    assert (answer, effects) == ({"status": "NotImplemented"}, [])


def test_a_v2g_request_needs_the_secc_id_and_carries_dc_cpo() -> None:
    flow = make_flow(V21, uses=frozenset({CertificateUse.V2G}))
    (sent,) = of(SendRequest, flow.start(CertificateUse.V2G, new_key(), NOW))
    subject = parse_csr(str(sent.payload["csr"])).subject_der
    assert [names.get(subject, short) for short in ("CN", "O", "C", "DC")] == ["SECC-1", "Example CSO", "DE", "CPO"]
    with pytest.raises(InputError, match="SeccId"):
        replace(RULES, secc_id=None).subject(CertificateUse.V2G)


def resend_times(flow: StationCertificateFlow, seconds: int) -> list[int]:
    """Let time pass second by second; the CSMS accepts each CSR at once."""
    times = []
    for second in range(1, seconds + 1):
        now = NOW + second * SECOND
        for sent in of(SendRequest, flow.due(now)):
            times.append(second)
            flow.sign_answered(sent.request, "Accepted", now)
    return times


@pytest.mark.parametrize("version", [V201, V21])
def test_a02_fr_17_to_fr_19_n_doublings_make_n_plus_1_resends_counted_in_seconds(version: OcppVersion) -> None:
    flow = make_flow(version, wait=30, repeat=3)
    begin(flow)
    assert resend_times(flow, 2000) == [30, 90, 210, 450]
    assert flow.next_due() is None


def test_tc_a_23_cs_one_doubling_makes_three_csrs_in_total() -> None:
    flow = make_flow(wait=10, repeat=1)
    begin(flow)
    assert resend_times(flow, 200) == [10, 30]


def test_a02_fr_17_a_request_without_an_answer_is_sent_again_too() -> None:
    flow = make_flow()
    begin(flow, answer=None)
    assert resend_times(flow, 60) == [30]


@pytest.mark.parametrize(
    ("version", "wait", "repeat"), [(V16, 30, 3), (V201, None, 3), (V201, 30, None), (V21, None, None)]
)
def test_1_6_and_stations_without_the_two_variables_never_send_again_by_timer(
    version: OcppVersion, wait: int | None, repeat: int | None
) -> None:
    flow = make_flow(version, wait=wait, repeat=repeat)
    begin(flow)
    assert resend_times(flow, 500) == []


def test_a_wait_of_zero_does_not_become_a_storm() -> None:
    flow = make_flow(wait=0, repeat=2)
    begin(flow)
    assert resend_times(flow, 60) == [1, 3, 7]


def test_a02_fr_19_a_trigger_starts_again_after_the_last_resend() -> None:
    flow = make_flow(wait=1, repeat=0)
    begin(flow)
    assert resend_times(flow, 10) == [1]
    answer, effects = flow.triggered("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}, NOW)
    assert (answer, effects) == ({"status": "Accepted"}, [MakeKey(USE)])


def test_tc_a_15_cs_a_rejected_request_is_not_repeated_and_its_key_is_dropped() -> None:
    flow = make_flow()
    flow.renew(USE)
    (sent,) = of(SendRequest, flow.start(USE, new_key(), NOW))
    (dropped,) = flow.sign_answered(sent.request, "Rejected", NOW)
    assert dropped == DropRequests((sent.request,))
    assert resend_times(flow, 500) == [] and flow.renew(USE) == []


def test_a03_fr_02_renewal_starts_by_itself_one_month_before_expiry() -> None:
    flow = make_flow()
    certificate = enrol(flow)
    flow.connected(certificate.sha256, NOW)
    assert flow.due(certificate.not_after - timedelta(days=31)) == []
    assert flow.due(certificate.not_after - timedelta(days=30)) == [MakeKey(USE)]
    assert flow.due(certificate.not_after - timedelta(days=29)) == [], "one key at a time"


def test_a_certificate_that_lives_shorter_than_a_month_is_not_renewed_at_once() -> None:
    flow = make_flow()
    certificate = enrol(flow, lifetime=timedelta(days=9))
    assert flow.due(NOW + timedelta(days=5)) == []
    assert flow.due(certificate.not_after - timedelta(days=2)) == [MakeKey(USE)]


# --- receiving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OcppVersion)
@pytest.mark.parametrize("root", [False, True])
def test_a02_fr_06_and_fr_08_a_sound_certificate_is_installed_and_the_station_reconnects(
    version: OcppVersion, root: bool
) -> None:
    flow = make_flow(version)
    key, request = begin(flow)
    leaf = operator().issue(key.public_key())
    answer, effects = signed(flow, leaf, request_id=request.number, root=root)
    assert answer == {"status": "Accepted"}
    installed, dropped, reconnect = effects
    assert isinstance(installed, InstallCertificate) and isinstance(reconnect, Reconnect)
    assert installed.certificate.chain_der == (leaf, operator().sub_der), "leaf first, without the root"
    assert dropped == DropRequests((request,))
    assert flow.pending == () and flow.client_certificate(NOW) == installed.certificate


@pytest.mark.parametrize("version", [V201, V21])
def test_row_20_a_certificate_type_that_is_left_out_is_that_of_the_request(version: OcppVersion) -> None:
    flow = make_flow(version)
    key, request = begin(flow)
    answer, effects = signed(
        flow, operator().issue(key.public_key()), use=CertificateUse.COMBINED, request_id=request.number
    )
    assert answer == {"status": "Accepted"}
    (installed,) = of(InstallCertificate, effects)
    assert installed.certificate.use is USE


def test_an_unsolicited_certificate_is_refused() -> None:
    flow = make_flow()
    assert_refused(flow, signed(flow, operator().issue(new_key().public_key())), "no certificate was asked for")


def test_a_certificate_for_a_foreign_public_key_is_refused() -> None:
    flow = make_flow()
    begin(flow)
    assert_refused(flow, signed(flow, operator().issue(new_key().public_key())), "another public key")


def test_a02_fr_26_an_unknown_or_wrong_request_id_is_refused() -> None:
    flow = make_flow(V21)
    first_key, first = begin(flow)
    _, second = begin(flow)
    leaf = operator().issue(first_key.public_key())
    assert_refused(flow, signed(flow, leaf, request_id=99), "requestId 99 is unknown")
    assert_refused(flow, signed(flow, leaf, request_id=second.number), f"request {first.number}")
    assert signed(flow, leaf, request_id=first.number)[0]["status"] == "Accepted"


def test_a_csms_that_does_not_copy_the_request_id_is_understood_by_the_key() -> None:
    flow = make_flow(V21)
    key, _ = begin(flow)
    assert signed(flow, operator().issue(key.public_key()))[0]["status"] == "Accepted"


def test_a02_fr_13_and_fr_14_another_certificate_type_than_asked_for_is_refused() -> None:
    flow = make_flow(V201)
    key, _ = begin(flow)
    leaf = operator().issue(key.public_key())
    assert_refused(flow, signed(flow, leaf, use=CertificateUse.V2G), "certificateType is V2GCertificate")
    assert signed(flow, leaf, use=CertificateUse.COMBINED)[0]["status"] == "Accepted", "left out: the request's counts"


def test_a02_fr_16_a_chain_longer_than_the_station_takes_is_refused() -> None:
    flow = make_flow(rules=replace(RULES, max_chain_characters=800))
    key, _ = begin(flow)
    answer, effects = signed(flow, operator().issue(key.public_key()))
    assert reason_code(answer) == "TooLargeElement"
    assert len(of(RaiseEvent, effects)) == 1


@pytest.mark.parametrize(
    ("fields", "ca", "words"),
    [
        ({"common_name": "CS-0002"}, "Example CSO", "CN is 'CS-0002'"),
        ({"organization": "Other"}, "Example CSO", "O is 'Other'"),
        ({"not_before": NOW - timedelta(days=10), "lifetime": timedelta(days=5)}, "Example CSO", "expired"),
        ({"not_before": NOW + timedelta(hours=1)}, "Example CSO", "not valid before"),
        ({}, "Somebody else", ""),
    ],
)
def test_a02_fr_06_and_fr_07_an_invalid_certificate_is_refused_with_an_event(
    fields: dict[str, object], ca: str, words: str
) -> None:
    flow = make_flow()
    key, _ = begin(flow)
    leaf = operator(ca).issue(key.public_key(), **fields)  # type: ignore[arg-type]  # by name
    assert_refused(flow, signed(flow, leaf, ca=operator(ca)), words)
    assert flow.installed == () and len(flow.pending) == 1


@pytest.mark.parametrize("chain", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_text_that_is_no_chain_is_refused(chain: str) -> None:
    flow = make_flow()
    begin(flow)
    answer, effects = flow.certificate_signed({"certificateChain": chain}, NOW)
    assert answer["status"] == "Rejected" and len(of(RaiseEvent, effects)) == 1


def test_a_certificate_of_the_v2g_hierarchy_is_no_link_certificate() -> None:
    flow = make_flow(V201, uses=frozenset({USE, CertificateUse.V2G}))
    key, _ = begin(flow)
    v2g = operator("V2G")
    assert_refused(flow, signed(flow, v2g.issue(key.public_key()), ca=v2g), "")
    v2g_key, _ = begin(flow, use=CertificateUse.V2G)
    leaf = v2g.issue(v2g_key.public_key(), common_name="SECC-1", domain_component="CPO")
    answer, effects = signed(flow, leaf, ca=v2g, use=CertificateUse.V2G)
    assert answer == {"status": "Accepted"} and of(Reconnect, effects) == []


def test_a_leaf_alone_is_taken_where_the_sub_ca_is_known() -> None:
    flow = make_flow(rules=replace(RULES, known_intermediates=(operator().sub_der,)))
    key, _ = begin(flow)
    leaf_pem = operator().chain_pem(operator().issue(key.public_key())).split("-----END CERTIFICATE-----\n")[0]
    answer, _ = flow.certificate_signed({"certificateChain": leaf_pem + "-----END CERTIFICATE-----\n"}, NOW)
    assert answer == {"status": "Accepted"}


def test_a02_fr_20_after_an_invalid_certificate_only_a_trigger_starts_again() -> None:
    flow = make_flow()
    key, _ = begin(flow)
    signed(flow, operator().issue(key.public_key(), common_name="CS-0002"))
    assert resend_times(flow, 500) == [] and flow.renew(USE) == []
    flow.triggered("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}, NOW)
    assert of(SendRequest, flow.start(USE, new_key(), NOW))


def test_a_sound_certificate_after_an_invalid_one_is_still_taken_because_the_key_is_kept() -> None:
    flow = make_flow()
    key, _ = begin(flow)
    signed(flow, operator().issue(key.public_key(), common_name="CS-0002"))
    assert signed(flow, operator().issue(key.public_key()))[0]["status"] == "Accepted"


def test_all_pending_keys_are_kept_until_one_is_accepted() -> None:
    flow = make_flow()
    first, _ = begin(flow)
    second, _ = begin(flow)
    assert signed(flow, operator().issue(first.public_key()))[0]["status"] == "Accepted"
    assert flow.pending == ()
    assert_refused(flow, signed(flow, operator().issue(second.public_key())), "no certificate was asked for")


def test_pending_keys_do_not_pile_up() -> None:
    flow = make_flow()
    dropped = []
    for _ in range(12):
        flow.renew(USE)
        dropped += of(DropRequests, flow.start(USE, new_key(), NOW))
    assert len(flow.pending) == 8 and [item.requests[0].number for item in dropped] == [1, 2, 3, 4]


def test_a_repeated_delivery_of_the_certificate_that_is_installed_is_accepted_without_effect() -> None:
    flow = make_flow()
    key, _ = begin(flow)
    leaf = operator().issue(key.public_key())
    signed(flow, leaf)
    assert signed(flow, leaf) == ({"status": "Accepted"}, [])


def test_1_6_a02_fr_08_a_future_certificate_is_taken_and_used_from_its_not_before_on() -> None:
    flow = make_flow(V16)
    start = NOW + timedelta(days=1)
    certificate = enrol(flow, not_before=start)
    assert flow.client_certificate(NOW) is None
    assert flow.due(NOW + timedelta(hours=1)) == []
    assert [type(effect) for effect in flow.due(start)] == [Reconnect]
    assert flow.client_certificate(start) == certificate and flow.due(start) == []


def test_a_clock_that_is_five_minutes_behind_the_ca_does_no_harm() -> None:
    enrol(make_flow(), not_before=NOW + timedelta(minutes=5))


def test_requests_survive_a_restart_of_the_station() -> None:
    flow = make_flow(V21)
    key, request = begin(flow)
    again = StationCertificateFlow(V21, flow.config, pending=flow.pending, installed=flow.installed)
    assert signed(again, operator().issue(key.public_key()), request_id=request.number)[0]["status"] == "Accepted"
    _, later = begin(again)
    assert later.number == request.number + 1
