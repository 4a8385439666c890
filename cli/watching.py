"""``chargepki inventory watch``: look for what ends, drifts or breaks, and tell of each thing once."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION

if TYPE_CHECKING:
    from chargepki.ocpp_security.alerting import AlertEngine
    from chargepki.ocpp_security.alerts import AlertPlan

__all__ = ["add_watch"]

_COLUMNS = ("id", "rule", "summary")


@click.option("--every", type=DURATION, metavar="1h", help="Look again and again, as a service; once without it.")
@click.option("--dry-run", is_flag=True, help="Say what would be told, tell nobody.")
@pass_state
def watch(state: GlobalState, every: timedelta | None, dry_run: bool) -> None:
    """Raise alerts for what ends soon, cliffs, drift and findings, by the rules [[alerts.watch]] of chargepki.toml.

    Each thing is told once, to the targets of its rule; what a target does not take is tried again by the next watch,
    or by a CSMS on the same inventory. `alerts list` shows them, `alerts ack` records who has taken notice.
    """
    from chargepki.cli.alerting import alerting, read_plan
    from chargepki.ocpp_security.alerting import AlertEngine
    from chargepki.pki.errors import InputError

    if dry_run:
        state.rehearse()
    workspace = state.workspace
    plan = read_plan(workspace)
    if not plan.watches:
        raise InputError(
            "there is no rule to watch by", fix="write [[alerts.watch]] into chargepki.toml (guide: audit)"
        )
    if every is None or dry_run:
        rows = _look(state, plan)
        if not dry_run:
            engine = AlertEngine(workspace.inventory, plan, actor=workspace.actor, environ=os.environ)
            asyncio.run(_deliver(engine))
        state.output.rows("chargepki/watch", _COLUMNS, rows, key="alerts")
        return

    async def serve() -> None:
        ends = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ends.set)
        async with alerting(state) as engine:
            while not ends.is_set():
                await asyncio.to_thread(_look_on, state, engine.plan)
                try:
                    await asyncio.wait_for(ends.wait(), every.total_seconds())
                except TimeoutError:
                    continue

    asyncio.run(serve())


def _look(state: GlobalState, plan: AlertPlan) -> list[dict[str, Any]]:
    """Raise what every rule finds, and return it as ``--json`` prints it."""
    from chargepki.ocpp_security.watching import raise_watch_alerts
    from chargepki.pki.config import CONFIG_FILE
    from chargepki.pki.lint.settings import load_lint_settings

    workspace = state.workspace
    settings = load_lint_settings(state.settings.home / CONFIG_FILE)
    rows = []
    for rule in plan.watches:
        raised, more = raise_watch_alerts(workspace.inventory, rule, settings, workspace.actor, datetime.now(UTC))
        rows += [
            {"id": each.id, "rule": each.rule, "summary": each.summary, "details": each.details} for each in raised
        ]
        if more:
            state.output.say(f"{rule.name}: more wait for the next look")
    return rows


def _look_on(state: GlobalState, plan: AlertPlan) -> None:
    """Look once; what fails is said, and tried again at the next look."""
    from chargepki.pki.errors import ChargePkiError

    try:
        for row in _look(state, plan):
            state.output.say(f"{row['rule']}: {row['summary']}")
    except ChargePkiError as error:
        state.output.say(f"error: the watch could not look: {error}; trying again")


async def _deliver(engine: AlertEngine) -> None:
    """Try everything that is due, until nothing is taken any more."""
    while await engine.deliver_due():
        pass


def add_watch(group: Any) -> None:
    """Register the command with the noun ``inventory``."""
    example = "chargepki inventory watch\nchargepki inventory watch --every 1h"
    group.command("watch", writes="change", example=example)(watch)
