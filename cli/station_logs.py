"""``chargepki station get-log`` and ``station logs``: have a station upload a log, and look at what came."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState, command, group, pass_state
from chargepki.cli.values import DURATION, INSTANT

__all__ = ["get_log", "logs"]

_COLUMNS = ("id", "station", "log_type", "state", "status", "size", "created_at")
_TYPES = {"security": "SecurityLog", "diagnostics": "DiagnosticsLog"}


@command("get-log", writes="change", example="chargepki station get-log CS-0001 --type security --wait 5m")
@click.argument("station_id", metavar="ID")
@click.option("--type", "kind", required=True, type=click.Choice(list(_TYPES)), help="Which log.")
@click.option("--from", "begin", type=INSTANT, metavar="TIME", help="Nothing older than this.")
@click.option("--to", "end", type=INSTANT, metavar="TIME", help="Nothing newer than this.")
@click.option(
    "--max-size", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="MIB", help="Take no more."
)
@click.option(
    "--wait", type=DURATION, metavar="60s", help="How long to wait; by default 60s on a terminal, else not at all."
)
@click.option("--no-wait", is_flag=True, help="Queue the operation and return at once.")
@click.option("--deadline", type=DURATION, default="1h", metavar="1h", help="Give up after this time.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def get_log(
    state: GlobalState,
    station_id: str,
    kind: str,
    begin: datetime | None,
    end: datetime | None,
    max_size: int,
    wait: timedelta | None,
    no_wait: bool,
    deadline: timedelta,
    dry_run: bool,
) -> None:
    """Ask a station to upload a log to `csms serve --upload-listen`; done when it is here, whole.

    A newer request for the same station replaces one that is under way.
    """
    from chargepki.cli.stations import start_log_request, wait_for

    if dry_run:
        state.rehearse()
    operation = start_log_request(
        state.workspace,
        station_id,
        _TYPES[kind],
        begin=begin,
        end=end,
        max_bytes=max_size << 20,
        deadline=deadline,
    )
    wait_for(state, operation, wait=wait, no_wait=no_wait or dry_run)


@group("logs", example="chargepki station logs list CS-0001")
def logs() -> None:
    """Look at the logs that stations were asked for."""


@logs.command("list", example="chargepki station logs list CS-0001 --json")
@click.argument("station_id", metavar="[ID]", required=False)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@pass_state
def list_logs(state: GlobalState, station_id: str | None, limit: int) -> None:
    """List the requested logs of a station, or of all, newest first."""
    inventory = state.workspace.inventory
    if station_id is not None:
        inventory.get_station(station_id)
    rows = (_row(log) for log in inventory.list_requested_logs(station=station_id, limit=limit))
    state.output.rows("chargepki/station-log-list", _COLUMNS, rows, key="logs")


@logs.command("show", example="chargepki station logs show op-5f0c11aa22bb33cc")
@click.argument("log_id", metavar="LOG")
@pass_state
def show(state: GlobalState, log_id: str) -> None:
    """Show one requested log: what was asked, what the station reported, what came."""
    state.output.fields("chargepki/station-log", _row(state.workspace.inventory.get_requested_log(log_id)))


@logs.command("save", example="chargepki station logs save op-5f0c11aa22bb33cc --out cs-0001-security.log")
@click.argument("log_id", metavar="LOG")
@click.option("--out", "-o", required=True, metavar="F|-", help="File to write; - is standard output.")
@pass_state
def save(state: GlobalState, log_id: str, out: str) -> None:
    """Copy a log that came to a file of your own; its digest is held against the inventory first."""
    from chargepki.cli.station_log_files import save_log

    record = state.workspace.inventory.get_requested_log(log_id)
    save_log(state, record, out)
    if out != "-":
        state.output.say(f"wrote {Path(out)}")


def _row(log: Any) -> dict[str, Any]:
    return {
        "id": log.id,
        "station": log.station,
        "request_id": log.request_id,
        "log_type": log.log_type,
        "state": log.state,
        "status": log.status,
        "status_at": log.status_at,
        "filename": log.filename,
        "size": log.size,
        "sha256": log.sha256,
        "max_bytes": log.max_bytes,
        "created_at": log.created_at,
        "expires_at": log.expires_at,
        "received_at": log.received_at,
    }
