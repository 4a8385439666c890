"""The CSMS's side of A02/A03 under every order of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cryptography import x509
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chargepki.ocpp_security.sign_certificate import (
    CsmsEffect,
    Issue,
    MarkDelivered,
    MarkSuperseded,
    MarkUndelivered,
    MarkUnknown,
    PendingDelivery,
    RecordRefusal,
    SendCall,
    SigningOrder,
)
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.pem import pem_blocks
from testkit.csms_flow import USE, V21, accept, csr, make_flow, request, waiting
from testkit.flows import NOW, new_key, operator

KEYS = [new_key() for _ in range(3)]
CSRS = [csr(key=key) for key in KEYS]
LEAVES = [operator().chain(operator().issue(key.public_key())) for key in KEYS]


@dataclass
class Seen:
    """What the outside world knows: orders it works on and calls it has sent."""

    to_issue: list[SigningOrder] = field(default_factory=list)
    sent: list[SigningOrder] = field(default_factory=list)
    fate: dict[str, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)


class CsmsMachine(RuleBasedStateMachine):
    """Any order of CSRs, issuances, answers, lost connections and reconnects."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = make_flow(V21, max_requests_per_hour=10_000)
        self.seen = Seen()
        self.count = 0
        self.pending: dict[str, PendingDelivery] = {}
        """What the inventory would say: issued, and neither confirmed nor given up."""

    def perform(self, effects: list[CsmsEffect]) -> None:
        for effect in effects:
            match effect:
                case Issue(order):
                    self.seen.to_issue.append(order)
                case SendCall(_, payload, order, certificate_id, resumed):
                    assert order is not None
                    leaf = pem_blocks(str(payload["certificateChain"]).encode(), max_bytes=20_000)[0].der
                    sent_key = x509.load_der_x509_certificate(leaf).public_key()
                    assert sent_key == order.request.public_key, "a certificate for a key that was not asked for"
                    assert payload["requestId"] == order.request_id
                    assert certificate_id not in self.seen.revoked
                    assert not resumed or certificate_id in self.pending, "sent again though nothing is pending"
                    assert order.id not in [one.id for one in self.seen.sent], "sent twice at once"
                    if certificate_id in self.pending:
                        item = self.pending[certificate_id]
                        self.pending[certificate_id] = replace(item, attempts=item.attempts + 1)
                    self.seen.sent.append(order)
                case MarkDelivered(_, certificate_id):
                    assert certificate_id not in self.seen.revoked
                    self.seen.fate[certificate_id] = "delivered"
                    self.pending.pop(certificate_id, None)
                case MarkUndelivered(_, certificate_id, _, _):
                    # Delivered, or perhaps delivered: the station may be using it.
                    assert certificate_id not in self.seen.fate, "a certificate that may be in use was revoked"
                    self.seen.revoked.add(certificate_id)
                    self.pending.pop(certificate_id, None)
                case MarkUnknown(_, certificate_id, _, final):
                    self.seen.fate.setdefault(certificate_id, "unknown")
                    if final:
                        self.pending.pop(certificate_id, None)
                case MarkSuperseded(_, certificate_id):
                    self.seen.fate.setdefault(certificate_id, "unknown")
                    self.pending.pop(certificate_id, None)
                case RecordRefusal():
                    pass

    @rule(which=st.integers(0, 2))
    def csr_arrives(self, which: int) -> None:
        self.count += 1
        answer, effects = self.flow.sign_requested(request(V21, CSRS[which], request_id=self.count), NOW)
        assert answer == {"status": "Accepted"}, "a sound request was not accepted: the machine is wedged"
        self.perform(effects)

    @rule(data=st.data(), foreign=st.booleans())
    def ca_issues(self, data: st.DataObject, foreign: bool) -> None:
        if not self.seen.to_issue:
            return
        order = data.draw(st.sampled_from(self.seen.to_issue))
        self.seen.to_issue.remove(order)
        which = next(i for i, key in enumerate(KEYS) if key.public_key() == order.request.public_key)
        self.count += 1
        chain, certificate_id = LEAVES[(which + foreign) % 3], f"c{self.count}"
        if not foreign:
            self.pending[certificate_id] = waiting(order, certificate_id, chain=chain)
        self.perform(self.flow.issued(order, chain, NOW, certificate_id=certificate_id))

    @rule(data=st.data())
    def ca_refuses(self, data: st.DataObject) -> None:
        if self.seen.to_issue:
            order = data.draw(st.sampled_from(self.seen.to_issue))
            self.seen.to_issue.remove(order)
            self.perform(self.flow.refused(order, PolicyRefusal("no"), NOW))

    @rule(data=st.data(), status=st.sampled_from(["Accepted", "Rejected", "NotSupported", "InternalError", None]))
    def station_answers(self, data: st.DataObject, status: str | None) -> None:
        if self.seen.sent:
            order = data.draw(st.sampled_from(self.seen.sent))
            self.seen.sent.remove(order)
            self.perform(self.flow.answered(order, status, NOW))

    @rule(status=st.sampled_from(["Accepted", "Rejected", None]), which=st.integers(0, 2))
    def an_answer_to_nothing_arrives(self, status: str | None, which: int) -> None:
        stray = accept(make_flow(V21), request(V21, CSRS[which]))
        assert self.flow.answered(replace(stray, id="CS1/none"), status, NOW) == []

    @rule()
    def connection_is_lost_and_comes_back(self) -> None:
        for order in self.seen.sent:
            self.perform(self.flow.answered(order, None, NOW))
        self.seen.sent.clear()
        self.perform(self.flow.reconnected(list(self.pending.values()), NOW))

    @rule()
    def another_process_issues(self) -> None:
        self.perform(self.flow.noticed(list(self.pending.values()), NOW))

    @rule()
    def the_process_dies_and_the_station_comes_back_to_another(self) -> None:
        # Open orders are in the queue; what was sent is in doubt, as the inventory remembers.
        self.flow = make_flow(V21, max_requests_per_hour=10_000)
        for certificate_id, item in self.pending.items():
            if item.attempts:
                self.seen.fate.setdefault(certificate_id, "unknown")
        self.seen.sent.clear()
        self.seen.to_issue.clear()
        self.perform(self.flow.reconnected(list(self.pending.values()), NOW))

    @rule(data=st.data())
    def a_pending_certificate_is_revoked(self, data: st.DataObject) -> None:
        in_flight = {order.request.der for order in self.seen.sent}
        idle = sorted(key for key, item in self.pending.items() if item.request.der not in in_flight)
        if idle:
            gone = data.draw(st.sampled_from(idle))
            del self.pending[gone]
            self.seen.revoked.add(gone)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What is pending, and neither on its way nor replaced, is delivered by the next connection."""
        order = self.flow.open_order(USE)
        if order is None or order.id in {one.id for one in (*self.seen.to_issue, *self.seen.sent)}:
            return
        # Issued, and lost on its way: it is sent again on the next connection or request.
        assert any(fate == "unknown" for fate in self.seen.fate.values()) or self.pending or self.seen.revoked


CsmsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_no_order_of_events_wedges_the_flow_or_delivers_an_unasked_certificate = CsmsMachine.TestCase
