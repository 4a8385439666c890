"""Follow what other processes commit: close connections that lost their right, carry out operations on stations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from chargepki.ocpp_security.csms.arrival import REPLACED_ACTION, Arrival, is_still_allowed
from chargepki.ocpp_security.csms.operation_runner import OperationRunner
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.identity import check_fallback
from chargepki.ocpp_security.throttle import RepeatFilter
from chargepki.pki.errors import ChargePkiError, RevocationError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import (
    AuditEntry,
    CertificateRecord,
    CertificateState,
    Delivery,
    StationState,
)

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["Worker"]

_log = logging.getLogger("chargepki.csms")
_WATCH_SECONDS = 1.0
"""Longest wait in one go: how long `stop` may take."""
_TICK_SECONDS = 2.0
"""How often deadlines, expired leases and missed announcements are looked for."""
_BATCH = 500
_QUEUE_PATIENCE = timedelta(seconds=10)
_QUEUE_WARNINGS = timedelta(minutes=1)


class Worker:
    """The change feed of one endpoint.

    A thread waits for commits (on SQLite it polls, and `wait` blocks); the event loop reads the audit entries that
    came since. The audit log is the feed because whatever changes a right is audited in the same commit, so nothing
    can be changed and not announced.
    """

    def __init__(self, services: Services, displaced: Callable[[StationConnection, str], None]) -> None:
        self._services = services
        self._displaced = displaced
        self._stopping = threading.Event()
        self._woken = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._seq = 0
        self._queue_warnings = RepeatFilter(_QUEUE_WARNINGS)
        self.operations = OperationRunner(services)

    async def start(self) -> None:
        """Begin after the newest entry of the log."""
        services = self._services
        head = await services.offload.run(services.inventory.audit_head)
        self._seq = head.count if head is not None else 0
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, args=(loop,), name="chargepki-watch", daemon=True)
        self._thread.start()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._tick())]

    async def stop(self) -> None:
        """End the thread and the tasks. Idempotent."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.operations.stop()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def connected(self, connection: StationConnection) -> None:
        """Look for operations that waited for this station."""
        self.operations.kick(connection.station.id)

    # The feed

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            try:
                with contextlib.closing(self._services.inventory.watch()) as watcher:
                    # What was committed before the watch began is read now.
                    self._wake(loop)
                    while not self._stopping.is_set():
                        if watcher.wait(_WATCH_SECONDS):
                            self._wake(loop)
            except ChargePkiError as exc:
                # The ticks go on meanwhile: late, but nothing is missed.
                _log.error("the inventory cannot be watched: %s; trying again", exc)
                self._stopping.wait(_WATCH_SECONDS)

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
            try:
                await self.operations.sweep()
                await self._services.issuer.resume()
                await self._warn_of_queue()
            except ChargePkiError as exc:
                _log.error("operations and queued requests cannot be read: %s; trying again", exc)

    async def _warn_of_queue(self) -> None:
        """Say that nobody answers the queue, once a minute: nothing else tells why no certificate comes."""
        services = self._services
        for request in await services.offload.run(lambda: services.inventory.list_issuances(open_only=True, limit=1)):
            now = services.clock()
            waited = now - request.created_at
            # One whose lease ended was taken by a process that has died since.
            is_held = request.lease_until is not None and request.lease_until > now
            if is_held or waited <= _QUEUE_PATIENCE:
                continue
            if self._queue_warnings.admit("queue", now) is not None:
                _log.warning(
                    "%s: its CSR has been queued for %d s and no authority has taken it; "
                    "to fix: start `chargepki authority serve`, or look at what it says",
                    request.station or request.requester, waited.total_seconds(),
                )  # fmt: skip

    async def _read(self) -> bool:
        services = self._services
        entries = await services.offload.run(services.inventory.list_audit, after_seq=self._seq, limit=_BATCH)
        if not entries:
            return False
        await self._act_on(entries)
        self._seq = entries[-1].seq
        return len(entries) == _BATCH

    async def _act_on(self, entries: Iterable[AuditEntry]) -> None:
        certificates, stations, operations, issued = set[str](), set[str](), set[str](), set[str]()
        for entry in entries:
            if entry.action == REPLACED_ACTION:
                self._replaced_elsewhere(entry)
            if entry.action == "certificate.issue" and isinstance(entry.details.get("station"), str):
                issued.add(str(entry.details["station"]))
            self.operations.wake(entry.actor.name)
            self.operations.wake(entry.subject)
            for table, key, _digest in entry.effects:
                known = {
                    "certificate": certificates,
                    "station": stations,
                    "station_terms": stations,
                    "operation": operations,
                }
                known.get(table, set()).add(key)
        for connection in self._services.registry:
            own = connection.certificate.id if connection.certificate is not None else None
            # What a fallback hangs on is another certificate of its station; fallbacks are few.
            if own in certificates or connection.station.id in stations or (certificates and connection.is_fallback):
                await self._check(connection)
        for station in issued:
            holder = self._services.registry.find(station)
            if holder is not None and holder.is_ready:
                holder.renewal.noticed()
        if operations:
            await self.operations.look(operations)

    def _replaced_elsewhere(self, entry: AuditEntry) -> None:
        connection = self._services.registry.find(entry.subject)
        if connection is not None and connection.id == entry.details.get("connection"):
            self._displaced(connection, f"process {entry.details.get('by')}")

    async def _check(self, connection: StationConnection) -> None:
        """Close *connection* if its certificate or its station lost the right to it."""
        services = self._services
        if connection.certificate is not None:
            record = await services.offload.run(services.inventory.find_certificate, connection.certificate.id)
            if record is None or record.state is not CertificateState.ISSUED:
                connection.close_for(Arrival.CERTIFICATE_REVOKED.incident(), Arrival.CERTIFICATE_REVOKED.value)
                return
            try:
                await services.offload.run(_check_fallback, services.inventory, record)
            except RevocationError:
                connection.close_for(Arrival.SUCCESSOR_REVOKED.incident(), Arrival.SUCCESSOR_REVOKED.value)
                return
        if not await services.offload.run(is_still_allowed, services.inventory, connection):
            connection.close_for(Arrival.EXCEPTION_ENDED.incident(), Arrival.EXCEPTION_ENDED.value)
            return
        station = await services.offload.run(services.inventory.find_station, connection.station.id)
        if station is None or station.state is not StationState.ACTIVE:
            connection.close_for(Arrival.STATION_REMOVED.incident(), Arrival.STATION_REMOVED.value)


def _check_fallback(inventory: Inventory, record: CertificateRecord) -> None:
    if record.delivery is Delivery.SUPERSEDED and record.station is not None:
        check_fallback(record, inventory.list_certificates(station=record.station, state=CertificateState.REVOKED))
