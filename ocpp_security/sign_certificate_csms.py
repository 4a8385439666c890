"""A02/A03 on the CSMS: a CSR is judged, ordered, delivered, and the station's verdict taken (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.request_judge import RequestJudge
from chargepki.ocpp_security.sign_certificate import (
    CsmsEffect,
    Issue,
    IssuePlan,
    MarkDelivered,
    MarkSuperseded,
    MarkUndelivered,
    MarkUnknown,
    Payload,
    PendingDelivery,
    Place,
    RecordRefusal,
    SendCall,
    SigningOrder,
    is_unprocessed,
    place_of,
)
from chargepki.ocpp_security.signed_chain import chain_to_send
from chargepki.ocpp_security.unsecured import refuse_request
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import (
    CertificateUse,
    CsrReceived,
    WireCall,
    build_certificate_signed,
    build_trigger,
    max_chain_characters,
    parse_sign_certificate,
    status_answer,
    supports_use,
)
from chargepki.pki.errors import ChargePkiError, InputError, printable
from chargepki.pki.inventory.records import StationRecord

__all__ = ["CsmsCertificateFlow"]

_REMEMBERED = 16
"""Certificates whose fate was reported last: the inventory may still show them as pending for an instant."""


class _Phase(StrEnum):
    ISSUING = "issuing"
    READY = "ready"
    """Issued; no CALL is on its way."""
    SENT = "sent"
    UNANSWERED = "unanswered"


_AT_REST = frozenset({_Phase.READY, _Phase.UNANSWERED})


@dataclass(slots=True)
class _Entry:
    order: SigningOrder
    phase: _Phase = _Phase.ISSUING
    chain_pem: str = ""
    certificate_id: str = ""
    doubtful: bool = False
    """An earlier CALL stayed unanswered: a later Rejected may mean "I have it already"."""
    replaced: bool = False
    """The station has asked for another one since."""
    resumed: bool = False
    """Taken from the inventory; the CSR came to another process, or on an earlier connection."""


class CsmsCertificateFlow:
    """The certificate flow of one station; keep it across reconnects of that station.

    The inventory is what remembers: a flow that begins empty takes up every delivery that is pending there. One
    request is open per use, and per SeccId of V2G leaves: the same CSR again continues it, another one replaces it. The
    flow never blocks a later request, nor delivers a certificate for a key that was not asked for, in whatever order.
    """

    def __init__(
        self,
        version: OcppVersion,
        station: StationRecord,
        plans: Mapping[CertificateUse, IssuePlan],
        *,
        station_chain_characters: int | None = None,
        revoke_refused: str | None = "cessationOfOperation",
        max_requests_per_hour: int = 60,
    ) -> None:
        """Set up the flow.

        Args:
            station_chain_characters: the station's MaxCertificateChainSize (1.6: CertificateSignedMaxChainSize), when
                known; the schema's own limit (10000) always holds.
            revoke_refused: RFC 5280 reason under which a certificate that never reached use is revoked; ``None``
                leaves it marked undelivered.
            max_requests_per_hour: new CSRs (not repeats) that are accepted from this station, all uses together.
        """
        self.version = version
        self.station = station
        limit = max_chain_characters(version)
        self._max_chain = limit if station_chain_characters is None else min(limit, station_chain_characters)
        self._judge = RequestJudge(station, plans, max_requests_per_hour)
        self._revoke_refused = revoke_refused
        self._entries: dict[str, _Entry] = {}
        self._open: dict[Place, str] = {}
        self._count = 0
        # A list and not a deque: it is short, and there are ten thousand flows.
        self._settled: list[str] = []

    @property
    def plans(self) -> Mapping[CertificateUse, IssuePlan]:
        """By which CA and profile each use is signed now."""
        return self._judge.plans

    @property
    def chain_limit(self) -> int:
        """Characters of PEM that the station takes as a chain (A02.FR.16)."""
        return self._max_chain

    def trigger(self, use: CertificateUse, *, evse_id: int | None = None) -> SendCall:
        """Return the CALL that asks the station to renew its certificate of *use*.

        Raises:
            InputError: this version has no trigger for it.
            OcppRefusal: no CA is planned for it.

        Clause: A02 (1.6: ExtendedTriggerMessage), A02.FR.22, A02.FR.23.
        """
        self._judge.plan_for(use)
        call = build_trigger(self.version, use, evse=evse_id)
        return SendCall(call.action, call.payload)

    def replan(self, plans: Mapping[CertificateUse, IssuePlan]) -> None:
        """Have later requests signed under *plans*; what was ordered already stays as it is."""
        self._judge.replan(plans)

    def take_over(self, previous: CsmsCertificateFlow) -> None:
        """Go on counting where *previous* stopped: another OCPP version is no way round the limit of requests."""
        self._judge.take_over(previous._judge)

    def open_order(self, use: CertificateUse) -> SigningOrder | None:
        """Return the order that is open for *use*, if any; the oldest of several V2G leaves."""
        order_id = next((self._open[place] for place in self._open if place[0] is use), None)
        return self._entries[order_id].order if order_id is not None else None

    def sign_requested(
        self, payload: Payload, now: datetime, *, allowed: bool = True
    ) -> tuple[Payload, list[CsmsEffect]]:
        """Judge a SignCertificate request (schema-checked) and return the answer and what to do after sending it.

        Args:
            allowed: false for one that came over a connection without TLS, which nobody has allowed: it is refused.

        Clause: A02.FR.11, A02.FR.12 (answer), A02.FR.03 (PKCS#10 in PEM), A02.FR.04 (the CA signs, not the CSMS),
        A02.FR.25 (requestId), 1.6 A02.FR.13 (O).
        """
        _require_aware(now)
        use: CertificateUse | None = None
        words = self.version
        try:
            received = parse_sign_certificate(self.version, payload)
            words = self.version if received.dialect is None else OcppVersion.V201
            use = self._judge.use_planned(received.use)
            if not allowed:
                raise refuse_request(self.station.id)
            request = self._judge.judge(received.csr, use)
            open_entry = self._find_open(place_of(use, request))
            if open_entry is None or open_entry.order.request.der != request.der:
                self._judge.check_rate(now)
        except OcppRefusal as error:
            # Every refusal below is a status; a CALLERROR would be the RPC layer's.
            told = error.answer if isinstance(error.answer, StatusAnswer) else StatusAnswer("Rejected")
            refusal = RecordRefusal(use, error.what, error.why, error.fix)
            return status_answer(words, told), [refusal]
        if open_entry is not None and open_entry.order.request.der == request.der:
            return {"status": "Accepted"}, self._repeat(open_entry, received, now)
        place = place_of(use, request)
        effects = self._replace_open(place)
        self._count += 1
        order = SigningOrder(
            id=f"{self.station.id}/{self._count}",
            station=self.station.id,
            use=use,
            plan=self._judge.plan_for(use),
            request=request,
            subject_defaults=self._judge.defaults(use),
            received_at=now,
            typed=_is_typed(received),
            request_id=received.request_id,
            dialect=received.dialect,
        )
        self._entries[order.id] = _Entry(order)
        self._open[place] = order.id
        self._judge.count(now)
        return {"status": "Accepted"}, [*effects, Issue(order)]

    def issued(
        self,
        order: SigningOrder,
        chain: Sequence[bytes],
        now: datetime,
        *,
        certificate_id: str,
        known_to_station: bool = False,
    ) -> list[CsmsEffect]:
        """Take the CA's certificate for *order* and return its delivery.

        Args:
            chain: DER, leaf first; a root at its end is left out of what is sent.
            certificate_id: the inventory's id of the leaf; comes back in the effects.
            known_to_station: the request was answered before, and the station may have that certificate.
        """
        _require_aware(now)
        entry = self._entries.get(order.id)
        if entry is None:
            return [self._undelivered(order, certificate_id, "nobody waits for this certificate")]
        if entry.phase is not _Phase.ISSUING:
            return []
        entry.certificate_id, entry.doubtful = certificate_id, known_to_station
        if certificate_id in self._settled:
            self._settled.remove(certificate_id)
        if entry.replaced:
            self._close(entry)
            return [self._given_up(entry)]
        problem = self._load_chain(entry, chain)
        if problem is not None:
            self._close(entry)
            return [self._undelivered(entry.order, certificate_id, problem)]
        return [self._deliver(entry)]

    def refused(self, order: SigningOrder, error: ChargePkiError, now: datetime) -> list[CsmsEffect]:
        """Take the CA's refusal of *order*. The station is not told (no message exists); a 2.x station asks again."""
        _require_aware(now)
        entry = self._entries.get(order.id)
        if entry is None or entry.phase is not _Phase.ISSUING:
            return []
        self._close(entry)
        return [RecordRefusal(order.use, error.what, error.why, error.fix, entry.order)]

    def answered(self, order: SigningOrder, status: str | None, now: datetime) -> list[CsmsEffect]:
        """Take the answer to the CertificateSigned of *order*.

        Args:
            status: ``Accepted`` or ``Rejected``; a CALLERROR's code; ``None`` when no answer came (time-out, lost
                connection).
        """
        _require_aware(now)
        entry = self._entries.get(order.id)
        if entry is None or entry.phase is not _Phase.SENT:
            return []
        if status == "Accepted":
            self._close(entry)
            return [MarkDelivered(entry.order, entry.certificate_id)]
        if status == "Rejected" and not entry.doubtful:
            self._close(entry)
            return [self._undelivered(entry.order, entry.certificate_id, "the station answered Rejected")]
        if status is not None and is_unprocessed(status) and not entry.doubtful:
            self._close(entry)
            return [self._undelivered(entry.order, entry.certificate_id, f"the station answered {status}")]
        if entry.replaced:
            self._close(entry)
            return [MarkSuperseded(entry.order, entry.certificate_id)]
        what = "no answer came" if status is None else f"the station answered {printable(status)[:60]}"
        # Rejected after an unanswered try proves nothing: the station may have installed it the first time, and then
        # this one was unasked.
        final = status == "Rejected"
        if final:
            self._close(entry)
        entry.phase = _Phase.UNANSWERED
        entry.doubtful = True
        return [MarkUnknown(entry.order, entry.certificate_id, what, final)]

    def not_sent(self, order: SigningOrder, now: datetime) -> list[CsmsEffect]:
        """Take the report that the CertificateSigned of *order* never left: it is delivered on the next connection."""
        _require_aware(now)
        entry = self._entries.get(order.id)
        if entry is None or entry.phase is not _Phase.SENT:
            return []
        if entry.replaced:
            self._close(entry)
            return [self._given_up(entry)]
        entry.phase = _Phase.UNANSWERED if entry.doubtful else _Phase.READY
        return []

    def withdrawn(self, order: SigningOrder, now: datetime) -> list[CsmsEffect]:
        """Take the report that the certificate of *order* may not be handed over any more: revoked, or settled."""
        _require_aware(now)
        entry = self._entries.get(order.id)
        if entry is not None and entry.phase is _Phase.SENT:
            self._close(entry)
        return []

    def reconnected(
        self, pending: Sequence[PendingDelivery], now: datetime, *, certificate_id: str | None = None
    ) -> list[CsmsEffect]:
        """Return what is to be delivered after the station connected again.

        Args:
            pending: what the inventory says now; nothing else is delivered, so nothing revoked either.
            certificate_id: the certificate that opened the connection (profile 3): it arrived, whatever was answered.
        """
        _require_aware(now)
        effects: list[CsmsEffect] = []
        known = {item.certificate_id for item in pending}
        for entry in [entry for entry in self._entries.values() if entry.phase in _AT_REST]:
            if entry.certificate_id == certificate_id:
                effects.append(MarkDelivered(entry.order, entry.certificate_id))
                self._close(entry)
            elif entry.certificate_id not in known:
                self._forget(entry)
        return effects + self._resume([item for item in pending if item.certificate_id != certificate_id], again=True)

    def noticed(self, pending: Sequence[PendingDelivery], now: datetime) -> list[CsmsEffect]:
        """Return what is to be delivered because another process issued it while the station is connected here."""
        _require_aware(now)
        return self._resume(pending, again=False)

    def _resume(self, pending: Sequence[PendingDelivery], *, again: bool) -> list[CsmsEffect]:
        effects: list[CsmsEffect] = []
        for item in sorted(pending, key=lambda item: item.received_at):
            entry = next((one for one in self._entries.values() if one.certificate_id == item.certificate_id), None)
            if entry is None and any(
                one.phase is _Phase.ISSUING and one.order.request.spki_der == item.request.spki_der
                for one in self._entries.values()
            ):
                continue  # whoever waits for it here delivers it
            if (entry is not None and entry.phase is _Phase.SENT) or (
                entry is None and item.certificate_id in self._settled
            ):
                continue
            if entry is None:
                entry = self._take_up(item)
            current = self._find_open(place_of(item.use, item.request))
            outrun = current is not None and not current.resumed and current is not entry
            if entry.replaced or item.superseded_by is not None or outrun:
                self._close(entry)
                effects.append(self._given_up(entry))
            elif item.given_up or not supports_use(self.version, item.use):
                self._close(entry)
            elif not entry.chain_pem and (problem := self._load_chain(entry, item.chain)) is not None:
                self._close(entry)
                effects.append(self._undelivered(entry.order, entry.certificate_id, problem))
            elif again or entry.phase is _Phase.READY:
                effects.append(self._deliver(entry, resumed=True))
        return effects

    def _take_up(self, item: PendingDelivery) -> _Entry:
        self._count += 1
        order = SigningOrder(
            id=f"{self.station.id}/{self._count}",
            station=self.station.id,
            use=item.use,
            plan=item.plan,
            request=item.request,
            subject_defaults={},
            received_at=item.received_at,
            typed=item.typed,
            request_id=item.request_id,
            dialect=item.dialect,
        )
        entry = _Entry(
            order, _Phase.READY, certificate_id=item.certificate_id, doubtful=item.attempts > 0, resumed=True
        )
        self._entries[order.id] = entry
        self._open.setdefault(place_of(item.use, item.request), order.id)
        return entry

    # --- entries

    def _find_open(self, place: Place) -> _Entry | None:
        order_id = self._open.get(place)
        return None if order_id is None else self._entries[order_id]

    def _repeat(self, entry: _Entry, received: CsrReceived, now: datetime) -> list[CsmsEffect]:
        """Continue with the same CSR: the newest requestId is answered, and what was lost is sent again."""
        entry.order = replace(
            entry.order,
            request_id=received.request_id,
            typed=_is_typed(received),
            dialect=received.dialect,
            received_at=now,
        )
        return [self._deliver(entry)] if entry.phase in _AT_REST else []

    def _replace_open(self, place: Place) -> list[CsmsEffect]:
        entry = self._find_open(place)
        if entry is None:
            return []
        del self._open[place]
        entry.replaced = True
        # An order that is being issued or sent stays until that is reported; only then its fate is known.
        if entry.phase not in _AT_REST:
            return []
        self._close(entry)
        return [self._given_up(entry)]

    def _given_up(self, entry: _Entry) -> CsmsEffect:
        """Return what becomes of an issued certificate that a later request has replaced."""
        if entry.doubtful:
            return MarkSuperseded(entry.order, entry.certificate_id)
        return self._undelivered(entry.order, entry.certificate_id, "the station replaced its request by another one")

    def _load_chain(self, entry: _Entry, chain: Sequence[bytes]) -> str | None:
        """Put the chain to send into *entry*, or return why it cannot be sent."""
        try:
            entry.chain_pem = chain_to_send(chain, entry.order.request.spki_der, self._max_chain)
            self._call(entry)  # the older dialect of 1.6 has less room
        except InputError as error:
            return error.what
        return None

    def _deliver(self, entry: _Entry, *, resumed: bool = False) -> SendCall:
        entry.phase = _Phase.SENT
        call = self._call(entry)
        return SendCall(call.action, call.payload, entry.order, entry.certificate_id, resumed)

    def _call(self, entry: _Entry) -> WireCall:
        order = entry.order
        use = order.use if order.typed else CertificateUse.COMBINED
        if not supports_use(self.version, use):
            use = order.use  # 1.6 names no type
        dialect = order.dialect or Dialect.OCA
        return build_certificate_signed(
            self.version, use, entry.chain_pem, request_id=order.request_id, dialect=dialect
        )

    def _undelivered(self, order: SigningOrder, certificate_id: str, why: str) -> MarkUndelivered:
        return MarkUndelivered(order, certificate_id, why, self._revoke_refused)

    def _close(self, entry: _Entry) -> None:
        if entry.certificate_id:
            self._settled = [*self._settled, entry.certificate_id][-_REMEMBERED:]
        self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        self._entries.pop(entry.order.id, None)
        place = place_of(entry.order.use, entry.order.request)
        if self._open.get(place) == entry.order.id:
            del self._open[place]


def _is_typed(received: CsrReceived) -> bool:
    return received.use is not CertificateUse.COMBINED  # always in 1.6, which has no combined one


def _require_aware(now: datetime) -> None:
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
