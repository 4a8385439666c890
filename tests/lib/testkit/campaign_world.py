"""A CSMS, its inventory and its stations, joined by a network that a test plays: messages wait until told to go.

Everything that decides is the shipped code: the inventory (SQLite), `CampaignStore`, `OperationStore` with its step
functions, the certificate flows of both ends, `arrive` for what a connection proves. Only what moves frames is the
test's: a message may be lost, doubled, late or out of order, connections break, either end dies and starts again.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from chargepki.ocpp_security.campaign_store import ROLE, CampaignStore
from chargepki.ocpp_security.campaigns import next_campaign_steps
from chargepki.ocpp_security.certificate_checks import CertificateRules, parse_chain
from chargepki.ocpp_security.csms.arrival import Arrival, arrive, depart
from chargepki.ocpp_security.deliveries import begin_delivery, delivery_note, give_up, list_pending, was_attempted
from chargepki.ocpp_security.issue_plans import plans_for
from chargepki.ocpp_security.operation_store import OperationStore
from chargepki.ocpp_security.operations import AskReconnect, Finish, SendAttempt, Wait, next_step, read_answer
from chargepki.ocpp_security.sign_certificate import (
    CsmsEffect,
    InstalledCertificate,
    Issue,
    IssuePlan,
    MarkDelivered,
    MarkSuperseded,
    MarkUndelivered,
    MarkUnknown,
    RecordRefusal,
    SendCall,
    SendRequest,
    SigningOrder,
)
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.errors import ChargePkiError, Conflict
from chargepki.pki.inventory import AuditKey, Inventory, SealingKey, Transaction
from chargepki.pki.inventory.campaign_records import CampaignRecord
from chargepki.pki.inventory.records import (
    Actor,
    ActorKind,
    CertificateState,
    Delivery,
    OperationRecord,
    StationRecord,
    StationState,
)
from chargepki.pki.keys import KeyAlgorithm, generate_private_key, spki_der, spki_sha256
from chargepki.pki.pem import to_pem
from chargepki.pki.signer import SoftwareKeyStore
from testkit.campaign_station import USE, Link, Message, Outstanding, Station

__all__ = ["ACTOR", "World"]

ACTOR: Final = Actor("model", ActorKind.SYSTEM, authenticated=False)
PLANS: Final = {USE: IssuePlan("sub", "ocpp/charging-station")}
_SUBJECT: Final = (("O", "Example"), ("C", "DE"))
_LEASE: Final = timedelta(seconds=60)
_PATIENCE: Final = timedelta(seconds=60)


class World:
    """Owns all of it; close it."""

    def __init__(self, versions: Sequence[OcppVersion]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="world-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.sealing = SealingKey(secrets.token_bytes(32))
        log_key = AuditKey.load_or_create(self.folder / "audit.key")
        self.inventory = Inventory.open(f"sqlite:///{self.folder / 'inventory.db'}", log_key=log_key)
        keystore = SoftwareKeyStore(self.folder / "keys", lambda: b"model")
        self.authority = Authority(self.inventory, keystore, actor=ACTOR, clock=lambda: self.now)
        for name, profile, issuer in (
            ("root", "cso-root", None),
            ("sub", "cso-sub", "root"),
            ("sub2", "cso-sub", "root"),
        ):
            self.authority.create_ca(CaOrder(name, f"ocpp/{profile}", issuer=issuer, subject=(("CN", name), *_SUBJECT)))
        self.processes = 0
        self.messages: list[Message] = []
        self.links: dict[str, Link] = {}
        self.numbers = 0
        self.proven: dict[str, set[str]] = {}
        """By station: ids of the certificates with which it has come in."""
        self.hasty: list[tuple[OperationRecord, datetime]] = []
        """Messages that were sent again over one connection before the station could have shown what became of them."""
        self.stations = {
            f"CS-{number}": self._make_station(f"CS-{number}", each) for number, each in enumerate(versions)
        }
        # Reservations know whole seconds, and what the stations have was there before.
        self.now += timedelta(seconds=2)
        self.start_process()

    def close(self) -> None:
        """Remove everything."""
        self.inventory.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_station(self, name: str, version: OcppVersion) -> Station:
        record = StationRecord(name, name, "Example", 3, StationState.ACTIVE, self.now)

        def add(tx: Transaction) -> None:
            tx.add_station(record)
            tx.audit(ACTOR, "station.add", name, now=self.now)

        self.inventory.write(add)
        root = self.inventory.get_ca("root").certificate_der
        assert root is not None
        rules = CertificateRules(serial_number=name, organization="Example", operator_anchors=(root,))
        station = Station(name, version, rules)
        key = generate_private_key(KeyAlgorithm.SECP256R1)
        station.keys[spki_sha256(spki_der(key))] = key
        order = IssueOrder(
            ca="sub",
            profile="ocpp/charging-station",
            spki=spki_der(key),
            subject=(("CN", name), *_SUBJECT),
            station=name,
        )
        issued = self.authority.issue(order)
        parsed = parse_chain("".join(to_pem("CERTIFICATE", der) for der in issued.chain), rules)
        first = InstalledCertificate(
            USE, parsed.chain_der, parsed.sha256, parsed.spki_sha256, parsed.not_before, parsed.not_after, self.now,
            proven=True,
        )  # fmt: skip
        station.installed = {first.sha256: first}
        station.restart()
        return station

    # --- the CSMS's process ------------------------------------------------------------------------------------------

    def start_process(self) -> None:
        """Let the process die, with all that it knew and its connections, and start another one."""
        for name in list(self.links):
            self._drop_frames(name)
        self.links.clear()
        self.processes += 1
        self.owner = f"p{self.processes}"
        self.campaigns = CampaignStore(self.inventory, self.sealing, owner=self.owner, actor=ACTOR)
        self.operations = OperationStore(self.inventory, self.sealing, owner=self.owner, actor=ACTOR)
        self.flows: dict[str, CsmsCertificateFlow] = {}
        self.outstanding: dict[str, Outstanding] = {}
        self.delivered: dict[str, tuple[datetime, str]] = {}
        self.refused: dict[str, tuple[datetime, str]] = {}

    def carry_on(self) -> None:
        """Look at the campaigns once, as their runner does."""
        fence = self.inventory.write(
            lambda tx: tx.take_leadership(ROLE, owner=self.owner, until=self.now + _LEASE, now=self.now)
        )
        if fence is None:
            return
        for campaign in self.inventory.list_campaigns(open_only=True):
            steps = next_campaign_steps(self.campaigns.view(campaign, self.now), self.now)
            if steps:
                self.campaigns.perform(campaign, steps, fence=fence, now=self.now)

    def work_on(self, name: str) -> None:
        """Do the next step of the station's operation, as their runner does."""
        link = self.links.get(name)
        if link is None or any(each.operation is not None for each in self._waited_for(name)):
            return
        operation = self.operations.lease(name, self.now, duration=_LEASE)
        if operation is None:
            return
        snapshot = self.operations.snapshot(
            operation, version=link.version, security_profile=3, sent_here=operation.id in link.attempted,
            profile="ocpp/charging-station", now=self.now,
        )  # fmt: skip
        if snapshot.attempts:
            since = snapshot.attempts[0].sent_at
            snapshot = replace(
                snapshot, delivered=_since(self.delivered, name, since), refusal=_since(self.refused, name, since)
            )
        step = next_step(snapshot, self.now)
        match step:
            case Finish():
                self.operations.finish(operation, step, self.now)
            case SendAttempt():
                attempt = self.operations.begin_attempt(operation, step, self.now)
                if operation.id in link.attempted and self.now < snapshot.attempts[-1].sent_at + _PATIENCE:
                    self.hasty.append((operation, self.now))
                link.attempted.add(operation.id)
                self._call(name, step.action, step.payload, operation=operation, attempt=attempt)
            case Wait():
                self.operations.mark(operation, step)
            case AskReconnect():
                self.disconnect(name)

    def _waited_for(self, name: str) -> list[Outstanding]:
        number = self.links[name].number if name in self.links else -1
        return [each for each in self.outstanding.values() if each.connection == number]

    def _call(self, name: str, action: str, payload: Mapping[str, object], **waiting: Any) -> None:
        link = self.links[name]
        self.numbers += 1
        call = f"c{self.numbers}"
        self.outstanding[call] = Outstanding(link.number, **waiting)
        self.messages.append(Message(name, link.number, True, action, dict(payload), id=call))

    def time_out(self, call: str) -> None:
        """Give up waiting for the answer to a CALL."""
        waiting = self.outstanding.pop(call)
        name = next((name for name, link in self.links.items() if link.number == waiting.connection), None)
        self._answered(name, waiting, None)

    def _answered(self, name: str | None, waiting: Outstanding, payload: Mapping[str, Any] | None) -> None:
        if waiting.operation is not None and waiting.attempt is not None:
            station = self.stations[waiting.operation.station]
            answer = read_answer(waiting.operation, station.version, payload)
            with contextlib.suppress(Conflict):  # another process has the lease now
                self.operations.record_answer(waiting.operation, waiting.attempt, answer, self.now)
        elif waiting.order is not None and waiting.order.station in self.flows:
            status = None if payload is None else str(payload["status"])
            flow = self.flows[waiting.order.station]
            self._perform(waiting.order.station, flow.answered(waiting.order, status, self.now))

    # --- certificates ------------------------------------------------------------------------------------------------

    def _flow(self, name: str) -> CsmsCertificateFlow:
        """Return the flow of the station, under the CA that signs for it now."""
        terms = self.inventory.find_station_terms(name)
        plans = plans_for(PLANS, terms.issue)
        flow = self.flows.get(name)
        if flow is None or flow.plans != plans:
            made = CsmsCertificateFlow(
                self.stations[name].version, self.inventory.get_station(name), plans, max_requests_per_hour=1000
            )
            if flow is not None:
                made.take_over(flow)
            self.flows[name] = flow = made
        return flow

    def _perform(self, name: str, effects: Sequence[CsmsEffect]) -> None:
        queue = list(effects)
        flow = self._flow(name)
        while queue:
            effect = queue.pop(0)
            match effect:
                case Issue(order):
                    queue += self._issue(flow, order)
                case SendCall():
                    queue += self._send(name, flow, effect)
                case MarkDelivered(_, certificate):
                    self.delivered[name] = (self.now, certificate)
                    self._mark(certificate, Delivery.DELIVERED)
                case MarkUndelivered(_, certificate, _, revoke):
                    self._mark(certificate, Delivery.UNDELIVERED, revoke)
                case MarkSuperseded(_, certificate):
                    self._mark(certificate, Delivery.SUPERSEDED)
                case MarkUnknown(_, certificate, why, final):
                    if final:
                        self.inventory.write(
                            lambda tx, id=certificate, why=why: give_up(tx, id, why, actor=ACTOR, now=self.now)  # type: ignore[misc]  # mypy cannot infer defaults
                        )
                case RecordRefusal():
                    self.refused[name] = (self.now, effect.what)

    def _issue(self, flow: CsmsCertificateFlow, order: SigningOrder) -> list[CsmsEffect]:
        try:
            issued = self.authority.issue(
                IssueOrder(
                    ca=order.plan.ca, profile=order.plan.profile, csr=order.request.der,
                    subject_defaults=order.subject_defaults, station=order.station, must_deliver=True,
                    delivery=delivery_note(order, flow.version), requester=order.station,
                )
            )  # fmt: skip
        except ChargePkiError as error:
            return flow.refused(order, error, self.now)
        known = issued.record.delivery is not Delivery.PENDING or was_attempted(issued.record)
        return flow.issued(order, issued.chain, self.now, certificate_id=issued.record.id, known_to_station=known)

    def _send(self, name: str, flow: CsmsCertificateFlow, effect: SendCall) -> list[CsmsEffect]:
        order = effect.order
        assert order is not None
        if name not in self.links:
            return flow.not_sent(order, self.now)
        begun = self.inventory.write(
            lambda tx: begin_delivery(
                tx, effect.certificate_id, order, flow.version, resumed=effect.resumed, actor=ACTOR, now=self.now
            )
        )
        if not begun:
            return flow.withdrawn(order, self.now)
        self._call(name, effect.action, effect.payload, order=order)
        return []

    def _mark(self, certificate: str, delivery: Delivery, revoke: str | None = None) -> None:
        def work(tx: Transaction) -> None:
            record = tx.get_certificate(certificate)
            if record.delivery is Delivery.IN_USE:
                return
            tx.set_delivery(certificate, delivery)
            tx.audit(ACTOR, f"certificate.{delivery.value}", certificate, now=self.now)
            if revoke is not None and record.state is CertificateState.ISSUED:
                tx.revoke_certificate(certificate, self.now, revoke)
                tx.audit(ACTOR, "certificate.revoke", certificate, now=self.now)

        self.inventory.write(work)

    # --- connections -------------------------------------------------------------------------------------------------

    def connect(self, name: str) -> None:
        """Let the station connect with the certificate that it would take."""
        if name in self.links:
            return
        station = self.stations[name]
        used = station.flow.client_certificate(self.now)
        assert used is not None, f"{name} has no certificate"
        record = self.inventory.find_certificate_by_sha256(used.sha256)
        if record is None or record.state is not CertificateState.ISSUED:
            station.flow.connection_failed(used.sha256, self.now)
            return
        self.numbers += 1
        link = Link(
            f"l{self.numbers}",
            self.numbers,
            self.inventory.get_station(name),
            station.version,
            record,
            self.now,
            self.owner,
        )
        services: Any = SimpleNamespace(config=SimpleNamespace(owner=self.owner))
        stub: Any = link
        welcome = self.inventory.write(lambda tx: arrive(tx, services, stub, self.now))
        if welcome is not Arrival.WELCOME:
            station.flow.connection_failed(used.sha256, self.now)
            return
        self.links[name] = link
        self.proven.setdefault(name, set()).add(record.id)
        self._say(name, station.store(station.flow.connected(used.sha256, self.now)))
        pending = list_pending(self.inventory, name, PLANS, self.now)
        self._perform(name, self._flow(name).reconnected(pending, self.now, certificate_id=record.id))

    def disconnect(self, name: str) -> None:
        """Break the connection; what was on its way to the CSMS is lost, what was meant for the station may not be."""
        link = self.links.pop(name, None)
        if link is None:
            return
        stub: Any = link
        self.inventory.write(lambda tx: depart(tx, stub, self.now))
        self._drop_frames(name)
        for call, waiting in list(self.outstanding.items()):
            if waiting.connection == link.number:
                del self.outstanding[call]
                self._answered(name, waiting, None)

    def _drop_frames(self, name: str) -> None:
        self.messages = [each for each in self.messages if each.station != name or each.to_station]

    def _say(self, name: str, requests: Sequence[SendRequest]) -> None:
        link = self.links.get(name)
        for each in requests:
            if link is None:
                # What cannot be sent stays in the store, and goes out again by its timer.
                self.stations[name].flow.sign_answered(each.request, None, self.now)
                continue
            self.numbers += 1
            call = f"s{self.numbers}:{each.request.number}"
            self.messages.append(Message(name, link.number, False, each.action, dict(each.payload), id=call))

    # --- messages ----------------------------------------------------------------------------------------------------

    def next_of(self, name: str) -> Message | None:
        """Take the oldest frame on its way to or from the station off the network."""
        found = next((each for each in self.messages if each.station == name), None)
        if found is not None:
            self.messages.remove(found)
        return found

    def deliver(self, message: Message) -> None:
        """Let one message arrive; it has been taken off the network already."""
        if message.to_station:
            self._at_station(message)
        else:
            self._at_csms(message)

    def _at_station(self, message: Message) -> None:
        station, link = self.stations[message.station], self.links.get(message.station)
        if message.answers is not None:
            request = station.pending.get(int(message.answers.partition(":")[2]))
            if request is not None:
                status = str(message.payload["status"])
                self._say(station.id, station.store(station.flow.sign_answered(request, status, self.now)))
            return
        if message.action == "CertificateSigned":
            answer, effects = station.flow.certificate_signed(message.payload, self.now)
        else:
            answer, effects = station.flow.triggered(message.action, message.payload, self.now)
        requests = station.store(effects) + station.make_keys(effects, self.now)
        if link is not None and link.number == message.connection:
            self.messages.append(Message(station.id, link.number, False, message.action, answer, answers=message.id))
        self._say(station.id, requests)

    def _at_csms(self, message: Message) -> None:
        link = self.links.get(message.station)
        if link is None or link.number != message.connection:
            return
        if message.answers is not None:
            waiting = self.outstanding.pop(message.answers, None)
            if waiting is not None:
                self._answered(message.station, waiting, message.payload)
            return
        answer, effects = self._flow(message.station).sign_requested(message.payload, self.now)
        reply = Message(message.station, link.number, True, message.action, answer, answers=message.id)
        self.messages.append(reply)
        self._perform(message.station, effects)

    def tick(self, span: timedelta) -> None:
        """Let time pass; the stations' timers run, and who is connected says so."""
        self.now += span
        for station in self.stations.values():
            effects = station.flow.due(self.now)
            self._say(station.id, station.store(effects) + station.make_keys(effects, self.now))
        for name, link in self.links.items():
            # Its Heartbeats, without which it counts as gone.
            self.inventory.write(lambda tx, name=name, id=link.id: tx.touch_presence(name, id, now=self.now))  # type: ignore[misc]  # mypy cannot infer defaults
        self.operations.expire_due(self.now)

    def campaign(self) -> CampaignRecord | None:
        """Return the campaign that is open, if any."""
        return next(iter(self.inventory.list_campaigns(open_only=True)), None)


def _since(known: Mapping[str, tuple[datetime, str]], name: str, since: datetime) -> str | None:
    at, told = known.get(name, (None, ""))
    return told if at is not None and at >= since else None
