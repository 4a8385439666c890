"""What the catalogue commands of ``firmware`` do in the inventory, and how releases are shown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from chargepki.cli.approving import approving
from chargepki.cli.firmware_images import (
    open_image,
    open_signer,
    read_pem,
    read_roots,
    read_signature,
    tell_deviations,
)
from chargepki.cli.globals import GlobalState
from chargepki.cli.verifying import read_objects
from chargepki.ocpp_security.firmware import verify_firmware
from chargepki.ocpp_security.firmware_approval import approval_statement, release_digest
from chargepki.ocpp_security.firmware_catalogue import (
    FirmwareCatalogue,
    ReleaseOffer,
)
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust, parse_signing_certificate, revocation_of
from chargepki.ocpp_security.firmware_verdict import FirmwareQuirk, FirmwareRefusal
from chargepki.ocpp_security.firmware_version import read_label, version_key
from chargepki.pki import files, keys
from chargepki.pki.authority import utc_now
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.der import pem_blocks
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.firmware_records import FirmwareApproverRecord, FirmwareReleaseRecord

__all__ = [
    "add_release",
    "approve_release",
    "approver_row",
    "register",
    "release_row",
    "release_rows",
    "remove",
    "show_release",
    "withdraw_release",
]

_MAX_KEY_BYTES = 65_536
_MAX_CRL_BYTES = 64 << 20


def _catalogue(state: GlobalState) -> FirmwareCatalogue:
    workspace = state.workspace
    return FirmwareCatalogue(
        workspace.inventory, workspace.settings.home, actor=workspace.actor, four_eyes=workspace.four_eyes
    )


def add_release(
    state: GlobalState, options: Mapping[str, Any], *, at: datetime | None, read_notes: Callable[[str | None], str]
) -> None:
    """Carry out ``firmware add``."""
    if options["image"] == "-" or Path(options["image"]).is_fifo():
        raise click.UsageError("IMAGE must be a file: it is read twice, to verify and to copy it")
    # An image for our simulated station says itself what it is.
    label = read_label(Path(options["image"]))
    offer = ReleaseOffer(
        name=options["name"],
        vendor=options["vendor"] or (label.vendor if label else ""),
        model=options["model"] or (label.model if label else ""),
        version=options["version"] or (label.version if label else options["name"]),
        hardware=options["hardware"],
        notes=read_notes(options["notes_file"]),
        location=options["location"],
    )
    version_key(offer.version)
    dry_run = options["dry_run"]
    if dry_run:
        state.rehearse()
    catalogue = _catalogue(state)
    crls = [der for file in options["crls"] for der in read_objects(file, "CRL", ("X509 CRL",), _MAX_CRL_BYTES)]
    roots = read_roots(state, options["trust"])
    signature, certificate = read_signature(options["signature"]), read_pem(options["cert"])
    try:
        with open_image(state, options["image"], "verifying") as (image, tick):
            verified = verify_firmware(
                image,
                signature=signature,
                certificate_pem=certificate,
                trust=FirmwareTrust(roots, revocation_of(crls, [])),
                at=at or datetime.now(UTC),
                quirks=tuple(map(FirmwareQuirk, options["quirks"])),
                tick=tick,
            )
    except FirmwareRefusal as refusal:
        raise PolicyRefusal(f"stations would refuse it: {refusal.what}", why=refusal.why, fix=refusal.fix) from refusal
    tell_deviations(state, verified.deviations)
    with open_image(state, options["image"], "copying") as (_, tick):
        record = catalogue.add(
            offer,
            Path(options["image"]),
            verified,
            signature=signature,
            certificate_pem=certificate,
            root_der=verified.certificate.chain.anchor,
            # A quirk that was allowed and not needed is not kept.
            quirks=options["quirks"] if verified.deviations else (),
            now=utc_now(),
            keep=not dry_run,
            tick=tick,
        )
    if not dry_run:
        state.output.say(f"added {record.id}; next: chargepki firmware approve {record.id} --approver NAME --key F")
    state.output.fields("chargepki/firmware-release", release_row(state.workspace.inventory, record))


def approve_release(
    state: GlobalState, name: str, approver: str, *, key: str | None, signature: str | None, dry_run: bool
) -> None:
    """Carry out ``firmware approve``."""
    if dry_run:
        state.rehearse()
    catalogue = _catalogue(state)
    if key is not None:
        octets = catalogue.sign_approval(name, open_signer(state, key))
    else:
        try:
            octets = base64.b64decode(read_signature(signature or ""), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InputError("the signature is not base64", fix="give a file with its octets or its base64") from exc
    record = catalogue.approve(name, approver, octets, now=utc_now())
    if not dry_run:
        state.output.say(f"{approver} approved {record.id}")
    state.output.fields("chargepki/firmware-release", release_row(state.workspace.inventory, record))


def withdraw_release(state: GlobalState, name: str, *, reason: str, dry_run: bool) -> None:
    """Carry out ``firmware withdraw``."""
    if dry_run:
        state.rehearse()
    record = _catalogue(state).withdraw(name, reason=reason, now=utc_now())
    if not dry_run:
        state.output.say(f"withdrew {record.id}: it is never sent again")
    state.output.fields("chargepki/firmware-release", release_row(state.workspace.inventory, record))


def register(state: GlobalState, name: str, public_key: str, *, dry_run: bool, brought: Mapping[str, Any]) -> None:
    """Carry out ``firmware register-approver``.

    Args:
        brought: the options of `chargepki.cli.approving.approval_options`.
    """
    spki = _read_public_key(public_key)
    if dry_run:
        state.rehearse()
    with approving(state, **brought):
        record = _catalogue(state).register_approver(name, spki, now=utc_now())
    if not dry_run:
        state.output.say(f"{record.id} may approve from now on")
    state.output.fields("chargepki/firmware-approver", approver_row(record))


def remove(state: GlobalState, name: str, *, dry_run: bool, brought: Mapping[str, Any]) -> None:
    """Carry out ``firmware remove-approver``; *brought* as in `register`."""
    if dry_run:
        state.rehearse()
    with approving(state, **brought):
        record = _catalogue(state).remove_approver(name, now=utc_now())
    if not dry_run:
        state.output.say(f"{record.id} may approve no more")
    state.output.fields("chargepki/firmware-approver", approver_row(record))


def _read_public_key(path: str) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a public key or certificate, PEM or DER."""
    data = files.read_limited(path, _MAX_KEY_BYTES, "public key")
    if b"-----BEGIN" not in data:
        return data
    for block in pem_blocks(data, max_bytes=_MAX_KEY_BYTES):
        if block.label == "PUBLIC KEY":
            return block.der
        if block.label == "CERTIFICATE":
            return PathCertificate(block.der).spki
        if "PRIVATE KEY" in block.label:
            raise InputError(
                f"{path} holds a private key", why="only its owner may have it", fix="openssl pkey -in F -pubout"
            )
    raise InputError(f"{path} holds no public key", fix="make it with: openssl pkey -in F -pubout")


# ---------------------------------------------------------------- showing


def release_rows(
    inventory: Inventory, *, vendor: str | None, model: str | None, wanted: str | None
) -> Iterator[dict[str, Any]]:
    """Return the chosen releases in their order."""
    chosen = [
        record
        for record in inventory.list_releases()
        if vendor in (None, record.vendor) and model in (None, record.model) and wanted in (None, record.state.value)
    ]
    chosen.sort(key=lambda record: (record.vendor, record.model, record.hardware, version_key(record.version)))
    running = [(item.vendor, item.model, item.version) for item in inventory.list_station_firmware()]
    for record in chosen:
        row = release_row(inventory, record)
        row["running_on"] = running.count((record.vendor, record.model, record.version))
        yield row


def release_row(inventory: Inventory, record: FirmwareReleaseRecord) -> dict[str, Any]:
    """Return *record* as the object that ``--json`` prints."""
    return {
        "name": record.id,
        "vendor": record.vendor,
        "model": record.model,
        "hardware": record.hardware or None,
        "version": record.version,
        "state": record.state,
        "size": record.size,
        "sha256": record.sha256,
        "release_digest": release_digest(record),
        "location": record.location,
        "signer": PathCertificate(parse_signing_certificate(record.certificate_pem)[0]).label,
        "root": PathCertificate(record.root_der).label,
        "quirks": record.quirks.split(),
        "added_by": record.added_by,
        "added_at": record.added_at,
        "approved_by": [item.approver for item in inventory.list_approvals(record.id)],
        "withdrawn_at": record.withdrawn_at,
        "withdrawn_reason": record.withdrawn_reason,
        "notes": record.notes or None,
    }


def show_release(state: GlobalState, name: str, *, statement: bool) -> None:
    """Carry out ``firmware show``."""
    inventory = state.workspace.inventory
    record = inventory.get_release(name)
    if statement:
        text = approval_statement(record).decode("ascii")
        if state.output.for_machines:
            state.output.document("chargepki/firmware-approval-statement", {"name": name, "statement": text})
        else:
            state.output.text(text)
        return
    row = release_row(inventory, record)
    row["approvals"] = [
        {"approver": item.approver, "at": item.at, "signature": base64.b64encode(item.signature).decode()}
        for item in inventory.list_approvals(name)
    ]
    row["signature"] = record.signature
    row["stations"] = [
        item.station
        for item in inventory.list_station_firmware()
        if (item.vendor, item.model, item.version) == (record.vendor, record.model, record.version)
    ]
    row["certificate_pem"] = record.certificate_pem
    state.output.fields("chargepki/firmware-release", row)


def approver_row(record: FirmwareApproverRecord) -> dict[str, Any]:
    """Return *record* as the object that ``--json`` prints."""
    return {
        "name": record.id,
        "active": record.active,
        "key": keys.algorithm_of(keys.load_public_key(record.spki)),
        "spki_sha256": record.spki_sha256,
        "registered_by": record.registered_by,
        "registered_at": record.registered_at,
    }
