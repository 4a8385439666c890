"""``chargepki station install-root``, ``roots`` and ``delete-root``: what a station trusts."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION

__all__ = ["add_root_commands"]

_USES = "csms manufacturer v2g mo oem"
_COLUMNS = ("use", "finding", "certificate", "defects", "last", "reported_at")


def _waiting(command: Any) -> Any:
    for option in reversed(
        [
            click.option(
                "--wait",
                type=DURATION,
                metavar="60s",
                help="How long to wait; by default 60s on a terminal, else not at all.",
            ),
            click.option("--no-wait", is_flag=True, help="Queue the operation and return at once."),
            click.option("--deadline", type=DURATION, default="1h", metavar="1h", help="Give up after this time."),
            click.option(
                "--allow-unsecured", is_flag=True, help="Change it over a connection without TLS too; recorded."
            ),
            click.option("--dry-run", is_flag=True, help="Do every check, print what would be queued, change nothing."),
        ]
    ):
        command = option(command)
    return command


@click.argument("station_id", metavar="ID")
@click.argument("path", metavar="FILE")
@click.option("--use", required=True, metavar="U", help=f"What it is trusted for: {_USES}, or the standard's name.")
@_waiting
@pass_state
def install_root(
    state: GlobalState,
    station_id: str,
    path: str,
    use: str,
    wait: timedelta | None,
    no_wait: bool,
    deadline: timedelta,
    allow_unsecured: bool,
    dry_run: bool,
) -> None:
    """Install the root in FILE on station ID (M05); done when the station lists it.

    What a station must refuse is refused here. Before it is sent, the station is asked what it has and, for a CSMS
    root, whether it takes only one that the old root has signed (AdditionalRootCertificateCheck). In 1.6, V2G and MO
    roots travel in the DataTransfer of Plug & Charge.
    """
    from chargepki.cli.rooting import order_installation, read_use
    from chargepki.cli.stations import wait_for

    if dry_run:
        state.rehearse()
    operation = order_installation(
        state.workspace,
        station_id,
        read_use(use, installable=True),
        path,
        deadline=deadline,
        allow_unsecured=allow_unsecured,
    )
    wait_for(state, operation, wait=wait, no_wait=no_wait or dry_run)


@click.argument("station_id", metavar="ID")
@click.argument("path", metavar="[FILE]", required=False)
@click.option("--use", required=True, metavar="U", help=f"Under which use the station lists it: {_USES}, v2g-chain.")
@click.option("--hash", "hash_text", metavar="JSON", help="Hash data in place of FILE, as `roots --json` shows.")
@click.option("--verbatim", is_flag=True, help="Send --hash as it is, without asking the station first.")
@click.option("--last", is_flag=True, help="Delete it even if it is the last one, which the station cannot do without.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_waiting
@pass_state
def delete_root(state: GlobalState, /, **options: Any) -> None:
    """Delete a root from station ID (M04); done when the station does not list it any more.

    The hash data are sent exactly as the station spells them (M04.FR.07), right or wrong. Where they are wrong, the
    outcome names that as a workaround. A station that does not find its own form is offered the right one.
    """
    from chargepki.cli.rooting import order_deletion, read_hash, read_use
    from chargepki.cli.stations import wait_for

    station_id, path, hash_text = options["station_id"], options["path"], options["hash_text"]
    if (path is None) == (hash_text is None):
        raise click.UsageError("give either FILE or --hash")
    if options["verbatim"] and hash_text is None:
        raise click.UsageError("--verbatim needs --hash")
    if options["dry_run"]:
        state.rehearse()
    use = read_use(options["use"])
    _confirm(state, station_id, use.value, yes=options["yes"] or options["dry_run"])
    operation = order_deletion(
        state.workspace,
        station_id,
        use,
        path=path,
        hash_data=read_hash(hash_text) if hash_text is not None else None,
        verbatim=options["verbatim"],
        last=options["last"],
        deadline=options["deadline"],
        allow_unsecured=options["allow_unsecured"],
    )
    wait_for(state, operation, wait=options["wait"], no_wait=options["no_wait"] or options["dry_run"])


def _confirm(state: GlobalState, station_id: str, use: str, *, yes: bool) -> None:
    from chargepki.pki.errors import StateError

    state.workspace.inventory.get_station(station_id)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(
            f"station {station_id} would lose a root for {use}", why="nobody is there to confirm it", fix="pass --yes"
        )
    if not click.confirm(f"Station {station_id} will not trust this root for {use} any more. Delete it?", err=True):
        raise click.Abort


@click.argument("station_id", metavar="ID")
@click.option("--use", "uses", multiple=True, metavar="U", help=f"Only these: {_USES} v2g-chain; repeatable.")
@click.option("--refresh", is_flag=True, help="Ask the station now (M03), and wait for its answer.")
@click.option("--explain", is_flag=True, help="Say what is wrong with the hash data that the station reports.")
@click.option("--wait", type=DURATION, default="60s", metavar="60s", help="How long --refresh waits.")
@pass_state
def roots(
    state: GlobalState, station_id: str, uses: tuple[str, ...], refresh: bool, explain: bool, wait: timedelta
) -> None:
    """Show the roots of station ID: what it listed last, held against what we installed.

    in-step: listed and ours. missing: ours, but not listed. returned: deleted by us, but listed. unmanaged: listed and
    known, but not installed by us. unexplained: nothing known explains its hash data. unchecked: not asked since.
    """
    from chargepki.cli.rooting import order_listing, read_use, station_roots
    from chargepki.cli.stations import await_outcome
    from chargepki.ocpp_security.trust_reconcile import status_row

    wanted = [read_use(use) for use in uses]
    if refresh:
        state.writes = "change"
    workspace = state.workspace
    if refresh:
        operation = order_listing(workspace, station_id, wanted, deadline=wait)
        await_outcome(state, operation, wait)
    statuses = station_roots(workspace, station_id, wanted)
    rows = [status_row(status) for status in statuses]
    if not state.output.for_machines:
        rows = [{**row, "defects": ", ".join(row["defects"])} for row in rows]
    if explain:
        for status in statuses:
            for sentence in status.explanation:
                named = status.label or (status.hash_data or {}).get("serialNumber")
                state.output.say(f"{status.use} {named}: {sentence}")
            if status.undeletable:
                state.output.say(f"{status.use} {status.label}: the station deletes it in no form")
    if not rows:
        state.output.say(f"nothing is known of its roots; ask it: chargepki station roots {station_id} --refresh")
    state.output.rows("chargepki/station-roots", _COLUMNS, rows, key="roots")


def add_root_commands(group: Any) -> None:
    """Register the commands with the noun ``station``."""
    example = "chargepki station install-root CS-0001 --use csms new-root.pem --wait 60s"
    group.command("install-root", writes="change", example=example)(install_root)
    example = "chargepki station delete-root CS-0001 --use csms old-root.pem --yes --wait 60s"
    group.command("delete-root", writes="change", example=example)(delete_root)
    example = "chargepki station roots CS-0001 --refresh --explain"
    group.command("roots", example=example)(roots)
