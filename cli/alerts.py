"""``chargepki alerts``: see, try and acknowledge alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import INSTANT

__all__ = ["alerts"]

_COLUMNS = ("id", "raised_at", "rule", "state", "summary", "delivered")


@group("alerts", example="chargepki alerts list --state open")
def alerts() -> None:
    """See, try and acknowledge alerts; their rules and targets are in chargepki.toml."""


@alerts.command("list", example="chargepki alerts list --state open --json")
@click.option("--state", "wanted", type=click.Choice(["open", "acknowledged"]), help="Only those in this state.")
@click.option("--station", metavar="ID", help="Only those about this station.")
@click.option("--since", type=INSTANT, metavar="TIME", help="Only those raised at this instant or later.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@pass_state
def list_alerts(
    state: GlobalState, wanted: str | None, station: str | None, since: datetime | None, limit: int
) -> None:
    """List alerts, oldest first, and whether each target has them."""
    from chargepki.pki.inventory.event_records import AlertState

    inventory = state.workspace.inventory
    chosen = AlertState(wanted) if wanted is not None else None
    found = inventory.list_alerts(state=chosen, scope=station, since=since, limit=limit)
    rows = [_row(alert, inventory.list_alert_deliveries(alert.id)) for alert in reversed(found)]
    state.output.rows("chargepki/alert-list", _COLUMNS, rows, key="alerts")


@alerts.command("ack", writes="change", example="chargepki alerts ack al-5f0c11aa22bb33cc --note 'door was serviced'")
@click.argument("alert_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--note", metavar="TEXT", help="Why, for the audit log.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def acknowledge(state: GlobalState, alert_ids: tuple[str, ...], note: str | None, dry_run: bool) -> None:
    """Record that alerts were taken notice of: who, when and why go into the audit log; repeating changes nothing."""
    from chargepki.cli.alerting import acknowledge_alerts

    if dry_run:
        state.rehearse()
    inventory = state.workspace.inventory
    for alert in acknowledge_alerts(state.workspace, alert_ids, note):
        if not dry_run:
            state.output.say(f"acknowledged {alert.id}: {alert.summary}")
        state.output.fields("chargepki/alert", _row(alert, inventory.list_alert_deliveries(alert.id)))


@alerts.command("test", writes="change", example="chargepki alerts test on-call")
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Read rules and targets and list them, tell nobody.")
@pass_state
def test(state: GlobalState, targets: tuple[str, ...], dry_run: bool) -> None:
    """Read the rules, and send a test alert to the named targets, or to all; exit code 4 when one does not take it."""
    from chargepki.cli.alerting import try_targets

    if dry_run:
        state.rehearse()
    try_targets(state, targets, dry_run=dry_run)


def _row(alert: Any, deliveries: Any) -> dict[str, Any]:
    done = sum(delivery.state == "delivered" for delivery in deliveries)
    return {
        "id": alert.id,
        "rule": alert.rule,
        "station": alert.scope or alert.details.get("station"),
        "state": alert.state,
        "summary": alert.summary,
        "raised_at": alert.raised_at,
        "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by,
        "note": alert.note,
        "details": alert.details,
        "delivered": f"{done} of {len(deliveries)}",
        "deliveries": [
            {
                "target": delivery.target,
                "state": delivery.state,
                "attempts": delivery.attempts,
                "next_at": delivery.next_at if delivery.state == "pending" else None,
                "done_at": delivery.done_at,
                "error": delivery.error,
            }
            for delivery in deliveries
        ],
    }
