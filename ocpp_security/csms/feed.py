"""The change feed of an inventory: what any process commits is read within a moment, and nothing is missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

from chargepki.ocpp_security.csms.offload import Offload
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import ChangeWatcher, Inventory
from chargepki.pki.inventory.quick import QuickReads
from chargepki.pki.inventory.records import AuditEntry

__all__ = ["ChangeFeed"]

_log = logging.getLogger("chargepki.csms")
_WATCH_SECONDS = 1.0
"""Longest wait in one go."""
_POLL_SECONDS = 0.05
"""Each look costs as much as a tenth of what a connection does besides its handshake."""
_TICK_SECONDS = 2.0
_BATCH = 500


class ChangeFeed:
    """Reads the audit entries that come.

    On PostgreSQL a thread waits for commits. On SQLite the event loop looks at the change counter, which costs
    microseconds; a thread that did so would ask for the interpreter fifty times a second and take it from handshakes.
    The audit entries that came since are then read. The audit log is the feed because whatever changes a right is
    audited in the same commit, so nothing can be changed and not announced.

    Args:
        act_on: takes the entries in order; when it fails with a `ChargePkiError` it gets the same ones again.
        tick: called every two seconds besides, when what waits may be due without any commit.
    """

    def __init__(
        self,
        inventory: Inventory,
        offload: Offload,
        act_on: Callable[[Sequence[AuditEntry]], Awaitable[None]],
        *,
        tick: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._inventory, self._offload, self._act_on, self._on_tick = inventory, offload, act_on, tick
        self._stopping = threading.Event()
        self._woken = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._watcher: ChangeWatcher | None = None
        self._quick = inventory.quick_reads()
        self._tasks: list[asyncio.Task[None]] = []
        self._seq = 0

    async def start(self) -> None:
        """Begin after the newest entry of the log."""
        head = await self._offload.run(self._inventory.audit_head)
        self._seq = head.count if head is not None else 0
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._tick())]
        if self._quick is not None:
            await self._offload.run(self._quick.open)
            self._tasks.append(loop.create_task(self._poll(self._quick)))
            return
        self._thread = threading.Thread(target=self._watch, args=(loop,), name="chargepki-watch", daemon=True)
        self._thread.start()

    async def stop_reading(self) -> None:
        """End the tasks, and tell the thread to end. Idempotent."""
        self._stopping.set()
        watcher = self._watcher
        if watcher is not None:
            watcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._quick is not None:
            self._quick.close()

    async def stop(self) -> None:
        """End the tasks and the thread. Idempotent."""
        await self.stop_reading()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            try:
                with contextlib.closing(self._inventory.watch()) as watcher:
                    self._watcher = watcher
                    # What was committed before the watch began is read now.
                    self._wake(loop)
                    while not self._stopping.is_set():
                        if watcher.wait(_WATCH_SECONDS):
                            self._wake(loop)
            except ChargePkiError as exc:
                # The ticks go on meanwhile: late, but nothing is missed.
                _log.error("the inventory cannot be watched: %s; trying again", exc)
                self._stopping.wait(_WATCH_SECONDS)

    async def _poll(self, quick: QuickReads) -> None:
        seen: int | None = None
        while True:
            try:
                version = quick.version()
            except UnavailableError:
                # It would have to wait; the audit log is read in a thread, which may.
                self._woken.set()
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            if version != seen:
                seen = version
                self._woken.set()
            await asyncio.sleep(_POLL_SECONDS)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        # A loop that was closed under us has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._woken.set)

    async def _follow(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                while await self._read():
                    pass
            except ChargePkiError as exc:
                _log.error("the change feed cannot be read: %s; trying again", exc)
                await asyncio.sleep(0.5)
                self._woken.set()

    async def _tick(self) -> None:
        """A missed announcement costs one tick, never the revocation."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._woken.set()
            if self._on_tick is not None:
                await self._on_tick()

    async def _read(self) -> bool:
        entries = await self._offload.run(self._inventory.list_audit, after_seq=self._seq, limit=_BATCH)
        if not entries:
            return False
        await self._act_on(entries)
        self._seq = entries[-1].seq
        return len(entries) == _BATCH
