"""Issuance by queue: requests that processes without a CA key leave in the inventory, and their answers."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from chargepki.pki import oids
from chargepki.pki.authority.issuance import chain_of
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder, options_from_json, options_to_json
from chargepki.pki.errors import (
    ChargePkiError,
    ClockBehind,
    Conflict,
    InputError,
    IssuerOutlived,
    NotFound,
    PolicyRefusal,
    ProfileViolation,
    SignerError,
    StateError,
    UnavailableError,
)
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaState, CertificateState, IssuanceRecord, IssuanceState
from chargepki.pki.profiles import get_profile

__all__ = ["LEASE", "PATIENCE", "answer_of", "check_for_queue", "enqueue", "order_of", "serve_once"]

LEASE = timedelta(seconds=60)
"""How long a taken request belongs to one process; after a crash another one takes it over."""
PATIENCE = timedelta(days=3)
"""How long a CA that is not ours may take to decide before the request is refused."""

_RAISED_AGAIN: Mapping[str, type[ChargePkiError]] = {
    kind.code: kind
    for kind in (
        InputError,
        Conflict,
        PolicyRefusal,
        ProfileViolation,
        IssuerOutlived,
        ClockBehind,
        StateError,
        NotFound,
        SignerError,
        UnavailableError,
    )
}


def enqueue(inventory: Inventory, order: IssueOrder, *, actor: Actor, now: datetime) -> IssuanceRecord:
    """Put *order* into the queue, durably.

    Raises:
        InputError: the order holds no CSR; a bare public key is only taken by the authority itself.
        PolicyRefusal: the profile is not for the queue, see `check_for_queue`.
        NotFound: there is no such CA or profile.
    """
    if order.csr is None:
        raise InputError("only requests with a CSR can be queued", fix="issue it where the authority runs")
    check_for_queue(order.profile)
    record = IssuanceRecord(
        id=uuid.uuid4().hex,
        ca=inventory.get_ca(order.ca).id,
        profile=order.profile,
        csr=order.csr,
        options=options_to_json(order),
        request_key=order.request_id or "",
        requester=order.requester or actor.name,
        station=order.station,
        state=IssuanceState.QUEUED,
        created_at=now,
    )

    def work(tx: Transaction) -> IssuanceRecord:
        tx.queue_issuance(record)
        tx.audit(
            actor,
            "issuance.queue",
            record.id,
            now=now,
            details={"ca": record.ca, "profile": record.profile, "station": record.station},
        )
        return record

    return inventory.write(work)


def check_for_queue(profile_id: str) -> None:
    """Refuse what no process without a CA key may have issued: certificates that sign certificates, CRLs or OCSP.

    The queue is filled by processes that face the internet. Whoever takes one over must not get a CA by it.

    Raises:
        PolicyRefusal: the profile is a CA's or an OCSP signer's.
        NotFound: there is no such profile.
    """
    profile = get_profile(profile_id)
    if profile.is_ca or oids.EKU_OCSP_SIGNING in profile.extended_key_usage:
        raise PolicyRefusal(
            f"{profile.id} is not issued by queue",
            why="whoever fills the queue could speak for the CA",
            fix="issue it at the authority: chargepki cert issue",
        )


def order_of(record: IssuanceRecord) -> IssueOrder:
    """Return the order that a queue row stands for; the row is not believed, for another process wrote it.

    Raises:
        InputError: its options are not those of an order.
        PolicyRefusal: see `check_for_queue`.
    """
    check_for_queue(record.profile)
    base = IssueOrder(
        ca=record.ca, profile=record.profile, csr=record.csr, station=record.station, requester=record.requester
    )
    try:
        order = options_from_json(base, record.options)
    except (TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise InputError("the options of the queued request cannot be read", why=str(exc)) from exc
    if not order.again:
        return order
    # "Another one" means one for each row, also when a crash lets the row be taken twice.
    return replace(order, again=False, request_id=f"queue:{record.id}")


def serve_once(
    inventory: Inventory,
    issue_many: Callable[[list[IssueOrder]], list[IssuedCertificate | ChargePkiError]],
    *,
    owner: str,
    actor: Actor,
    now: datetime,
    limit: int = 64,
    answered: Callable[[IssuanceRecord, IssuedCertificate | ChargePkiError], None] | None = None,
) -> int:
    """Take up to *limit* requests, answer them, and return how many were taken.

    Args:
        answered: told of each request with its answer, once all of them are durable.

    An order that a CA outside has not decided keeps its lease, so that it is asked again when that ends; so does one
    that came while the clock was behind.
    A crash between issuing and answering loses nothing: the lease ends, the request is taken again, and the request
    key leads to the certificate that was made, also by a generation that was followed by another meanwhile.
    """
    taken = inventory.write(lambda tx: tx.take_issuances(owner, now + LEASE, now, limit))
    if not taken:
        return 0
    answers = _answers_to(inventory, taken, issue_many)
    overtaken = [place for place, answer in enumerate(answers) if _was_overtaken(inventory, taken[place], answer)]
    again = _answers_to(inventory, [taken[place] for place in overtaken], issue_many) if overtaken else []
    for place, answer in zip(overtaken, again, strict=True):
        answers[place] = answer

    def work(tx: Transaction) -> None:
        for record, answer in zip(taken, answers, strict=True):
            # Whoever lost one lease by being slow still answers the rest.
            with contextlib.suppress(Conflict):
                _answer(tx, record, answer, actor=actor, now=now)

    inventory.write(work)
    if answered is not None:
        for record, answer in zip(taken, answers, strict=True):
            answered(record, answer)
    return len(taken)


def _answers_to(
    inventory: Inventory,
    taken: Sequence[IssuanceRecord],
    issue_many: Callable[[list[IssueOrder]], list[IssuedCertificate | ChargePkiError]],
) -> list[IssuedCertificate | ChargePkiError]:
    orders = [_read(inventory, record) for record in taken]
    made = iter(issue_many([order for order in orders if isinstance(order, IssueOrder)]))
    return [next(made) if isinstance(order, IssueOrder) else order for order in orders]


def _was_overtaken(inventory: Inventory, record: IssuanceRecord, answer: IssuedCertificate | ChargePkiError) -> bool:
    """Whether the CA was rolled over between the look at it and the reservation: its successor can answer."""
    if not isinstance(answer, StateError) or answer.code != StateError.code:
        return False
    asked = inventory.find_ca(record.ca)
    if asked is None or asked.state is not CaState.RETIRED:
        return False
    return inventory.get_ca(asked.name).state is CaState.ACTIVE


def _read(inventory: Inventory, record: IssuanceRecord) -> IssueOrder | ChargePkiError:
    try:
        order = order_of(record)
    except ChargePkiError as error:
        return error
    ca = inventory.get_ca(order.ca)
    # Rolled over since it was queued: the generation that took its place answers.
    return replace(order, ca=ca.name, queued_for=ca.id) if ca.state is CaState.RETIRED else order


def _answer(
    tx: Transaction,
    record: IssuanceRecord,
    answer: IssuedCertificate | ChargePkiError,
    *,
    actor: Actor,
    now: datetime,
) -> None:
    # Neither is about the request, and both pass: a clock that was lost is set again.
    passing = isinstance(answer, ChargePkiError) and answer.code in ("not-yet", ClockBehind.code)
    if passing and now - record.created_at < PATIENCE:
        return
    if isinstance(answer, ChargePkiError):
        refusal = refusal_of(answer)
        tx.finish_issuance(record.id, fence=record.fence, state=IssuanceState.REFUSED, refusal=refusal)
        tx.audit(actor, "issuance.refuse", record.id, now=now, outcome="refused", details=refusal)
        return
    made = answer.record.id
    tx.finish_issuance(record.id, fence=record.fence, state=IssuanceState.ISSUED, certificate=made)
    tx.audit(actor, "issuance.answer", record.id, now=now, details={"certificate": made})


def answer_of(inventory: Inventory, record_id: str) -> IssuedCertificate | ChargePkiError | None:
    """Return the answer to a queued request; ``None`` while there is none."""
    record = inventory.get_issuance(record_id)
    if record.state is IssuanceState.REFUSED:
        return error_of(record.refusal or {})
    if record.state is not IssuanceState.ISSUED or record.certificate is None:
        return None
    certificate = inventory.get_certificate(record.certificate)
    if certificate.state not in (CertificateState.ISSUED, CertificateState.REVOKED) or certificate.der is None:
        raise StateError(
            f"certificate {certificate.id} is {certificate.state.value}", fix="run: chargepki audit verify"
        )
    chain = chain_of(inventory, inventory.get_ca(certificate.ca))
    return IssuedCertificate(certificate, certificate.der, (certificate.der, *chain))


def refusal_of(error: ChargePkiError) -> dict[str, Any]:
    """Return *error* as the JSON object that a queue row keeps; `error_of` is the inverse."""
    return {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}


def error_of(refusal: Mapping[str, Any]) -> ChargePkiError:
    """Return the error that a queue row keeps, with its own class where that is known."""
    kind = _RAISED_AGAIN.get(str(refusal.get("code")), PolicyRefusal)
    return kind(
        str(refusal.get("what", "the request was refused")),
        why=str(refusal.get("why", "")),
        fix=str(refusal.get("fix", "")),
    )
