"""Group commit over threads: whoever finds nobody at work leads, and takes along what others queued meanwhile.

While a leader waits for the disk, callers queue; the first of them leads next with everything that has come together.
One durable commit then serves many callers, and a lone caller pays nothing for it: no thread, no timer, no delay.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

__all__ = ["Combiner", "Job"]

_W = TypeVar("_W")
_MAX_BATCH: Final = 256


class Job(Generic[_W]):
    """One queued work, its outcome, and the gate its caller waits at."""

    __slots__ = ("error", "gate", "leads", "result", "settled", "work")

    def __init__(self, work: _W) -> None:
        self.work = work
        self.result: object = None
        self.error: BaseException | None = None
        self.settled = False
        self.leads = False
        # A bare lock is the cheapest one-shot event there is.
        self.gate = threading.Lock()
        self.gate.acquire()

    def succeed(self, result: object) -> None:
        """Set the outcome of a work that was committed."""
        self.result = result
        self.settled = True

    def fail(self, error: BaseException) -> None:
        """Set the error that the caller will see."""
        self.error = error
        self.settled = True

    def outcome(self) -> object:
        """Return the result or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class Combiner(Generic[_W]):
    """Runs batches one at a time. *run* settles every job it is given, or raises and leaves them unsettled."""

    def __init__(self, run: Callable[[Sequence[Job[_W]]], None]) -> None:
        self._run = run
        self._mutex = threading.Lock()
        self._queue: deque[Job[_W]] = deque()
        self._busy = False
        self._leader: int | None = None

    def submit(self, work: _W) -> object:
        """Have *work* run in some batch and return its result, or raise its error.

        Raises:
            RuntimeError: called from inside a work, which would wait for itself.
        """
        if self._leader == threading.get_ident():
            raise RuntimeError("a work must not start another one: use the transaction it was given")
        job = Job(work)
        with self._mutex:
            self._queue.append(job)
            leads = not self._busy
            self._busy = True
        if not leads:
            self._wait(job)
        if not job.settled:
            self._lead()
        return job.outcome()

    def submit_all(self, works: Sequence[_W]) -> list[Job[_W]]:
        """Have *works* run together, or in as few batches as may be, and return their jobs, settled, in their order.

        Raises:
            RuntimeError: as `submit`.
        """
        if self._leader == threading.get_ident():
            raise RuntimeError("a work must not start another one: use the transaction it was given")
        jobs = [Job(work) for work in works]
        if not jobs:
            return jobs
        with self._mutex:
            self._queue.extend(jobs)
            leads = not self._busy
            self._busy = True
        broken: BaseException | None = None
        for job in jobs:
            try:
                if job is not jobs[0] or not leads:
                    self._wait(job)
                if not job.settled:
                    self._lead()
            except BaseException as exc:  # noqa: BLE001 - a lead that comes to a later job must be taken all the same
                broken = broken or exc
        if broken is not None:
            raise broken
        return jobs

    def _wait(self, job: Job[_W]) -> None:
        try:
            job.gate.acquire()
        except BaseException:
            # Interrupted while waiting: leave the queue, or hand on a lead that came at the same moment.
            with self._mutex:
                if job in self._queue and not job.leads:
                    self._queue.remove(job)
                    raise
            if job.leads:
                with self._mutex:
                    self._queue.remove(job)
                self._pass_on()
            raise

    def _lead(self) -> None:
        with self._mutex:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
        self._leader = threading.get_ident()
        try:
            self._run(batch)
        except BaseException:
            # A bug or an interrupt in the leader's thread: nothing was committed, so the others may try again.
            with self._mutex:
                self._queue.extendleft(
                    other for other in reversed(batch) if not other.settled and other is not batch[0]
                )
            batch[0].settled = True
            raise
        finally:
            self._leader = None
            self._pass_on()
            for job in batch:
                if job.settled:
                    job.gate.release()

    def _pass_on(self) -> None:
        with self._mutex:
            if not self._queue:
                self._busy = False
                return
            following = self._queue[0]
            following.leads = True
        following.gate.release()
