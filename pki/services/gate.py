"""Nothing is answered from memory that a commit before the request has made untrue.

Each answer is preceded by a look at the inventory's change mark that began after the request came in. Requests that
wait share one look, so that it costs little however many there are. While the inventory cannot be reached, what is in
memory is answered with, until its nextUpdate, if it held every acknowledged revocation when the inventory went
(`reliance`): none can be committed then either. If it did not, it is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.reliance import Reliance

__all__ = ["ChangeGate"]

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 0.5
"""How long requests wait for a database that neither answers nor refuses."""
_PAGE: Final = 500
_MAX_ENTRIES: Final = 5000
"""After more changes than these, forgetting everything is cheaper than following them."""

Apply = Callable[[Sequence[AuditEntry] | None], None]
"""Told of audit entries in their order; ``None``: forget everything."""


@dataclass(frozen=True, slots=True)
class _News:
    mark: tuple[int, int]
    seq: int
    entries: Sequence[AuditEntry] | None


class ChangeGate:
    """One per process and event loop.

    Args:
        apply: forgets what was changed.
        distrust: forgets every statement on a certificate's status; called while the inventory is away.
    """

    def __init__(self, inventory: Inventory, apply: Apply, distrust: Callable[[], None]) -> None:
        self._inventory = inventory
        self._apply = apply
        self._distrust = distrust
        self._mark = inventory.change_mark()
        self._seen: tuple[int, int] | None = None
        self._seq = -1
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chargepki-gate")
        self._running: asyncio.Future[bool] | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._reliance = Reliance(inventory, self.pass_through)
        self.is_current = False
        """Whether the last look reached the inventory."""

    @property
    def is_quick(self) -> bool:
        """Whether `look` may be called in the event loop."""
        return self._mark.is_quick

    def look(self) -> bool:
        """Apply what was committed up to now; false, and nothing applied, when the inventory cannot be reached."""
        return self._take(self._fetch())

    def _fetch(self) -> _News | UnavailableError:
        """Ask the inventory; may run in a thread of its own."""
        try:
            mark = self._mark.read()
            if mark == self._seen:
                return _News(mark, self._seq, ())
            count = self._inventory.change_count()
            if self._seq < 0 or count < self._seq or count - self._seq > _MAX_ENTRIES:
                return _News(mark, count, None)
            entries: list[AuditEntry] = []
            seq = self._seq
            while page := self._inventory.list_audit(after_seq=seq, limit=_PAGE):
                entries += page
                seq = page[-1].seq
            return _News(mark, seq, entries)
        except UnavailableError as error:
            return error

    def _take(self, news: _News | UnavailableError) -> bool:
        """Forget what is untrue now; in the event loop, where the memory is used."""
        if isinstance(news, UnavailableError):
            if self.is_current:
                _log.error("the inventory is gone: %s: %s", self._what_now(), news)
            self._miss()
            return False
        if news.entries is None or news.entries:
            self._apply(news.entries)
        self._seen, self._seq = news.mark, news.seq
        if not self.is_current:
            _log.info("the inventory is reached")
        self.is_current = True
        return True

    async def pass_through(self) -> bool:
        """Wait for a `look` that began after this call; false when the inventory could not be asked in time."""
        if self.is_quick:
            return self.look()
        self._reliance.start()
        loop = asyncio.get_running_loop()
        if self._running is None:
            self._running = mine = self._start(loop)
        else:
            # The look that is under way may have begun before our request came: take part in the next one.
            if self._waiting is None:
                self._waiting = loop.create_future()
            mine = self._waiting
        try:
            return await asyncio.wait_for(asyncio.shield(mine), _PATIENCE_SECONDS)
        except TimeoutError:
            self._miss()
            return False

    def _miss(self) -> None:
        """Go on without the inventory: with memory, or without it where it may deny an acknowledged revocation."""
        self.is_current = False
        if not self._reliance.holds:
            self._distrust()

    def _what_now(self) -> str:
        return "answers come from memory until they expire" if self._reliance.holds else "nothing in memory is certain"

    def _start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
        result: asyncio.Future[bool] = loop.create_future()

        def finished(fetched: asyncio.Future[_News | UnavailableError]) -> None:
            self._running = None
            if not result.done():
                result.set_result(not fetched.cancelled() and self._take(fetched.result()))
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self._running = self._start(loop)
                self._running.add_done_callback(partial(_pass_on, waiting))

        loop.run_in_executor(self._executor, self._fetch).add_done_callback(finished)
        return result

    def close(self) -> None:
        """Close the connections to the inventory."""
        self._reliance.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._mark.close()


def _pass_on(waiting: asyncio.Future[bool], done: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(done.result())
