"""``chargepki profile``: show the certificate profiles."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["profile"]


@group("profile", example="chargepki profile show ocpp/charging-station")
def profile() -> None:
    """Show the certificate profiles: every field, its limits and its clause."""


@profile.command("list", example="chargepki profile list")
@pass_state
def list_all(state: GlobalState) -> None:
    """List all profiles."""
    from chargepki.cli.values import format_duration
    from chargepki.pki.profiles import list_profiles

    rows = [
        {
            "id": item.id,
            "title": item.title,
            "ca": item.is_ca,
            "key": item.keys.default,
            "validity": format_duration(item.validity.default),
            "clause": item.clause,
        }
        for item in list_profiles()
    ]
    state.output.rows("chargepki/profile-list", ("id", "title", "ca", "key", "validity"), rows, key="profiles")


@profile.command("show", example="chargepki profile show iso15118-2/secc --json")
@click.argument("profile_id", metavar="ID")
@pass_state
def show(state: GlobalState, profile_id: str) -> None:
    """Show the profile ID, field by field with its clause."""
    from chargepki.pki.profiles import get_profile
    from chargepki.pki.profiles.describe import describe

    content = describe(get_profile(profile_id))
    if state.output.for_machines:
        state.output.document("chargepki/profile", content)
        return
    from chargepki.cli.profile_page import profile_page

    state.output.text(profile_page(content))
