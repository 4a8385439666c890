"""Read what the step of an update depends on: its release, judged anew, its URL, and what the station reported."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.firmware_admission import AdmissionRefused, admit, known_about
from chargepki.ocpp_security.firmware_urls import ImageTicket, make_location
from chargepki.ocpp_security.operations_firmware import FirmwareFacts
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory, SealingKey
from chargepki.pki.inventory.firmware_records import FirmwareReleaseRecord
from chargepki.pki.inventory.records import OperationRecord

__all__ = ["URL_LIFETIME", "firmware_facts"]

URL_LIFETIME: Final = timedelta(hours=6)
"""How long after the time of retrieval an image may be fetched: retries and slow links included."""
_EARLY: Final = timedelta(hours=1)
"""How much before the time of retrieval already: clocks of stations differ from ours."""
_KIND: Final = "update-firmware"


def firmware_facts(
    inventory: Inventory, sealing: SealingKey, operation: OperationRecord, version: OcppVersion, now: datetime
) -> FirmwareFacts:
    """Return the facts; a release that must not be sent is told by `FirmwareFacts.refused`, never by an error."""
    parameters = operation.parameters
    release = inventory.find_release(str(parameters["release"]))
    statuses = inventory.list_firmware_statuses(operation.id)
    replaced_by = None
    for other in inventory.list_operations(station=operation.station, open_only=True):
        later = (other.created_at, other.id) > (operation.created_at, operation.id)
        if other.kind == _KIND and later and other.parameters.get("replace"):
            replaced_by = other.id
    if release is None:
        return FirmwareFacts(None, None, "the release is not in the catalogue", statuses, replaced_by)
    location = _location(sealing, operation, release, now)
    refused: str | None = None
    try:
        admit(
            release,
            inventory.find_station_firmware(operation.station),
            known=known_about(inventory, release),
            now=now,
            retrieve_at=_instant(parameters.get("retrieve_at")),
            install_at=_instant(parameters.get("install_at")),
            version=version,
            location=location,
        )
    except AdmissionRefused as error:
        refused = f"{error.what} ({error.why})"
    except ChargePkiError as error:
        refused = str(error)
    return FirmwareFacts(release, location, refused, statuses, replaced_by)


def _location(
    sealing: SealingKey, operation: OperationRecord, release: FirmwareReleaseRecord, now: datetime
) -> str | None:
    if release.location is not None:
        return release.location
    base = operation.parameters.get("base_url")
    if not isinstance(base, str):
        return None
    retrieve = _instant(operation.parameters.get("retrieve_at")) or now
    begins = max(now, retrieve)
    ticket = ImageTicket(operation.station, release.sha256, begins - _EARLY, begins + URL_LIFETIME)
    return make_location(base, ticket, f"{release.id}.img", sealing)


def _instant(value: object) -> datetime | None:
    return None if value is None else datetime.fromisoformat(str(value))
