"""Typed writes of firmware releases, approvals and what stations run."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from chargepki.pki.errors import StateError
from chargepki.pki.inventory.codec import (
    FIRMWARE_APPROVAL,
    FIRMWARE_APPROVER,
    FIRMWARE_RELEASE,
    FIRMWARE_STATUS,
    STATION_FIRMWARE,
)
from chargepki.pki.inventory.firmware_records import (
    FirmwareApprovalRecord,
    FirmwareApproverRecord,
    FirmwareReleaseRecord,
    FirmwareReleaseState,
    FirmwareStatusRecord,
    StationFirmwareRecord,
)
from chargepki.pki.inventory.writes import Writes

__all__ = ["FirmwareWrites"]

_MAX_STATUSES: Final = 500
"""Of one update: no honest station needs so many."""
_IDLE: Final = "Idle"


class FirmwareWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def add_release(self, record: FirmwareReleaseRecord) -> None:
        """Store a new release.

        Raises:
            Conflict: its name is taken.
        """
        self._add(FIRMWARE_RELEASE, record, "the firmware release")

    def add_approval(self, record: FirmwareApprovalRecord) -> FirmwareReleaseRecord:
        """Store an approval and return the release, which is approved now.

        Raises:
            NotFound: no such release.
            StateError: it is withdrawn.
            Conflict: this approver has approved it already.
        """
        before = self._stored(FIRMWARE_RELEASE, "firmware release", id=record.release)
        if before["state"] == FirmwareReleaseState.WITHDRAWN.value:
            raise StateError(f"the release {record.release} is withdrawn", why="that is for good", fix="add a new one")
        self._add(FIRMWARE_APPROVAL, record, "the approval")
        return self._change(FIRMWARE_RELEASE, before, {"state": FirmwareReleaseState.APPROVED})

    def withdraw_release(self, name: str, *, reason: str, now: datetime) -> FirmwareReleaseRecord:
        """Withdraw a release for good and return it; one that is withdrawn already stays as it is.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(FIRMWARE_RELEASE, "firmware release", id=name)
        if before["state"] == FirmwareReleaseState.WITHDRAWN.value:
            return FIRMWARE_RELEASE.decode([before[column] for column in FIRMWARE_RELEASE.columns])
        changes = {"state": FirmwareReleaseState.WITHDRAWN, "withdrawn_at": now, "withdrawn_reason": reason}
        return self._change(FIRMWARE_RELEASE, before, changes)

    def add_approver(self, record: FirmwareApproverRecord) -> None:
        """Store a new approver.

        Raises:
            Conflict: the name is taken, by one that was removed too: approvals must stay verifiable.
        """
        self._add(FIRMWARE_APPROVER, record, "the approver")

    def remove_approver(self, name: str) -> FirmwareApproverRecord:
        """Let an approver approve no more; earlier approvals stand.

        Raises:
            NotFound: there is none.
        """
        return self._change(FIRMWARE_APPROVER, self._stored(FIRMWARE_APPROVER, "approver", id=name), {"active": False})

    def add_firmware_status(self, operation: str, status: str, *, at: datetime) -> FirmwareStatusRecord | None:
        """Record a status of an update; ``None``, and no write, when it repeats the last one or there are too many."""
        known = self.list_firmware_statuses(operation)
        if len(known) >= _MAX_STATUSES or (known and known[-1].status == status != _IDLE):
            return None
        record = FirmwareStatusRecord(operation, len(known) + 1, status, at)
        self._add(FIRMWARE_STATUS, record, "the status")
        return record

    def put_station_firmware(self, record: StationFirmwareRecord) -> bool:
        """Record what a station runs; false, and no write, when vendor, model and version are those on record."""
        known = self.find_station_firmware(record.station)
        if known is None:
            self._add(STATION_FIRMWARE, record, "the firmware of station")
            return True
        if (known.vendor, known.model, known.version) == (record.vendor, record.model, record.version):
            return False
        changes = {name: getattr(record, name) for name in ("vendor", "model", "version", "reported_at")}
        self._change(STATION_FIRMWARE, STATION_FIRMWARE.encode(known), changes)
        return True
