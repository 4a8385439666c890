"""Typed writes of the exceptions made for single stations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.codec import STATION_TERMS
from chargepki.pki.inventory.terms_records import StationTermsRecord
from chargepki.pki.inventory.writes import Writes

__all__ = ["TermsChanges", "TermsWrites"]


class TermsChanges(TypedDict, total=False):
    """Fields of a `StationTermsRecord` that may change."""

    onboarding_ca: str | None
    onboarding_anchors: bytes | None
    accept_expired: bool
    password_grace_seconds: int | None
    previous_password_hash: str | None
    previous_password_until: datetime | None
    issue: Mapping[str, Any] | None


class TermsWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def change_station_terms(self, station: str, **changes: Unpack[TermsChanges]) -> StationTermsRecord:
        """Change the exceptions of *station* and return them; equal values are no write.

        Raises:
            NotFound: no such station.
        """
        try:
            before = self._stored(STATION_TERMS, "terms of station", station=station)
        except NotFound:
            self._stored_station(station)
            self._add(STATION_TERMS, StationTermsRecord(station, **changes), "the terms of station")
            return StationTermsRecord(station, **changes)
        return self._change(STATION_TERMS, before, changes)

    def _stored_station(self, station: str) -> None:
        if not self._rows("station_by_id", {"id": station}):
            raise NotFound(f"there is no station {station}", fix="list the stations with: chargepki station list")
