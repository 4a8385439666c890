"""Carry out operations on the stations that are connected here, one at a time each, under leases."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.link import CallRefused, CallUnanswered
from chargepki.ocpp_security.log_requests import upload_location, upload_token
from chargepki.ocpp_security.operation_store import Lane, OperationStore
from chargepki.ocpp_security.operations import (
    AskReconnect,
    Finish,
    OperationKind,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Wait,
    next_step,
    read_answer,
)
from chargepki.ocpp_security.rpc import Origin
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import ChargePkiError, Conflict, InputError, StateError
from chargepki.pki.inventory import SealingKey
from chargepki.pki.inventory.records import OperationRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["OperationRunner"]

P = ParamSpec("P")
T = TypeVar("T")

_Key = tuple[str, Lane]
"""A station and a lane: one task each."""

_log = logging.getLogger("chargepki.csms")
_LEASE = timedelta(seconds=60)
_LOOK_AGAIN_SECONDS = 5.0
"""How long a waiting operation is left alone at most; also how often its lease is extended."""
_SERVICE_RESTART = 1012


class OperationRunner:
    """Takes open operations of connected stations. Any number of processes may do so on one inventory."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Without the workspace's key a sealed password cannot be opened: such an operation is reported and left alone.
        sealing = services.config.sealing_key or SealingKey(secrets.token_bytes(32))
        self._store = OperationStore(services.inventory, sealing, owner=services.config.owner, actor=services.actor)
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._news: dict[_Key, asyncio.Event] = {}
        self._stopping = False

    def kick(self, station: str) -> None:
        """Look at the operations of *station*, if it is connected here; cheap when there is nothing to do."""
        connection = self._services.registry.find(station)
        if self._stopping or connection is None or not _may_be_called(connection):
            return
        for lane in Lane:
            self._kick((station, lane))

    def _kick(self, key: _Key) -> None:
        if key in self._tasks:
            self._news[key].set()
            return
        self._news[key] = asyncio.Event()
        task = self._services.background.spawn(self._serve(key), f"operations of {key[0]} ({key[1]})")
        self._tasks[key] = task
        task.add_done_callback(lambda _task: self._ended(key))

    def wake(self, station: str) -> None:
        """Something happened to *station* that an operation may wait for."""
        for lane in Lane:
            if (station, lane) in self._tasks:
                self._news[station, lane].set()

    async def look(self, operations: Iterable[str]) -> None:
        """Look at operations that were created or changed, here or elsewhere."""
        for operation_id in operations:
            record = await self._off(self._services.inventory.find_operation, operation_id)
            if record is not None and not record.state.is_final:
                self.kick(record.station)

    async def sweep(self) -> None:
        """Expire what is past its deadline, also for stations that are offline, and take up what was left behind."""
        now = self._services.clock()
        for record in await self._off(self._store.expire_due, now):
            _log.warning("operation %s on %s expired", record.id, record.station)
        for record in await self._off(self._services.inventory.list_operations, open_only=True):
            if not any((record.station, lane) in self._tasks for lane in Lane if lane.holds(record.kind)):
                self.kick(record.station)

    async def stop(self) -> None:
        """Give leases back, so that another process need not wait until they lapse."""
        self._stopping = True
        for event in self._news.values():
            event.set()
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=5)

    # One station

    def _ended(self, key: _Key) -> None:
        del self._tasks[key]
        # What was announced in the last instant of the task must not wait for the next sweep.
        if self._news.pop(key).is_set():
            self.kick(key[0])

    async def _serve(self, key: _Key) -> None:
        station, lane = key
        while not self._stopping:
            self._news[key].clear()
            connection = self._services.registry.find(station)
            if connection is None or not _may_be_called(connection):
                return
            # A lease is a write, and most stations that connect have no update under way.
            if lane is Lane.FIRMWARE and not await self._off(self._store.has_open, station, lane):
                return
            operation = await self._lease(key)
            if operation is None:
                return
            try:
                await self._carry_out(connection, operation)
            except Conflict as exc:
                _log.warning("%s: %s", station, exc)
                return
            except ChargePkiError as exc:
                _log.error("operation %s on %s cannot be carried out: %s", operation.id, station, exc)
                await self._off(self._store.release, operation, unknown=False)
                return

    async def _lease(self, key: _Key) -> OperationRecord | None:
        station, lane = key
        return await self._off(self._store.lease, station, self._services.clock(), duration=_LEASE, lane=lane)

    async def _carry_out(self, connection: StationConnection, operation: OperationRecord) -> None:
        """Do one step after the other until the operation is finished, or this connection is the wrong place for it."""
        station = operation.station
        while True:
            # Forget old news before looking, so that what happens while we look is not forgotten.
            self._news[_key(operation)].clear()
            snapshot = await self._snapshot(connection, operation)
            step = next_step(snapshot, self._services.clock())
            unanswered = bool(snapshot.attempts) and snapshot.attempts[-1].answered_at is None
            if isinstance(step, Finish):
                await self._off(self._store.finish, operation, step, self._services.clock())
                _log.info("operation %s on %s: %s", operation.id, station, step.state.value)
                if step.outcome.get("unsecured"):
                    connection.note_unsecured(operation.kind)
                return
            is_here = self._services.registry.find(station) is connection and _may_be_called(connection)
            if self._stopping or not is_here:
                await self._off(self._store.release, operation, unknown=unanswered)
                return
            if isinstance(step, SendAttempt):
                await self._attempt(connection, operation, step)
            elif isinstance(step, AskReconnect):
                await self._off(self._store.release, operation, unknown=unanswered)
                _log.info("%s: asked to reconnect: %s", station, step.why)
                await connection.link.close_soon(_SERVICE_RESTART, "please reconnect")
                return
            else:
                operation = await self._wait(operation, step)

    async def _snapshot(self, connection: StationConnection, operation: OperationRecord) -> Snapshot:
        use, profile = _use_of(operation), None
        plans = connection.renewal.flow.plans
        if use is not None and use in plans:
            profile = plans[use].profile
        snapshot = await self._off(
            self._store.snapshot,
            operation,
            version=connection.version,
            security_profile=int(connection.profile),
            allowed_unsecured=self._services.unsecured.allows(connection.station.id),
            sent_here=operation.id in connection.attempted,
            booted_here=connection.has_booted,
            password_sent_here=connection.password_sent,
            admitted_pending=connection.station.pending_password_hash,
            profile=profile,
            now=self._services.clock(),
        )
        if operation.kind == OperationKind.GET_LOG:
            return await self._off(self._with_log, snapshot)
        if use is None or not snapshot.attempts:
            return snapshot
        since = snapshot.attempts[0].sent_at
        return replace(
            snapshot,
            delivered=connection.renewal.delivered_since(use, since),
            refusal=connection.renewal.refused_since(use, since),
        )

    def _with_log(self, snapshot: Snapshot) -> Snapshot:
        operation, inventory, config = snapshot.operation, self._services.inventory, self._services.config
        log = inventory.find_requested_log(operation.id)
        location = None
        if log is not None and config.upload_url is not None and config.sealing_key is not None:
            location = upload_location(config.upload_url, log, upload_token(config.sealing_key, log))
        others = inventory.list_operations(station=operation.station, open_only=True)
        replaced = any(
            other.kind == operation.kind and (other.created_at, other.id) > (operation.created_at, operation.id)
            for other in others
        )
        return replace(snapshot, log=log, log_location=location, replaced=replaced)

    async def _attempt(self, connection: StationConnection, operation: OperationRecord, step: SendAttempt) -> None:
        clock = self._services.clock
        attempt = await self._off(self._store.begin_attempt, operation, step, clock())
        connection.attempted.add(operation.id)
        connection.password_sent |= step.password is not None and step.password.step is PasswordStep.PEND
        payload, error = None, None
        try:
            # What may not go without TLS, the step has refused already.
            payload = await connection.call(step.action, step.payload, unchecked=step.unchecked, consented=True)
        except CallRefused as exc:
            # An answer that we could not read proves nothing about what the station did.
            error = exc.rpc_code if exc.origin is Origin.PEER else None
        except CallUnanswered as exc:
            _log.warning("%s: %s", operation.station, exc)
        except (InputError, StateError) as exc:
            # It never left: the version has no such call, or too many wait. That is as good as a refusal.
            _log.warning("%s: %s cannot be sent: %s", operation.station, step.action, exc)
            error = "NotSupported"
        answer = read_answer(operation, connection.version, payload, error, recorded=step.recorded)
        await self._off(self._store.record_answer, operation, attempt, answer, clock())

    async def _wait(self, operation: OperationRecord, step: Wait) -> OperationRecord:
        if operation.state is not step.state:
            await self._off(self._store.mark, operation, step)
        pause = min(_LOOK_AGAIN_SECONDS, max(0.05, (step.until - self._services.clock()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._news[_key(operation)].wait()
        leased = await self._lease(_key(operation))
        if leased is None or leased.id != operation.id:
            raise Conflict(f"the lease on operation {operation.id} was lost")
        return leased

    async def _off(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._services.offload.run(work, *args, **kwargs)


def _may_be_called(connection: StationConnection) -> bool:
    """Say whether operations are carried out over *connection*; where not, they wait.

    A station that is only let in to get its certificate has no other business yet, and one that was rejected is left
    alone (B03.FR.03).
    """
    return connection.restriction is None and not connection.standing.is_rejected


def _key(operation: OperationRecord) -> _Key:
    return operation.station, next(lane for lane in Lane if lane.holds(operation.kind))


def _use_of(operation: OperationRecord) -> CertificateUse | None:
    named = operation.parameters.get("use")
    return next((use for use in CertificateUse if use.value == named), None)
