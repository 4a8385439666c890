"""The station's side of A02/A03: retries, what it accepts, and the change-over with a fallback."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chargepki.ocpp_security.certificate_checks import CertificateRules, RefusedChain, parse_chain
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.sign_certificate import (
    CertificateProven,
    DiscardCertificate,
    DropRequests,
    InstallCertificate,
    InstalledCertificate,
    MakeKey,
    Payload,
    PendingRequest,
    RaiseEvent,
    Reconnect,
    SendRequest,
    StationEffect,
    StoreRequest,
)
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, build_certificate_signed
from chargepki.pki import names
from chargepki.pki.csr import check_possession, parse_csr
from chargepki.pki.errors import Conflict, InputError
from chargepki.pki.keys import spki_der, spki_sha256
from testkit.flows import NOW, Ca, new_key, operator

V16, V201, V21 = OcppVersion
USE = CertificateUse.CHARGING_STATION
SECOND = timedelta(seconds=1)
E = TypeVar("E")

RULES = CertificateRules(
    serial_number="CS-0001",
    organization="Example CSO",
    operator_anchors=(operator().root_der,),
    v2g_anchors=(operator("V2G").root_der,),
    secc_id="SECC-1",
    v2g_organization="Example CSO",
    country="DE",
)


def make_flow(
    version: OcppVersion = V201,
    *,
    wait: int | None = 30,
    repeat: int | None = 3,
    uses: frozenset[CertificateUse] = frozenset({USE}),
    rules: CertificateRules = RULES,
    installed: tuple[InstalledCertificate, ...] = (),
) -> StationCertificateFlow:
    config = StationCertificateConfig(
        rules, uses, wait_minimum=timedelta(seconds=wait) if wait is not None else None, repeat_times=repeat
    )
    return StationCertificateFlow(version, config, installed=installed)


def of(kind: type[E], effects: list[StationEffect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def begin(
    flow: StationCertificateFlow, now: datetime = NOW, use: CertificateUse = USE, *, answer: str | None = "Accepted"
) -> tuple[ec.EllipticCurvePrivateKey, PendingRequest]:
    key = new_key()
    flow.renew(use)
    (sent,) = of(SendRequest, flow.start(use, key, now))
    check_payload(flow.version, sent.action, Kind.REQUEST, sent.payload, sending=True)
    flow.sign_answered(sent.request, answer, now)
    return key, sent.request


def signed(
    flow: StationCertificateFlow,
    leaf: bytes,
    *,
    ca: Ca | None = None,
    use: CertificateUse = USE,
    request_id: int | None = None,
    root: bool = False,
    now: datetime = NOW,
) -> tuple[Payload, list[StationEffect]]:
    chain = (ca or operator()).chain_pem(leaf, root=root)
    call = build_certificate_signed(flow.version, use, chain, request_id=request_id)
    answer, effects = flow.certificate_signed(call.payload, now)
    check_payload(flow.version, "CertificateSigned", Kind.RESPONSE, answer, sending=True)
    return answer, effects


def enrol(flow: StationCertificateFlow, now: datetime = NOW, **fields: object) -> InstalledCertificate:
    key, request = begin(flow, now)
    leaf = operator().issue(key.public_key(), **fields)  # type: ignore[arg-type]  # by name
    answer, effects = signed(flow, leaf, request_id=request.number, now=now)
    assert answer == {"status": "Accepted"}, answer
    (installed,) = of(InstallCertificate, effects)
    return installed.certificate


def assert_refused(flow: StationCertificateFlow, outcome: tuple[Payload, list[StationEffect]], words: str) -> None:
    answer, effects = outcome
    assert answer["status"] == "Rejected"
    (event,) = effects
    assert isinstance(event, RaiseEvent), effects
    assert event.event is SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE and words in event.tech_info


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
    assert answer["statusInfo"]["reasonCode"] == "TooLargeElement"  # type: ignore[index]
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


# --- the change-over -------------------------------------------------------------------------------------------------


def renewed(version: OcppVersion = V201) -> tuple[StationCertificateFlow, InstalledCertificate, InstalledCertificate]:
    flow = make_flow(version)
    old = enrol(flow)
    flow.connected(old.sha256, NOW)
    new = enrol(flow, NOW + timedelta(days=1))
    assert flow.client_certificate(NOW + timedelta(days=1)) == new
    return flow, old, new


@pytest.mark.parametrize("version", [V201, V21])
def test_a02_fr_10_the_old_certificate_goes_when_the_new_one_has_worked(version: OcppVersion) -> None:
    flow, old, new = renewed(version)
    proven, discarded = flow.connected(new.sha256, NOW + timedelta(days=1))
    assert isinstance(proven, CertificateProven) and isinstance(discarded, DiscardCertificate)
    assert discarded.certificate.sha256 == old.sha256
    assert [item.sha256 for item in flow.installed] == [new.sha256]


def test_1_6_a02_fr_09_of_two_certificates_of_the_same_instant_the_one_that_came_last_is_used() -> None:
    flow = make_flow(V16)
    old = enrol(flow)
    flow.connected(old.sha256, NOW)
    new = enrol(flow, NOW + SECOND)
    flow.connected(new.sha256, NOW + SECOND)
    kept = flow.installed
    assert {item.sha256 for item in kept} == {old.sha256, new.sha256} and len({item.not_before for item in kept}) == 1
    for order in (kept, kept[::-1]):
        current = make_flow(V16, installed=order).client_certificate(NOW + 2 * SECOND)
        assert current is not None and current.sha256 == new.sha256


def test_1_6_a02_fr_10_the_old_certificate_stays_one_month_as_fallback() -> None:
    flow, old, new = renewed(V16)
    now = NOW + timedelta(days=1)
    assert [type(effect) for effect in flow.connected(new.sha256, now)] == [CertificateProven]
    assert flow.due(now + timedelta(days=29)) == []
    (discarded,) = flow.due(now + timedelta(days=30))
    assert isinstance(discarded, DiscardCertificate) and discarded.certificate.sha256 == old.sha256


@pytest.mark.parametrize("version", OcppVersion)
def test_a02_fr_28_and_fr_29_a_new_certificate_that_opens_no_connection_is_discarded_once_the_old_one_works(
    version: OcppVersion,
) -> None:
    flow, old, new = renewed(version)
    now = NOW + timedelta(days=1)
    flow.connection_failed(new.sha256, now)
    fallback = flow.client_certificate(now)
    assert fallback is not None and fallback.sha256 == old.sha256
    discarded, event = flow.connected(old.sha256, now)
    assert isinstance(discarded, DiscardCertificate) and discarded.certificate.sha256 == new.sha256
    assert isinstance(event, RaiseEvent) and event.event is SecurityEvent.DISCARDED_RENEWED_CLIENT_CERTIFICATE


def test_a02_fr_28_old_and_new_alternate_while_neither_works() -> None:
    flow, old, new = renewed()
    now = NOW + timedelta(days=1)
    tried = []
    for _ in range(4):
        current = flow.client_certificate(now)
        assert current is not None
        tried.append(current.sha256)
        flow.connection_failed(current.sha256, now)
    assert tried == [new.sha256, old.sha256, new.sha256, old.sha256]


def test_a_connection_with_a_password_changes_nothing() -> None:
    flow, _, _ = renewed()
    assert flow.connected(None, NOW) == [] and len(flow.installed) == 2


def test_the_only_certificate_is_never_given_up() -> None:
    flow = make_flow()
    only = enrol(flow)
    for _ in range(3):
        flow.connection_failed(only.sha256, NOW)
        assert flow.client_certificate(NOW) == only


def test_a_chain_is_decoded_with_its_leaf_first_whatever_the_order_of_the_rest() -> None:
    leaf = operator().issue(new_key().public_key())
    parsed = parse_chain(operator().chain_pem(leaf, root=True), RULES)
    assert parsed.chain_der == (leaf, operator().sub_der)
    with pytest.raises(RefusedChain):
        parse_chain("", RULES)


# --- every order of events -------------------------------------------------------------------------------------------

KEYS = [new_key() for _ in range(6)]
OWN = [spki_sha256(spki_der(key)) for key in KEYS]
LEAVES = [operator().issue(key.public_key()) for key in KEYS]
WRONG = [operator().issue(key.public_key(), common_name="CS-0002") for key in KEYS]
FOREIGN = operator().issue(new_key().public_key())


class StationMachine(RuleBasedStateMachine):
    """Any order of triggers, deliveries (sound, wrong, foreign, unasked), timers, connections and failures."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = make_flow(V21, wait=1, repeat=1)
        self.now = NOW
        self.waiting: set[str] = set()
        self.asked: set[str] = set()
        self.worked: set[str] = set()
        self.csrs = 0

    def perform(self, effects: list[StationEffect]) -> None:
        for effect in effects:
            match effect:
                case StoreRequest(request):
                    self.waiting.add(request.spki_sha256)
                    self.asked.add(request.spki_sha256)
                case SendRequest():
                    self.csrs += 1
                case InstallCertificate(certificate):
                    assert certificate.spki_sha256 in self.waiting, "an unasked certificate was installed"
                    leaf = x509.load_der_x509_certificate(certificate.chain_der[0])
                    assert names.get(leaf.subject, "CN") == "CS-0001"
                case DropRequests(requests):
                    self.waiting -= {request.spki_sha256 for request in requests}
                case DiscardCertificate(certificate):
                    left = {item.sha256 for item in self.flow.installed}
                    if certificate.sha256 in self.worked:
                        assert left & self.worked, "the last working certificate was given up"
                case _:
                    pass

    @rule(which=st.integers(0, 5), answer=st.sampled_from(["Accepted", "Rejected", None]))
    def triggered(self, which: int, answer: str | None) -> None:
        reply, effects = self.flow.triggered(
            "TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}, self.now
        )
        assert reply == {"status": "Accepted"} and effects == [MakeKey(USE)], "the machine is wedged"
        if OWN[which] in self.asked:
            return
        effects = self.flow.start(USE, KEYS[which], self.now)
        self.perform(effects)
        (sent,) = of(SendRequest, effects)
        self.perform(self.flow.sign_answered(sent.request, answer, self.now))

    @rule(
        leaf=st.one_of(st.sampled_from(LEAVES), st.sampled_from(WRONG), st.just(FOREIGN)),
        request_id=st.one_of(st.none(), st.integers(1, 6)),
    )
    def a_certificate_arrives(self, leaf: bytes, request_id: int | None) -> None:
        before = {item.sha256 for item in self.flow.installed}
        answer, effects = signed(self.flow, leaf, request_id=request_id, now=self.now)
        self.perform(effects)
        after = {item.sha256 for item in self.flow.installed}
        if answer["status"] == "Rejected":
            assert after == before
        assert before <= after, "receiving never removes a certificate"

    @rule(seconds=st.integers(0, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.perform(self.flow.due(self.now))

    @rule(works=st.booleans())
    def the_station_connects(self, works: bool) -> None:
        current = self.flow.client_certificate(self.now)
        if current is None:
            assert self.flow.installed == ()
            return
        if works:
            self.worked.add(current.sha256)
            self.perform(self.flow.connected(current.sha256, self.now))
        else:
            self.flow.connection_failed(current.sha256, self.now)

    @invariant()
    def what_is_waited_for_is_known(self) -> None:
        assert {request.spki_sha256 for request in self.flow.pending} == self.waiting

    def teardown(self) -> None:
        # At most one CSR per trigger and two resends of it (one doubling).
        assert self.csrs <= 3 * len(self.asked)


StationMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_no_order_of_messages_wedges_the_station_or_makes_it_accept_an_unasked_certificate = StationMachine.TestCase
