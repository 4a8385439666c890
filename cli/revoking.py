"""What ``cert revoke`` does around the revocation itself: name the blast radius first, publish afterwards."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.values import find_certificate, read_certificate_file
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.revocation import ca_of, needs_crl, publish_files
from chargepki.pki.errors import ChargePkiError, NotFound, SignerError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, CrlRecord

__all__ = [
    "confirm_ca_revocation",
    "describe_ours",
    "find_operand",
    "publish_or_explain",
    "tell_other_certificates",
    "tell_unwritten",
]


def find_operand(inventory: Inventory, operand: str) -> CertificateRecord:
    """Return the certificate that *operand* names: a serial, or a file with the certificate itself.

    Raises:
        NotFound: the inventory has no such certificate.
    """
    der = read_certificate_file(operand)
    if der is None:
        return find_certificate(inventory, operand)
    fingerprint = hashlib.sha256(der).hexdigest()
    record = inventory.find_certificate_by_sha256(fingerprint)
    if record is None:
        raise NotFound(
            f"the certificate in {operand} is not in this inventory",
            why=f"none here has its SHA-256 {fingerprint}",
            fix="revoke it where it was issued, or name the right --home or --database",
        )
    return record


def describe_ours(state: GlobalState, sha256: str) -> dict[str, Any]:
    """Return what the inventory knows about the certificate with that fingerprint; nothing when there is none."""
    if not state.workspace.exists:
        return {}
    try:
        record = state.workspace.inventory.find_certificate_by_sha256(sha256)
    except ChargePkiError as error:
        # The file was asked for; what it holds is told even while the database is away.
        state.output.say(f"the inventory was not asked: {error.what}")
        return {}
    if record is None:
        return {"inventory": "not in this inventory"}
    return {
        "inventory": "in this inventory",
        "id": record.id,
        "state": record.state,
        "requester": record.requester,
        "station": record.station,
        "revoked_at": record.revoked_at,
        "revocation_reason": record.revocation_reason,
    }


def tell_other_certificates(state: GlobalState, revoked: CertificateRecord) -> None:
    """Say which other certificates still let the station of *revoked* in, and how to revoke each."""
    if revoked.station is None:
        return
    now = utc_now()
    others = [
        record
        for record in state.workspace.inventory.list_certificates(
            station=revoked.station, state=CertificateState.ISSUED
        )
        if record.not_after >= now and record.id != revoked.id
    ]
    if others:
        state.output.say(f"station {revoked.station} still has {counted(len(others), 'valid certificate')}")
    for record in others:
        state.output.say(f"next: chargepki cert revoke {record.id} --reason {revoked.revocation_reason}")


def tell_unwritten(state: GlobalState, *, cure: str) -> None:
    """Say that a list was published nowhere but in the inventory."""
    state.output.say(f"recorded; written to no file: {cure}")


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


def publish_or_explain(state: GlobalState, ca: str, *, only_if_needed: bool = False) -> CrlRecord | None:
    """Publish the CA's next CRL when its key opens; otherwise say which command does.

    Args:
        only_if_needed: not when the newest list is whole and has half of its life before it.
    """
    inventory = state.workspace.inventory
    if only_if_needed and not needs_crl(inventory, ca, utc_now()):
        latest = inventory.latest_crl(ca)
        if state.settings.publish_dir is not None:
            # A run that was interrupted may have recorded the list and not have written it.
            publish_files(inventory, ca, state.settings.publish_dir)
        state.output.say(f"CRL {latest.number if latest else '-'} of {ca} has it already")
        return latest
    try:
        crl = state.workspace.authority.publish_crl(ca)
    except (SignerError, StateError) as error:
        state.output.say(f"the CRL of {ca} was not renewed: {error.what}")
        state.output.say(f"next: chargepki crl publish --ca {ca} --passphrase-file PATH")
        return None
    state.output.say(f"published CRL {crl.number} of {ca} with {counted(crl.entries, 'entry', 'entries')}")
    if state.settings.publish_dir is None:
        tell_unwritten(state, cure=f"pass --publish-dir, or run: chargepki crl publish --ca {ca} --out F")
    return crl


def _below(state: GlobalState, ca_id: str) -> list[str]:
    """Return *ca_id* and every CA under it."""
    below = [ca_id]
    for ca in state.workspace.inventory.list_cas():
        if ca.issuer in below and ca.id not in below:
            below.append(ca.id)
    return below
