"""Parse what options carry: durations, instants, subjects; and find what an operand names."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["DURATION", "INSTANT", "SUBJECT", "find_certificate", "format_duration"]

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "y": timedelta(days=365),
}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdy])\Z")
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}\Z")


class Duration(click.ParamType[timedelta]):
    """``90s 60m 12h 30d 4y``; a year is 365 days."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return *value* as a time span."""
        if isinstance(value, timedelta):
            return value
        match = _DURATION.match(str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write for example 90s, 60m, 12h, 30d or 4y", param, ctx)
        try:
            return int(match[1]) * _UNITS[match[2]]
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


class Instant(click.ParamType[datetime]):
    """RFC 3339 with an offset, for example ``2026-03-01T00:00:00Z``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return *value* as aware UTC."""
        if isinstance(value, datetime):
            return value
        try:
            parsed = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write for example 2026-03-01T00:00:00Z", param, ctx)
        if parsed.tzinfo is None:
            self.fail(f"{value!r} names no time zone; append Z for UTC", param, ctx)
        try:
            return parsed.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} lies outside the years 1 to 9999 in UTC", param, ctx)


class Subject(click.ParamType[tuple[tuple[str, str], ...]]):
    """``CN=…,O=…,C=…,DC=…``; a comma inside a value is written ``\\,``."""

    name = "rdns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, str], ...]:
        """Return pairs of short name and value, in the order in which they were typed."""
        from chargepki.pki import names
        from chargepki.pki.errors import InputError

        if isinstance(value, tuple):
            return value
        try:
            return tuple(names.attributes(names.parse_rdns(str(value))))
        except InputError as error:
            self.fail(f"{error.what}{f' ({error.fix})' if error.fix else ''}", param, ctx)


DURATION = Duration()
INSTANT = Instant()
SUBJECT = Subject()


def format_duration(span: timedelta) -> str:
    """Return *span* in the largest unit that divides it, for example ``60d``.

    >>> format_duration(timedelta(days=730)), format_duration(timedelta(minutes=90))
    ('2y', '90m')
    """
    for unit in ("y", "d", "h", "m"):
        if span >= _UNITS[unit] and not span % _UNITS[unit]:
            return f"{span // _UNITS[unit]}{unit}"
    return f"{int(span.total_seconds())}s"


def find_certificate(inventory: Inventory, operand: str) -> CertificateRecord:
    """Return the certificate that *operand* names: ``CA:SERIAL``, or a hex serial that only one CA used.

    Raises:
        NotFound: no such certificate.
        StateError: several CAs used the serial.
    """
    from chargepki.pki.errors import InputError, NotFound, StateError

    head, colon, tail = operand.rpartition(":")
    serial = (tail if colon else operand).lower().removeprefix("0x").lstrip("0")
    if not _SERIAL.match(serial):
        raise InputError(
            f"{operand[:100]!r} is no serial number",
            why="a serial is 1 to 40 hex digits, alone or behind the name of its CA and a colon",
            fix="list the serials with: chargepki cert list",
        )
    if colon:
        return inventory.get_certificate(f"{inventory.get_ca(head).id}:{serial}")
    found = inventory.find_certificates_by_serial(serial)
    if not found:
        raise NotFound(f"no certificate has serial {serial}", fix="list the serials with: chargepki cert list")
    if len(found) > 1:
        ids = ", ".join(record.id for record in found)
        raise StateError(f"several CAs used serial {serial}", why=f"they are {ids}", fix="write CA:SERIAL")
    return found[0]
