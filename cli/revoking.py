"""What ``cert revoke`` does around the revocation itself: name the blast radius first, publish afterwards."""

from __future__ import annotations

import hashlib
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.values import find_certificate, read_certificate_file
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.artefacts import find_artefact
from chargepki.pki.authority.publication import needs_crl
from chargepki.pki.authority.revocation import BlastRadius, blast_radius
from chargepki.pki.crl import crl_contains
from chargepki.pki.errors import ChargePkiError, NotFound, SignerError, StateError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, CrlDeltaRecord, CrlRecord

__all__ = [
    "confirm_ca_revocation",
    "describe_ours",
    "describe_places",
    "describe_published",
    "describe_radius",
    "find_operand",
    "publish_or_explain",
    "tell_other_certificates",
    "tell_unwritten",
    "wait_until_published",
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
        "origin": record.origin,
        "state": record.state,
        "requester": record.requester,
        "station": record.station,
        "revoked_at": record.revoked_at,
        "revocation_reason": record.revocation_reason,
        **describe_places(state.workspace.inventory, record.id),
    }


def describe_places(inventory: Inventory, certificate: str) -> dict[str, Any]:
    """Return where imports found a certificate, and what the folder there says it is for; nothing when none did."""
    found = inventory.list_provenance(certificate)
    if not found:
        return {}
    runs = {run.id: run for run in inventory.list_import_runs()}
    return {
        "found": [
            {
                "place": each.place,
                "role": each.role,
                "file_sha256": each.file_sha256,
                "imported_at": runs[each.run].started_at,
                "imported_by": runs[each.run].imported_by,
                "command": runs[each.run].command,
                "source": runs[each.run].source,
            }
            for each in found
        ]
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


def describe_radius(radius: BlastRadius) -> str:
    """Return what a CA's revocation takes with it, as a sentence."""
    below = [counted(radius.certificates, "valid certificate")]
    if radius.sub_cas:
        below.append(f"{counted(len(radius.sub_cas), 'sub-CA')} ({', '.join(radius.sub_cas)})")
    return f"{' and '.join(below)} under CA {radius.ca} can no longer be trusted"


def confirm_ca_revocation(
    state: GlobalState, record: CertificateRecord, *, yes: bool, dry_run: bool = False
) -> BlastRadius | None:
    """Ask before a CA certificate is revoked, say what loses its trust with it, and return that.

    Raises:
        StateError: there is no terminal to ask on and ``--yes`` was not given.
    """
    if record.state is not CertificateState.ISSUED:
        return None  # Whoever revoked it was asked.
    radius = blast_radius(state.workspace.inventory, record, utc_now())
    if radius is None or radius.ca == record.ca:
        return None  # No CA's certificate, or a root's own one, which cannot be revoked.
    question = f"{record.id} is a CA certificate: {describe_radius(radius)}"
    if yes or dry_run:
        state.output.say(question)
        return radius
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(question, why="revoking a CA cannot be undone", fix="pass --yes if that is what you want")
    if not click.confirm(f"{question}. Revoke it?", err=True):
        raise click.Abort
    return radius


def publish_or_explain(state: GlobalState, ca: str) -> CrlRecord | None:
    """Publish the lists of the CA that are due when its key opens; otherwise say which command does.

    Returns:
        The newest full list, also when it told everything before.
    """
    workspace = state.workspace
    if not needs_crl(workspace.inventory, ca, utc_now()):
        latest = workspace.inventory.latest_crl(ca)
        # A run that was interrupted may have recorded the list and not have written it.
        workspace.authority.publish_files(ca)
        state.output.say(f"CRL {latest.number if latest else '-'} of {ca} has it already")
        return latest
    try:
        published = workspace.authority.publish_due(ca)
    except (SignerError, StateError) as error:
        state.output.say(f"the CRL of {ca} was not renewed: {error.what}")
        state.output.say(f"next: chargepki crl publish --ca {ca} --passphrase-file PATH")
        return None
    for item in published.lists:
        state.output.say(describe_published(item))
    if state.settings.publish_dir is None:
        tell_unwritten(state, cure=f"pass --publish-dir, or run: chargepki crl publish --ca {ca} --out F")
    return published.full or workspace.inventory.latest_crl(ca)


def describe_published(item: CrlRecord | CrlDeltaRecord) -> str:
    """Return one line about a list that was published."""
    entries = counted(item.entries, "entry", "entries")
    if isinstance(item, CrlDeltaRecord):
        return f"published delta CRL {item.number} of {item.ca} to CRL {item.base} with {entries}"
    shard = "" if item.shard is None else f", shard {item.shard},"
    return f"published CRL {item.number} of {item.ca}{shard} with {entries}"


def wait_until_published(state: GlobalState, record: CertificateRecord, wait: timedelta) -> None:
    """Return once everything that relying parties are given about *record* tells its state.

    That is what the inventory answers to whoever serves it, and the files of the publish folder, if there is one.

    Raises:
        UnavailableError: that took longer than *wait*.
    """
    inventory, deadline = state.workspace.inventory, time.monotonic() + wait.total_seconds()
    watcher = inventory.watch()
    try:
        while missing := _untold(state, record):
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"{record.id} is {record.state.value}, but {missing} does not tell so yet",
                    why="this process could not sign the list, and no other one has done so in time",
                    fix=f"run: chargepki crl publish --ca {record.ca} --passphrase-file PATH",
                )
            watcher.wait(min(left, 1.0))
            state.workspace.authority.publish_files(record.ca)
    finally:
        watcher.close()


def _untold(state: GlobalState, record: CertificateRecord) -> str:
    """Return the first published list that does not tell the state of *record*, or the empty string."""
    inventory, now, folder = state.workspace.inventory, utc_now(), state.settings.publish_dir
    listed, serial = record.state is CertificateState.REVOKED, int(record.serial, 16)
    paths = [f"/crl/{record.ca}.crl"]
    if record.shard is not None:
        paths.append(f"/crl/{record.ca}/{record.shard}.crl")
    for path in paths:
        artefact = find_artefact(inventory, path, now)
        if artefact is None or crl_contains(artefact.data, serial) is not listed:
            return path
        if folder is not None and _differs(folder / path.lstrip("/"), artefact.data):
            return str(folder / path.lstrip("/"))
    return ""


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() != data
    except OSError:
        return True
