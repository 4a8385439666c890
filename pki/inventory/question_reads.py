"""Reads that questions about everything are answered from: counts by several fields, shared keys, published lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from chargepki.pki.inventory.codec import STATION_ROOT, STATION_ROOT_REPORT, decode_time
from chargepki.pki.inventory.query_reads import Make
from chargepki.pki.inventory.traits import Traits, derive_traits, read_traits
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord

if TYPE_CHECKING:
    from chargepki.pki.inventory.filter_fields import Field, Step
    from chargepki.pki.inventory.filters import Filter

__all__ = ["PublishedList", "QuestionReads", "RevocationRow", "SharedKey", "Totals"]

_MEMBERS = 10
_BATCH = 500


class SharedKey(NamedTuple):
    """A public key that more than one certificate has."""

    key_sha256: str
    certificates: int
    stations: int
    """How many different ones; certificates without a station count for none."""
    cas: int
    subjects: int
    examples: tuple[str, ...]
    """Ids of the first certificates, ten at most."""


class Totals(NamedTuple):
    """How many there are."""

    stations: int
    """Removed ones too."""
    open_operations: int
    queued_requests: int
    """Issuance requests that nobody works on yet."""
    operations: int
    security_events: int
    """Repetitions within a series are one."""
    firmware_releases: int
    """Withdrawn ones too."""
    open_alerts: int


class RevocationRow(NamedTuple):
    """A revoked certificate, and the last change that lists must tell of it."""

    certificate: str
    profile: str
    subject: str
    station: str | None
    revoked_at: datetime
    reason: str
    shard: int
    """0 for one that points to the full list."""
    change: int
    """0 when it was revoked by a release that did not number changes."""
    not_after: datetime


class PublishedList(NamedTuple):
    """A list that was signed, without its bytes."""

    shard: int
    """0 for a full list, and for a delta, which brings that up to date."""
    number: int
    is_delta: bool
    this_update: datetime
    next_update: datetime
    changes: int | None
    """Up to which change it tells; ``None`` for one of a release that did not number them."""


def _of_state(traits: Traits, state: str) -> Traits:
    return traits if state in ("issued", "revoked") else traits._replace(key=None, signature=None)


class _Base(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...
    def _ask(self, make: Make) -> list[Sequence[Any]]: ...


class QuestionReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def count_groups(
        self: _Base, wanted: Filter, by: Sequence[Field], *, step: Step | None = None
    ) -> list[tuple[tuple[str | int | None, ...], int]]:
        """Count the certificates that a filter asks for, for each combination of values of the fields *by*.

        Args:
            step: times are counted by the day (without it), month or year in UTC: ``2026-03-01``.
        """
        from chargepki.pki.inventory.filter_fields import Step
        from chargepki.pki.inventory.filter_sql import group_statement

        rows = self._ask(partial(group_statement, wanted, by=tuple(by), step=step or Step.DAY))
        return [(tuple(row[:-1]), int(row[-1])) for row in rows]

    def count_traits(self: _Base, wanted: Filter) -> dict[Traits, int]:
        """Count the certificates that a filter asks for, by what very many have in common; it reads no certificate.

        What is not signed, or never will be, has no algorithms.
        """
        from chargepki.pki.inventory.filter_sql import traits_statement, untraced_statement

        counts: dict[Traits, int] = {}
        is_whole = True
        for text, state, number in self._ask(partial(traits_statement, wanted)):
            if text is None:
                is_whole = False
                continue
            told = _of_state(read_traits(text), state)
            counts[told] = counts.get(told, 0) + int(number)
        after: str | None = None
        while not is_whole:
            rows = self._ask(partial(untraced_statement, wanted, after=after, limit=_BATCH))
            for _, state, *sources in rows:
                told = _of_state(derive_traits(*sources), state)
                counts[told] = counts.get(told, 0) + 1
            is_whole = len(rows) < _BATCH
            after = rows[-1][0] if rows else None
        return counts

    def list_shared_keys(self: _Base, wanted: Filter, *, limit: int) -> tuple[SharedKey, ...]:
        """Return the keys that more than one of the certificates has that a filter asks for, most frequent first."""
        from chargepki.pki.inventory.filter_sql import key_member_statement, shared_key_statement

        shared = self._ask(partial(shared_key_statement, wanted, limit=limit))
        keys = [str(row[0]) for row in shared]
        members: dict[str, list[str]] = {}
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            for key, member in self._ask(partial(key_member_statement, wanted, keys=part, limit=_MEMBERS)):
                members.setdefault(key, []).append(member)
        return tuple(
            [
                SharedKey(key, int(number), int(stations), int(cas), int(names), tuple(members.get(key, ())))
                for key, number, stations, cas, names in shared
            ]
        )

    def scan_certificates(
        self: _Base, wanted: Filter, columns: Sequence[str], *, after: str | None = None, size: int = 2000
    ) -> Iterator[list[Sequence[Any]]]:
        """Yield pages of the certificates that a filter asks for, by id, as stored values of *columns* alone.

        For work on very many; ``id`` must be the first column.
        """
        from chargepki.pki.inventory.filter_sql import content_statement

        assert columns[0] == "id", "pages follow one another by id"
        while True:
            make: Callable[..., Any] = partial(
                content_statement, wanted, columns=tuple(columns), after=after, limit=size
            )
            rows = self._ask(make)
            if rows:
                yield rows
            if len(rows) < size:
                return
            after = rows[-1][0]

    def count_all(self: _Base) -> Totals:
        """Count what is there of stations and of work."""
        return Totals(*(int(self._rows(f"question_{name}", {})[0][0]) for name in Totals._fields))

    def list_revocations(self: _Base, ca: str) -> Iterator[RevocationRow]:
        """List the revoked certificates of a CA generation by id, those on hold included."""
        for row in self._rows("question_revocations", {"ca": ca}):
            name, profile, subject, station, at, reason, shard, change, not_after = row
            yield RevocationRow(
                *(name, profile, subject, station, decode_time(at), reason or "unspecified"),
                *(int(shard or 0), int(change or 0), decode_time(not_after)),
            )

    def list_published(self: _Base, ca: str) -> tuple[PublishedList, ...]:
        """Return every list and delta of a CA generation, in the order of their numbers."""
        found = [
            PublishedList(
                *(int(row[0] or 0), int(row[1]), is_delta, decode_time(row[2]), decode_time(row[3])),
                None if row[4] is None else int(row[4]),
            )
            for name, is_delta in (("question_lists", False), ("question_deltas", True))
            for row in self._rows(name, {"ca": ca})
        ]
        return tuple(sorted(found, key=lambda each: each.number))

    def list_stale_answers(self: _Base) -> tuple[str, ...]:
        """Return the revoked certificates for which a prepared OCSP response still says that they are good, by id."""
        return tuple([str(row[0]) for row in self._rows("question_stale_answers", {})])

    def list_roots_of_stations(self: _Base, first: str, last: str) -> tuple[StationRootRecord, ...]:
        """Return what was done to the roots of the stations from *first* to *last*, by station."""
        rows = self._rows("question_station_roots", {"first": first, "last": last})
        return tuple(map(STATION_ROOT.decode, rows))

    def list_reports_of_stations(self: _Base, first: str, last: str) -> tuple[StationRootReportRecord, ...]:
        """Return what the stations from *first* to *last* listed last, by station."""
        rows = self._rows("question_root_reports", {"first": first, "last": last})
        return tuple(map(STATION_ROOT_REPORT.decode, rows))
