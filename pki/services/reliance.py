"""When memory may be relied upon without asking: kept true by a thread that holds the assent to revocations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory

__all__ = ["Reliance"]

_log = logging.getLogger(__name__)

_LISTEN_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 0.1
_LONGEST_PAUSE: Final = 0.5
"""Seconds. Until it is connected again no revocation waits for this process, and a server may come and go meanwhile."""

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
        self.holds = not self._assent.is_needed
        """True from the first look after the assent was taken until it is let go. It stays true when the connection
        ends: what was acknowledged before was waited for, and while the server is away nothing is acknowledged."""

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
        pause = _AGAIN_SECONDS
        while not self._stop.is_set():
            try:
                self._round(loop)
                pause = _AGAIN_SECONDS
            except ChargePkiError as error:
                _log.log(
                    logging.INFO if isinstance(error, UnavailableError) else logging.ERROR,
                    "no revocation waits for this process at present: %s", error,
                )  # fmt: skip
                self._assent.close()
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._assent.connect()
        # From here the server answers again, so others may have revoked while we held nothing.
        self.holds = False
        self._assent.take()
        if self._looked(loop):
            self.holds = True
            while not self._stop.is_set() and not self._assent.wait(_LISTEN_SECONDS):
                pass
        else:
            self._stop.wait(_AGAIN_SECONDS)
        self.holds = False
        self._assent.release()

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
