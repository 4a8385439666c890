"""What ``campaign replace`` and ``campaign revoke-rest`` do: find who is affected, launch, and cut off the rest."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from chargepki.cli.campaigns import connected_first, given_pace, launch
from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.revoking import find_operand
from chargepki.cli.stations import CERTIFICATE_USES
from chargepki.ocpp_security.campaign_renewal import affected_certificates, replacement_parameters
from chargepki.ocpp_security.campaigns import check_campaign_name
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.revocation import parse_reason
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["replace_certificates", "revoke_what_is_left"]


def replace_certificates(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Find the affected stations and launch the campaign.

    Raises:
        StateError: no station is affected.
    """
    check_campaign_name(options["name"])
    pace = given_pace(options)
    if options["dry_run"]:
        state.rehearse()
    inventory = state.workspace.inventory
    parameters = replacement_parameters(
        CERTIFICATE_USES[options["use"]],
        reason=options["reason"],
        cas=_with_those_below(inventory, options["cas"]),
        certificates=[find_operand(inventory, each).id for each in options["certificates"]],
        by=options["by"],
    )
    affected = affected_certificates(inventory, parameters, None, utc_now())
    others = [item for item in affected if item.station is None]
    for item in others:
        state.output.say(f"notice: {item.id} ({item.profile}) belongs to no station; replace it, then:")
        state.output.say(f"next: chargepki cert revoke {item.id} --reason {parameters['reason']}")
    stations = sorted({item.station for item in affected if item.station is not None})
    if not stations:
        raise StateError(
            "no station holds a valid certificate of these", why=f"{counted(len(others), 'other certificate')} remain"
        )
    launch(state, "replace-certificate", parameters, connected_first(inventory, stations), pace, options)
    state.output.say(f"it replaces {counted(len(affected) - len(others), 'certificate')}")


def _with_those_below(inventory: Inventory, names: Sequence[str]) -> list[str]:
    found = {inventory.get_ca(name).id for name in names}
    cas = tuple(inventory.list_cas())
    while below := {ca.id for ca in cas if ca.issuer in found and ca.id not in found}:
        found |= below
    return sorted(found)


def revoke_what_is_left(state: GlobalState, name: str, *, yes: bool, dry_run: bool) -> None:
    """Revoke the affected certificates that are still valid, after asking.

    Raises:
        StateError: the campaign replaces nothing or still runs, or nobody is there to confirm.
    """
    if dry_run:
        state.rehearse()
    workspace, now = state.workspace, utc_now()
    inventory = workspace.inventory
    campaign = inventory.get_campaign(name)
    if campaign.kind != "replace-certificate":
        raise StateError(f"campaign {name} replaces no certificates", why=f"it is of the kind {campaign.kind}")
    if not campaign.state.is_final:
        raise StateError(
            f"campaign {name} is {campaign.state.value}",
            why="stations that it still reaches would be cut off for nothing",
            fix=f"wait for its end, or run: chargepki campaign cancel {name}",
        )
    left = [item for item in affected_certificates(inventory, campaign.parameters, None, now) if item.station]
    if not left:
        state.output.say("nothing is left: everything affected is revoked or has expired")
    elif not (yes or dry_run):
        _confirm(len(left))
    reason = parse_reason(str(campaign.parameters["reason"]))
    rows = []
    for item in left:
        revoked = workspace.authority.revoke(item.id, reason)
        rows.append(_row(inventory, revoked))
    if left and not dry_run:
        state.output.say("next: chargepki crl publish --all, where no `chargepki serve` does it")
    columns = ("certificate", "station", "last_seen_at", "not_after")
    state.output.rows("chargepki/campaign-rest", columns, rows, key="certificates")


def _confirm(number: int) -> None:
    question = f"{counted(number, 'station certificate')} would be revoked, and the stations cut off"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(question, why="nobody is there to confirm it", fix="pass --yes")
    if not click.confirm(f"{question}. Go on?", err=True):
        raise click.Abort


def _row(inventory: Inventory, item: CertificateRecord) -> dict[str, Any]:
    presence = inventory.find_presence(str(item.station))
    return {
        "certificate": item.id,
        "station": item.station,
        "state": item.state,
        "last_seen_at": presence.last_seen_at if presence is not None else None,
        "not_after": item.not_after,
    }
