"""``chargepki ca rollover-plan``: who breaks when, and which commands prevent it, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import INSTANT

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["add_plan"]


@click.argument("name")
@click.option("--at", type=INSTANT, metavar="TIME", help="As things are then; now by default.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Name so many stations.")
@pass_state
def rollover_plan(state: GlobalState, name: str, at: datetime | None, limit: int) -> None:
    """Say which stations stop believing what is below the root NAME, on which day, and what prevents it.

    A station counts by the roots that it listed last, or that were installed from here. It breaks when none of them
    leads to the newest generation any more, over a cross-certificate or not. The steps are in the order in which
    nothing breaks; each has its command. A station with AdditionalRootCertificateCheck takes a new root only if the old
    one has signed it: install the cross-certificate that `ca rollover` names as new_with_old.

    Exit 1 when something breaks unless the steps are taken, 0 when nothing does.
    """
    from chargepki.ocpp_security import rollover_plan as planning
    from chargepki.pki.authority import utc_now
    from chargepki.pki.questions import list_authorities

    inventory = state.workspace.inventory
    plan = planning.rollover_plan(inventory, list_authorities(inventory), name, at or utc_now(), limit=limit)
    content: dict[str, Any] = {
        "root": plan.root,
        "generations": dict(plan.generations),
        "at": plan.at,
        "breaks": plan.breaks,
        "stations": [
            {
                "station": each.station,
                "use": each.use,
                "holds": list(each.holds),
                "breaks_at": each.breaks_at,
                "reason": each.reason,
            }
            for each in plan.stations
        ],
        "station_counts": dict(plan.station_counts),
        "unknown": list(plan.unknown),
        "unknown_count": plan.unknown_count,
        "certificates": [
            {"ca": each.ca, "profile": each.profile, "certificates": each.certificates, "stations": each.stations}
            for each in plan.certificates
        ],
        "steps": [
            {
                "step": each.number,
                "kind": each.kind,
                "what": each.what,
                "stations": each.stations,
                "before": each.before,
                "after": each.after,
                "command": each.command,
            }
            for each in plan.steps
        ],
    }
    if state.output.for_machines:
        state.output.document("chargepki/rollover-plan", content)
    else:
        _show(state, content)
    if plan.breaks:
        raise click.exceptions.Exit(1)


def _show(state: GlobalState, content: dict[str, Any]) -> None:
    name = "chargepki/rollover-plan"
    for generation, end in content["generations"].items():
        state.output.text(f"{generation} ends {end:%Y-%m-%d}")
    if content["stations"]:
        station_columns = ("station", "use", "holds", "breaks_at", "reason")
        state.output.rows(name, station_columns, content["stations"], title="stations that break")
    if content["certificates"]:
        columns = ("ca", "profile", "certificates", "stations")
        state.output.rows(name, columns, content["certificates"], title="certificates that lose their root")
    if content["steps"]:
        state.output.rows(name, ("step", "what", "stations", "before", "after"), content["steps"], title="steps")
        for step in content["steps"]:
            state.output.text(f"{step['step']}: {step['command']}")
    total = sum(content["station_counts"].values())
    state.output.say(f"{total} roots of stations break; of {content['unknown_count']} stations nothing is known")


def add_plan(group: Any) -> None:
    """Register the command with the noun ``ca``."""
    group.command("rollover-plan", example="chargepki ca rollover-plan acme-cso-root --json")(rollover_plan)
