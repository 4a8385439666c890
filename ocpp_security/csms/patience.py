"""One patience for many: calls back for each that was not done in time, with a single timer of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Patience"]


class Patience:
    """Waits equally long for everybody, so that who came first is late first.

    Every connection would pay for a timer of its own, and hardly one ever goes off.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late: dict[object, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, key: object, late: Callable[[], object]) -> None:
        """Call *late* unless `end` is called for *key* in time."""
        loop = asyncio.get_running_loop()
        self._late[key] = (loop.time() + self._seconds, late)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, key: object) -> None:
        """Wait for *key* no longer. Idempotent."""
        self._late.pop(key, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._late:
            key, (due, late) = next(iter(self._late.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                return
            del self._late[key]
            late()
