"""``chargepki station events``: what stations and the CSMS noticed."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any

import click

from chargepki.cli.filtering import filter_options
from chargepki.cli.globals import GlobalState, command, pass_state
from chargepki.cli.row_filtering import asked_of
from chargepki.cli.values import INSTANT

__all__ = ["events"]

_COLUMNS = ("at", "source", "type", "critical", "count", "tech_info")
_CRITICALITY = {"critical": True, "non-critical": False}


@command("events", example="chargepki station events CS-0001 --criticality critical --since 2026-03-01T00:00:00Z")
@click.argument("station_id", metavar="ID", required=False)
@click.option("--all", "everything", is_flag=True, help="Of every station, and of peers that proved to be none.")
@click.option("--type", "kind", metavar="NAME", help="Only events of this type, in the spelling of any version.")
@click.option("--since", type=INSTANT, metavar="TIME", help="Only those received (again) at this instant or later.")
@click.option("--criticality", type=click.Choice(list(_CRITICALITY)), help="Only critical ones, or only the others.")
@click.option("--source", type=click.Choice(["station", "csms"]), help="Only what stations reported, or what we saw.")
@click.option(
    "--limit", type=click.IntRange(min=1, max=100_000), default=100, show_default=True, help="The newest so many."
)
@click.option("--before", type=click.IntRange(min=1), metavar="N", help="Only those numbered below N: the page before.")
@filter_options
@pass_state
def events(
    state: GlobalState,
    station_id: str | None,
    everything: bool,
    kind: str | None,
    since: datetime | None,
    criticality: str | None,
    source: str | None,
    limit: int,
    before: int | None,
    where: str | None,
    query: str | None,
    at: datetime | None,
) -> None:
    """List security events, oldest first: those that a station reported and those that we raised about it.

    What says the same within an hour is one event with a count.
    """
    from chargepki.cli.station_rows import event_row
    from chargepki.ocpp_security.events import find_event, spellings
    from chargepki.pki.inventory.row_fields import keep_rows

    if (station_id is None) != everything:
        raise click.UsageError("name a station, or pass --all")
    inventory = state.workspace.inventory
    asked = asked_of(state, "security-event", where, query, at)
    if station_id is not None:
        inventory.get_station(station_id)
    standard = find_event(kind) if kind is not None else None
    found: list[dict[str, Any]] = []
    for name in spellings(standard) if standard is not None else (kind,):
        series = inventory.list_all_events(
            station=station_id,
            type=name,
            source=source,
            since=since,
            critical=_CRITICALITY[criticality] if criticality is not None else None,
            before=before,
        )
        found += islice(keep_rows(map(event_row, series), asked), limit + 1)
    columns: tuple[str, ...] = ("station", *_COLUMNS) if everything else _COLUMNS
    rows = sorted(found, key=itemgetter("id"))
    shown = rows[-limit:]
    older = shown[0]["id"] if len(rows) > limit else None
    state.output.rows(
        "chargepki/security-event-list", columns, shown, key="events", version=2, tail=lambda: {"next": older}
    )
    if older is not None:
        state.output.say(f"there are older ones; go on with --before {older}, or pass a larger --limit")
