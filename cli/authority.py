"""``chargepki authority``: sign what other processes queue in the inventory."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["authority"]


@group("authority", example="chargepki authority serve --passphrase-file pass.txt")
def authority() -> None:
    """Run the authority apart from the processes that face the internet."""


@authority.command("serve", writes="change", example="chargepki authority serve --passphrase-file pass.txt")
@click.option("--once", is_flag=True, help="Answer what is queued now, then stop.")
@pass_state
def serve(state: GlobalState, once: bool) -> None:
    """Answer issuance requests that `csms serve` and others queue; the CA keys stay in this process.

    Also renews the CRL of every CA after a revocation. Stop it with Ctrl-C or SIGTERM.
    """
    from chargepki.cli.serving import serve_authority

    serve_authority(state, once=once)
