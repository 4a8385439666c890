"""Judge ranges over all cores: processes of their own, results in order, nothing left behind when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from chargepki.pki.checking.judge import RangeJudge, RangeResult
from chargepki.pki.errors import ChargePkiError, UnavailableError

__all__ = ["available_cores", "judge_ranges"]

Range = tuple[str | None, str]
_T = TypeVar("_T")
_judge: RangeJudge | None = None
_failure: ChargePkiError | None = None
_PARENT_SECONDS = 1.0


def available_cores() -> int:
    """Return on how many cores this process may run; one where processes cannot be forked."""
    if not hasattr(os, "fork"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def judge_ranges(
    make: Callable[[], RangeJudge], ranges: Iterable[Range], jobs: int
) -> Generator[tuple[str, RangeResult], None, None]:
    """Yield the end of each range with its result, in the order of *ranges*.

    Args:
        make: makes the judge; with more than one process it is called in each of them, and must open its own
            connection to the inventory there.
        jobs: how many processes; one means this process.

    Raises:
        UnavailableError: a process died.
    """
    if jobs <= 1:
        judge = make()
        for after, last in ranges:
            yield last, judge.judge(after, last)
        return
    forked = multiprocessing.get_context("fork")
    waiting: deque[tuple[str, Future[RangeResult]]] = deque()
    pool = ProcessPoolExecutor(jobs, mp_context=forked, initializer=_begin, initargs=(make, os.getpid()))
    try:
        # All processes are forked now, before this one opens a connection that they would inherit.
        _result(pool.submit(_nothing))
        for after, last in ranges:
            waiting.append((last, pool.submit(_work, after, last)))
            # Enough that no process waits; not so many that results pile up here.
            if len(waiting) > 2 * jobs:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: deque[tuple[str, Future[RangeResult]]]) -> tuple[str, RangeResult]:
    last, future = waiting.popleft()
    return last, _result(future)


def _result(future: Future[_T]) -> _T:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UnavailableError(
            "a process of this check died",
            why="somebody killed it, or there was no memory left",
            fix="repeat this command: it goes on where this one ended",
        ) from error


def _begin(make: Callable[[], RangeJudge], parent: int) -> None:
    global _judge, _failure  # each process has its own
    # The terminal interrupts everybody; the process that reads results ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        _judge = make()
    except ChargePkiError as error:
        _failure = error  # told by the first work: an error here would end the process without a word


def _follow(parent: int) -> None:
    """End this process when its parent is gone, which a kill leaves no time to say."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _nothing() -> None:
    if _failure is not None:
        raise _failure


def _work(after: str | None, last: str) -> RangeResult:
    if _failure is not None:
        raise _failure
    assert _judge is not None, "a process begins with its judge"
    return _judge.judge(after, last)
