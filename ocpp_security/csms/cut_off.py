"""Two rules for a server that keeps connections in its own way: one for each station, none without a right to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from websockets.exceptions import ConnectionClosed

from chargepki.ocpp_security.csms.arrival import find_loss
from chargepki.ocpp_security.csms.config import DuplicatePolicy
from chargepki.ocpp_security.csms.feed import ChangeFeed
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry

__all__ = ["Closable", "CutOff", "OneConnection"]

_log = logging.getLogger("chargepki.csms")
_POLICY_VIOLATION = 1008
_PROBE_SECONDS = 5.0


class Closable(Protocol):
    """What is needed of a connection; those of `websockets` have it."""

    async def ping(self) -> Awaitable[float]:
        """Send a ping; the result is awaited for the pong."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it with a WebSocket close code and a reason of at most 123 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class _Guarded:
    connection: Closable
    station: str
    certificate: str | None


class CutOff:
    """Closes live connections whose certificate is revoked or whose station is removed, whoever did that and where.

    `CsmsSecurity` does this by itself; this is for a server that takes nothing else of it.

    Example:
        async with CutOff(inventory) as cut_off:
            with cut_off.guard(websocket, station="CS-1", certificate=record.id):
                ...  # serve the connection
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._offload = Offload(threads=2)
        self._feed = ChangeFeed(inventory, self._offload, self._act_on)
        self._guarded: set[_Guarded] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._feed.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._feed.stop()
        if self._closing:
            await asyncio.wait(set(self._closing))
        self._offload.close()

    @contextlib.contextmanager
    def guard(self, connection: Closable, *, station: str, certificate: str | None = None) -> Iterator[None]:
        """Watch *connection* for the length of the block.

        Args:
            certificate: id in the inventory of the certificate that opened it, on profile 3.
        """
        guarded = _Guarded(connection, station, certificate)
        self._guarded.add(guarded)
        # What was committed between its authentication and now has been announced already.
        self._spawn(self._check(guarded))
        try:
            yield
        finally:
            self._guarded.discard(guarded)

    async def _act_on(self, entries: Sequence[AuditEntry]) -> None:
        if any(table in ("certificate", "station") for entry in entries for table, _key, _digest in entry.effects):
            for guarded in tuple(self._guarded):
                if self._concerns(guarded, entries):
                    await self._check(guarded)

    @staticmethod
    def _concerns(guarded: _Guarded, entries: Sequence[AuditEntry]) -> bool:
        # A superseded certificate falls with its successor, so every change of a certificate concerns profile 3.
        tables = {"station"} if guarded.certificate is None else {"station", "certificate"}
        return any(
            table in tables and (table == "certificate" or key == guarded.station)
            for entry in entries
            for table, key, _digest in entry.effects
        )

    async def _check(self, guarded: _Guarded) -> None:
        lost = await self._offload.run(find_loss, self._inventory, guarded.station, guarded.certificate)
        if lost is None or guarded not in self._guarded:
            return
        self._guarded.discard(guarded)
        incident = lost.incident(guarded.station)
        _log.warning("%s: [%s] %s; to fix: %s", guarded.station, incident.code, incident.cause, incident.cure)
        # Not awaited here: a peer that does not answer the close frame must not hold up the others.
        self._spawn(guarded.connection.close(_POLICY_VIOLATION, lost.value))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except ConnectionClosed:
        pass
    except ChargePkiError as error:
        # The feed looks again with the next change.
        _log.error("whether a connection may stay cannot be read: %s", error)


class OneConnection:
    """Keeps at most one connection for each station: a newer one replaces the first, or has to wait for its end.

    `CsmsSecurity` does this by itself, over all processes that share an inventory; this knows one process.

    Example:
        async with one_connection.of("CS-1", websocket):
            ...  # serve the connection
    """

    def __init__(self, policy: DuplicatePolicy = DuplicatePolicy.NEWEST) -> None:
        self._policy = policy
        self._live: dict[str, Closable] = {}

    async def admits(self, station: str) -> bool:
        """Say before the upgrade whether an authenticated connection may come in; answer 409 otherwise.

        Always true with `DuplicatePolicy.NEWEST`; with ``PROBE`` only when the first leaves a ping unanswered.
        """
        first = self._live.get(station)
        if first is None or self._policy is DuplicatePolicy.NEWEST:
            return True
        return not await _answers(first)

    @contextlib.asynccontextmanager
    async def of(self, station: str, connection: Closable) -> AsyncIterator[None]:
        """Make *connection* the one of *station* for the length of the block; an older one is closed with 1008."""
        first, self._live[station] = self._live.get(station), connection
        closing = asyncio.ensure_future(_close_replaced(first)) if first is not None else None
        try:
            yield
        finally:
            if self._live.get(station) is connection:
                del self._live[station]
            if closing is not None:
                await closing


async def _close_replaced(first: Closable) -> None:
    await first.close(_POLICY_VIOLATION, "replaced by a newer connection of this station")


async def _answers(first: Closable) -> bool:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await (await first.ping())
    except (TimeoutError, ConnectionClosed):
        return False
    return True
