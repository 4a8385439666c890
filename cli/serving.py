"""The loop of ``authority serve``: answer queued requests, keep CRLs fresh, stop when told to."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted, rfc3339
from chargepki.cli.revoking import describe_published
from chargepki.pki.authority import IssuedCertificate
from chargepki.pki.errors import ChargePkiError, printable
from chargepki.pki.inventory.records import CaState, IssuanceRecord

__all__ = ["serve_authority"]

Wait = Callable[[float], bool]
"""Waits for a change by another process, at most so many seconds."""

_IDLE_SECONDS = 1.0
_CRL_CHECK_SECONDS = 30.0


def serve_authority(state: GlobalState, *, once: bool) -> None:
    """Run until SIGTERM or SIGINT, or until the queue is empty with *once*.

    Raises:
        SignerError: the passphrase does not open the keys; nothing was taken from the queue.
    """
    workspace = state.workspace
    authority = workspace.authority
    active = [ca for ca in workspace.inventory.list_cas() if ca.state is CaState.ACTIVE]
    # Open every key now: a wrong passphrase must stop the start, not the first station that needs a certificate.
    for ca in active:
        authority.open_issuer(ca.id)
    settled = authority.recover()
    if settled:
        state.output.say(f"settled {counted(len(settled), 'reservation')} that an interrupted run left")
    owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"
    if once:
        answered = 0
        while taken := authority.serve_queue_once(owner, answered=teller(state)):
            answered += taken
        authority.refresh_crls()
        state.output.say(f"answered {counted(answered, 'request')}")
        return
    stop = _stop_event()
    state.output.say(f"authority ready: {counted(len(active), 'CA')}, stop with Ctrl-C")
    watcher = workspace.inventory.watch()
    try:
        _loop(state, owner, stop, watcher.wait)
    finally:
        watcher.close()
    state.output.say("stopped")


def teller(state: GlobalState) -> Callable[[IssuanceRecord, IssuedCertificate | ChargePkiError], None]:
    """Return what says one line about each answered request: when, for whom, and the serial or the refusal."""

    def tell(request: IssuanceRecord, answer: IssuedCertificate | ChargePkiError) -> None:
        about = f"{rfc3339(datetime.now(UTC))}  {request.station or request.requester}  {request.profile}"
        if isinstance(answer, ChargePkiError):
            state.output.say(printable(f"{about}  refused: {answer}"))
        else:
            state.output.say(printable(f"{about}  issued {answer.record.ca} serial {answer.record.serial}"))

    return tell


def _loop(state: GlobalState, owner: str, stop: threading.Event, wait: Wait) -> None:
    authority = state.workspace.authority
    waited = _CRL_CHECK_SECONDS
    while not stop.is_set():
        try:
            if authority.serve_queue_once(owner, answered=teller(state)):
                continue
            if waited >= _CRL_CHECK_SECONDS:
                for crl in authority.refresh_crls():
                    state.output.say(describe_published(crl))
                waited = 0.0
        except ChargePkiError as error:
            # The database or a folder may be away for a while; the queue is durable, so waiting loses nothing.
            state.output.say(f"error: {error}; trying again")
            stop.wait(_IDLE_SECONDS)
        changed = wait(_IDLE_SECONDS)
        # A change may be a revocation, whose CRL should not wait for the next round.
        waited = _CRL_CHECK_SECONDS if changed else waited + _IDLE_SECONDS


def _stop_event() -> threading.Event:
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
