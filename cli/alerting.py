"""What the alert commands do, and the engine that long-running commands carry with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from chargepki.cli.globals import GlobalState
from chargepki.ocpp_security.alert_settings import load_alert_plan
from chargepki.ocpp_security.alerting import AlertEngine
from chargepki.ocpp_security.alerts import AlertPlan, Target, trial_alert
from chargepki.pki.authority import utc_now
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import ChargePkiError, InputError, NotFound, UnavailableError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.event_records import AlertRecord, AlertState
from chargepki.pki.workspace import Workspace

__all__ = ["acknowledge_alerts", "alerting", "read_plan", "try_targets"]

_LOOK_SECONDS = 2.0


def read_plan(workspace: Workspace) -> AlertPlan:
    """Return the rules and targets of the workspace's chargepki.toml.

    Raises:
        InputError: a rule or target is wrong.
    """
    return load_alert_plan(workspace.settings.home / CONFIG_FILE)


@contextlib.asynccontextmanager
async def alerting(state: GlobalState) -> AsyncIterator[AlertEngine]:
    """Raise and deliver alerts while the block runs; changed rules and targets are applied within seconds.

    Raises:
        InputError: a rule or target is wrong.
    """
    workspace = state.workspace
    async with AlertEngine(
        workspace.inventory, read_plan(workspace), actor=workspace.actor, environ=os.environ
    ) as engine:
        keeper = asyncio.create_task(_keep_plan(state, engine))
        try:
            yield engine
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper


async def _keep_plan(state: GlobalState, engine: AlertEngine) -> None:
    path = state.settings.home / CONFIG_FILE
    seen = await asyncio.to_thread(_version_of, path)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        found = await asyncio.to_thread(_version_of, path)
        if found == seen:
            continue
        seen = found
        try:
            plan = await asyncio.to_thread(read_plan, state.workspace)
        except ChargePkiError as error:
            # The rules in use stay in use; the operator sees why.
            state.output.say(f"error: alert rules were not read again: {error}")
            continue
        if plan != engine.plan:
            engine.plan = plan
            state.output.say(f"alert rules read again: {len(plan.rules)} rules, {len(plan.targets)} targets")


def _version_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def acknowledge_alerts(workspace: Workspace, alert_ids: Sequence[str], note: str | None) -> list[AlertRecord]:
    """Record in one transaction who has taken notice of alerts; those that were acknowledged before stay as they are.

    Raises:
        NotFound: there is no such alert; nothing is changed.
    """
    now = utc_now()

    def work(tx: Transaction) -> list[AlertRecord]:
        found = []
        for alert_id in alert_ids:
            alert = tx.find_alert(alert_id)
            if alert is None:
                raise NotFound(f"there is no alert {alert_id}", fix="list them with: chargepki alerts list")
            if alert.state is not AlertState.ACKNOWLEDGED:
                alert = tx.acknowledge_alert(alert_id, by=workspace.actor.name, now=now, note=note)
                details = {"rule": alert.rule, "note": note} if note else {"rule": alert.rule}
                tx.audit(workspace.actor, "alert.acknowledge", alert_id, now=now, details=details)
            found.append(alert)
        return found

    return workspace.inventory.write(work)


def try_targets(state: GlobalState, names: Sequence[str], *, dry_run: bool) -> None:
    """Send a test alert to targets and print the outcome of each.

    Raises:
        InputError: a rule or target is wrong, or there is no target of that name.
        UnavailableError: a target did not take it.
    """
    workspace = state.workspace
    plan = read_plan(workspace)
    engine = AlertEngine(workspace.inventory, plan, actor=workspace.actor, environ=os.environ)
    for name in names:
        if name not in plan.targets:
            raise InputError(f"there is no target {name!r}", why=f"there are: {', '.join(plan.targets) or 'none'}")
    if not plan.targets:
        raise InputError(f"no alert target is configured in {CONFIG_FILE}", fix="see the guide on alerts")
    chosen = [plan.targets[name] for name in names] or list(plan.targets.values())
    rows = [_outcome(engine, target, dry_run=dry_run) for target in chosen]
    state.output.rows("chargepki/alert-test", ("target", "kind", "taken", "why"), rows, key="targets")
    failed = [str(row["target"]) for row in rows if row["taken"] is False]
    if failed:
        raise UnavailableError(f"{', '.join(failed)} did not take the test alert", fix="correct the target, try again")


def _outcome(engine: AlertEngine, target: Target, *, dry_run: bool) -> dict[str, object]:
    kind = type(target).__name__.removesuffix("Target").lower()
    row: dict[str, object] = {"target": target.name, "kind": kind, "taken": None, "why": None}
    if dry_run:
        return row
    try:
        asyncio.run(engine.tell(target, trial_alert(utc_now())))
    except ChargePkiError as error:
        return {**row, "taken": False, "why": str(error)}
    return {**row, "taken": True}
