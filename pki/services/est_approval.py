"""Enrolment requests that a person decides on: each is kept once, until it is approved or rejected."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import Enum
from typing import Final

from chargepki.pki import names
from chargepki.pki.csr import CertificateRequest
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, ActorKind, EstRequestRecord, EstRequestState
from chargepki.pki.services.est_settings import EstLabel

__all__ = ["Waiting", "ask_approval", "decide", "request_id"]

_MAX_WAITING: Final = 100
"""Requests of one account that may wait: an account cannot fill the inventory."""


class Waiting(Enum):
    """Where a request stands."""

    UNDECIDED = "undecided"
    APPROVED = "approved"
    REJECTED = "rejected"


def request_id(label: str, account: str, csr: CertificateRequest) -> str:
    """Return the id of this request by this account under this label: 32 hex digits.

    Name, key and wanted extensions make it: a client that ties its request to the TLS session (RFC 7030 3.5), or signs
    it anew for another reason, asks for the same when it comes back.
    """
    digest = hashlib.sha256()
    extensions = (each.oid.encode() + each.value for each in csr.extensions)
    for part in (label.encode(), account.encode(), csr.subject_der, csr.spki_der, *extensions):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()[:32]


def ask_approval(
    inventory: Inventory, label: EstLabel, account: str, csr: CertificateRequest, *, now: datetime
) -> Waiting:
    """Return where the request stands; a new one is stored first, so that somebody can decide.

    Raises:
        PolicyRefusal: too many requests of this account wait already.
    """
    wanted = request_id(label.name, account, csr)
    found = inventory.find_est_request(wanted)
    if found is not None:
        return {
            EstRequestState.WAITING: Waiting.UNDECIDED,
            EstRequestState.APPROVED: Waiting.APPROVED,
            EstRequestState.REJECTED: Waiting.REJECTED,
        }[found.state]
    record = EstRequestRecord(
        id=wanted,
        label=label.name,
        account=account,
        subject=names.text(csr.subject_der),
        csr=csr.der,
        state=EstRequestState.WAITING,
        created_at=now,
    )

    def work(tx: Transaction) -> None:
        if tx.find_est_request(wanted) is not None:
            return  # the client asked twice at once
        waiting = sum(each.account == account for each in tx.list_est_requests(state=EstRequestState.WAITING))
        if waiting >= _MAX_WAITING:
            raise PolicyRefusal(
                f"{waiting} requests of {account} wait for an approval",
                fix="have them decided before you send more",
            )
        tx.add_est_request(record)
        actor = Actor(f"est:{account}", ActorKind.SYSTEM, authenticated=True)
        tx.audit(actor, "est-request.ask", wanted, now=now, details={"label": label.name, "subject": record.subject})

    inventory.write(work)
    return Waiting.UNDECIDED


def decide(
    inventory: Inventory, wanted: str, state: EstRequestState, *, actor: Actor, now: datetime, reason: str | None = None
) -> EstRequestRecord:
    """Approve or reject a request that waits.

    Raises:
        NotFound: there is none.
        StateError: it was decided already.
    """

    def work(tx: Transaction) -> EstRequestRecord:
        record = tx.decide_est_request(wanted, state, now=now, decided_by=actor.name, reason=reason)
        verb = "approve" if state is EstRequestState.APPROVED else "reject"
        tx.audit(actor, f"est-request.{verb}", wanted, now=now, details={"label": record.label, "reason": reason})
        return record

    return inventory.write(work)
