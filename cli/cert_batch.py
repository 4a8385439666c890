"""``chargepki cert issue-batch``: a certificate for each request of a folder."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION

__all__ = ["add_issue_batch"]


@click.option("--ca", required=True, metavar="NAME", help="Issuing CA; there is no default.")
@click.option("--profile", required=True, metavar="ID", help="Certificate profile, see `chargepki profile list`.")
@click.option(
    "--csr-dir", required=True, metavar="DIR", help="Folder of PKCS#10 requests: .csr .der .p10 .pem .req, PEM or DER."
)
@click.option("--out-dir", required=True, metavar="DIR", help="Folder for the certificates: NAME.pem for NAME.csr.")
@click.option("--jobs", type=click.IntRange(1, 64), metavar="N", help="Processes; as many as processors by default.")
@click.option("--chain", is_flag=True, help="Write the chain, leaf first and no root, in place of the leaf alone.")
@click.option("--validity", type=DURATION, metavar="60d", help="90s 60m 12h 30d 4y.")
@click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)
@click.option("--dry-run", is_flag=True, help="Judge and lint every request, change nothing.")
@pass_state
def issue_batch(state: GlobalState, /, **options: Any) -> None:
    """Issue a certificate for each request file of a folder.

    A bad request is reported and the rest go on. Each certificate is durable in the inventory before it is written. An
    interrupted run is continued by repeating it: a request that was answered gets the same certificate. Exit 3 when
    requests were refused.
    """
    from chargepki.cli.batch_issuing import issue_folder
    from chargepki.pki.authority import IssueOrder
    from chargepki.pki.profiles import get_profile

    is_ca = get_profile(options["profile"]).is_ca
    if options["dry_run"]:
        state.rehearse()
    elif is_ca:
        state.workspace.authority.check_ca_profile(options["profile"])
    order = IssueOrder(
        ca=options["ca"],
        profile=options["profile"],
        validity=options["validity"],
        criticality=options["criticality"],
    )
    issue_folder(state, order, options)


def add_issue_batch(group: Any) -> None:
    """Register the command with the noun ``cert``."""
    example = (
        "chargepki cert issue-batch --ca acme-cso-sub --profile ocpp/charging-station --csr-dir csrs --out-dir out"
    )
    group.command("issue-batch", writes="change", example=example)(issue_batch)
