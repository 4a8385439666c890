"""What ``serve`` has to wake somebody for: from its log lines, over a pipe, into the inventory and to alert targets.

The processes that face the network only write a line to a pipe. One thread or process of its own, that loads the OCPP
side, stores what comes as a security event and delivers the alerts of the rules that it matches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import orjson

from chargepki.cli.alerting import alerting
from chargepki.cli.globals import GlobalState
from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.ocpp_security.events import MAX_TECH_INFO
from chargepki.pki.errors import ChargePkiError, printable

__all__ = ["ServeAlerts"]

_log = logging.getLogger("chargepki.alerts")
_TYPES: Final = {
    "probe": "SelfProbeFailed",
    "background": "BackgroundWorkFailed",
    "process": "ProcessEnded",
    "tls": "TlsCertificateNotLoaded",
}
_MAX_TEXT: Final = 600
"""Characters of a line: with its JSON it has to fit into one write that no other process can cut (PIPE_BUF, 4096)."""
_MAX_WAITING: Final = 1000
_PATIENCE_SECONDS: Final = 5.0


class ServeAlerts:
    """Takes log records that carry ``alert``; make it before any process is forked."""

    def __init__(self, state: GlobalState) -> None:
        self._state = state
        self._reading, self._writing = os.pipe()
        # Whoever logs must not wait: a full pipe loses an alert, never the log line.
        os.set_blocking(self._writing, False)
        os.set_blocking(self._reading, False)

    def listen(self) -> None:
        """Begin to take what this process, and every one that it forks, logs."""
        logging.getLogger("chargepki").addHandler(_ToPipe(self._writing))

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Deliver in a thread for the length of the block."""
        stop = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._deliver(stop)), name="chargepki-alerts")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=30.0)

    def run(self, parent: int) -> int:
        """Deliver in this process until SIGTERM or SIGINT, or until process *parent* is gone."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        # Rules and targets are read again whenever their file changes.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        asyncio.run(self._deliver(stop, parent))
        self._state.workspace.close()
        return 0

    async def _deliver(self, stop: threading.Event, parent: int | None = None) -> None:
        waiting: deque[tuple[str, str, datetime]] = deque(maxlen=_MAX_WAITING)
        pause = 0.0
        async with alerting(self._state):
            while True:
                ends = stop.is_set() or (parent is not None and os.getppid() != parent)
                waiting.extend(self._read())
                if waiting and (pause <= 0 or ends):
                    pause = 0.0 if await self._store(waiting) else _PATIENCE_SECONDS
                if ends:
                    return
                await asyncio.sleep(0.25)
                pause -= 0.25

    def _read(self) -> Iterator[tuple[str, str, datetime]]:
        text = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reading, 1 << 16):
                text += chunk
                if text.endswith(b"\n"):
                    break
        for line in text.splitlines():
            kind, said, at = orjson.loads(line)
            yield _TYPES.get(kind, "ServiceProblem"), said, datetime.fromtimestamp(at, UTC)

    async def _store(self, waiting: deque[tuple[str, str, datetime]]) -> bool:
        """Store what waits; say whether nothing is left."""
        workspace = self._state.workspace
        while waiting:
            kind, said, at = waiting[0]
            occurrence = Occurrence(None, "pki", kind, True, said[:MAX_TECH_INFO], at, datetime.now(UTC))
            try:
                await asyncio.to_thread(
                    workspace.inventory.write,
                    lambda tx, what=occurrence: record_event(tx, what, workspace.actor, "security-event.raise"),
                )
            except ChargePkiError as error:
                _log.error("an alert cannot be stored: %s; trying again", error)
                return False
            waiting.popleft()
        return True


class _ToPipe(logging.Handler):
    """Writes one short line for each record that has an ``alert``."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(logging.WARNING)
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on; when the pipe is full, or nobody reads, the log line is all there is."""
        kind = getattr(record, "alert", None)
        if isinstance(kind, str):
            line = orjson.dumps([kind, printable(record.getMessage())[:_MAX_TEXT], record.created]) + b"\n"
            with contextlib.suppress(OSError):
                os.write(self._descriptor, line)
