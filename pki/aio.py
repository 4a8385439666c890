"""The authority for an event loop: nothing here blocks it, and every answer comes after the durable commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

from chargepki.pki.authority import Authority as BlockingAuthority
from chargepki.pki.authority import IssuedCertificate, IssueOrder, utc_now
from chargepki.pki.authority.queue import answer_of, enqueue
from chargepki.pki.crl_entry import ReasonCode
from chargepki.pki.errors import ChargePkiError, StateError, UnavailableError
from chargepki.pki.inventory import ChangeWatcher, Inventory
from chargepki.pki.inventory.records import Actor, CertificateRecord, CrlRecord, IssuanceRecord

__all__ = ["Authority", "Issuer", "QueueIssuer"]

_log = logging.getLogger("chargepki.authority")
_T = TypeVar("_T")
_MAX_BATCH = 64
_POLL_SECONDS = 0.25
_WRITERS = 8
"""Threads that submit: as many share one commit."""


class Issuer(Protocol):
    """Whatever turns an order into a certificate: an authority in this process, or the queue to one elsewhere."""

    async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
        """Return once *order* is durable; the future brings its certificate, or a `ChargePkiError`.

        From then on the order outlives this process: its certificate waits in the inventory, whoever issues it.
        Cancel the future to stop waiting.
        """
        ...

    async def resume(self) -> None:
        """Answer what an earlier process submitted and left behind, if that is this issuer's to do; cheap if none."""
        ...

    async def aclose(self) -> None:
        """Stop; orders that wait get a `StateError`."""
        ...


class Authority:
    """`chargepki.pki.Authority` for asyncio: orders that wait at the same time share one commit.

    Example:
        async with aio.Authority(blocking) as authority:
            issued = await authority.issue(order)

    Use it from one event loop. `aclose` waits for the batch under way; what it made is durable in any case.
    """

    def __init__(self, authority: BlockingAuthority) -> None:
        self._authority = authority
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="chargepki-authority")
        self._queue = _Queue(authority.inventory, authority.queue, serve=self._serve_queue)
        self._owner = f"authority {uuid.uuid4().hex}"
        self._waiting: list[tuple[IssueOrder, asyncio.Future[IssuedCertificate]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def issue(self, order: IssueOrder) -> IssuedCertificate:
        """Issue one certificate; see `chargepki.pki.Authority.issue` for the errors."""
        if self._closed:
            raise StateError("the authority is closed", fix="make a new one")
        future: asyncio.Future[IssuedCertificate] = asyncio.get_running_loop().create_future()
        self._waiting.append((order, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._drain())
        return await future

    async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
        """Queue *order* durably and answer it from the queue, so that a restart of this process loses nothing."""
        return await self._queue.submit(order)

    async def resume(self) -> None:
        """Answer what lies in the queue, whoever put it there."""
        if await self._run(lambda: self._authority.inventory.list_issuances(open_only=True, limit=1)):
            await self._run(self._serve_queue)

    def _serve_queue(self) -> bool:
        return self._authority.serve_queue_once(self._owner) > 0

    async def revoke(
        self,
        certificate_id: str,
        reason: ReasonCode | str,
        *,
        revoked_at: datetime | None = None,
        invalidity_date: datetime | None = None,
        record_only: bool = False,
    ) -> CertificateRecord:
        """Revoke one certificate; see `chargepki.pki.Authority.revoke`."""
        revoke = partial(
            self._authority.revoke, revoked_at=revoked_at, invalidity_date=invalidity_date, record_only=record_only
        )
        return await self._run(lambda: revoke(certificate_id, reason))

    async def release(self, certificate_id: str, *, record_only: bool = False) -> CertificateRecord:
        """Take one certificate off hold; see `chargepki.pki.Authority.release`."""
        return await self._run(lambda: self._authority.release(certificate_id, record_only=record_only))

    async def publish_crl(self, ca: str) -> CrlRecord:
        """Sign and publish the next CRL of *ca*; see `chargepki.pki.Authority.publish_crl`."""
        return await self._run(lambda: self._authority.publish_crl(ca))

    async def aclose(self) -> None:
        """Answer what is under way, refuse what still waits, and release the threads."""
        self._closed = True
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._queue.aclose()
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            orders = [order for order, _ in batch]
            try:
                answers = await self._run(partial(self._authority.issue_many, orders))
            except BaseException as error:  # whatever happened, nobody may wait for ever
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, ChargePkiError):
                    raise
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # the caller gave up; the certificate stays in the inventory
                    continue
                if isinstance(answer, ChargePkiError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


class QueueIssuer:
    """Issue through the inventory's queue, so that this process needs no CA key (`authority serve` answers).

    An order that is queued stays queued when this process dies; the certificate then waits in the inventory with
    delivery ``pending``.
    """

    def __init__(self, inventory: Inventory, *, actor: Actor, clock: Callable[[], datetime] = utc_now) -> None:
        self._queue = _Queue(inventory, lambda order: enqueue(inventory, order, actor=actor, now=clock()))

    async def issue(self, order: IssueOrder) -> IssuedCertificate:
        """Queue *order* and wait, without limit, for the authority's answer; cancel to stop waiting."""
        return await (await self._queue.submit(order))

    async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
        """Queue *order* durably; the future brings the authority's answer."""
        return await self._queue.submit(order)

    async def resume(self) -> None:
        """Do nothing: the authority answers."""

    async def aclose(self) -> None:
        """Stop waiting; queued orders stay queued."""
        await self._queue.aclose()


class _Queue:
    """The queue as an event loop sees it: orders go in, and each has a future for its answer.

    Args:
        put: stores an order durably (blocking).
        serve: answers what is queued and says whether there was anything (blocking); ``None`` where another process
            does that.
    """

    def __init__(
        self,
        inventory: Inventory,
        put: Callable[[IssueOrder], IssuanceRecord],
        *,
        serve: Callable[[], bool] | None = None,
    ) -> None:
        self._inventory, self._put, self._serve = inventory, put, serve
        self._executor = ThreadPoolExecutor(max_workers=_WRITERS + 2, thread_name_prefix="chargepki-queue")
        self._waiting: dict[str, asyncio.Future[IssuedCertificate]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
        if self._closed:
            raise StateError("the queue is closed", fix="make a new one")
        record = await self._run(lambda: self._put(order))
        future: asyncio.Future[IssuedCertificate] = asyncio.get_running_loop().create_future()
        self._waiting[record.id] = future
        future.add_done_callback(lambda done: self._answered(record.id, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer())
        return future

    async def aclose(self) -> None:
        self._closed = True
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(StateError("this process stops; the request stays queued"))
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _answered(self, record_id: str, future: asyncio.Future[IssuedCertificate]) -> None:
        self._waiting.pop(record_id, None)
        if not future.cancelled():
            # Seen, even if nobody waits any more: a refusal may come when whoever submitted has been cancelled.
            future.exception()

    async def _answer(self) -> None:
        while self._waiting and not self._closed:
            # Whatever fails here, the orders stay queued: they are answered when the database is back, or when the
            # lease of whoever took them has ended.
            try:
                with contextlib.closing(await self._run(self._inventory.watch)) as watcher:
                    await self._watch(watcher)
            except ChargePkiError as error:
                _log.warning("queued requests cannot be followed: %s; trying again", error)
                await asyncio.sleep(_POLL_SECONDS)

    async def _watch(self, watcher: ChangeWatcher) -> None:
        while self._waiting and not self._closed:
            served = self._serve is not None and await self._run(self._serve)
            for record_id, future in list(self._waiting.items()):
                await self._look(record_id, future)
            # A missed notification costs one poll interval, never the answer.
            if not served and self._waiting:
                await self._run(lambda: watcher.wait(_POLL_SECONDS))

    async def _look(self, record_id: str, future: asyncio.Future[IssuedCertificate]) -> None:
        answer: IssuedCertificate | ChargePkiError | None
        try:
            answer = await self._run(lambda: answer_of(self._inventory, record_id))
        except UnavailableError:
            raise
        except ChargePkiError as error:
            answer = error
        if answer is None or future.done():
            return
        if isinstance(answer, ChargePkiError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
