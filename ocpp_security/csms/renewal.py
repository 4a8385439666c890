"""Carry out what the certificate flow asks for: have the CA sign, deliver, and record the station's verdict."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chargepki.ocpp_security.csms.embedding import CertificateFate, CertificateNews, Embedding
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.services import Services, station_actor
from chargepki.ocpp_security.deliveries import begin_delivery, delivery_note, give_up, list_pending, was_attempted
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply
from chargepki.ocpp_security.rpc import Origin
from chargepki.ocpp_security.sign_certificate import (
    CsmsEffect,
    Issue,
    IssuePlan,
    MarkDelivered,
    MarkSuperseded,
    MarkUndelivered,
    MarkUnknown,
    RecordRefusal,
    SendCall,
    SigningOrder,
)
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.station_chain import chain_for_station, root_use_of
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, WireCall, read_status, unwrap_answer
from chargepki.pki.authority import IssuedCertificate, IssueOrder
from chargepki.pki.errors import ChargePkiError, InputError, StateError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import CertificateState, Delivery, StationRecord

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["Renewal", "Renewals"]

_log = logging.getLogger("chargepki.csms")
_ANSWER_SECONDS = 5.0
"""How long a certificate waits for the answer to its request to be written; then that connection is gone."""


class Renewals:
    """The certificate flow of each station, kept across its reconnects; the least recently used go first."""

    def __init__(self, *, max_stations: int = 20_000) -> None:
        self._max_stations = max_stations
        self._renewals: OrderedDict[str, Renewal] = OrderedDict()
        self.waiting: set[asyncio.Task[None]] = set()
        """Tasks that wait for the CA. Cancelling them loses nothing: the inventory remembers their orders."""

    def renewal_for(
        self,
        services: Services,
        station: StationRecord,
        version: OcppVersion,
        plans: Mapping[CertificateUse, IssuePlan],
    ) -> Renewal:
        """Return the renewal of *station*, a new one when its OCPP version or its plans have changed."""
        renewal = self._renewals.get(station.id)
        if renewal is None or renewal.flow.version is not version or renewal.flow.plans != plans:
            flow = CsmsCertificateFlow(version, station, plans, revoke_refused=services.config.revoke_refused)
            if renewal is not None:
                flow.take_over(renewal.flow)
            renewal = Renewal(services, flow)
        # The record may have been corrected since; the next CSR is judged by what it says now.
        renewal.flow.station = station
        self._renewals[station.id] = renewal
        self._renewals.move_to_end(station.id)
        if len(self._renewals) > self._max_stations:
            self._renewals.popitem(last=False)
        return renewal


class Renewal:
    """The certificate flow of one station. Issuance goes on when its connection drops, and is delivered on the next.

    What was accepted is in the inventory before the station is told so: as a queued request, then as a certificate
    with delivery ``pending``. So the flow may be lost with its process at any point; the next one reads them back.
    """

    def __init__(self, services: Services, flow: CsmsCertificateFlow) -> None:
        self.flow = flow
        self.embedding: Embedding | None = None
        """Of the station's latest connection: who is told what becomes of certificates."""
        self._services = services
        self._delivered: dict[CertificateUse, tuple[datetime, str]] = {}
        self._refused: dict[CertificateUse, tuple[datetime, str]] = {}

    async def sign_requested(self, payload: dict[str, Any], now: datetime, *, allowed: bool = True) -> Reply:
        """Answer a SignCertificate request once it is durable; the CA signs afterwards (A02.FR.11, A02.FR.04).

        Args:
            allowed: see `CsmsCertificateFlow.sign_requested`.
        """
        answer, effects = self.flow.sign_requested(payload, now, allowed=allowed)
        order = next((effect.order for effect in effects if isinstance(effect, Issue)), None)
        ticket: asyncio.Future[IssuedCertificate] | None = None
        if order is not None:
            _log.info("%s: CSR for a %s received", self.flow.station.id, order.use.value)
            try:
                ticket = await self._services.issuer.submit(self._issue_order(order))
            except ChargePkiError as exc:
                effects = [effect for effect in effects if not isinstance(effect, Issue)]
                effects += self.flow.refused(order, exc, self._services.clock())
                # A 2.x station whose request was accepted asks again when nothing comes (A02.FR.17), one whose request
                # was rejected does not. In 1.6 nobody asks again: then the truth serves the operator best.
                if self.flow.version is OcppVersion.V16:
                    answer = {"status": "Rejected"}
        answered = asyncio.Event()
        # Not left to `then`: a connection that ends before its answer is written must not end the order.
        task = self._services.background.spawn(
            self._follow(effects, ticket, answered), f"certificate flow of {self.flow.station.id}"
        )
        if ticket is not None:
            self._services.renewals.waiting.add(task)
            ticket.add_done_callback(lambda _: self._services.renewals.waiting.discard(task))

        async def then() -> None:
            answered.set()

        return Reply(answer, then)

    def delivered_since(self, use: CertificateUse, since: datetime) -> str | None:
        """Return the certificate that the station accepted last, if that was not before *since*."""
        at, certificate_id = self._delivered.get(use, (None, ""))
        return certificate_id if at is not None and at >= since else None

    def refused_since(self, use: CertificateUse, since: datetime) -> str | None:
        """Return why the station's last CSR was refused, if that was not before *since*."""
        at, why = self._refused.get(use, (None, ""))
        return why if at is not None and at >= since else None

    def reconnected(self, connection: StationConnection) -> None:
        """Deliver what the inventory has for the station of *connection*, whichever process it was accepted by."""
        arrived = connection.certificate.id if connection.certificate is not None else None
        self._spawn(self._take_up(arrived, again=True))

    def noticed(self) -> None:
        """Deliver what was issued for the station in the inventory, unless somebody here waits for it."""
        self._spawn(self._take_up(None, again=False))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._services.background.spawn(work, f"certificate flow of {self.flow.station.id}")

    async def _take_up(self, arrived: str | None, *, again: bool) -> None:
        services = self._services
        pending = await services.offload.read(
            lambda: list_pending(
                services.inventory,
                self.flow.station.id,
                self.flow.plans,
                services.clock(),
                chain_limit=self.flow.chain_limit,
            )
        )
        if again:
            await self.perform(self.flow.reconnected(pending, services.clock(), certificate_id=arrived))
        else:
            await self.perform(self.flow.noticed(pending, services.clock()))

    async def _follow(
        self, effects: Sequence[CsmsEffect], ticket: asyncio.Future[IssuedCertificate] | None, answered: asyncio.Event
    ) -> None:
        # The certificate must not overtake the answer to its request.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await answered.wait()
        await self.perform(effects, ticket)

    async def perform(
        self, effects: Sequence[CsmsEffect], ticket: asyncio.Future[IssuedCertificate] | None = None
    ) -> None:
        """Carry out *effects* and whatever follows from them, in order.

        Args:
            ticket: brings the certificate of the order in *effects* that is to be issued.
        """
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            match effect:
                case Issue():
                    assert ticket is not None, "an order was submitted before it came here"
                    queue += await self._issued(effect.order, ticket)
                case SendCall():
                    queue += await self._send(effect)
                case MarkDelivered():
                    self._delivered[effect.order.use] = (self._services.clock(), effect.certificate_id)
                    _log.info("%s: certificate %s delivered", self.flow.station.id, effect.certificate_id)
                    await self._mark(effect.certificate_id, Delivery.DELIVERED, "the station accepted it")
                    self._tell(CertificateFate.DELIVERED, effect.order.use, effect.certificate_id)
                case MarkUndelivered():
                    await self._mark(effect.certificate_id, Delivery.UNDELIVERED, effect.why, revoke=effect.revoke)
                    cause = f"certificate {effect.certificate_id} was not taken: {effect.why}"
                    self._note("certificate-undelivered", cause, "trigger the renewal again", "CertificateUndelivered")
                    self._tell(CertificateFate.UNDELIVERED, effect.order.use, effect.certificate_id, effect.why)
                case MarkSuperseded():
                    await self._mark(effect.certificate_id, Delivery.SUPERSEDED, "the station asked for another one")
                    self._tell(CertificateFate.SUPERSEDED, effect.order.use, effect.certificate_id)
                case MarkUnknown():
                    await self._mark_unknown(effect)
                    self._tell(CertificateFate.UNKNOWN, effect.order.use, effect.certificate_id, effect.why)
                case RecordRefusal():
                    await self._record_refusal(effect)
                    self._tell(CertificateFate.REFUSED, effect.use, None, effect.what)

    def _issue_order(self, order: SigningOrder) -> IssueOrder:
        return IssueOrder(
            ca=order.plan.ca,
            profile=order.plan.profile,
            csr=order.request.der,
            subject_defaults=order.subject_defaults,
            station=order.station,
            must_deliver=True,
            delivery=delivery_note(order, self.flow.version),
            requester=order.station,
        )

    async def _issued(self, order: SigningOrder, ticket: asyncio.Future[IssuedCertificate]) -> Sequence[CsmsEffect]:
        clock = self._services.clock
        try:
            issued = await ticket
        except ChargePkiError as exc:
            return self.flow.refused(order, exc, clock())
        record = issued.record
        _log.info("%s: certificate %s issued for its CSR", self.flow.station.id, record.id)
        known = record.delivery is not Delivery.PENDING or was_attempted(record)
        chain = await self._chain_for(order, issued)
        return self.flow.issued(order, chain, clock(), certificate_id=record.id, known_to_station=known)

    async def _chain_for(self, order: SigningOrder, issued: IssuedCertificate) -> Sequence[bytes]:
        """Return the chain that the station can verify by the roots that it holds."""
        services = self._services
        try:
            return await services.offload.read(
                lambda: chain_for_station(
                    services.inventory,
                    issued.chain,
                    ca_id=issued.record.ca,
                    station=order.station,
                    use=root_use_of(order.use),
                    now=services.clock(),
                    max_characters=self.flow.chain_limit,
                )
            )
        except ChargePkiError as exc:
            # The certificate is issued and must not be lost for the sake of its chain: the usual one goes out.
            _log.warning("%s: the chain could not be chosen: %s", order.station, exc)
            return issued.chain

    async def _send(self, effect: SendCall) -> Sequence[CsmsEffect]:
        services, order = self._services, effect.order
        status: str | None = None
        connection = services.registry.find(self.flow.station.id)
        try:
            if connection is None or connection.link.is_closing or connection.version is not self.flow.version:
                raise CallUnanswered(effect.action, sent=False)
            if order is not None and not await connection.may_be_certified():
                connection.note_unsecured(effect.action)
                raise CallUnanswered(effect.action, sent=False)
            if order is not None and not await self._begin(effect, order):
                cause = f"certificate {effect.certificate_id} is not sent: it was revoked, has expired, or is settled"
                self._note("delivery-withdrawn", cause, "", None)
                return self.flow.withdrawn(order, services.clock())
            answer = await connection.call(effect.action, effect.payload, consented=order is not None)
            status = read_status(unwrap_answer(WireCall(effect.action, effect.payload), answer))
        except CallRefused as exc:
            # An answer that we could not read proves nothing about what the station did.
            status = exc.rpc_code if exc.origin is Origin.PEER else None
        except (InputError, StateError) as exc:
            _log.warning("%s: %s cannot be sent: %s", self.flow.station.id, effect.action, exc)
            return [] if order is None else self.flow.not_sent(order, services.clock())
        except CallUnanswered as exc:
            if order is not None and not exc.sent:
                effects = self.flow.not_sent(order, services.clock())
                return [*effects, *self._missed(connection)]
        if order is None:
            return []
        effects = self.flow.answered(order, status, services.clock())
        return effects if status is not None else [*effects, *self._missed(connection)]

    def _missed(self, connection: StationConnection | None) -> Sequence[CsmsEffect]:
        """Look again when the station has come back while the CALL was on its way over its old connection."""
        current = self._services.registry.find(self.flow.station.id)
        if current is not None and current is not connection and current.is_ready and current.renewal is self:
            self.reconnected(current)
        return ()

    async def _begin(self, effect: SendCall, order: SigningOrder) -> bool:
        services, now = self._services, self._services.clock()
        return await services.offload.run(
            services.inventory.write,
            lambda tx: begin_delivery(
                tx,
                effect.certificate_id,
                order,
                self.flow.version,
                resumed=effect.resumed,
                actor=services.actor,
                now=now,
            ),
        )

    async def _mark_unknown(self, effect: MarkUnknown) -> None:
        services, now = self._services, self._services.clock()
        cause = f"whether certificate {effect.certificate_id} arrived is not known: {effect.why}"
        if not effect.final:
            self._note("delivery-unknown", cause, "it is sent again when the station reconnects or asks", None)
            return
        self._note("delivery-unknown", cause, "trigger the renewal again unless the station comes in with it", None)
        await services.offload.run(
            services.inventory.write,
            lambda tx: give_up(tx, effect.certificate_id, effect.why, actor=services.actor, now=now),
        )

    async def _mark(self, certificate_id: str, delivery: Delivery, why: str, *, revoke: str | None = None) -> None:
        services, now = self._services, self._services.clock()
        actor = station_actor(self.flow.station.id)

        def work(tx: Transaction) -> None:
            record = tx.get_certificate(certificate_id)
            if record.delivery is Delivery.IN_USE:
                return  # The station reconnected with it before its answer was recorded: that is the newer fact.
            tx.set_delivery(certificate_id, delivery)
            tx.audit(actor, f"certificate.{delivery.value}", certificate_id, now=now, details={"why": why})
            if revoke is not None and record.state is CertificateState.ISSUED:
                tx.revoke_certificate(certificate_id, now, revoke)
                details = {"reason": revoke, "why": why}
                tx.audit(services.actor, "certificate.revoke", certificate_id, now=now, details=details)

        await services.offload.run(services.inventory.write, work)

    async def _record_refusal(self, refusal: RecordRefusal) -> None:
        services, now = self._services, self._services.clock()
        if refusal.use is not None:
            self._refused[refusal.use] = (now, refusal.what)
        use = refusal.use.value if refusal.use is not None else "?"
        cause = f"CSR for {use} refused: {refusal.what}" + (f" ({refusal.why})" if refusal.why else "")
        # Another reason is no repetition; the clauses are few, whatever a station puts into its requests.
        if not self._note("csr-refused", cause, refusal.fix, "CertificateRequestRefused", variant=refusal.why):
            return  # A station in a loop must not fill the audit log.
        details = {"use": use, "what": refusal.what, "why": refusal.why, "fix": refusal.fix}

        def work(tx: Transaction) -> None:
            tx.audit(
                station_actor(self.flow.station.id),
                "certificate.request",
                self.flow.station.id,
                now=now,
                outcome="refused",
                details=details,
            )

        await services.offload.run(services.inventory.write, work)

    def _tell(
        self, fate: CertificateFate, use: CertificateUse | None, certificate_id: str | None, why: str = ""
    ) -> None:
        # A station that takes its certificate is gone at once, to come back with it.
        if self.embedding is not None:
            self.embedding.certificate_news(CertificateNews(fate, use, certificate_id, why))

    def _note(self, code: str, cause: str, cure: str, event: str | None, *, variant: str = "") -> bool:
        incident = Incident(code, cause, cure, event, variant)
        connection = self._services.registry.find(self.flow.station.id)
        peer = connection.peer if connection is not None else "offline"
        return self._services.journal.note(incident, station=self.flow.station.id, peer=peer)
