"""Verify the audit log and the rows that it accounts for, streaming: a million rows need no more memory than ten.

The entries are hashed again and followed link by link, their effects are replayed into a scratch database, and every
row of every audited table is held against the digest that the last entry about it names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, LogHead, genesis_hash
from chargepki.pki.inventory.audit_checkpoint import Checkpoint
from chargepki.pki.inventory.audit_findings import AuditCode, AuditFinding, Findings
from chargepki.pki.inventory.audit_key import AuditPublicKey
from chargepki.pki.inventory.audit_key_change import KeyHistory, LogKeyChange
from chargepki.pki.inventory.audit_links import LinkChecker, RawEntry
from chargepki.pki.inventory.audit_replay import Replay
from chargepki.pki.inventory.codec import AUDITED
from chargepki.pki.inventory.engine import Session
from chargepki.pki.inventory.schema import list_tables

if TYPE_CHECKING:
    from chargepki.pki.inventory.store import Inventory

__all__ = ["AuditFinding", "AuditReport", "verify_log"]

_ENTRIES: Final = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM audit_entry ORDER BY seq"  # noqa: S608  # our own names
_HEADS: Final = "SELECT log_id, count, hash, at, key_id, signature FROM audit_head"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What verification saw and found."""

    entries: int
    rows: int
    head: LogHead | None
    findings: tuple[AuditFinding, ...]
    omitted: int
    """Findings beyond the first thousand, which are counted only."""
    key_changes: tuple[LogKeyChange, ...] = ()
    """Where the log goes on under another log key; each statement is signed by the key that it replaces."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify_log(
    inventory: Inventory, *, checkpoint: Checkpoint | None = None, pinned_keys: Collection[AuditPublicKey]
) -> AuditReport:
    """Verify log and rows in one consistent state of the database; writers are not held up.

    Without a checkpoint an old head together with the log and the rows of its time passes: nothing inside a database
    can prove that it is not last week's.

    Args:
        checkpoint: a head that was kept elsewhere.
        pinned_keys: the log keys that are believed, from the workspace or the auditor; never from the database.

    Raises:
        UnavailableError: the database cannot be read.
    """
    findings = Findings()
    with inventory.snapshot() as session, session.tolerant_text():
        present = list_tables(session, inventory.dialect)
        for name in ("audit_entry", "audit_head", *(kind.table for kind in AUDITED)):
            if name not in present:
                findings.add(AuditCode.TABLE_MISSING, None, f"the table {name} is gone")
        head = _read_head(session, findings) if "audit_head" in present else None
        keys = KeyHistory(head.log_id if head else None, pinned_keys, findings)
        with Replay(findings) as replay:
            links = LinkChecker(session, findings, head.log_id if head else None)
            watched = {count for count in (_count(head), _count(checkpoint.head if checkpoint else None)) if count}
            hashes: dict[int, set[str]] = {}
            if "audit_entry" in present:
                for entry in _read_entries(session):
                    links.follow(entry)
                    keys.follow(entry)
                    replay.apply(entry)
                    if entry.seq in watched:
                        hashes[entry.seq] = entry.hashes
            links.finish()
            for kind in AUDITED:
                if kind.table in present:
                    replay.compare(kind, session)
            replay.report_missing()
            rows = replay.rows
    if head is not None:
        _judge_head(head, keys, links.last, hashes, findings)
    if checkpoint is not None:
        _judge_checkpoint(checkpoint.head, head, keys, links.last, hashes, findings)
    return AuditReport(links.entries, rows, head, findings.sorted(), findings.omitted, tuple(keys.changes))


def _count(head: LogHead | None) -> int | None:
    return head.count if head is not None and _is_whole(head.count) else None


def _is_whole(value: object) -> bool:
    """Whether a stored value is a whole number; SQLite stores anything anywhere."""
    return isinstance(value, int)


def _read_entries(session: Session) -> Iterator[RawEntry]:
    for row in session.stream(_ENTRIES):
        yield RawEntry.of(row)


def _read_head(session: Session, findings: Findings) -> LogHead | None:
    rows: list[Any] = session.execute(_HEADS)
    if not rows:
        findings.add(AuditCode.HEAD_MISSING, None, "the head of the log is gone")
        return None
    if len(rows) > 1:
        findings.add(AuditCode.HEAD_DUPLICATE, None, f"the log has {len(rows)} heads")
    return LogHead.from_row(rows[0])


def _judge_head(
    head: LogHead,
    keys: KeyHistory,
    last: int,
    hashes: dict[int, set[str]],
    findings: Findings,
) -> None:
    key = keys.find(head.key_id, head.count)
    if key is None:
        is_old = keys.knows(head.key_id)
        findings.add(
            AuditCode.HEAD_KEY_REPLACED if is_old else AuditCode.HEAD_KEY_UNKNOWN,
            None,
            f"the head is signed with the log key {_short(head.key_id)}, which "
            f"{'had been replaced by then' if is_old else 'is not pinned'}",
        )
    elif not head.is_signed_by(key):
        findings.add(AuditCode.HEAD_SIGNATURE, None, "the signature of the head is wrong")
    if not _is_whole(head.count):
        return
    if last < head.count:
        findings.add(AuditCode.TAIL_MISSING, last + 1, f"the log ends at entry {last}, its head says {head.count}")
    elif last > head.count:
        findings.add(
            AuditCode.ENTRY_AFTER_HEAD, head.count + 1, f"the log goes on to entry {last} after its head, {head.count}"
        )
    if head.count == 0:
        if head.hash != genesis_hash(str(head.log_id)):
            findings.add(AuditCode.HEAD_MISMATCH, 0, "the head of the empty log names another beginning")
    elif head.count in hashes and head.hash not in hashes[head.count]:
        findings.add(
            AuditCode.HEAD_MISMATCH,
            head.count,
            f"entry {head.count} is not the one that the head names: the log was rewritten",
        )


def _judge_checkpoint(
    kept: LogHead,
    head: LogHead | None,
    keys: KeyHistory,
    last: int,
    hashes: dict[int, set[str]],
    findings: Findings,
) -> None:
    key = keys.find(kept.key_id, kept.count)
    if key is None:
        is_other = keys.knows(kept.key_id)
        findings.add(
            AuditCode.CHECKPOINT_KEY_REPLACED if is_other else AuditCode.CHECKPOINT_KEY_UNKNOWN,
            None,
            f"the checkpoint is signed with the log key {_short(kept.key_id)}, which "
            f"{'was not the log key then' if is_other else 'is not pinned'}",
        )
        return
    if not kept.is_signed_by(key):
        findings.add(
            AuditCode.CHECKPOINT_SIGNATURE, None, "the signature of the checkpoint is wrong: it proves nothing"
        )
        return
    if head is not None and head.log_id != kept.log_id:
        findings.add(AuditCode.CHECKPOINT_OTHER_LOG, None, "the checkpoint is of another log: this one was begun anew")
    if last < kept.count:
        findings.add(
            AuditCode.CHECKPOINT_TRUNCATED, last + 1, f"the log ends at entry {last}, the checkpoint has {kept.count}"
        )
    elif kept.count and kept.hash not in hashes.get(kept.count, set()):
        findings.add(
            AuditCode.CHECKPOINT_MISMATCH,
            kept.count,
            f"entry {kept.count} is not the one of the checkpoint: the log was rewritten",
        )


def _short(key_id: object) -> str:
    return str(key_id)[:16]
