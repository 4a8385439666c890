"""Typed reads of the exceptions made for single stations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.inventory.codec import STATION_TERMS
from chargepki.pki.inventory.terms_records import StationTermsRecord

__all__ = ["TermsReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class TermsReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_station_terms(self: _Rows, station: str) -> StationTermsRecord:
        """Return the exceptions of *station*; one without any where nothing is on record."""
        rows = self._rows("station_terms_get", {"station": station})
        return STATION_TERMS.decode(rows[0]) if rows else StationTermsRecord(station)

    def list_onboarding_anchors(self: _Rows) -> Iterator[bytes]:
        """Return the PEM bundle of every manufacturer CA that some station may come in with; repetitions included."""
        for row in self._rows("station_terms_onboarding", {}):
            yield bytes(row[0])
