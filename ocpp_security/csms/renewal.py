"""Carry out what the certificate flow asks for: have the CA sign, deliver, and record the station's verdict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.services import Services, station_actor
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply
from chargepki.ocpp_security.rpc import Origin
from chargepki.ocpp_security.sign_certificate import (
    CsmsEffect,
    Issue,
    MarkDelivered,
    MarkUndelivered,
    MarkUnknown,
    RecordRefusal,
    SendCall,
    SigningOrder,
)
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.authority import IssueOrder
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import CertificateState, Delivery, StationRecord

__all__ = ["Renewal", "Renewals"]


class Renewals:
    """The certificate flow of each station, kept across its reconnects; the least recently used go first."""

    def __init__(self, *, max_stations: int = 20_000) -> None:
        self._max_stations = max_stations
        self._renewals: OrderedDict[str, Renewal] = OrderedDict()

    def renewal_for(self, services: Services, station: StationRecord, version: OcppVersion) -> Renewal:
        """Return the renewal of *station*, a new one when its OCPP version has changed."""
        renewal = self._renewals.get(station.id)
        if renewal is None or renewal.flow.version is not version:
            renewal = Renewal(services, CsmsCertificateFlow(version, station, services.config.plans))
        # The record may have been corrected since; the next CSR is judged by what it says now.
        renewal.flow.station = station
        self._renewals[station.id] = renewal
        self._renewals.move_to_end(station.id)
        if len(self._renewals) > self._max_stations:
            self._renewals.popitem(last=False)
        return renewal


class Renewal:
    """The certificate flow of one station. Issuance goes on when its connection drops, and is delivered on the next."""

    def __init__(self, services: Services, flow: CsmsCertificateFlow) -> None:
        self.flow = flow
        self._services = services
        self._delivered: dict[CertificateUse, tuple[datetime, str]] = {}
        self._refused: dict[CertificateUse, tuple[datetime, str]] = {}

    def sign_requested(self, payload: dict[str, Any], now: datetime) -> Reply:
        """Answer a SignCertificate request at once; the CA is asked after the answer is on its way (A02.FR.11)."""
        answer, effects = self.flow.sign_requested(payload, now)

        async def then() -> None:
            self.start(effects)

        return Reply(answer, then)

    def delivered_since(self, use: CertificateUse, since: datetime) -> str | None:
        """Return the certificate that the station accepted last, if that was not before *since*."""
        at, certificate_id = self._delivered.get(use, (None, ""))
        return certificate_id if at is not None and at >= since else None

    def refused_since(self, use: CertificateUse, since: datetime) -> str | None:
        """Return why the station's last CSR was refused, if that was not before *since*."""
        at, why = self._refused.get(use, (None, ""))
        return why if at is not None and at >= since else None

    def start(self, effects: Sequence[CsmsEffect]) -> None:
        """Carry out *effects* in the background."""
        if effects:
            what = f"certificate flow of {self.flow.station.id}"
            self._services.background.spawn(self.perform(effects), what)

    def reconnected(self, certificate_id: str | None) -> None:
        """Deliver what could not be delivered on an earlier connection."""
        self.start(self.flow.reconnected(self._services.clock(), certificate_id=certificate_id))

    async def perform(self, effects: Sequence[CsmsEffect]) -> None:
        """Carry out *effects* and whatever follows from them, in order."""
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            match effect:
                case Issue():
                    queue += await self._issue(effect.order)
                case SendCall():
                    queue += await self._send(effect)
                case MarkDelivered():
                    self._delivered[effect.order.use] = (self._services.clock(), effect.certificate_id)
                    await self._mark(effect.certificate_id, Delivery.DELIVERED, "the station accepted it")
                case MarkUndelivered():
                    await self._mark(effect.certificate_id, Delivery.UNDELIVERED, effect.why, revoke=effect.revoke)
                    cause = f"certificate {effect.certificate_id} was not taken: {effect.why}"
                    self._note("certificate-undelivered", cause, "trigger the renewal again", "CertificateUndelivered")
                case MarkUnknown():
                    cause = f"whether certificate {effect.certificate_id} arrived is not known: {effect.why}"
                    self._note("delivery-unknown", cause, "it is sent again when the station reconnects or asks", None)
                case RecordRefusal():
                    await self._record_refusal(effect)

    async def _issue(self, order: SigningOrder) -> Sequence[CsmsEffect]:
        services = self._services
        try:
            issued = await services.issuer.issue(
                IssueOrder(
                    ca=order.plan.ca,
                    profile=order.plan.profile,
                    csr=order.request.der,
                    subject_defaults=order.subject_defaults,
                    station=order.station,
                    must_deliver=True,
                    requester=order.station,
                )
            )
        except ChargePkiError as exc:
            return self.flow.refused(order, exc, services.clock())
        return self.flow.issued(order, issued.chain, services.clock(), certificate_id=issued.record.id)

    async def _send(self, effect: SendCall) -> Sequence[CsmsEffect]:
        services, order = self._services, effect.order
        status: str | None = None
        connection = services.registry.find(self.flow.station.id)
        try:
            if connection is None:
                raise CallUnanswered(effect.action, sent=False)
            answer = await connection.call(effect.action, effect.payload)
            status = str(answer.get("status"))
        except CallRefused as exc:
            # An answer that we could not read proves nothing about what the station did.
            status = exc.rpc_code if exc.origin is Origin.PEER else None
        except CallUnanswered as exc:
            if order is not None and not exc.sent:
                return self.flow.not_sent(order, services.clock())
        return [] if order is None else self.flow.answered(order, status, services.clock())

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

    def _note(self, code: str, cause: str, cure: str, event: str | None, *, variant: str = "") -> bool:
        incident = Incident(code, cause, cure, event, variant)
        connection = self._services.registry.find(self.flow.station.id)
        peer = connection.peer if connection is not None else "offline"
        return self._services.journal.note(incident, station=self.flow.station.id, peer=peer)
