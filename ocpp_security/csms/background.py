"""Work that belongs to the endpoint and not to one connection: an issuance goes on when its station's link drops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from chargepki.pki.errors import ChargePkiError

__all__ = ["Background"]

_log = logging.getLogger("chargepki.csms")


class Background:
    """A set of tasks whose failures are logged and never lost."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Run *work* in a task of its own; *what* names it in the log when it fails."""
        task = asyncio.get_running_loop().create_task(self._guard(work, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await work
        except ChargePkiError as exc:
            _log.error("%s: %s", what, exc)
        except Exception:  # noqa: BLE001 (nobody awaits this task: an unlogged bug here would be invisible)
            _log.exception("%s failed", what)

    def cancel(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Cancel those of *tasks* that still run here."""
        for task in self._tasks & set(tasks):
            task.cancel()

    async def finish(self, *, seconds: float) -> None:
        """Wait up to *seconds* for what runs, then cancel it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks:
            _done, late = await asyncio.wait(
                set(self._tasks), timeout=max(0.0, deadline - asyncio.get_running_loop().time())
            )
            if late:
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                return
