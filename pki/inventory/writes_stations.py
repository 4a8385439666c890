"""Typed writes on stations and their presence."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from chargepki.pki.inventory import codec
from chargepki.pki.inventory.records import PresenceRecord, StationRecord, StationState
from chargepki.pki.inventory.writes import Writes

__all__ = ["StationChanges", "StationWrites"]


class StationChanges(TypedDict, total=False):
    """Fields of a `StationRecord` that may change."""

    serial_number: str
    organization: str | None
    security_profile: int
    state: StationState
    password_hash: str | None
    pending_password_hash: str | None
    password_changed_at: datetime | None


class StationWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def add_station(self, record: StationRecord) -> None:
        """Store a new station.

        Raises:
            Conflict: the identity is taken (by a removed station too: `update_station` brings that one back).
        """
        self._add(codec.STATION, record, "the station")

    def update_station(self, station: str, **changes: Unpack[StationChanges]) -> StationRecord:
        """Change a station and return it.

        Raises:
            NotFound: there is none.
        """
        return self._change(codec.STATION, self._stored(codec.STATION, "station", id=station), changes)

    def remove_station(self, station: str) -> StationRecord:
        """Let a station connect no more; its history stays.

        Raises:
            NotFound: there is none.
        """
        return self.update_station(station, state=StationState.REMOVED)

    def set_presence(self, record: PresenceRecord) -> None:
        """Record the live connection of a station in place of the previous one; not audited."""
        self._rows("presence_put", codec.PRESENCE.encode(record))

    def touch_presence(self, station: str, connection: str, *, now: datetime) -> bool:
        """Note that a connection is alive; False if it is no longer the station's connection. Not audited."""
        parameters = {"station": station, "connection": connection, "last_seen_at": codec.encode_time(now)}
        return bool(self._rows("presence_touch", parameters))

    def clear_presence(self, station: str, connection: str, *, now: datetime) -> bool:
        """Record that a connection ended; False if another one has replaced it meanwhile. Not audited."""
        parameters = {"station": station, "connection": connection, "last_seen_at": codec.encode_time(now)}
        return bool(self._rows("presence_clear", parameters))
