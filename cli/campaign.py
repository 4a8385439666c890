"""``chargepki campaign``: do one thing to many stations, in waves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import DURATION

__all__ = ["campaign"]

_KINDS = ("trigger-renewal", "set-password", "set-profile", "install-root", "delete-root", "get-log", "update-firmware")
"""All but the one that `campaign replace` creates; written out, so that help needs none of their modules."""
_USES = ("charging-station", "v2g", "v2g20", "combined")
_ENDED = ("failed", "unreached", "skipped", "cancelled")
_STATES = ("waiting", "running", "done", *_ENDED)


@group("campaign", example="chargepki campaign create spring --kind trigger-renewal --all --rate 60 --wave 10")
def campaign() -> None:
    """Do one thing to many stations, in waves."""


def _pace_options(command: Any) -> Any:
    """Add the options for how fast a campaign goes."""
    for option in reversed(
        [
            click.option("--rate", type=int, metavar="N", help="Begin with so many stations a minute at most."),
            click.option("--max-in-flight", type=int, metavar="N", help="Work on so many at a time; 50 by default."),
            click.option("--jitter", type=DURATION, metavar="10m", help="Spread each wave at random over this time."),
            click.option("--between-waves", type=DURATION, metavar="1h", help="Watch a wave so long before the next."),
            click.option(
                "--stop-share", metavar="20%|never", help="Stop when this share of the stations failed; 20% by default."
            ),
            click.option("--stop-after", type=int, metavar="N", help="Judge that from N stations on; 5 by default."),
            click.option("--deadline", type=DURATION, metavar="1h", help="Time that each station has; 1h by default."),
        ]
    ):
        command = option(command)
    return command


@campaign.command(
    "create",
    writes="change",
    example="chargepki campaign create spring --kind trigger-renewal --all --wave 5 --wave 100 --rate 60 --jitter 10m",
)
@click.argument("name", metavar="NAME")
@click.option("--kind", required=True, type=click.Choice(_KINDS), help="What is done to each station.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Setting of the kind; repeatable.")
@click.option("--station", "stations", multiple=True, metavar="ID", help="This station; repeatable.")
@click.option("--stations-file", metavar="F|-", help="The stations in this file, one a line.")
@click.option("--all", "everything", is_flag=True, help="All stations, or those that the options below leave.")
@click.option("--matching", metavar="PATTERN", help="Only stations like this shell pattern, for example 'DE-*'.")
@click.option(
    "--protocol", "protocols", multiple=True, type=click.Choice(["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]),
    help="Only stations that spoke this version last; repeatable.",
)  # fmt: skip
@click.option(
    "--security-profile", "profiles", multiple=True, type=click.IntRange(0, 3), metavar="N",
    help="Only stations of which we expect this profile; repeatable.",
)  # fmt: skip
@click.option("--wave", "waves", multiple=True, type=int, metavar="N", help="Size of the next wave; repeatable.")
@_pace_options
@click.option("--ends-in", type=DURATION, default="7d", metavar="7d", help="Give up stations that begin by then not.")
@click.option("--paused", is_flag=True, help="Begin only with `chargepki campaign resume`.")
@click.option("--dry-run", is_flag=True, help="Judge every station, print what would happen, change nothing.")
@pass_state
def create(state: GlobalState, /, **options: Any) -> None:
    """Create the campaign NAME: one operation for each chosen station.

    A running CSMS carries it out: waves one after the other, each station once its preconditions are met. Stations
    that are offline have their turn when they connect. See the settings of each kind with `campaign kinds`.
    """
    from chargepki.cli.campaigns import create_campaign

    create_campaign(state, options)


@campaign.command(
    "replace",
    writes="change",
    example="chargepki campaign replace leak --ca acme-cso-sub --by acme-cso-sub2 --reason cACompromise --wave 5",
)
@click.argument("name", metavar="NAME")
@click.option("--ca", "cas", multiple=True, metavar="CA", help="Replace all that it and the CAs below it signed.")
@click.option("--certificate", "certificates", multiple=True, metavar="SERIAL|FILE", help="Replace it; repeatable.")
@click.option("--by", metavar="CA[:PROFILE]", help="What signs for these stations from now on; needed with --ca.")
@click.option("--reason", required=True, metavar="R", help="RFC 5280 reason that the old ones are revoked for.")
@click.option("--use", type=click.Choice(_USES), default="charging-station", show_default=True, help="Which ones.")
@click.option("--wave", "waves", multiple=True, type=int, metavar="N", help="Size of the next wave; repeatable.")
@_pace_options
@click.option("--ends-in", type=DURATION, default="7d", metavar="7d", help="Give up stations that begin by then not.")
@click.option("--paused", is_flag=True, help="Begin only with `chargepki campaign resume`.")
@click.option("--dry-run", is_flag=True, help="Find and judge every station, print what would happen, change nothing.")
@pass_state
def replace(state: GlobalState, /, **options: Any) -> None:
    """Find the stations whose certificates a leak made worthless, have each renew, and revoke the old one then.

    A station's old certificate is revoked when it has come in with the new one, so that none is cut off before.
    Those that cannot be reached are listed by `campaign stations`; `campaign revoke-rest` cuts them off.
    """
    from chargepki.cli.replacing import replace_certificates

    if options["cas"] and options["by"] is None:
        raise click.UsageError("--ca needs --by: another CA has to sign from now on")
    replace_certificates(state, options)


@campaign.command("revoke-rest", writes="change", example="chargepki campaign revoke-rest leak --yes")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="List what would be revoked, change nothing.")
@pass_state
def revoke_rest(state: GlobalState, name: str, yes: bool, dry_run: bool) -> None:
    """Revoke what `campaign replace` NAME did not get replaced; the stations that hold it are cut off."""
    from chargepki.cli.replacing import revoke_what_is_left

    revoke_what_is_left(state, name, yes=yes, dry_run=dry_run)


@campaign.command("kinds", example="chargepki campaign kinds")
@pass_state
def kinds(state: GlobalState) -> None:
    """List the kinds of campaigns and their settings."""
    from chargepki.ocpp_security.campaign_kinds import KINDS

    rows = [
        {"kind": name, "setting": setting, "help": text}
        for name, kind in KINDS.items()
        for setting, text in (kind.settings or {"": ""}).items()
    ]
    state.output.rows("chargepki/campaign-kinds", ("kind", "setting", "help"), rows, key="settings")


@campaign.command("list", example="chargepki campaign list --json")
@pass_state
def list_campaigns(state: GlobalState) -> None:
    """List the campaigns, oldest first."""
    from chargepki.cli.campaigns import campaign_row

    inventory = state.workspace.inventory
    rows = [campaign_row(inventory, item) for item in inventory.list_campaigns()]
    columns = ("name", "kind", "state", "stations", "ended", "failed", "created_at")
    state.output.rows("chargepki/campaign-list", columns, rows, key="campaigns")


@campaign.command("show", example="chargepki campaign show spring --watch")
@click.argument("name", metavar="NAME")
@click.option("--watch", is_flag=True, help="Follow it until it ends, or stops by itself.")
@click.option("--timeout", type=DURATION, metavar="1h", help="Follow it no longer than so.")
@pass_state
def show(state: GlobalState, name: str, watch: bool, timeout: timedelta | None) -> None:
    """Show how far the campaign NAME is.

    With --watch the exit code is 3 when it stopped by itself; with --json-lines each change is one line.
    """
    from chargepki.cli.campaigns import show_campaign

    if timeout is not None and not watch:
        raise click.UsageError("--timeout belongs to --watch")
    show_campaign(state, name, watch=watch, timeout=timeout)


@campaign.command("stations", example="chargepki campaign stations spring --state failed --state unreached")
@click.argument("name", metavar="NAME")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only those; repeatable.")
@pass_state
def stations(state: GlobalState, name: str, states: tuple[str, ...]) -> None:
    """List the stations of the campaign NAME, and what came of each.

    For `campaign replace`, `cut_off_by` names the certificates whose revocation would cut a station off.
    """
    from chargepki.cli.campaigns import station_rows

    inventory = state.workspace.inventory
    columns: tuple[str, ...] = ("station", "wave", "state", "why", "began_at", "ended_at", "operation")
    if inventory.get_campaign(name).kind == "replace-certificate":
        columns = (*columns[:4], "cut_off_by", *columns[4:])
    rows = station_rows(inventory, name, states)
    state.output.rows("chargepki/campaign-stations", columns, rows, key="stations")


@campaign.command("pause", writes="change", example="chargepki campaign pause spring --why 'storm warning'")
@click.argument("name", metavar="NAME")
@click.option("--why", default="a person paused it", metavar="TEXT", help="Reason, for the log.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@pass_state
def pause(state: GlobalState, name: str, why: str, dry_run: bool) -> None:
    """Begin with no further station; what has begun goes on."""
    from chargepki.cli.campaigns import steer

    steer(state, dry_run, lambda store, now: store.pause(name, why, now=now))


@campaign.command("resume", writes="change", example="chargepki campaign resume spring --rate 30")
@click.argument("name", metavar="NAME")
@_pace_options
@click.option("--ends-in", type=DURATION, metavar="7d", help="Give it so long from now on.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@pass_state
def resume(state: GlobalState, /, **options: Any) -> None:
    """Go on with the campaign NAME after a pause or a stop, at the same pace or another one.

    The share of failures is counted anew from here on: after a stop it takes --stop-after more stations to stop again.
    """
    from chargepki.cli.campaigns import changed_pace, steer

    name, ends_in = options["name"], options["ends_in"]
    steer(
        state,
        options["dry_run"],
        lambda store, now: store.resume(
            name,
            now=now,
            pace=changed_pace(state.workspace.inventory.get_campaign(name), options),
            ends_at=None if ends_in is None else now + ends_in,
        ),
    )


@campaign.command("cancel", writes="change", example="chargepki campaign cancel spring --why 'wrong release'")
@click.argument("name", metavar="NAME")
@click.option("--why", default="a person cancelled it", metavar="TEXT", help="Reason, for the log.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@pass_state
def cancel(state: GlobalState, name: str, why: str, dry_run: bool) -> None:
    """End the campaign NAME: what was sent is waited for, everything else is withdrawn."""
    from chargepki.cli.campaigns import steer

    steer(state, dry_run, lambda store, now: store.cancel(name, why, now=now))


@campaign.command("retry", writes="change", example="chargepki campaign retry spring --state unreached --ends-in 2d")
@click.argument("name", metavar="NAME")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_ENDED), default=("failed", "unreached"),
    show_default=True, help="Stations that ended so; repeatable.",
)  # fmt: skip
@click.option("--ends-in", type=DURATION, default="7d", metavar="7d", help="Give them so long.")
@click.option("--dry-run", is_flag=True, help="Say how many stations, change nothing.")
@pass_state
def retry(state: GlobalState, name: str, states: tuple[str, ...], ends_in: timedelta, dry_run: bool) -> None:
    """Try the stations again that the campaign NAME did not get done."""
    from chargepki.cli.campaigns import retry_stations

    retry_stations(state, name, states, ends_in=ends_in, dry_run=dry_run)
