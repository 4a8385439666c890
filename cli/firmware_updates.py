"""``chargepki station update-firmware``: order an update of one station."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION, INSTANT

if TYPE_CHECKING:
    from chargepki.pki.inventory.firmware_records import FirmwareReleaseRecord
    from chargepki.pki.inventory.records import OperationRecord

__all__ = ["add_update_firmware"]

_MAX_REQUEST_ID = (1 << 31) - 1
_DAY = timedelta(days=1)


@click.argument("station_id", metavar="ID")
@click.option("--release", required=True, metavar="R", help="Approved release, see `chargepki firmware list`.")
@click.option("--retrieve-at", type=INSTANT, metavar="T", help="When the station fetches it; at once by default.")
@click.option("--install-at", type=INSTANT, metavar="T", help="When it installs it; as soon as it can by default.")
@click.option("--replace", is_flag=True, help="Take the place of an update that is under way.")
@click.option(
    "--base-url", metavar="URL", help="TLS listener of `chargepki serve` as stations reach it; or an https public URL."
)
@click.option("--retries", type=click.IntRange(0, 20), metavar="N", help="How often it tries again to download.")
@click.option("--retry-interval", type=DURATION, metavar="60s", help="How long it waits in between.")
@click.option(
    "--wait", type=DURATION, metavar="60s", help="How long to wait; by default 60s on a terminal, else not at all."
)
@click.option("--no-wait", is_flag=True, help="Queue the operation and return at once.")
@click.option("--deadline", type=DURATION, default="1d", metavar="1d", help="Give up so long after the times above.")
@click.option("--dry-run", is_flag=True, help="Do every check, print what would be queued, change nothing.")
@pass_state
def update_firmware(state: GlobalState, /, **options: Any) -> None:
    """Update the firmware of station ID, over OCPP; done when it says that the release is installed.

    Only approved releases are sent, and none that the station would refuse: exit 3 names the check that fails. It is
    checked again just before sending. In 1.6 only SignedUpdateFirmware is sent, never the plain UpdateFirmware.
    """
    from chargepki.cli.stations import wait_for

    if options["dry_run"]:
        state.rehearse()
    operation = _order(state, options)
    wait_for(state, operation, wait=options["wait"], no_wait=options["no_wait"] or options["dry_run"])


def _order(state: GlobalState, options: dict[str, Any]) -> OperationRecord:
    from chargepki.ocpp_security.firmware_admission import admit, known_about
    from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
    from chargepki.ocpp_security.operations import OperationKind
    from chargepki.pki.authority import utc_now

    workspace, now = state.workspace, utc_now()
    inventory = workspace.inventory
    station = inventory.get_station(options["station_id"])
    release = inventory.get_release(options["release"])
    retrieve: datetime | None = options["retrieve_at"]
    install: datetime | None = options["install_at"]
    if retrieve is not None and install is not None and install < retrieve:
        raise click.UsageError("--install-at lies before --retrieve-at")
    admitted = admit(
        release,
        inventory.find_station_firmware(station.id),
        known=known_about(inventory, release),
        now=now,
        retrieve_at=retrieve,
        install_at=install,
    )
    parameters: dict[str, object] = {
        "release": release.id,
        # Drawn, not counted: a station that kept one from an earlier inventory must not take it for the same update.
        "request_id": secrets.randbelow(_MAX_REQUEST_ID) + 1,
    }
    if release.location is None:
        parameters["base_url"] = _base_url(state, release, station.id, options["base_url"])
    for name, value in (("retrieve_at", retrieve), ("install_at", install)):
        if value is not None:
            parameters[name] = value.isoformat()
    if options["replace"]:
        parameters["replace"] = True
    if options["retries"] is not None:
        parameters["retries"] = options["retries"]
    if options["retry_interval"] is not None:
        parameters["retry_interval"] = int(options["retry_interval"].total_seconds())
    for notice in admitted.notices:
        state.output.say(f"notice: {notice}")
    store = OperationStore(inventory, workspace.sealing_key, owner=f"cli {workspace.actor.name}", actor=workspace.actor)
    return store.create(
        OperationKind.UPDATE_FIRMWARE,
        station.id,
        parameters,
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=max(now, retrieve or now, install or now) + options["deadline"],
    )


def _base_url(state: GlobalState, release: FirmwareReleaseRecord, station: str, given: str | None) -> str:
    """Return the URL of the `serve` that has the image, which must be there.

    Raises:
        StateError: nobody says where stations reach it.
    """
    from chargepki.ocpp_security.firmware_catalogue import FirmwareCatalogue, check_location
    from chargepki.pki.errors import StateError

    workspace, public = state.workspace, state.settings.public_url or ""
    base = given or (public if public.startswith("https:") else None)
    if base is None:
        raise StateError(
            f"there is no URL from which {station} could fetch {release.id}",
            why="the image is in this workspace",
            fix="run `chargepki serve --tls-listen …` and pass that URL as --base-url",
        )
    check_location(base)
    FirmwareCatalogue(workspace.inventory, workspace.settings.home, actor=workspace.actor).check_image(release)
    return base.rstrip("/")


def add_update_firmware(group: Any) -> None:
    """Register the command with the noun ``station``."""
    example = (
        "chargepki station update-firmware CS-0001 --release m1-1.4.0 --install-at 2026-03-01T02:00:00Z \\\n"
        "    --base-url https://pki.example:8443"
    )
    group.command("update-firmware", writes="change", example=example)(update_firmware)
