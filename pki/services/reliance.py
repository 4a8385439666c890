"""When memory may be relied upon without asking: kept true by a thread that holds the assent to revocations.

While the connection of the assent lives, nobody is told of a revocation before this process has looked. Once it has
ended, the thread tries at once and then at least twice a second to be back. Memory is relied upon while these attempts
find no server; as soon as one finds a server, others may have revoked, and nothing is relied upon until the assent is
held again and a look was taken. `inventory.assent` tells why that is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.assent import LEASE_SECONDS, Presence, judge_presence

__all__ = ["Reliance"]

_log = logging.getLogger(__name__)

_LISTEN_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 0.1
_LONGEST_PAUSE: Final = 0.5
"""Between two attempts to be connected again; far less than memory is relied upon without another (`LEASE_SECONDS`)."""
_ATTEMPT_SECONDS: Final = 60.0
"""Longer than an attempt that nobody answers takes: 10 s for each address. Meanwhile it counts as failed."""

Look = Callable[[], Coroutine[Any, Any, bool]]


class Reliance:
    """Says whether memory holds every revocation that was acknowledged; for one event loop.

    Without a server that could go away there is nothing to keep: every answer can be preceded by a look.

    Args:
        look: reads what was committed up to its call, and applies it to memory; false if that failed.
    """

    def __init__(self, inventory: Inventory, look: Look) -> None:
        self._assent = inventory.assent()
        self._look = look
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._until = -math.inf if self._assent.is_needed else math.inf

    @property
    def holds(self) -> bool:
        """Whether memory may be relied upon now without a look.

        True from the first look after the assent was taken until it is let go, and while the server is away. It ends by
        itself when the thread that keeps it true gets no turn.
        """
        return time.monotonic() < self._until

    def start(self) -> None:
        """Start the thread if it does not run; call it in the event loop."""
        if self._assent.is_needed and self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="chargepki-reliance", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let go of the assent and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LISTEN_SECONDS + _LOOK_SECONDS + 1.0)
        self._assent.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = 0.0
        while not self._stop.is_set():
            try:
                if not self._assent.is_connected:
                    self._connect()
                self._round(loop)
                pause = 0.0
            except ChargePkiError as error:
                self._lose(error)
                self._stop.wait(pause)
                pause = min(max(2 * pause, _AGAIN_SECONDS), _LONGEST_PAUSE)
        self._let_go()
        self._assent.leave()

    def _lose(self, error: ChargePkiError) -> None:
        _log.log(
            logging.INFO if isinstance(error, UnavailableError) else logging.ERROR,
            "no revocation waits for this process at present: %s", error,
        )  # fmt: skip
        # Nobody waits for who is not on record; and with a connection that is still there the server is there too.
        if self._assent.is_connected or not self._assent.is_recorded:
            self._let_go()
        self._assent.close()

    def _connect(self) -> None:
        began, before = time.monotonic(), self._until
        self._keep(began + _ATTEMPT_SECONDS)
        try:
            self._assent.connect()
        except ChargePkiError as error:
            self._judge(judge_presence(error), began, before)
            raise
        # From here those who revoke take this process for one that is back.
        self._let_go()
        self._assent.enter()

    def _judge(self, presence: Presence, began: float, before: float) -> None:
        if presence is Presence.THERE:
            self._let_go()
        elif presence is Presence.UNCLEAR:
            self._until = min(self._until, before)
        else:
            # Where nobody even refuses, the attempt takes seconds, and the end of it is what is known.
            ended = time.monotonic()
            self._keep((began if ended - began < LEASE_SECONDS / 4 else ended) + LEASE_SECONDS)

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._assent.take()
        if self._looked(loop):
            began = time.monotonic()
            self._until = began + LEASE_SECONDS
            while not self._stop.is_set() and self.holds and not self._assent.wait(_LISTEN_SECONDS):
                self._keep(began + LEASE_SECONDS)
                began = time.monotonic()
        else:
            self._stop.wait(_AGAIN_SECONDS)
        self._let_go()
        self._assent.release()

    def _keep(self, until: float) -> None:
        """Go on relying on memory, unless that had ended."""
        if self.holds:
            self._until = until

    def _let_go(self) -> None:
        self._until = -math.inf

    def _looked(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._stop.is_set():
            return False
        work = self._look()
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the loop is closed: the server has stopped
            work.close()
            return False
        with contextlib.suppress(FutureTimeout, CancelledError):
            return future.result(_LOOK_SECONDS)
        return False
