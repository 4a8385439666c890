"""The exceptions for single stations: onboarding, expired certificates, the grace of an old password."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.identity import check_serial_number
from chargepki.ocpp_security.issue_plans import parse_plan, plan_text
from chargepki.ocpp_security.station_source import MAX_BUNDLE_BYTES
from chargepki.pki import files, names
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import InputError, NotFound, PolicyRefusal
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import StationRecord
from chargepki.pki.inventory.terms_records import StationTermsRecord
from chargepki.pki.pem import pem_blocks
from chargepki.pki.profiles import get_profile
from chargepki.pki.workspace import Workspace

__all__ = ["change_station", "deviations", "read_onboarding_ca", "terms_changes"]

_MAX_GRACE = timedelta(days=30)


def terms_changes(
    inventory: Inventory,
    *,
    onboarding_ca: str | None = None,
    no_onboarding: bool = False,
    accept_expired: bool | None = None,
    password_grace: timedelta | None = None,
    no_password_grace: bool = False,
    issue: Sequence[str] = (),
    no_issue: bool = False,
) -> dict[str, Any]:
    """Return the fields of the station's terms that these options change.

    Raises:
        InputError: no CA of that name and no file, a grace that is no grace, or a plan that cannot be read.
        NotFound: a plan names no CA or profile.
        PolicyRefusal: a CA that certifies stations for this operator.
    """
    changes: dict[str, Any] = {}
    if issue:
        changes["issue"] = {use.value: plan_text(plan) for use, plan in map(parse_plan, issue)}
        for target in changes["issue"].values():
            ca, _, profile = target.partition(":")
            inventory.get_ca(ca)
            get_profile(profile)
    if no_issue:
        changes["issue"] = None
    if onboarding_ca is not None:
        name, bundle = read_onboarding_ca(inventory, onboarding_ca)
        changes |= {"onboarding_ca": name, "onboarding_anchors": bundle}
    if no_onboarding:
        changes |= {"onboarding_ca": None, "onboarding_anchors": None}
    if accept_expired is not None:
        changes["accept_expired"] = accept_expired
    if password_grace is not None:
        if password_grace > _MAX_GRACE:
            raise InputError("the grace of an old password is longer than 30 days", fix="give a shorter one")
        changes["password_grace_seconds"] = int(password_grace.total_seconds())
    if no_password_grace:
        changes |= {
            "password_grace_seconds": None,
            "previous_password_hash": None,
            "previous_password_until": None,
        }
    return changes


def read_onboarding_ca(inventory: Inventory, operand: str) -> tuple[str, bytes]:
    """Return name and PEM certificates of the manufacturer CA that *operand* names: a CA of ours, or a file.

    Raises:
        InputError: the file holds no CA certificate.
        PolicyRefusal: a CA that certifies stations for this operator: its certificates need no onboarding.
        UnavailableError: there is neither such a CA nor such a file.
    """
    record = inventory.find_ca(operand) if os.path.basename(operand) == operand else None  # noqa: PTH119 - a name of a CA is no path
    if record is not None and record.certificate_der is not None:
        name, certificates = record.id, [record.certificate_der]
    else:
        data = files.read_limited(operand, MAX_BUNDLE_BYTES, "manufacturer CA")
        name = os.path.basename(operand)  # noqa: PTH119 - only for people
        certificates = [b.der for b in pem_blocks(data, max_bytes=MAX_BUNDLE_BYTES) if b.label == "CERTIFICATE"]
    if not certificates:
        raise InputError(
            f"{operand} holds no PEM certificate",
            fix="pass the certificate of the manufacturer's CA, or the name of a CA",
        )
    own = {ca.certificate_der for ca in inventory.list_cas() if ca.profile in ("ocpp/cso-root", "ocpp/cso-sub")}
    for der in certificates:
        _check_ca(der, operand)
        if der in own:
            raise PolicyRefusal(
                f"{operand} is a CA of the operator, not of a manufacturer",
                why="its stations would be held in Pending for ever (A00.FR.406)",
                fix="name the manufacturer's CA; certificates of this one open connections without an exception",
            )
    bundle = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)
    return name, bundle


def _check_ca(der: bytes, operand: str) -> None:
    try:
        constraints = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.BasicConstraints)
        is_ca = constraints.value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion):
        is_ca = False
    if not is_ca:
        raise InputError(
            f"{operand} holds something that is no CA certificate",
            why="a leaf as anchor would stand for itself whatever its issuer does",
            fix="pass the certificate of the CA that issued the stations' certificates",
        )


def change_station(
    workspace: Workspace,
    station_id: str,
    *,
    serial_number: str | None,
    organization: str | None,
    terms: dict[str, Any],
) -> StationRecord:
    """Change what is on record about a station; what is not given stays.

    Raises:
        NotFound: no such station.
        InputError: a serial number that no station can have, or an organization that no certificate can hold.
    """
    if serial_number is not None:
        check_serial_number(serial_number)
    if organization is not None:
        names.build_name([("O", organization)])

    def work(tx: Transaction) -> StationRecord:
        record = tx.find_station(station_id)
        if record is None:
            raise NotFound(f"there is no station {station_id}", fix="list them with: chargepki station list")
        before = tx.find_station_terms(station_id)
        changed = tx.update_station(
            station_id,
            serial_number=serial_number if serial_number is not None else record.serial_number,
            organization=organization if organization is not None else record.organization,
        )
        after = tx.change_station_terms(station_id, **terms) if terms else before
        if changed == record and after == before:
            return record
        # No hash and no certificate in the log: what was decided, in words.
        details = {
            "serial_number": changed.serial_number,
            "organization": changed.organization,
            "onboarding_ca": after.onboarding_ca,
            "accept_expired": after.accept_expired,
            "password_grace_seconds": after.password_grace_seconds,
            "issue": after.issue,
        }
        tx.audit(workspace.actor, "station.change", station_id, now=utc_now(), details=details)
        return changed

    return workspace.inventory.write(work)


def deviations(terms: StationTermsRecord) -> Sequence[str]:
    """Return in words where a station may do what the standard's rule forbids, each with its clause."""
    found = []
    if terms.onboarding_ca is not None:
        found.append(f"may come in with a certificate of {terms.onboarding_ca} to get its first one (A00.FR.406)")
    if terms.accept_expired:
        found.append("may come in with an expired certificate to renew it (A00.FR.429)")
    if terms.password_grace_seconds is not None:
        seconds = terms.password_grace_seconds
        found.append(f"its old password stays accepted for {seconds} s after a change (against A01.FR.03)")
    return found
