"""``chargepki config``: show the settings and where each comes from."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["config"]


@group("config", example="chargepki config show --origin")
def config() -> None:
    """Show the settings of this call."""


@config.command("show", example="chargepki config show --origin")
@click.option("--origin", is_flag=True, help="Also show who decided: flag, environment, file or default.")
@pass_state
def show(state: GlobalState, origin: bool) -> None:
    """Show every setting; flags win over variables, variables over chargepki.toml, that over defaults."""
    from chargepki.cli.redaction import database_without_password
    from chargepki.pki.config import SETTINGS

    settings = state.settings
    rows = []
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        shown = database_without_password(value) if setting.name == "database" else value
        rows.append(
            {
                "setting": setting.name,
                "value": shown,
                "origin": settings.origins[setting.name],
                "variable": setting.variable,
                "meaning": setting.meaning,
            }
        )
    columns = ("setting", "value", "origin", "variable") if origin else ("setting", "value", "meaning")
    state.output.rows("chargepki/config", columns, rows, key="settings")
