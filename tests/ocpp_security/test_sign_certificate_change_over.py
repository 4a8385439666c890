"""The station's side of A02/A03: the change-over with a fallback, and every order of events."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chargepki.ocpp_security.certificate_checks import RefusedChain, parse_chain
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.sign_certificate import (
    CertificateProven,
    DiscardCertificate,
    DropRequests,
    InstallCertificate,
    InstalledCertificate,
    MakeKey,
    RaiseEvent,
    SendRequest,
    StationEffect,
    StoreRequest,
)
from chargepki.ocpp_security.sign_certificate_station import StationCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import names
from chargepki.pki.keys import spki_der, spki_sha256
from testkit.flows import NOW, new_key, operator
from testkit.station_flow import RULES, SECOND, USE, V16, V21, V201, enrol, make_flow, of, signed

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
