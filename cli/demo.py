"""``chargepki demo``: tell the main story on loopback in a throw-away workspace."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, command, pass_state

__all__ = ["demo"]


@command("demo", example="chargepki demo")
@click.option(
    "--protocol",
    type=click.Choice(["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]),
    default="ocpp2.0.1",
    show_default=True,
    help="OCPP version of the stations.",
)
@click.option("--keep", metavar="DIR", help="Keep the workspace in this new folder instead of deleting it.")
@pass_state
def demo(state: GlobalState, protocol: str, keep: str | None) -> None:
    """Enrol a station over OCPP, refuse two forged requests, revoke, and show that it bites.

    Everything is real: CA keys, TLS on 127.0.0.1, a station with its own key store, the inventory and its log.
    """
    from chargepki.cli.demo_story import tell

    tell(state, protocol=protocol, keep=keep)
