"""The step function of `trigger-renewal`: trigger a CSR, follow its certificate until the station has taken it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security import wire
from chargepki.ocpp_security.deliveries import received_at
from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step, Wait
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.records import AttemptRecord, CertificateState, Delivery, OperationState

__all__ = ["renewal_step"]

_MAX_ATTEMPTS: Final = 3
_MAX_AFTER_LOST_LINKS: Final = 10
"""While the station keeps coming back: that a link was lost, or our process died, says nothing about the station."""
_ASK_AGAIN_AFTER: Final = timedelta(seconds=60)
"""How long a triggered CSR is waited for when the trigger itself stayed unanswered."""


def renewal_step(snapshot: Snapshot, now: datetime) -> Step:
    """Trigger a CSR and follow its certificate until the station has taken it; see `next_step`."""
    if not snapshot.attempts:
        return _trigger(snapshot)
    shown = _shown_by_certificates(snapshot)
    if shown is not None:
        return shown
    last, deadline = snapshot.attempts[-1], snapshot.operation.deadline
    if last.answer is not None:
        status, error = last.answer.get("status"), last.answer.get("error")
        if status == "Accepted":
            return _wait_for_csr(snapshot, last, now)
        if error is None or is_unprocessed(str(error)):
            return Finish(OperationState.FAILED, {"why": f"the station answered {status or error}"})
    # The CSR is what reads the station back. Without one after a while, asking again is harmless: a station has one
    # renewal of a use under way, and we keep one request open.
    again_at = last.sent_at + _ASK_AGAIN_AFTER
    if snapshot.sent_here and now < again_at:
        return Wait(
            "no usable answer to the trigger; a CSR would show that it arrived", again_at, OperationState.UNKNOWN
        )
    if len(snapshot.attempts) >= (_MAX_ATTEMPTS if snapshot.sent_here else _MAX_AFTER_LOST_LINKS):
        return Wait("the trigger stayed unanswered several times", deadline, OperationState.UNKNOWN)
    return _trigger(snapshot)


def _wait_for_csr(snapshot: Snapshot, last: AttemptRecord, now: datetime) -> Step:
    """Wait for the CSR of an accepted trigger; of 1.6 ask for it again where the link was lost with it.

    A station of 1.6 sends a CSR once (1.6 A02 knows no retry), so one that was on its way when the link or our process
    ended never comes. From 2.0.1 on the station sends it again by itself (A02.FR.17).
    """
    wait = Wait("the station accepted the trigger; its CSR and certificate are waited for", snapshot.operation.deadline)
    is_lost = snapshot.version is OcppVersion.V16 and not snapshot.sent_here
    if not is_lost or len(snapshot.attempts) >= _MAX_AFTER_LOST_LINKS:
        return wait
    again_at = last.sent_at + _ASK_AGAIN_AFTER
    return _trigger(snapshot) if now >= again_at else replace(wait, until=again_at)


def _trigger(snapshot: Snapshot) -> Step:
    parameters = snapshot.operation.parameters
    evse = parameters.get("evse")
    try:
        call = wire.build_trigger(
            snapshot.version,
            CertificateUse(str(parameters.get("use"))),
            evse=evse if isinstance(evse, int) else None,
        )
    except (InputError, ValueError) as error:
        return Finish(OperationState.FAILED, {"why": str(error)})
    return SendAttempt(call.action, call.payload)


def _shown_by_certificates(snapshot: Snapshot) -> Step | None:
    """Read the outcome from what came of the trigger: a delivered, refused or travelling certificate."""
    if snapshot.delivered is not None:
        return Finish(OperationState.DONE, {"certificate": snapshot.delivered})
    # Reservations know whole seconds; the CSR's arrival is known exactly, and also tells when an old certificate is the
    # answer to a new request.
    since = snapshot.attempts[0].sent_at
    newer = sorted(
        (
            item
            for item in snapshot.certificates
            if received_at(item) >= since and item.state is not CertificateState.VOIDED
        ),
        key=received_at,
    )
    for item in reversed(newer):
        # A superseded one may never have arrived: the station asked for another one, whose fate counts.
        if item.delivery in (Delivery.DELIVERED, Delivery.IN_USE):
            return Finish(OperationState.DONE, {"certificate": item.id})
    if snapshot.refusal is not None:
        return Finish(OperationState.FAILED, {"why": snapshot.refusal})
    if not newer:
        return None
    if newer[-1].delivery is Delivery.UNDELIVERED:
        return Finish(
            OperationState.FAILED, {"certificate": newer[-1].id, "why": "the station refused the certificate"}
        )
    return Wait("the certificate is on its way to the station", snapshot.operation.deadline)
