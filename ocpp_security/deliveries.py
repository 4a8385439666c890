"""What a certificate record keeps of its delivery, so that any process at any time can hand it over (A02, A03).

The note is ``verdict["delivery"]`` of the record and of the queued request before it: plain JSON data with ``use``,
``typed``, ``request_id``, ``version``, ``received_at``, of a CSR in a DataTransfer its ``dialect``, and from the first
CALL on ``attempts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.sign_certificate import IssuePlan, PendingDelivery, SigningOrder
from chargepki.ocpp_security.station_chain import chain_for_station, root_use_of
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.authority.issuance import chain_of
from chargepki.pki.csr import parse_csr
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CertificateRecord, CertificateState, Delivery

__all__ = ["MAX_ATTEMPTS", "begin_delivery", "delivery_note", "give_up", "list_pending", "received_at", "was_attempted"]

MAX_ATTEMPTS = 16
"""So often CertificateSigned is sent without an answer; a station that dies of it must be able to live on."""


def delivery_note(order: SigningOrder, version: OcppVersion) -> dict[str, object]:
    """Return the note of *order*, for `IssueOrder.delivery`."""
    return {
        "use": order.use.value,
        "typed": order.typed,
        "request_id": order.request_id,
        "version": version.value,
        "received_at": order.received_at.isoformat(),
        **({"dialect": order.dialect.value} if order.dialect is not None else {}),
    }


def received_at(record: CertificateRecord) -> datetime:
    """Return when the CSR came that *record* answers, by the CSMS's clock; the reservation's second if unknown."""
    text = _note(record).get("received_at")
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else record.reserved_at
    except ValueError:
        return record.reserved_at
    return at if at.tzinfo is not None else record.reserved_at


def was_attempted(record: CertificateRecord) -> bool:
    """Say whether CertificateSigned was begun at least once, so that the station may have the certificate."""
    return _attempts(record) > 0


def list_pending(
    inventory: Inventory,
    station: str,
    plans: Mapping[CertificateUse, IssuePlan],
    now: datetime,
    *,
    chain_limit: int | None = None,
) -> list[PendingDelivery]:
    """Return the issued, unexpired, unrevoked certificates that *station* has not confirmed, oldest request first.

    Args:
        chain_limit: characters of PEM that the station takes as a chain, where another than the usual one is chosen.
    """
    waiting = inventory.list_certificates(station=station, state=CertificateState.ISSUED, delivery=Delivery.PENDING)
    records = [record for record in waiting if record.not_after >= now and record.csr and record.der]
    if not records:
        return []
    newest: dict[tuple[CertificateUse, bytes], CertificateRecord] = {}
    for record in inventory.list_certificates(station=station):
        use = _use_of(record, plans)
        # One that was never meant for delivery (issued by an operator) says nothing about what the station waits for.
        if use is None or record.delivery is None or record.state not in _SIGNED:
            continue
        kept = newest.get((use, record.subject_der))
        if kept is None or _order_of(kept) < _order_of(record):
            newest[use, record.subject_der] = record
    pending = []
    for record in sorted(records, key=_order_of):
        use = _use_of(record, plans)
        if use is not None:
            latest = newest.get((use, record.subject_der), record)
            delivery = _pending(inventory, record, use, None if latest.id == record.id else latest.id)
            chain = chain_for_station(
                inventory,
                delivery.chain,
                ca_id=record.ca,
                station=station,
                use=root_use_of(use),
                now=now,
                max_characters=chain_limit,
            )
            pending.append(replace(delivery, chain=chain))
    return pending


_SIGNED = frozenset({CertificateState.ISSUED, CertificateState.REVOKED})


def begin_delivery(
    tx: Transaction,
    certificate_id: str,
    order: SigningOrder,
    version: OcppVersion,
    *,
    resumed: bool,
    actor: Actor,
    now: datetime,
) -> bool:
    """Record that CertificateSigned is about to be sent; send it only when this returned true and is committed.

    Args:
        resumed: nobody asked for it on this connection: it is sent only while the record says that it is pending,
            so that what another process delivered meanwhile is not sent twice.
    """
    record = tx.get_certificate(certificate_id)
    if record.state is not CertificateState.ISSUED or record.not_after < now:
        return False
    if resumed and record.delivery is not Delivery.PENDING:
        return False
    attempts = _attempts(record) + 1
    note = {**delivery_note(order, version), "attempts": attempts}
    # A connection that was opened with it is the stronger evidence, even if the station asks again.
    delivery = Delivery.IN_USE if record.delivery is Delivery.IN_USE else Delivery.PENDING
    tx.set_delivery(certificate_id, delivery, note=note)
    tx.audit(actor, "certificate.send", certificate_id, now=now, details={"station": order.station, "number": attempts})
    return True


def give_up(tx: Transaction, certificate_id: str, why: str, *, actor: Actor, now: datetime) -> None:
    """Record that a delivery of unknown outcome is not tried again unless the station asks; it stays pending."""
    record = tx.get_certificate(certificate_id)
    if record.delivery is Delivery.PENDING:
        tx.set_delivery(certificate_id, Delivery.PENDING, note={**_note(record), "given_up": why})
        tx.audit(actor, "certificate.give-up", certificate_id, now=now, details={"why": why})


def _pending(
    inventory: Inventory, record: CertificateRecord, use: CertificateUse, superseded_by: str | None
) -> PendingDelivery:
    assert record.csr is not None and record.der is not None
    note = _note(record)
    request_id = note.get("request_id")
    return PendingDelivery(
        certificate_id=record.id,
        use=use,
        plan=IssuePlan(record.ca, record.profile),
        request=parse_csr(record.csr),
        chain=(record.der, *chain_of(inventory, inventory.get_ca(record.ca))),
        received_at=received_at(record),
        typed=bool(note.get("typed", True)),
        request_id=request_id if isinstance(request_id, int) else None,
        dialect=next((each for each in Dialect if each.value == note.get("dialect")), None),
        attempts=_attempts(record),
        given_up="given_up" in note or _attempts(record) >= MAX_ATTEMPTS,
        superseded_by=superseded_by,
    )


def _use_of(record: CertificateRecord, plans: Mapping[CertificateUse, IssuePlan]) -> CertificateUse | None:
    named = _note(record).get("use")
    if named is None:  # issued by a release that kept no note
        return next((use for use, plan in plans.items() if plan.profile == record.profile), None)
    return next((use for use in CertificateUse if use.value == named), None)


def _order_of(record: CertificateRecord) -> tuple[datetime, datetime, str]:
    return (received_at(record), record.reserved_at, record.id)


def _note(record: CertificateRecord) -> Mapping[str, object]:
    note = record.verdict.get("delivery")
    return note if isinstance(note, Mapping) else {}


def _attempts(record: CertificateRecord) -> int:
    number = _note(record).get("attempts")
    return number if isinstance(number, int) else 0
