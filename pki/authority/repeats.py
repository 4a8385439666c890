"""What answers a request that is made again, and giving up what answers none."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.authority.orders import IssueOrder, content_digest, request_key_of
from chargepki.pki.errors import Conflict
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateRecord, CertificateState

__all__ = ["find_answer", "void"]


def find_answer(
    tx: Transaction, order: IssueOrder, ca: CaRecord, record: CertificateRecord, *, actor: Actor, now: datetime
) -> CertificateRecord | None:
    """Return the certificate or the reservation that answers *order* already; ``None`` when nothing does.

    The generation of a CA is part of the content, so that a CSR that is sent once more after a rollover gets a
    certificate of the new one. Who repeats a request id says that it is the same request: the certificate of the
    generation before answers it. So does one that a generation before made of an order that is still in the queue:
    whoever made it died before the answer was recorded.

    Args:
        ca: the generation that would issue now.
        record: what would be reserved for it.

    Raises:
        Conflict: the request id was used for another request.
    """
    earlier = None if order.again else _find_earlier(tx, order, ca, record)
    if earlier is None or not _answers(earlier, now):
        return None
    if earlier.verdict.get("content") == record.verdict["content"]:
        return earlier
    if order.request_id is not None and not _is_of_another_generation(tx, order, ca, earlier, record.csr):
        raise Conflict(
            f"request id {order.request_id} was used for another request",
            why=f"it made certificate {earlier.id}, whose CA, profile, overrides or CSR differ from this one",
            fix="pass a new --request-id",
        )
    if earlier.state is CertificateState.ISSUED:
        return earlier
    # The key of that generation signs no more; a run that is about to sign with it finds the reservation given up.
    void(tx, earlier, actor=actor, now=now, reason=f"{earlier.ca} was rolled over, and the request came again")
    return None


def _find_earlier(
    tx: Transaction, order: IssueOrder, ca: CaRecord, record: CertificateRecord
) -> CertificateRecord | None:
    """Return what was made or reserved for *order*, by the generations too that it waited for in the queue."""
    earlier = tx.find_certificate_by_request_key(record.request_key)
    if earlier is not None or order.queued_for is None or order.request_id is not None:
        return earlier
    first = tx.get_ca(order.queued_for)
    for generation in range(ca.generation - 1, first.generation - 1, -1):
        digest = content_digest(order, ca_id=f"{ca.name}@{generation}", csr_der=record.csr)
        earlier = tx.find_certificate_by_request_key(request_key_of(order, digest))
        if earlier is not None:
            break
    return earlier


def void(tx: Transaction, record: CertificateRecord, *, actor: Actor, now: datetime, reason: str) -> CertificateRecord:
    """Give up a reservation; its serial stays taken for ever."""
    current = tx.get_certificate(record.id)
    if current.state is not CertificateState.RESERVED:
        return current
    voided = tx.void_certificate(record.id)
    tx.audit(actor, "certificate.void", record.id, now=now, details={"reason": reason})
    return voided


def _is_of_another_generation(
    tx: Transaction, order: IssueOrder, ca: CaRecord, earlier: CertificateRecord, csr: bytes | None
) -> bool:
    """Whether *earlier* answers the same request, made to the CA that *order* names, before that was rolled over."""
    before = tx.get_ca(earlier.ca)
    if order.ca != ca.name or before.name != ca.name or before.id == ca.id:
        return False
    return earlier.verdict.get("content") == content_digest(order, ca_id=before.id, csr_der=csr)


def _answers(record: CertificateRecord, now: datetime) -> bool:
    """Whether *record* still answers a repeat of its request: reserved or issued, unrevoked and in date."""
    return record.state in (CertificateState.RESERVED, CertificateState.ISSUED) and record.not_after >= now
