"""Which station is connected here, on which connection: at most one each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["Registry"]


class Registry:
    """The live connections of this process; used from the event loop only."""

    def __init__(self) -> None:
        self._live: dict[str, StationConnection] = {}

    def find(self, station: str) -> StationConnection | None:
        """Return the live connection of *station*, if it is connected here."""
        return self._live.get(station)

    def enter(self, connection: StationConnection) -> StationConnection | None:
        """Make *connection* the one of its station, and return the one that it displaces."""
        displaced = self._live.get(connection.station.id)
        self._live[connection.station.id] = connection
        return displaced

    def leave(self, connection: StationConnection) -> bool:
        """Forget *connection*; return whether it still was the one of its station."""
        if self._live.get(connection.station.id) is not connection:
            return False
        del self._live[connection.station.id]
        return True

    def __iter__(self) -> Iterator[StationConnection]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)
