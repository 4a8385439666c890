"""Typed reads of firmware releases, approvals and what stations run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.errors import NotFound
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
    FirmwareStatusRecord,
    StationFirmwareRecord,
)

__all__ = ["FirmwareReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class FirmwareReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_release(self: _Rows, name: str) -> FirmwareReleaseRecord | None:
        """Return a release, or ``None``."""
        rows = self._rows("firmware_release_get", {"id": name})
        return FIRMWARE_RELEASE.decode(rows[0]) if rows else None

    def get_release(self: _Rows, name: str) -> FirmwareReleaseRecord:
        """Return a release.

        Raises:
            NotFound: there is none.
        """
        rows = self._rows("firmware_release_get", {"id": name})
        if not rows:
            raise NotFound(f"there is no firmware release {name}", fix="list them with: chargepki firmware list")
        return FIRMWARE_RELEASE.decode(rows[0])

    def list_releases(self: _Rows) -> Iterator[FirmwareReleaseRecord]:
        """Return every release, by vendor, model and name."""
        yield from map(FIRMWARE_RELEASE.decode, self._rows("firmware_releases", {}))

    def find_approver(self: _Rows, name: str) -> FirmwareApproverRecord | None:
        """Return an approver, or ``None``."""
        rows = self._rows("firmware_approver_get", {"id": name})
        return FIRMWARE_APPROVER.decode(rows[0]) if rows else None

    def list_approvers(self: _Rows) -> Iterator[FirmwareApproverRecord]:
        """Return every approver, by name."""
        yield from map(FIRMWARE_APPROVER.decode, self._rows("firmware_approvers", {}))

    def list_approvals(self: _Rows, release: str) -> tuple[FirmwareApprovalRecord, ...]:
        """Return the approvals of a release, by approver."""
        rows = self._rows("firmware_approvals", {"release": release})
        return tuple(map(FIRMWARE_APPROVAL.decode, rows))

    def list_firmware_statuses(self: _Rows, operation: str) -> tuple[FirmwareStatusRecord, ...]:
        """Return what a station reported about an update, oldest first."""
        return tuple(map(FIRMWARE_STATUS.decode, self._rows("firmware_statuses", {"operation": operation})))

    def find_station_firmware(self: _Rows, station: str) -> StationFirmwareRecord | None:
        """Return what *station* runs, as far as it has told."""
        rows = self._rows("station_firmware_get", {"station": station})
        return STATION_FIRMWARE.decode(rows[0]) if rows else None

    def list_station_firmware(self: _Rows) -> Iterator[StationFirmwareRecord]:
        """Return what every station runs, by station."""
        yield from map(STATION_FIRMWARE.decode, self._rows("station_firmware_all", {}))
