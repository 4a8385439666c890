"""Follow what other processes commit: close connections that lost their right, carry out operations on stations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from chargepki.ocpp_security.csms.arrival import REPLACED_ACTION, Arrival, find_loss, is_still_allowed
from chargepki.ocpp_security.csms.campaign_runner import CampaignRunner
from chargepki.ocpp_security.csms.feed import ChangeFeed
from chargepki.ocpp_security.csms.operation_runner import OperationRunner
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.issue_plans import plans_for
from chargepki.ocpp_security.throttle import RepeatFilter
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory.records import (
    AuditEntry,
)

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["Worker"]

_log = logging.getLogger("chargepki.csms")
_QUEUE_PATIENCE = timedelta(seconds=10)
_QUEUE_WARNINGS = timedelta(minutes=1)
_HARMLESS = frozenset({"certificate.take-into-use"})
"""Audit actions that end nobody's right; a fleet that comes for the first time makes one for each station."""


class Worker:
    """Acts on the change feed of one endpoint."""

    def __init__(self, services: Services, displaced: Callable[[StationConnection, str], None]) -> None:
        self._services = services
        self._displaced = displaced
        self._feed = ChangeFeed(services.inventory, services.offload, self._act_on, tick=self._tick)
        self.trust_changed = asyncio.Event()
        self._queue_warnings = RepeatFilter(_QUEUE_WARNINGS)
        self.operations = OperationRunner(services)
        self.campaigns = CampaignRunner(services)

    async def start(self) -> None:
        """Begin after the newest entry of the log."""
        await self._feed.start()
        self.campaigns.start()

    async def stop(self) -> None:
        """End the feed and give back leases. Idempotent."""
        await self._feed.stop_reading()
        await self.campaigns.stop()
        await self.operations.stop()
        await self._feed.stop()

    def connected(self, connection: StationConnection) -> None:
        """Look for operations that waited for this station."""
        self.operations.kick(connection.station.id)
        self.campaigns.wake()

    async def _tick(self) -> None:
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

    async def _act_on(self, entries: Sequence[AuditEntry]) -> None:
        trust = False
        certificates, stations, operations, issued = set[str](), set[str](), set[str](), set[str]()
        campaigns = set[str]()
        for entry in entries:
            if entry.action == REPLACED_ACTION:
                self._replaced_elsewhere(entry)
            if entry.action == "certificate.issue" and isinstance(entry.details.get("station"), str):
                issued.add(str(entry.details["station"]))
            self.operations.wake(entry.actor.name)
            self.operations.wake(entry.subject)
            if entry.action in _HARMLESS:
                continue
            for table, key, _digest in entry.effects:
                trust |= table in ("ca", "station_terms")
                known = {
                    "certificate": certificates,
                    "station": stations,
                    "station_terms": stations,
                    "operation": operations,
                    "campaign": campaigns,
                }
                known.get(table, set()).add(key)
        if trust:
            self.trust_changed.set()
        for connection in self._services.registry.concerned(certificates, stations):
            await self._check(connection)
        for station in issued:
            holder = self._services.registry.find(station)
            if holder is not None and holder.is_ready:
                holder.renewal.noticed()
        if operations or campaigns:
            self.campaigns.wake()
        if operations:
            await self.operations.look(operations)

    def _replaced_elsewhere(self, entry: AuditEntry) -> None:
        connection = self._services.registry.find(entry.subject)
        if connection is not None and connection.id == entry.details.get("connection"):
            self._displaced(connection, f"process {entry.details.get('by')}")

    async def _check(self, connection: StationConnection) -> None:
        """Close *connection* if its certificate or its station lost the right to it."""
        services = self._services
        certificate = connection.certificate.id if connection.certificate is not None else None
        lost = await services.offload.run(find_loss, services.inventory, connection.station.id, certificate)
        if lost is None and not await services.offload.run(is_still_allowed, services.inventory, connection):
            lost = Arrival.EXCEPTION_ENDED
        terms = await services.offload.run(services.inventory.find_station_terms, connection.station.id)
        plans = plans_for(services.config.plans, terms.issue)
        if plans != connection.renewal.flow.plans:
            # Which CA signs for the station has changed; its next request shall not wait for a reconnect to heed it.
            connection.renewal.flow.replan(plans)
        if lost is not None:
            connection.close_for(lost.incident(connection.station.id), lost.value)
