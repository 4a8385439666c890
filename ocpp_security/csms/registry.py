"""Which station is connected here, on which connection: at most one each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["Registry"]


class Registry:
    """The live connections of this process; used from the event loop only."""

    def __init__(self) -> None:
        self._live: dict[str, StationConnection] = {}
        self._by_certificate: dict[str, StationConnection] = {}
        # Of stations that came with a superseded certificate: what they hang on is another one. They are few.
        self._fallbacks: dict[str, StationConnection] = {}

    def find(self, station: str) -> StationConnection | None:
        """Return the live connection of *station*, if it is connected here."""
        return self._live.get(station)

    def enter(self, connection: StationConnection) -> StationConnection | None:
        """Make *connection* the one of its station, and return the one that it displaces."""
        displaced = self._live.get(connection.station.id)
        if displaced is not None:
            self.leave(displaced)
        self._live[connection.station.id] = connection
        if connection.certificate is not None:
            self._by_certificate[connection.certificate.id] = connection
        return displaced

    def hangs_on_others(self, connection: StationConnection) -> None:
        """Note that *connection* falls with certificates that are not its own, too."""
        if self._live.get(connection.station.id) is connection:
            self._fallbacks[connection.station.id] = connection

    def concerned(self, certificates: Iterable[str], stations: Iterable[str]) -> set[StationConnection]:
        """Return the connections whose right may have ended with a change of these certificates and stations."""
        certificates = tuple(certificates)
        found = {self._by_certificate.get(key) for key in certificates}
        found.update(self._live.get(key) for key in stations)
        if certificates:
            found.update(self._fallbacks.values())
        return {connection for connection in found if connection is not None}

    def leave(self, connection: StationConnection) -> bool:
        """Forget *connection*; return whether it still was the one of its station."""
        if self._live.get(connection.station.id) is not connection:
            return False
        del self._live[connection.station.id]
        self._fallbacks.pop(connection.station.id, None)
        own = connection.certificate.id if connection.certificate is not None else ""
        if self._by_certificate.get(own) is connection:
            del self._by_certificate[own]
        return True

    def __iter__(self) -> Iterator[StationConnection]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)
