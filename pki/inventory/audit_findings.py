"""What verification of the audit log can find, each under a name of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["AuditCode", "AuditFinding", "Findings"]

_MOST: Final = 1000


class AuditCode(StrEnum):
    """Stable names of the findings."""

    ENTRY_CHANGED = "entry-changed"
    """A field of an entry does not agree with its hash."""
    HASH_MISSING = "hash-missing"
    """An entry has no hash, or no hash of the entry before it."""
    FIRST_ENTRY_MISSING = "first-entry-missing"
    ENTRY_MISSING = "entry-missing"
    """Entries between others are gone."""
    TAIL_MISSING = "tail-missing"
    """Entries at the end are gone."""
    ENTRY_INSERTED = "entry-inserted"
    """An entry was put between others, which were renumbered."""
    ENTRY_MOVED = "entry-moved"
    """An entry stands at another's place."""
    ENTRY_AFTER_HEAD = "entry-after-head"
    """Entries follow that the signed head does not cover."""
    FORK = "fork"
    """Two entries follow the same one: two writers went on from one state."""
    LINK_BROKEN = "link-broken"
    """An entry does not name the one before it: that one was rewritten."""
    LOG_KEY_CHANGE = "log-key-change"
    """An entry that changes the log key is not signed by the key that it replaces."""
    HEAD_MISSING = "head-missing"
    HEAD_DUPLICATE = "head-duplicate"
    HEAD_KEY_UNKNOWN = "head-key-unknown"
    HEAD_KEY_REPLACED = "head-key-replaced"
    """The head is signed with a key that had been replaced by then."""
    HEAD_SIGNATURE = "head-signature"
    HEAD_MISMATCH = "head-mismatch"
    """The last entry is not the one that the head names: the log was rewritten."""
    CHECKPOINT_KEY_UNKNOWN = "checkpoint-key-unknown"
    CHECKPOINT_KEY_REPLACED = "checkpoint-key-replaced"
    """The checkpoint is signed with a key that had been replaced by then, or was none yet."""
    CHECKPOINT_SIGNATURE = "checkpoint-signature"
    CHECKPOINT_OTHER_LOG = "checkpoint-other-log"
    CHECKPOINT_TRUNCATED = "checkpoint-truncated"
    CHECKPOINT_MISMATCH = "checkpoint-mismatch"
    ROW_CHANGED = "row-changed"
    """A row is not as its last entry left it."""
    ROW_CHANGED_EARLIER = "row-changed-earlier"
    """An act found a row that was not as the entry before had left it."""
    ROW_MISSING = "row-missing"
    """A row is gone without an entry."""
    ROW_ADDED = "row-added"
    """There is a row that no entry knows."""
    TABLE_MISSING = "table-missing"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One contradiction."""

    code: AuditCode
    seq: int | None
    """The entry that it was found at, if any."""
    what: str


class Findings:
    """Collects findings, the first thousand of them: a broken log must not fill the memory."""

    def __init__(self) -> None:
        self._found: list[AuditFinding] = []
        self.omitted = 0

    def add(self, code: AuditCode, seq: int | None, what: str) -> None:
        """Add one."""
        if len(self._found) < _MOST:
            self._found.append(AuditFinding(code, seq, what))
        else:
            self.omitted += 1

    def sorted(self) -> tuple[AuditFinding, ...]:
        """Return them by entry, those without one last."""
        return tuple(sorted(self._found, key=lambda finding: (finding.seq is None, finding.seq or 0)))
