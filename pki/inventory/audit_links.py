"""Follow the hash chain entry by entry, and say what was done to it: changed, removed, inserted, moved, forked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, entry_hash, genesis_hash
from chargepki.pki.inventory.audit_findings import AuditCode, Findings
from chargepki.pki.inventory.engine import Session

__all__ = ["LinkChecker", "RawEntry"]

_HEX: Final = frozenset("0123456789abcdef")
_MOST_LOOKUPS: Final = 32
"""Searches for an entry by its hash read the whole table; more of them would explain no more."""
_EFFECTS: Final = ENTRY_COLUMNS.index("effects")
_PRECONDITIONS: Final = ENTRY_COLUMNS.index("preconditions")


@dataclass(slots=True)
class RawEntry:
    """An entry as stored, before anything about it is believed."""

    seq: int
    """Its number; 0 when what is stored is no whole number."""
    values: list[object]
    """Everything that is hashed, in order."""
    previous: Any
    stored: Any
    computed: str
    """Hash of what is stored; empty if it cannot be hashed."""

    @classmethod
    def of(cls, row: Sequence[Any]) -> RawEntry:
        """Read a row in column order."""
        values = [int(value) if isinstance(value, bool) else value for value in row[:-1]]
        seq = values[0] if isinstance(values[0], int) else 0
        return cls(seq, values, values[-1], row[-1], _hash(values))

    @property
    def effects(self) -> Any:
        """JSON text."""
        return self.values[_EFFECTS]

    @property
    def preconditions(self) -> Any:
        """JSON text."""
        return self.values[_PRECONDITIONS]

    @property
    def hashes(self) -> set[str]:
        """The stored hash and the computed one: an edited hash alone is one finding, not several."""
        return {self.stored, self.computed} if isinstance(self.stored, str) else {self.computed}

    def fits(self, seq: int) -> bool:
        """Whether the entry would be whole with another number."""
        return bool(_hash([seq, *self.values[1:]]) == self.stored)


def _hash(values: Sequence[object]) -> str:
    # No entry of ours has a real number, and JSON writes an infinite one as null, like a missing value.
    if any(isinstance(value, float) for value in values):
        return ""
    try:
        return entry_hash(values)
    except TypeError:
        return ""


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)


@dataclass(slots=True)
class _Run:
    """Neighbouring entries that were all made for places at the same distance from where they stand."""

    first: int
    last: int
    shift: int

    @property
    def home(self) -> range:
        """The numbers that they were made for."""
        return range(self.first + self.shift, self.last + self.shift + 1)


class LinkChecker:
    """Takes entries in the order of their numbers."""

    def __init__(self, session: Session, findings: Findings, log_id: str | None) -> None:
        self._session = session
        self._findings = findings
        self._genesis = genesis_hash(log_id) if isinstance(log_id, str) else None
        self._before: RawEntry | None = None
        self._before_explained = False
        self._runs: list[_Run] = []
        self._gaps: list[range] = []
        self._lookups = 0
        self.entries = 0
        self.last = 0
        """The highest number seen."""

    def follow(self, entry: RawEntry) -> None:
        """Judge the next entry."""
        self.entries += 1
        if entry.seq < 1:
            self._findings.add(AuditCode.ENTRY_CHANGED, None, "an entry has no number")
            return
        gap = self._judge_number(entry)
        explained = self._judge_hash(entry)
        if not (gap or explained or self._before_explained):
            self._judge_link(entry)
        self._before, self._before_explained = entry, explained
        self.last = max(self.last, entry.seq)

    def finish(self) -> None:
        """Say what became of the entries that were found at places they were not made for."""
        displaced = [range(run.first, run.last + 1) for run in self._runs]
        for run in self._runs:
            home = run.home
            if run.shift < 0 and not _within(home[0], displaced) and not _within(home[0], self._gaps):
                inserted = f"{home[0]}" if run.shift == -1 else f"{home[0]} to {run.first - 1}"
                what = (
                    f"at {inserted} something was inserted: the entries from {run.first} on were made for lower numbers"
                )
                self._findings.add(AuditCode.ENTRY_INSERTED, home[0], what)
            elif run.shift > 0 and home[-1] > self.last:
                what = (
                    f"before entry {run.first} something was removed: from there on entries were made for other numbers"
                )
                self._findings.add(AuditCode.ENTRY_MISSING, run.first, what)
            else:
                which = f"entry {run.first}" if run.first == run.last else f"entries {run.first} to {run.last}"
                self._findings.add(AuditCode.ENTRY_MOVED, run.first, f"{which} stood {abs(run.shift)} places away")

    def _judge_number(self, entry: RawEntry) -> bool:
        """Report a gap or a double before the entry; true when its link is thereby explained."""
        expected = self.last + 1
        if entry.seq > expected:
            missing = (
                f"entry {expected} is" if entry.seq == expected + 1 else f"entries {expected} to {entry.seq - 1} are"
            )
            self._gaps.append(range(expected, entry.seq))
            code = AuditCode.FIRST_ENTRY_MISSING if expected == 1 else AuditCode.ENTRY_MISSING
            self._findings.add(code, expected, f"{missing} missing")
            return True
        if entry.seq < expected:
            before = self._before
            forked = before is not None and before.previous == entry.previous
            code = AuditCode.FORK if forked else AuditCode.ENTRY_INSERTED
            what = f"two entries follow entry {entry.seq - 1}" if forked else f"there are two entries {entry.seq}"
            self._findings.add(code, entry.seq, what)
            return True
        return False

    def _judge_hash(self, entry: RawEntry) -> bool:
        """Report an entry that is not what its hash says; true if so."""
        if not _is_hash(entry.stored) or not _is_hash(entry.previous):
            which = "hash" if not _is_hash(entry.stored) else "hash of the entry before"
            self._findings.add(AuditCode.HASH_MISSING, entry.seq, f"entry {entry.seq} has no {which}")
            return True
        if entry.computed == entry.stored:
            return False
        home = next((seq for seq in self._candidates(entry) if seq > 0 and entry.fits(seq)), None)
        if home is None:
            self._findings.add(
                AuditCode.ENTRY_CHANGED, entry.seq, f"entry {entry.seq} was changed: it does not have its hash"
            )
            # Its own link may have been the edit; the next one names the stored or the computed hash.
            return entry.previous not in self._acceptable()
        self._note_displaced(entry.seq, home - entry.seq)
        return True

    def _candidates(self, entry: RawEntry) -> Iterable[int]:
        """Yield the numbers that the entry may have been made for."""
        if self._runs:
            yield entry.seq + self._runs[-1].shift
        yield entry.seq - 1
        yield entry.seq + 1
        if entry.previous == self._genesis:
            yield 1
        found = self._find(entry.previous)
        if found is not None:
            yield found + 1

    def _note_displaced(self, seq: int, shift: int) -> None:
        if self._runs and self._runs[-1].shift == shift and self._runs[-1].last == seq - 1:
            self._runs[-1].last = seq
        else:
            self._runs.append(_Run(seq, seq, shift))

    def _acceptable(self) -> set[str]:
        """Return what the next entry may name as the hash before it."""
        if self._before is not None:
            return self._before.hashes
        return {self._genesis} if self._genesis is not None else set()

    def _judge_link(self, entry: RawEntry) -> None:
        if entry.previous in self._acceptable() or (self._before is None and self._genesis is None):
            return
        branch = self._find(entry.previous)
        if branch is not None and branch < entry.seq - 1:
            what = (
                f"entry {entry.seq} goes on from entry {branch}, as entry {branch + 1} does: two writers from one state"
            )
            self._findings.add(AuditCode.FORK, entry.seq, what)
            return
        before = f"entry {entry.seq - 1}" if entry.seq > 1 else "the beginning of this log"
        self._findings.add(AuditCode.LINK_BROKEN, entry.seq, f"entry {entry.seq} does not follow from {before}")

    def _find(self, stored: object) -> int | None:
        """Return the number of the entry with a hash, for the first few questions."""
        if self._lookups >= _MOST_LOOKUPS or not _is_hash(stored):
            return None
        self._lookups += 1
        rows = self._session.execute(
            f"SELECT seq FROM audit_entry WHERE entry_hash = '{stored}' LIMIT 1"  # noqa: S608 - 64 hex digits, checked above
        )
        return int(rows[0][0]) if rows else None


def _within(number: int, ranges: Iterable[range]) -> bool:
    return any(number in numbers for numbers in ranges)
