"""Replay the effects of the log in a scratch database and hold the rows against it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple

import orjson

from chargepki.pki.errors import printable
from chargepki.pki.inventory import traits
from chargepki.pki.inventory.audit_findings import AuditCode, Findings
from chargepki.pki.inventory.audit_links import RawEntry
from chargepki.pki.inventory.codec import CERTIFICATE, RowKind
from chargepki.pki.inventory.engine import Session

__all__ = ["Replay"]

_SCRATCH: Final = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-65536;
CREATE TABLE expected
  (place BLOB PRIMARY KEY, name TEXT, digest TEXT, seq INTEGER, seen INTEGER DEFAULT 0) WITHOUT ROWID;
BEGIN;
"""
_PUT: Final = (
    "INSERT INTO expected (place, name, digest, seq) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (place) DO UPDATE SET digest = ?3, seq = ?4"
)
_SEEN: Final = "UPDATE expected SET seen = 1 WHERE place = ? AND digest = ? AND seen = 0"


_TRACED: Final = tuple(CERTIFICATE.columns.index(name) for name in traits.SOURCES)


class _Known(NamedTuple):
    digest: str | None
    """``None`` for a row that was removed."""
    seq: int
    seen: int


class Replay:
    """Knows for every row what the last entry about it said; spills to a temporary file when it grows."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        # An empty name is SQLite's for a private temporary file that vanishes with the connection.
        self._scratch = sqlite3.connect("", isolation_level=None)
        self._scratch.executescript(_SCRATCH)
        self.rows = 0

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scratch.close()

    def apply(self, entry: RawEntry) -> None:
        """Replay one entry: what it found, then what it left."""
        effects, found = _triples(entry.effects), _triples(entry.preconditions)
        if effects is None or found is None:
            # Only an edited entry has none; its hash has said so.
            return
        before = {(table, key): digest for table, key, digest in found}
        for table, key, digest in effects:
            place, name = _place(table, key)
            self._check_before(entry.seq, place, name, before.get((table, key)))
            self._scratch.execute(_PUT, (place, name, digest, entry.seq))

    def _check_before(self, seq: int, place: bytes, name: str, claimed: str | None) -> None:
        known = self._lookup(place)
        digest = known.digest if known else None
        if digest == claimed:
            return
        if claimed is None:
            what = f"entry {seq} made {name} anew: it had been removed without an entry"
            self._findings.add(AuditCode.ROW_MISSING, seq, what)
        elif digest is None:
            self._findings.add(AuditCode.ROW_ADDED, seq, f"entry {seq} found {name}, which no entry had made")
        else:
            assert known is not None
            what = f"before entry {seq}, {name} was changed without an entry: entry {known.seq} had left it otherwise"
            self._findings.add(AuditCode.ROW_CHANGED_EARLIER, seq, what)

    def compare(self, kind: RowKind[Any], session: Session) -> None:
        """Hold every row of a table against the log."""
        columns = ", ".join(kind.columns if kind is not CERTIFICATE else (*kind.columns, traits.COLUMN))
        width = len(kind.columns)
        execute = self._scratch.execute
        for row in session.stream(f"SELECT {columns} FROM {kind.table}"):  # noqa: S608  # our own names
            self.rows += 1
            place, name = _place(kind.table, kind.key_of_row(row))
            digest = kind.digest_of_row(row[:width])
            if execute(_SEEN, (place, digest)).rowcount == 1:
                if kind is CERTIFICATE and not _has_own_traits(row):
                    self._findings.add(AuditCode.ROW_CHANGED, None, f"{name} is listed with the traits of another")
                continue
            known = self._lookup(place)
            if known is None or known.digest is None:
                self._findings.add(AuditCode.ROW_ADDED, None, f"{name} exists, but no entry accounts for it")
            elif known.seen:
                self._findings.add(AuditCode.ROW_ADDED, None, f"{name} exists more than once")
            else:
                execute("UPDATE expected SET seen = 1 WHERE place = ?", (place,))
                self._findings.add(AuditCode.ROW_CHANGED, known.seq, f"{name} is not as entry {known.seq} left it")

    def report_missing(self) -> None:
        """Report the rows that the log knows and no table has."""
        query = "SELECT name, seq FROM expected WHERE seen = 0 AND digest IS NOT NULL ORDER BY seq"
        for name, seq in self._scratch.execute(query):
            self._findings.add(AuditCode.ROW_MISSING, seq, f"{name} is gone, entry {seq} had left it there")

    def _lookup(self, place: bytes) -> _Known | None:
        found = self._scratch.execute("SELECT digest, seq, seen FROM expected WHERE place = ?", (place,)).fetchone()
        return _Known(*found) if found else None


def _has_own_traits(row: Sequence[Any]) -> bool:
    """Whether the last value of a certificate's row, which no entry covers, is derived from those that are covered."""
    told = row[-1]
    # Without it readers derive the traits themselves.
    return told is None or told == traits.stored_traits(traits.derive_traits(*(row[each] for each in _TRACED)))


def _place(table: str, key: str) -> tuple[bytes, str]:
    """Return the key in the scratch database (a hash, so that any text will do) and a name for messages."""
    text = f"{table}/{key}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), printable(f"the {table} {key}"[:200])


def _triples(text: object) -> list[tuple[str, str, str | None]] | None:
    if not isinstance(text, str):
        return None
    try:
        found = orjson.loads(text)
    except (orjson.JSONDecodeError, ValueError):
        return None
    if not isinstance(found, list):
        return None
    triples: list[tuple[str, str, str | None]] = []
    for item in found:
        if not isinstance(item, list) or len(item) != 3:
            return None
        table, key, digest = item
        if not isinstance(table, str) or not isinstance(key, str) or not isinstance(digest, str | None):
            return None
        triples.append((table, key, digest))
    return triples
