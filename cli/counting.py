"""``chargepki cert count``: how many certificates a filter asks for, together or by the values of a field."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from chargepki.cli.filtering import combined, filter_options, wanted_of
from chargepki.cli.globals import GlobalState, pass_state

__all__ = ["add_count"]


@filter_options
@click.option("--by", metavar="FIELD", help="Count for each value of a field, such as profile, country or state.")
@click.option(
    "--step",
    type=click.Choice(["day", "month", "year"]),
    default="month",
    show_default=True,
    help="How finely --by counts a time.",
)
@pass_state
def count(
    state: GlobalState, where: str | None, query: str | None, at: datetime | None, by: str | None, step: str
) -> None:
    """Count certificates, all of them or those that a filter asks for.

    --by not_after is the timeline of what expires; --by key_sha256 begins with the keys that are used most often.
    """
    from chargepki.pki.inventory.filter_fields import FIELDS, Step

    field = None if by is None else FIELDS.get(by)
    if by is not None and field is None:
        raise click.UsageError(f"--by {by}: there is no such field; fields are {', '.join(FIELDS)}")
    wanted = combined(wanted_of(state, where, query, at))
    inventory = state.workspace.inventory
    if field is None:
        number = inventory.count_matching(wanted)
        if state.output.for_machines:
            state.output.document("chargepki/certificate-count", {"certificates": number})
        else:
            state.output.text(str(number))
        return
    rows: list[dict[str, Any]] = [
        {"value": value, "certificates": number} for value, number in inventory.count_by(wanted, field, step=Step(step))
    ]
    state.output.rows("chargepki/certificate-count-list", ("value", "certificates"), rows, key="counts")


def add_count(group: Any) -> None:
    """Register the command with the noun ``cert``."""
    example = "chargepki cert count --by profile --where \"state = 'issued' and not_after < now + 30d\""
    group.command("count", example=example)(count)
