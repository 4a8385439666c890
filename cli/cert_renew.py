"""``chargepki cert renew``: the successor of one certificate, or of all that are due."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION

__all__ = ["add_renew"]

_EXAMPLE = """chargepki cert renew acme-cso-sub:5f0c9a --csr new.csr --out leaf.pem
chargepki cert renew --due --out-dir renewed --rate 60 --jitter 10m"""
_OF_ONE = ("csr", "new_key", "algorithm", "key_out", "validity", "again", "out", "chain_out")
_OF_DUE = ("ca", "profile", "out_dir", "rate", "jitter", "waves", "limit")


@click.argument("certificate", required=False, metavar="[SERIAL|FILE]")
@click.option("--due", is_flag=True, help="All that are due: in the last third of their life, the last month at most.")
@click.option("--csr", metavar="FILE|-", help="PKCS#10 request for a new key, PEM or DER; without it the key stays.")
@click.option("--new-key", is_flag=True, help="Make a new key here; needs --key-out.")
@click.option("--key", "algorithm", metavar="ALG", help="Algorithm of the new key.")
@click.option("--key-out", metavar="F", help="File for the new key (PKCS#8, mode 0600, never overwritten).")
@click.option("--validity", type=DURATION, metavar="60d", help="As long as the old one by default.")
@click.option("--again", is_flag=True, help="Make another one although it was renewed already.")
@click.option("--out", "-o", metavar="F", help="File for the leaf (PEM).")
@click.option("--chain-out", metavar="F", help="File for the chain (PEM): leaf first, no root.")
@click.option("--ca", metavar="NAME", help="With --due: only certificates of this CA.")
@click.option("--profile", metavar="ID", help="With --due: only certificates of this profile.")
@click.option("--out-dir", metavar="DIR", help="With --due: folder for those that no station holds, OLD-SERIAL.pem.")
@click.option("--rate", type=int, metavar="N", help="With --due: begin with so many stations a minute at most.")
@click.option("--jitter", type=DURATION, metavar="10m", help="With --due: spread the stations over this time.")
@click.option("--wave", "waves", multiple=True, type=int, metavar="N", help="With --due: size of the next wave.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With --due: at most so many.")
@click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be renewed or signed, change nothing.")
@pass_state
def renew(state: GlobalState, /, certificate: str | None, due: bool, **options: Any) -> None:
    """Issue the successor of a certificate: same profile, subject, names and station, new dates.

    The newest generation of its CA signs. The old certificate stays valid; revoke it as superseded when the new one is
    in use. A repeat returns the same successor.

    With --due, stations get a campaign that makes them renew with a key of their own, at the rate that is given, and
    their old certificates are kept until they came in with the new ones. The rest is renewed for its old key, into
    --out-dir. Each certificate has a place of its own in the first half of its window, so that what was issued on one
    day is not due on one day.
    """
    if due == (certificate is not None):
        raise click.UsageError("pass either a SERIAL or FILE, or --due")
    strange = [name for name in (_OF_ONE if due else _OF_DUE) if options[name]]
    if strange:
        flag = {"algorithm": "key", "waves": "wave"}.get(strange[0], strange[0]).replace("_", "-")
        raise click.UsageError(f"--{flag} does not go with {'--due' if due else 'a single certificate'}")
    if options["dry_run"]:
        state.rehearse()
    if due:
        from chargepki.cli.renewing_due import renew_due

        renew_due(state, options)
    else:
        from chargepki.cli.renewing import renew_one

        renew_one(state, str(certificate), options)


def add_renew(group: Any) -> None:
    """Register the command with the noun ``cert``."""
    group.command("renew", writes="change", example=_EXAMPLE)(renew)
