"""Apply alert rules to what the inventory records, and deliver alerts from its outbox until each target has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import aiohttp

from chargepki.ocpp_security.alerts import (
    MAX_ATTEMPTS,
    MAX_WINDOW,
    SIGNATURE_HEADER,
    AlertPlan,
    ExecTarget,
    LogTarget,
    Target,
    WebhookTarget,
    back_off,
    document_of,
    evaluate,
    scope_of,
    sign_body,
)
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.files import read_private
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.event_records import AlertDeliveryRecord, AlertRecord, DeliveryState
from chargepki.pki.inventory.records import Actor

__all__ = ["AlertEngine", "DeliveryFailed", "apply_rules"]

_log = logging.getLogger("chargepki.alerts")
_CURSOR = "alerts"
_BATCH = 500
_TICK_SECONDS = 1.0
_MAX_AT_ONCE = 4
"""Deliveries under way at one time: programs and connections that a storm of alerts may cost."""
_LEASE_MARGIN = timedelta(seconds=30)


class DeliveryFailed(UnavailableError):
    """A target did not take an alert; it is tried again."""

    code: ClassVar[str] = "alert-delivery"


def apply_rules(inventory: Inventory, plan: AlertPlan, actor: Actor, now: datetime) -> int:
    """Raise the alerts that new occurrences make, and put them into the outbox, all in one transaction.

    Any number of processes may do so at once on one inventory: each occurrence is looked at once. The first time only
    notes where the feed stands: what happened before there were rules makes no alert.

    Returns:
        How many alerts were raised.
    """
    position = inventory.alert_position(_CURSOR)
    if position is not None and inventory.last_event_change() <= position:
        return 0

    def work(tx: Transaction) -> int:
        position = tx.alert_position(_CURSOR)
        if position is None:
            tx.set_alert_position(_CURSOR, tx.last_event_change())
            return 0
        changed = tx.list_changed_events(after=position, limit=_BATCH)
        if not changed:
            return 0
        recent = tx.list_recent_events(since=min(each.last_received_at for each in changed) - MAX_WINDOW)
        last = {}
        for rule in plan.rules:
            for scope in {scope_of(rule, series) for series in changed}:
                at = tx.last_alert_at(rule.name, scope)
                if at is not None:
                    last[rule.name, scope] = at
        alerts = evaluate(plan.rules, changed, recent, last, now)
        for alert in alerts:
            tx.add_alert(alert)
            for target in next(rule.targets for rule in plan.rules if rule.name == alert.rule):
                tx.put_alert_delivery(AlertDeliveryRecord(alert.id, target, DeliveryState.PENDING, 0, now))
            details = {"rule": alert.rule, "summary": alert.summary}
            tx.audit(actor, "alert.raise", alert.id, now=now, details=details)
        tx.set_alert_position(_CURSOR, changed[-1].changed)
        return len(alerts)

    raised = 0
    while True:
        raised += inventory.write(work)
        if inventory.last_event_change() <= (inventory.alert_position(_CURSOR) or 0):
            return raised


class AlertEngine:
    """Watches one inventory and delivers its alerts, in the caller's event loop.

    Delivery is at least once: an attempt is counted in the outbox before it is made, and a process that dies leaves
    it there for the next one, or for another that shares the inventory. Receivers know a repetition by its ``id``.

    Example:
        async with AlertEngine(inventory, load_alert_plan(path), actor=actor, environ=os.environ):
            ...
    """

    def __init__(
        self,
        inventory: Inventory,
        plan: AlertPlan,
        *,
        actor: Actor,
        environ: Mapping[str, str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up; nothing runs yet.

        Args:
            environ: where `WebhookTarget.secret_env` is looked up, and what programs get (without our own variables).
        """
        self.plan = plan
        """May be replaced at any time."""
        self._inventory, self._actor, self._environ, self._clock = inventory, actor, environ, clock
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Semaphore(_MAX_AT_ONCE)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Note where the feed stands, and begin."""
        await asyncio.to_thread(apply_rules, self._inventory, self.plan, self._actor, self._clock())
        self._tasks = [asyncio.create_task(self._run())]

    async def stop(self) -> None:
        """End; what is under way stays in the outbox. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(apply_rules, self._inventory, self.plan, self._actor, self._clock())
                await self.deliver_due()
            except ChargePkiError as exc:
                _log.error("alerts cannot be worked on: %s; trying again", exc)
            await asyncio.sleep(_TICK_SECONDS)

    async def deliver_due(self) -> int:
        """Try every delivery that is due now; return how many succeeded."""
        due = await asyncio.to_thread(self._inventory.list_due_deliveries, self._clock())
        outcomes = await asyncio.gather(*(self._deliver(record) for record in due))
        return sum(outcomes)

    async def _deliver(self, record: AlertDeliveryRecord) -> bool:
        target = self.plan.targets.get(record.target)
        lease = (timedelta(0) if target is None or isinstance(target, LogTarget) else target.timeout) + _LEASE_MARGIN
        async with self._room:
            taken = await asyncio.to_thread(
                self._inventory.write,
                lambda tx: tx.take_alert_delivery(record, now=self._clock(), lease=lease),
            )
            if taken is None:
                return False
            alert = await asyncio.to_thread(self._inventory.find_alert, taken.alert)
            assert alert is not None, "a delivery refers to its alert"
            state, error = DeliveryState.DELIVERED, None
            if target is None:
                state, error = DeliveryState.FAILED, "the target is not configured any more"
            else:
                try:
                    await self.tell(target, alert)
                except ChargePkiError as exc:
                    error = str(exc)
                    state = DeliveryState.PENDING if taken.attempts < MAX_ATTEMPTS else DeliveryState.FAILED
        if error is not None:
            _log.error(
                "alert %s was not delivered to %s (attempt %d): %s", alert.id, record.target, taken.attempts, error
            )
        now = self._clock()
        next_at = now + back_off(taken.attempts) if state is DeliveryState.PENDING else None
        await asyncio.to_thread(
            self._inventory.write,
            lambda tx: tx.finish_alert_delivery(taken, state, now=now, next_at=next_at, error=error),
        )
        return state is DeliveryState.DELIVERED

    async def tell(self, target: Target, alert: AlertRecord) -> None:
        """Give *alert* to *target*, once.

        Raises:
            DeliveryFailed: it was not taken.
            SignerError: the secret of a webhook is absent, or others can read it.
        """
        match target:
            case LogTarget():
                level = {"info": logging.INFO, "warning": logging.WARNING}.get(target.level, logging.ERROR)
                _log.log(level, "alert %s [%s]: %s", alert.id, alert.rule, alert.summary)
            case ExecTarget():
                await _run_program(target, document_of(alert), self._environ)
            case WebhookTarget():
                await _post(target, document_of(alert), self._secret(target), self._clock())

    def _secret(self, target: WebhookTarget) -> bytes:
        if target.secret_file:
            found = read_private(Path(target.secret_file)).strip()
        else:
            found = self._environ.get(target.secret_env, "").encode()
        if not found:
            raise DeliveryFailed(
                f"the webhook {target.name} has no secret",
                why=f"{target.secret_file or target.secret_env} is empty or not set",
            )
        return found


async def _run_program(target: ExecTarget, body: bytes, environ: Mapping[str, str]) -> None:
    """Run a program with *body* on its standard input; whatever it started is killed with it when it is too slow."""
    # Our own variables may point at passphrases.
    kept = {name: value for name, value in environ.items() if not name.startswith("CHARGEPKI_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *target.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=kept,
            start_new_session=True,
        )
    except OSError as exc:
        raise DeliveryFailed(f"{target.command[0]} cannot be run", why=exc.strerror or type(exc).__name__) from exc
    try:
        async with asyncio.timeout(target.timeout.total_seconds()):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await process.communicate(body)
            status = await process.wait()
    except TimeoutError as exc:
        raise DeliveryFailed(f"{target.command[0]} did not end within {target.timeout.total_seconds():.0f} s") from exc
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise DeliveryFailed(f"{target.command[0]} ended with status {status}")


async def _post(target: WebhookTarget, body: bytes, secret: bytes, now: datetime) -> None:
    """Post *body*, signed; nothing of the answer but its status is read, and no redirect is followed."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "chargepki",
        SIGNATURE_HEADER: sign_body(secret, body, now),
    }
    timeout = aiohttp.ClientTimeout(total=target.timeout.total_seconds())
    try:
        # A proxy from the environment would be an address that the operator did not write into the rule.
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session,
            session.post(target.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError as exc:
        raise DeliveryFailed(f"the webhook {target.name} did not answer in time") from exc
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        # Its text may hold the address, which may hold a token.
        raise DeliveryFailed(f"the webhook {target.name} cannot be reached", why=type(exc).__name__) from exc
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook {target.name} answered {status}")
