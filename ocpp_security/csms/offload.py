"""The inventory for an event loop: its blocking calls run on a few threads of their own, together where many come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar, cast

__all__ = ["Offload", "Together"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_READ_SECONDS = 0.02
"""How long a read may wait for company."""


class Offload:
    """Runs blocking work off the loop. Password hashing has threads elsewhere, or a storm would starve the database."""

    def __init__(self, *, threads: int = 8) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chargepki-csms")
        self._reads: Together[Callable[[], Any], Any] = Together(self, _do_each, pause=_READ_SECONDS)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* on a database thread and return its result."""
        return await self.start(work, *args, **kwargs)

    async def read(self, work: Callable[[], T], /) -> T:
        """Run a read that every connection asks for, together with those of others when there are many."""
        return cast("T", await self._reads.run(work))

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin *work* on a database thread and return the future of its result."""
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Wait for running work and end the threads."""
        self._pool.shutdown(wait=True)


class Together(Generic[T, R]):
    """Hands works over to a thread in groups. A lone one goes at once; of many, one group goes every *pause*.

    Handing over costs more than a look-up in the database does, and a commit more still. When a whole fleet comes back
    after a power cut, a station waits a moment longer and the endpoint is through sooner.

    Args:
        do: runs a group on the thread and returns a result, or an error, for each of its works in their order.
        pause: seconds between the starts of two groups.
        in_turn: start no group before the one before it is through.
        most: works in one group.
    """

    def __init__(
        self,
        offload: Offload,
        do: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        pause: float,
        in_turn: bool = False,
        most: int = 64,
    ) -> None:
        self._offload, self._do, self._pause, self._in_turn, self._most = offload, do, pause, in_turn, most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._is_pausing = False
        self._running: asyncio.Future[Sequence[R | Exception]] | None = None

    async def run(self, work: T) -> R:
        """Return the result of *work*, or raise its error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((work, future))
        if not self._is_pausing:
            self._is_pausing = True
            self._go()
        return await future

    def _go(self) -> None:
        if not self._waiting:
            self._is_pausing = False
            return
        if self._in_turn and self._running is not None and not self._running.done():
            self._running.add_done_callback(lambda _: self._go())
            return
        group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        asyncio.get_running_loop().call_later(self._pause, self._go)
        try:
            self._running = self._offload.start(self._do, [work for work, _ in group])
        except RuntimeError as exc:
            # A closed pool refuses at once; who waits is told so.
            _fail(group, exc)
            return
        self._running.add_done_callback(lambda future: _settle(group, future))


def _settle(group: Sequence[tuple[Any, asyncio.Future[R]]], done: asyncio.Future[Sequence[R | Exception]]) -> None:
    error = done.exception()
    if error is not None:
        _fail(group, error)
        return
    for (_, future), result in zip(group, done.result(), strict=True):
        # A caller that was cancelled meanwhile asks no more.
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _fail(group: Sequence[tuple[Any, asyncio.Future[R]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)


def _do_each(works: Sequence[Callable[[], Any]]) -> list[Any]:
    results: list[Any] = []
    for work in works:
        try:
            results.append(work())
        except Exception as exc:  # noqa: BLE001 - the error of one read belongs to who asked for it
            results.append(exc)
    return results
