"""Parse what options carry: durations, instants, subjects; and find what an operand names."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.records import CertificateRecord
    from chargepki.pki.keys import KeyAlgorithm

__all__ = [
    "DURATION",
    "INSTANT",
    "SUBJECT",
    "find_certificate",
    "format_duration",
    "parse_algorithm",
    "read_certificate_file",
]

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "y": timedelta(days=365),
}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdy])\Z")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_OCTETS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*\Z")
_MAX_FILE_BYTES = 1 << 20
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
    """RFC 3339 with an offset, for example ``2026-03-01T00:00:00Z``; a day alone begins at midnight UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return *value* as aware UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            parsed = datetime.fromisoformat(f"{text}T00:00:00+00:00" if _DAY.match(text) else text)
        except ValueError:
            self.fail(f"{value!r} is no time; write for example 2026-03-01T00:00:00Z, or 2026-03-01", param, ctx)
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


def whole_hours(span: timedelta | None) -> int | None:
    """Return *span* in hours.

    Raises:
        InputError: it is no whole number of them.

    >>> whole_hours(timedelta(days=1))
    24
    """
    from chargepki.pki.errors import InputError

    if span is None:
        return None
    hours, rest = divmod(span, timedelta(hours=1))
    if rest or not hours:
        raise InputError(f"{format_duration(span)} is no whole number of hours", fix="write for example 12h or 2d")
    return hours


def read_certificate_file(operand: str) -> bytes | None:
    """Return the certificate (DER) in the file *operand* (PEM or DER), or ``None`` when that is no name of a file.

    Raises:
        InputError: the file holds no certificate.
        UnavailableError: *operand* has the form of a file's name, and there is no such file.
    """
    # A name of ours may hold a dot as well, but a serial follows it behind a colon.
    if not os.path.isfile(operand) and (":" in operand or not os.path.splitext(operand)[1]):  # noqa: PTH113, PTH122 - they answer for overlong names too
        return None
    from chargepki.pki import der, files

    data = files.read_limited(operand, _MAX_FILE_BYTES, "certificate file")
    return der.decode_der_or_pem(data, ("CERTIFICATE",), "certificate", _MAX_FILE_BYTES)


def find_certificate(inventory: Inventory, operand: str) -> CertificateRecord:
    """Return the certificate that *operand* names: ``CA:SERIAL``, or a hex serial that only one CA used.

    The octets of the serial may be parted by colons, as other tools print them.

    Raises:
        NotFound: no such certificate.
        StateError: several CAs used the serial.
    """
    from chargepki.pki.errors import InputError, NotFound, StateError

    head, colon, tail = operand.partition(":")
    if colon and _OCTETS.match(operand) and (":" in tail or inventory.find_ca(head) is None):
        head, colon, tail = "", "", operand
    text = tail if colon else tail or head
    serial = (text.replace(":", "") if _OCTETS.match(text) else text).lower().removeprefix("0x").lstrip("0")
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


def parse_algorithm(text: str | None) -> KeyAlgorithm | None:
    """Return the key algorithm that ``--key`` names; ``None`` when it was not given.

    Raises:
        InputError: there is none such.
    """
    from chargepki.pki.errors import InputError
    from chargepki.pki.keys import KeyAlgorithm

    if text is None:
        return None
    try:
        return KeyAlgorithm(text)
    except ValueError as error:
        known = ", ".join(algorithm.value for algorithm in KeyAlgorithm)
        raise InputError(f"unknown key algorithm {text[:40]!r}", why=f"known are {known}", fix="use one") from error
