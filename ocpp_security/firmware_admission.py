"""Before anything is sent: would this station refuse this release, and which check says so? (A00.FR.707)"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.ocpp_security.firmware import verify_image_digest
from chargepki.ocpp_security.firmware_approval import find_approval
from chargepki.ocpp_security.firmware_catalogue import check_location
from chargepki.ocpp_security.firmware_certificate import (
    FirmwareTrust,
    parse_signing_certificate,
    verify_signing_certificate,
)
from chargepki.ocpp_security.firmware_image import ImageDigest
from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal
from chargepki.ocpp_security.firmware_version import check_no_rollback, version_key
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory.firmware_records import (
    FirmwareReleaseRecord,
    FirmwareReleaseState,
    StationFirmwareRecord,
)
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaState, CertificateState

__all__ = ["AdmissionRefused", "Admitted", "Known", "admit", "known_about"]

_ROOM: Final = {OcppVersion.V16: 512, OcppVersion.V201: 512, OcppVersion.V21: 2000}


class AdmissionRefused(PolicyRefusal):
    """A station would refuse the release, or nobody may send it; `check` says which check fails."""

    code = "admission"

    def __init__(self, check: str, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=f"check {check}: {why}" if why else f"check {check}", fix=fix)
        self.check = check


@dataclass(frozen=True, slots=True)
class Admitted:
    """A release that may be sent."""

    release: FirmwareReleaseRecord
    notices: tuple[str, ...]
    """What could not be checked, and deviations from the standard."""


@dataclass(frozen=True, slots=True)
class Known:
    """What our own inventory knows about a release beside its row; see `known_about`."""

    is_approved: bool
    """A second person's signature verifies over the release as it is on record."""
    revoked: frozenset[bytes] = frozenset()
    """Certificates (DER) that are revoked: signing ones of its root, and the root itself."""


def admit(
    release: FirmwareReleaseRecord,
    station: StationFirmwareRecord | None,
    *,
    known: Known,
    now: datetime,
    retrieve_at: datetime | None = None,
    install_at: datetime | None = None,
    version: OcppVersion | None = None,
    location: str | None = None,
) -> Admitted:
    """Do every check that a station does, and ours.

    Args:
        station: what the station runs, as far as it has told.
        known: from `known_about`.
        retrieve_at: when it will fetch the image, and
        install_at: when it will install it; the certificate must be valid then too.
        version: of the connection, once it is known.
        location: URL that will be sent, once it is known.

    Raises:
        AdmissionRefused: the first check that fails: state, certificate, signature, model, rollback or location.
    """
    _check_state(release, known)
    last = max(now, retrieve_at or now, install_at or now)
    notices = _check_image(release, now, last, known.revoked)
    notices += _check_station(release, station)
    if location is not None:
        _check_room(location, version)
    return Admitted(release, tuple(notices))


def _check_state(release: FirmwareReleaseRecord, known: Known) -> None:
    if release.state is FirmwareReleaseState.WITHDRAWN:
        raise AdmissionRefused(
            "withdrawn",
            f"the release {release.id} is withdrawn",
            why=release.withdrawn_reason or "no reason was given",
            fix="send another release",
        )
    if release.state is not FirmwareReleaseState.APPROVED:
        raise AdmissionRefused(
            "approval",
            f"the release {release.id} is not approved",
            why="a second person has to approve what stations run",
            fix=f"chargepki firmware approve {release.id} --approver NAME --key F",
        )
    if not known.is_approved:
        raise AdmissionRefused(
            "approval",
            f"no approval of the release {release.id} verifies",
            why="it was changed after it was approved, or the approval is not by the registered key of a second person",
            fix="find out who changed it: chargepki audit verify; then add the image again under another name",
        )


def _check_image(
    release: FirmwareReleaseRecord,
    now: datetime,
    last: datetime,
    revoked: frozenset[bytes],
) -> list[str]:
    trust = FirmwareTrust((release.root_der,))
    try:
        certificates = parse_signing_certificate(release.certificate_pem)
        for der, what in ((certificates[0], "signing certificate"), (release.root_der, "manufacturer root")):
            if der in revoked:
                raise AdmissionRefused(
                    "certificate", f"the {what} of {release.id} is revoked", why="our own inventory says so",
                    fix="sign the image with another certificate, and add it as another release",
                )  # fmt: skip
        certificate = verify_signing_certificate(certificates, trust, now)
        if last > now:
            verify_signing_certificate(certificates, trust, last)
        digest = ImageDigest(FirmwareHash.SHA256, bytes.fromhex(release.sha256), release.size)
        quirks = tuple(map(FirmwareQuirk, release.quirks.split()))
        verified = verify_image_digest(digest, release.signature, certificate, at=now, quirks=quirks)
    except FirmwareRefusal as refusal:
        raise AdmissionRefused(str(refusal.stage), refusal.what, why=refusal.why, fix=refusal.fix) from refusal
    return [*verified.deviations, *verified.notices]


def _check_station(release: FirmwareReleaseRecord, station: StationFirmwareRecord | None) -> list[str]:
    if station is None:
        return ["the station has not told yet what it is and runs: model and rollback are not checked"]
    told: dict[str, tuple[str, str]] = {
        "vendor": (station.vendor, release.vendor), "model": (station.model, release.model),
    }  # fmt: skip
    for label, (theirs, ours) in told.items():
        if ours and theirs != ours:
            raise AdmissionRefused(
                "model",
                f"the release {release.id} is for {label} {ours}, and {station.station} is {theirs}",
                why="the station's last BootNotification says so",
                fix="choose a release for this model",
            )
    try:
        version_key(station.version)
    except InputError:
        return ["the station tells no version that has an order: rollback is not checked"]
    try:
        check_no_rollback(release.version, station.version)
    except FirmwareRefusal as refusal:
        raise AdmissionRefused("rollback", refusal.what, why=refusal.why, fix=refusal.fix) from refusal
    return []


def _check_room(location: str, version: OcppVersion | None) -> None:
    room = _ROOM[version] if version is not None else min(_ROOM.values())
    if len(location) > room:
        raise AdmissionRefused(
            "location", f"the location has {len(location)} characters", why=f"the message has room for {room}",
            fix="set a shorter public URL",
        )  # fmt: skip
    try:
        check_location(location[:512])
    except InputError as error:
        raise AdmissionRefused("location", error.what, why=error.why, fix=error.fix) from error


def known_about(reads: Reads, release: FirmwareReleaseRecord) -> Known:
    """Return what the inventory knows about *release*: whether an approval of it holds, and what is revoked."""
    revoked: set[bytes] = set()
    sha256 = hashlib.sha256(release.root_der).hexdigest()
    for ca in reads.list_cas():
        if ca.certificate_der is not None and hashlib.sha256(ca.certificate_der).hexdigest() == sha256:
            if ca.state is CaState.REVOKED:
                revoked.add(release.root_der)
            listed = reads.list_certificates(ca=ca.id, profile="ocpp/firmware-signing", state=CertificateState.REVOKED)
            revoked.update(item.der for item in listed if item.der is not None)
    return Known(find_approval(reads, release) is not None, frozenset(revoked))
