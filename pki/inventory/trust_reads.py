"""Typed reads of roots on stations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.inventory.codec import STATION_ROOT, STATION_ROOT_REPORT, TRUST_ROOT
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, TrustRootRecord

__all__ = ["TrustReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class TrustReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_trust_root(self: _Rows, sha256: str) -> TrustRootRecord | None:
        """Return a root by the SHA-256 of its DER (lower-case hex), or ``None``."""
        rows = self._rows("trust_root_get", {"id": sha256})
        return TRUST_ROOT.decode(rows[0]) if rows else None

    def list_trust_roots(self: _Rows) -> Iterator[TrustRootRecord]:
        """Return every root that somebody wanted on a station, by digest."""
        yield from map(TRUST_ROOT.decode, self._rows("trust_roots", {}))

    def list_station_roots(self: _Rows, station: str) -> tuple[StationRootRecord, ...]:
        """Return what we did to the roots of *station*, by use and certificate; deleted ones included."""
        return tuple(map(STATION_ROOT.decode, self._rows("station_roots", {"station": station})))

    def list_root_holders(self: _Rows, sha256: str) -> tuple[StationRootRecord, ...]:
        """Return the stations that a root was installed on, by station; those it was deleted from included."""
        return tuple(map(STATION_ROOT.decode, self._rows("station_root_holders", {"certificate": sha256})))

    def list_root_reports(self: _Rows, station: str) -> tuple[StationRootReportRecord, ...]:
        """Return what *station* listed last for each use that it was asked about."""
        return tuple(map(STATION_ROOT_REPORT.decode, self._rows("station_root_reports", {"station": station})))
