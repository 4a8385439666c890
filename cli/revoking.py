"""What ``cert revoke`` does around the revocation itself: name the blast radius first, publish afterwards."""

from __future__ import annotations

import sys

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.pki.authority.revocation import ca_of
from chargepki.pki.errors import SignerError, StateError
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, CrlRecord

__all__ = ["confirm_ca_revocation", "publish_or_explain"]


def confirm_ca_revocation(state: GlobalState, record: CertificateRecord, *, yes: bool) -> None:
    """Ask before a CA certificate is revoked, and say how many certificates lose their trust with it.

    Raises:
        StateError: there is no terminal to ask on and ``--yes`` was not given.
    """
    inventory = state.workspace.inventory
    own = ca_of(inventory, record)
    if own is None or yes:
        return
    leaves = sum(inventory.count_certificates(ca_id).get(CertificateState.ISSUED, 0) for ca_id in _below(state, own.id))
    radius = (
        f"{record.id} is the certificate of CA {own.id}: "
        f"{counted(leaves, 'issued certificate')} under it can no longer be trusted"
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(radius, why="revoking a CA cannot be undone", fix="pass --yes if that is what you want")
    if not click.confirm(f"{radius}. Revoke it?", err=True):
        raise click.Abort


def publish_or_explain(state: GlobalState, ca: str) -> CrlRecord | None:
    """Publish the CA's next CRL when its key opens; otherwise say which command does."""
    try:
        crl = state.workspace.authority.publish_crl(ca)
    except (SignerError, StateError) as error:
        state.output.say(f"the CRL of {ca} was not renewed: {error.what}")
        state.output.say(f"next: chargepki crl publish --ca {ca} --passphrase-file PATH")
        return None
    state.output.say(f"published CRL {crl.number} of {ca} with {counted(crl.entries, 'entry', 'entries')}")
    return crl


def _below(state: GlobalState, ca_id: str) -> list[str]:
    """Return *ca_id* and every CA under it."""
    below = [ca_id]
    for ca in state.workspace.inventory.list_cas():
        if ca.issuer in below and ca.id not in below:
            below.append(ca.id)
    return below
