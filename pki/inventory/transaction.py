"""One unit of work on the inventory: typed reads, typed writes, and the audit entry that explains them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from chargepki.pki.errors import Conflict, StateError
from chargepki.pki.inventory.audit_chain import (
    ENTRY_COLUMNS,
    ChainState,
    StoredEntry,
    make_entry,
    make_plain_entries,
)
from chargepki.pki.inventory.audit_key import AuditKey
from chargepki.pki.inventory.audit_key_change import ROTATE_LOG_KEY, LogKeyChange
from chargepki.pki.inventory.bulk_writes import BulkWrites, PlainEntry
from chargepki.pki.inventory.campaign_writes import CampaignWrites
from chargepki.pki.inventory.codec import CERTIFICATE, RowKind, Value
from chargepki.pki.inventory.contract_writes import ContractWrites
from chargepki.pki.inventory.engine import Session
from chargepki.pki.inventory.firmware_writes import FirmwareWrites
from chargepki.pki.inventory.import_writes import ImportWrites
from chargepki.pki.inventory.query_reads import Make
from chargepki.pki.inventory.query_writes import QueryWrites
from chargepki.pki.inventory.reads import Row
from chargepki.pki.inventory.records import Actor, AuditEntry
from chargepki.pki.inventory.restoration_writes import RestorationWrites
from chargepki.pki.inventory.terms_writes import TermsWrites
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.inventory.trust_writes import TrustWrites
from chargepki.pki.inventory.writes_certificates import CertificateWrites
from chargepki.pki.inventory.writes_enrolment import EnrolmentWrites
from chargepki.pki.inventory.writes_events import EventWrites
from chargepki.pki.inventory.writes_ocsp import OcspWrites
from chargepki.pki.inventory.writes_revocation import RevocationWrites
from chargepki.pki.inventory.writes_stations import StationWrites

__all__ = ["Transaction"]

_STATUS: Final = ("state", "revoked_at", "revocation_reason")


class Transaction(
    RestorationWrites,
    CertificateWrites,
    RevocationWrites,
    StationWrites,
    OcspWrites,
    TermsWrites,
    EventWrites,
    FirmwareWrites,
    EnrolmentWrites,
    TrustWrites,
    CampaignWrites,
    ContractWrites,
    QueryWrites,
    ImportWrites,
    BulkWrites,
):
    """What a work given to `Inventory.write` may do; valid only while that work runs.

    Writers are serialised, so what a work reads cannot change before it is committed. After every write to an audited
    table the work calls `audit`; the effects since the previous entry are put into it by themselves.
    """

    __slots__ = ("_chain", "_effects", "_entries", "_found", "_key", "_session")

    def __init__(self, session: Session, key: AuditKey | None, chain: ChainState) -> None:
        self._session = session
        self._key = key
        self._chain = chain
        self._effects: dict[tuple[str, str], str | None] = {}
        self._found: dict[tuple[str, str], str] = {}
        # Entries wait until the work ends, or looks at the log, so that many are inserted by one statement.
        self._entries: list[StoredEntry] = []

    @property
    def chain(self) -> ChainState:
        """Where the audit log stands after this work."""
        return self._chain

    def audit(
        self,
        actor: Actor,
        action: str,
        subject: str,
        *,
        now: datetime,
        outcome: str = "done",
        artefact_sha256: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> AuditEntry:
        """Append an entry that accounts for all writes of this work since its previous entry.

        Args:
            action: ``noun.verb``, for example ``certificate.revoke``.
            subject: what it was done to: an id of the inventory.
            outcome: ``done`` or ``refused``.
            artefact_sha256: lower-case hex digest of what the act made.
            details: JSON data; never a secret.

        Raises:
            StateError: this process holds no log key.
            TypeError: *now* is naive.
        """
        self._check_may_audit()
        entry, values = make_entry(
            self._chain,
            actor=actor,
            action=action,
            subject=subject,
            at=now,
            outcome=outcome,
            artefact_sha256=artefact_sha256,
            details=details or {},
            effects=tuple((table, key, digest) for (table, key), digest in self._effects.items()),
            preconditions=tuple((table, key, digest) for (table, key), digest in self._found.items()),
        )
        self._entries.append(values)
        self._chain = self._chain.after(entry)
        self._effects.clear()
        self._found.clear()
        return entry

    def rotate_log_key(self, new: AuditKey, *, actor: Actor, now: datetime) -> LogKeyChange:
        """Append that *new* is the log key from here on, signed by the one that has been; *new* signs the head.

        Raises:
            StateError: this process holds no log key, or *new* is the key that it holds.
            SignerError: a token that has one of them cannot be used.
        """
        self._check_may_audit()
        assert self._key is not None, "it was just checked"
        if new.key_id == self._key.key_id:
            raise StateError("this is the log key already", why="nothing would change", fix="check --home")
        change = LogKeyChange.sign(self._chain, self._key, new.public)
        where = {"old_uri": self._key.uri, "new_uri": new.uri}
        told = {name: uri for name, uri in where.items() if uri is not None}
        self.audit(actor, ROTATE_LOG_KEY, new.key_id, now=now, details={**change.to_details(), **told})
        self._key = new
        return change

    @property
    def log_key(self) -> AuditKey | None:
        """The key that signs the head after this work."""
        return self._key

    def audit_plainly(self, actor: Actor, action: str, entries: Iterable[PlainEntry], *, now: datetime) -> None:
        """Append entries that say themselves which writes they account for; for groups (`BulkWrites`).

        Raises:
            StateError: this process holds no log key.
        """
        self._check_may_audit()
        values, self._chain = make_plain_entries(self._chain, actor=actor, action=action, at=now, entries=entries)
        self._entries += values

    def _check_may_audit(self) -> None:
        if self._key is None:
            raise StateError(
                "this process holds no log key, so it cannot write to the inventory",
                why="every change is appended to the audit log, whose head is signed with the workspace's log key",
                fix="run in the workspace that made the inventory (--home)",
            )

    def finish(self) -> None:
        """Write what still waits, and refuse to end a work whose writes no audit entry explains.

        Raises:
            RuntimeError: a programming error: call `audit` after the last write.
        """
        if self._effects:
            tables = ", ".join(sorted({table for table, _ in self._effects}))
            raise RuntimeError(f"writes to {tables} without a following tx.audit(...) in the same work")
        self._write_entries()

    def _write_entries(self) -> None:
        if self._entries:
            self._session.run_rows("audit_insert", ENTRY_COLUMNS, self._entries)
            self._entries.clear()

    # -- what the mixins stand on ---------------------------------------------------------------------------------

    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Row]:
        if self._entries and statement.startswith("audit_"):
            self._write_entries()
        return self._session.run(statement, parameters)

    def _ask(self, make: Make) -> list[Row]:
        return self._session.execute(*make(self._session.dialect))

    def _select(self, table: str, filters: Mapping[str, object], order: str, limit: int) -> list[Row]:
        return self._session.select(table, filters, order, limit)

    def change_rows(self, statement: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
        """Run a compiled statement once for each of *rows*; see `BulkWrites`."""
        return self._session.run_rows(statement, names, rows)

    def _insert(self, kind: RowKind[object], values: Mapping[str, Value]) -> bool:
        if not self._session.change(f"{kind.table}_insert", with_traits(values) if kind is CERTIFICATE else values):
            return False
        self._effects[kind.table, kind.key_of(values)] = kind.digest(values)
        return True

    def _insert_many(self, kind: RowKind[object], rows: Sequence[Mapping[str, Value]]) -> None:
        if not rows:
            return
        stored = list(map(with_traits, rows)) if kind is CERTIFICATE else rows
        inserted = self._session.run_many(f"{kind.table}_insert", stored)
        if inserted != len(rows):
            raise Conflict(f"{len(rows) - inserted} rows of {kind.table} exist already")
        for values in rows:
            self._effects[kind.table, kind.key_of(values)] = kind.digest(values)

    def _update(self, kind: RowKind[object], before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        changed = {name: value for name, value in after.items() if before[name] != value}
        if not changed:
            return
        self._session.update(kind.table, changed, {name: before[name] for name in kind.key})
        self._note_update(kind, before, after)

    def _note_update(self, kind: RowKind[object], before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        if kind is CERTIFICATE and before["state"] != "reserved" and any(before[n] != after[n] for n in _STATUS):
            # Whatever states the old status goes with it, in this very transaction: no answer outlives its truth.
            self._session.run("ocsp_drop", {"certificate": before["id"]})
        where = (kind.table, kind.key_of(before))
        # A row written twice before its entry has one effect: the state that the entry found, and the last one.
        if where not in self._effects:
            self._found[where] = kind.digest(before)
        self._effects[where] = kind.digest(after)
