"""Dumps of what stations list: answers to GetInstalledCertificateIds that another CSMS had written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chargepki.ocpp_security.trust_messages import read_listing
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.errors import InputError, NotFound
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.trust_records import StationRootReportRecord

__all__ = ["SCHEMA", "StationDump", "parse_dumps", "take_dump"]

SCHEMA: Final = "chargepki/station-dump"
_MOST_DUMPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class StationDump:
    """What one station listed at one instant."""

    station: str
    reported_at: datetime
    reports: tuple[StationRootReportRecord, ...]
    """One for each use that was asked about, those of which nothing is installed included."""


def parse_dumps(data: bytes) -> Iterator[StationDump]:
    """Yield the dumps in JSON, one object, or one a line.

    An object holds ``schema``, ``schema_version`` 1, ``station``, ``reported_at`` (RFC 3339), ``response`` (the answer
    as the station gave it) and, unless all were asked for, ``uses``.

    Raises:
        InputError: something in it is none; what came before is good.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the dump is not UTF-8", why=str(error)[:100]) from error
    try:
        whole = [json.loads(text)]
    except (ValueError, RecursionError):
        whole = []
    if whole:
        yield _dump(whole[0])
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if number > _MOST_DUMPS:
            raise InputError(f"more than {_MOST_DUMPS} dumps in a file", fix="divide it")
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} of the dump is no JSON", why=str(error)[:100]) from error
        yield _dump(content)


def _dump(content: object) -> StationDump:
    if not isinstance(content, Mapping) or (content.get("schema"), content.get("schema_version")) != (SCHEMA, 1):
        raise InputError(f"an object of the dump is no {SCHEMA} of version 1")
    station, response = content.get("station"), content.get("response")
    if not isinstance(station, str) or not station or not isinstance(response, Mapping):
        raise InputError("a dump without station or response", fix='write {"station": "ID", "response": {…}, …}')
    if response.get("status") not in ("Accepted", "NotFound"):
        raise InputError(f"the answer of {station[:64]} has the status {str(response.get('status'))[:40]}")
    reported_at, uses = _instant(content.get("reported_at")), _uses(content.get("uses"))
    listed = read_listing(response, uses)
    reports = [
        StationRootReportRecord(
            station, use.value, {"entries": [each.to_json() for each in listed if each.use is use]}, reported_at
        )
        for use in uses
    ]
    return StationDump(station, reported_at, tuple(reports))


def _instant(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InputError("reported_at of a dump is no RFC 3339 time", fix="write 2026-03-01T00:00:00Z") from error
    if found.tzinfo is None:
        raise InputError("reported_at of a dump names no time zone", fix="append Z for UTC")
    return found


def _uses(value: object) -> tuple[RootUse, ...]:
    if value is None:
        return tuple(RootUse)
    try:
        return tuple(RootUse(each) for each in value if isinstance(each, str))  # type: ignore[attr-defined]  # below
    except (TypeError, ValueError) as error:
        known = ", ".join(RootUse)
        raise InputError("uses of a dump are a list of names", fix=f"the names are {known}") from error


def take_dump(inventory: Inventory, dump: StationDump, actor: Actor, *, source: str, now: datetime) -> int:
    """Put a dump on record where it is newer than what is there; return how many listings were.

    Raises:
        NotFound: the station is not in the inventory.
        InputError: it was written later than now.
    """
    if dump.reported_at > now:
        raise InputError(f"the dump of {dump.station[:64]} is of the future: {dump.reported_at:%Y-%m-%dT%H:%M:%SZ}")

    def work(tx: Transaction) -> int:
        if tx.find_station(dump.station) is None:
            raise NotFound(
                f"there is no station {dump.station[:64]}",
                fix=f"add it with: chargepki station add {dump.station[:64]}; then import again",
            )
        known = {report.use: report.reported_at for report in tx.list_root_reports(dump.station)}
        newer = [each for each in dump.reports if known.get(each.use) is None or known[each.use] < each.reported_at]
        for each in newer:
            tx.put_root_report(each)
        if newer:
            details = {"source": source, "uses": [each.use for each in newer]}
            tx.audit(actor, "station.import-roots", dump.station, now=now, details=details)
        return len(newer)

    return inventory.write(work)
