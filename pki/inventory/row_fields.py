"""What a filter may ask of CAs, stations, operations, security events and firmware releases.

The fields have the names that ``--json`` prints. There are far fewer of these rows than of certificates, so they are
read one by one and held against the filter here (`filters.matches`), alike on both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from chargepki.pki.inventory.filter_fields import Field, Kind
from chargepki.pki.inventory.filters import Filter, matches
from chargepki.pki.inventory.firmware_records import FirmwareReleaseState
from chargepki.pki.inventory.records import CaState, OperationState, StationState

__all__ = ["ROW_FIELDS", "ListedKind", "RowField", "keep_rows"]


class ListedKind(StrEnum):
    """What is listed."""

    CA = "ca"
    STATION = "station"
    OPERATION = "operation"
    EVENT = "security-event"
    RELEASE = "firmware-release"


@dataclass(frozen=True, slots=True)
class RowField(Field):
    """One field of a row as ``--json`` prints it; what is true or false is ``yes`` or ``no``."""

    def of(self, record: Any) -> Any:
        """Return the value, ``None`` when there is none."""
        value = record.get(self.column)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return value if value is None or self.kind is Kind.NUMBER else str(value)


def _text(name: str, what: str, *known: str) -> RowField:
    return RowField(name, Kind.TEXT, what, name, True, known=known)


def _flag(name: str, what: str) -> RowField:
    return _text(name, what, "yes", "no")


def _time(name: str, what: str) -> RowField:
    return RowField(name, Kind.TIME, what, name, True)


def _number(name: str, what: str) -> RowField:
    return RowField(name, Kind.NUMBER, what, name, True)


def _states(states: Iterable[StrEnum]) -> tuple[str, ...]:
    return tuple(each.value for each in states)


_CAS: Final = (
    _text("id", "`NAME@N`"),
    _text("name", "of all its generations"),
    _number("generation", "1, 2 …"),
    _text("profile", "as `profile list` names it"),
    _text("state", "of the generation", *_states(CaState)),
    _text("issuer", "id of the CA above; a root has none"),
    _text("subject", "the whole name"),
    _text("key", "where its key is: `file:`, `pkcs11:`, `est:` or `none:`"),
    _text("public_url", "base of the URLs in what it issues"),
    _text("spki_sha256", "fingerprint of its public key"),
    _time("not_before", "first valid second"),
    _time("not_after", "last valid second"),
    _time("created_at", "when it was made"),
)
_STATIONS: Final = (
    _text("id", "identity"),
    _text("serial_number", "as its certificate has to name it"),
    _text("organization", "of its certificate"),
    _number("security_profile", "the lowest that is let in"),
    _text("state", "whether it may connect", *_states(StationState)),
    _flag("has_password", "whether it has one"),
    _flag("connected", "whether it is now"),
    _text("protocol", "of its last connection"),
    _number("connected_profile", "of its connection"),
    _text("certificate", "id of what opened its last connection"),
    _text("vendor", "as it said when it booted"),
    _text("model", "as it said when it booted"),
    _text("firmware_version", "as it said when it booted"),
    _time("last_seen_at", "when it was last heard of"),
    _time("password_changed_at", "when its password was"),
    _time("created_at", "when it was registered"),
)
_OPERATIONS: Final = (
    _text("id", "of the operation"),
    _text("kind", "such as `set-password`"),
    _text("station", "identity"),
    _text("state", "where it stands", *_states(OperationState)),
    _text("requester", "who asked for it"),
    _time("created_at", "when it was asked for"),
    _time("deadline", "until when it may be done"),
)
_EVENTS: Final = (
    _number("id", "number"),
    _text("station", "identity; peers that proved to be none have none"),
    _text("source", "who told it", "station", "csms"),
    _text("type", "as it was told"),
    _flag("critical", "whether the standard calls it so"),
    _text("tech_info", "what was told besides"),
    _number("count", "how often within its series"),
    _time("at", "when it occurred first"),
    _time("received_at", "when it was told first"),
    _time("last_at", "when it occurred last"),
    _time("last_received_at", "when it was told last"),
)
_RELEASES: Final = (
    _text("name", "of the release"),
    _text("vendor", "of the stations it is for"),
    _text("model", "of the stations it is for"),
    _text("hardware", "of the stations it is for"),
    _text("version", "of the firmware"),
    _text("state", "whether it may be sent", *_states(FirmwareReleaseState)),
    _number("size", "octets of the image"),
    _text("sha256", "of the image"),
    _text("signer", "subject of the signing certificate"),
    _number("running_on", "how many stations run it"),
    _text("added_by", "who added it"),
    _time("added_at", "when it was added"),
)


def _by_name(fields: tuple[RowField, ...]) -> Mapping[str, Field]:
    return MappingProxyType({field.name: field for field in fields})


ROW_FIELDS: Final[Mapping[ListedKind, Mapping[str, Field]]] = MappingProxyType(
    {
        ListedKind.CA: _by_name(_CAS),
        ListedKind.STATION: _by_name(_STATIONS),
        ListedKind.OPERATION: _by_name(_OPERATIONS),
        ListedKind.EVENT: _by_name(_EVENTS),
        ListedKind.RELEASE: _by_name(_RELEASES),
    }
)
"""The fields of each kind by name."""


def keep_rows(rows: Iterable[dict[str, Any]], wanted: Filter | None) -> Iterator[dict[str, Any]]:
    """Yield the rows that a filter asks for; without one, all of them.

    >>> from chargepki.pki.inventory.filter_parser import parse_filter
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> asked = parse_filter("critical = 'yes'", now=now, fields=ROW_FIELDS[ListedKind.EVENT])
    >>> [row["id"] for row in keep_rows([{"id": 1, "critical": True}, {"id": 2, "critical": False}], asked)]
    [1]
    """
    return (row for row in rows if wanted is None or matches(wanted, row))
