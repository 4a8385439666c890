"""``chargepki station set-profile`` and ``migrate``: raise security profiles; see first who could not follow."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION

__all__ = ["add_profile_commands"]

_COLUMNS = ("station", "connected_profile", "verdict", "why")


@click.argument("station_id", metavar="ID")
@click.argument("profile", type=click.IntRange(0, 3), metavar="N")
@click.option(
    "--url", metavar="URL", help="2.x: endpoint that serves the profile, for example wss://csms.example/ocpp."
)
@click.option("--slot", type=int, metavar="N", help="2.x: configuration slot; the first free one by default.")
@click.option(
    "--root", metavar="CA|FILE|none",
    help="CSMS root that it gets first where no TLS has shown one; the one above our CSMS certificates by default.",
)  # fmt: skip
@click.option(
    "--password-file", metavar="FILE|-",
    help="2.1: password that the new slot gets as its own, in the same message; the one on record otherwise.",
)  # fmt: skip
@click.option("--allow-downgrade", is_flag=True, help="2.x: from 3 to 2, if the station allows it too (A05.FR.08).")
@click.option(
    "--allow-unsecured", is_flag=True,
    help="From profile 1: give it the root, or certificate, that it needs over that connection; recorded.",
)  # fmt: skip
@click.option("--record-only", is_flag=True, help="Only set the profile that we expect, downwards too; audited.")
@click.option(
    "--wait", type=DURATION, metavar="60s", help="How long to wait; by default 60s on a terminal, else not at all."
)
@click.option("--no-wait", is_flag=True, help="Queue the operation and return at once.")
@click.option("--deadline", type=DURATION, default="1d", metavar="1d", help="Give up after this time.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def set_profile(state: GlobalState, /, **options: Any) -> None:
    """Raise the security profile of station ID to N: what it needs first, settings, and reset, as one operation.

    What is missing is fetched first, in this order: the CSMS root, a password, a certificate. See it with --dry-run.
    What we expect of the station is raised when it has come in on the new profile; a station that cannot use it goes
    back to the old one, and the operation fails. Once a station has come in with its certificate, its password alone
    opens nothing (A05.FR.07).
    """
    from chargepki.cli.station_profiles_work import record_or_order

    talks = ("url", "slot", "wait", "root", "password_file", "allow_downgrade", "allow_unsecured")
    if options["record_only"] and any(options[name] for name in talks):
        raise click.UsageError("--record-only talks to no station")
    if not options["record_only"] and not options["profile"]:
        raise click.UsageError("a station is never told a lower profile; --record-only corrects the record")
    record_or_order(state, options)


@click.option("--plan", is_flag=True, required=True, help="Show it and change nothing; a campaign does it.")
@click.option("--to", "profile", type=click.IntRange(1, 3), metavar="N", help="Profile; 3 by default.")
@click.option("--to-protocol", type=click.Choice(["ocpp2.0.1", "ocpp2.1"]), help="The same for a version of OCPP.")
@click.option("--matching", metavar="PATTERN", help="Only stations like this shell pattern, for example 'DE-*'.")
@click.option("--locked-out", is_flag=True, help="Only those that could not come in.")
@pass_state
def migrate(
    state: GlobalState,
    plan: bool,
    profile: int | None,
    to_protocol: str | None,
    matching: str | None,
    locked_out: bool,
) -> None:
    """Show who would be locked out if profile N, or another version, were demanded of every station today, and why.

    `ready` stations could come in. `fetched` ones lack only what the operation fetches first. Then:
    chargepki campaign create NAME --kind set-profile --set profile=N --all

    With --to-protocol the JSON also tells what each station carries over, and the steps in their order, with the way
    back.
    """
    from chargepki.cli.station_profiles_work import plan_rows, version_rows
    from chargepki.ocpp_security.versions import OcppVersion

    assert plan
    if to_protocol is None:
        rows = plan_rows(state.workspace.inventory, profile or 3, matching=matching, locked_out=locked_out)
        state.output.rows("chargepki/station-migration-plan", _COLUMNS, rows, key="stations")
        return
    if profile is not None:
        raise click.UsageError("give either --to or --to-protocol: one thing at a time")
    rows = version_rows(state.workspace.inventory, OcppVersion(to_protocol), matching=matching, locked_out=locked_out)
    state.output.rows("chargepki/station-version-plan", ("station", "protocol", "verdict", "why"), rows, key="stations")


def add_profile_commands(group: Any) -> None:
    """Register the commands with the noun ``station``."""
    example = "chargepki station set-profile CS-0001 3 --url wss://csms.example:8443/ocpp"
    group.command("set-profile", writes="change", example=example)(set_profile)
    group.command("migrate", example="chargepki station migrate --plan --to 3 --locked-out")(migrate)
