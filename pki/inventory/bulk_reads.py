"""Typed reads that answer for many keys at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.inventory.codec import STATION, dump_json
from chargepki.pki.inventory.records import StationRecord

__all__ = ["BulkReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class BulkReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def list_taken_keys(self: _Rows, spki_sha256s: Iterable[str]) -> frozenset[str]:
        """Return those keys (SHA-256 of the SubjectPublicKeyInfo, lower-case hex) that have a certificate already."""
        wanted = dump_json(list(spki_sha256s), "keys")
        return frozenset(row[0] for row in self._rows("certificate_keys_taken", {"wanted": wanted}))

    def list_taken_requests(self: _Rows, request_keys: Iterable[str]) -> frozenset[str]:
        """Return those request keys under which something was issued or reserved already."""
        wanted = dump_json(list(request_keys), "request keys")
        return frozenset(row[0] for row in self._rows("certificate_requests_taken", {"wanted": wanted}))

    def find_stations_of_serial_numbers(
        self: _Rows, serial_numbers: Iterable[str]
    ) -> Mapping[str, Sequence[StationRecord]]:
        """Return the active stations by serial number; a number that no station has is left out."""
        found: dict[str, list[StationRecord]] = {}
        wanted = dump_json(list(serial_numbers), "serial numbers")
        for row in self._rows("stations_of_serial_numbers", {"wanted": wanted}):
            station = STATION.decode(row)
            found.setdefault(str(station.serial_number), []).append(station)
        return found
