"""The inventory: open it, read it, write to it in durable groups, watch it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar, cast

from chargepki.pki.errors import ChargePkiError, SignerError, StateError, UnavailableError
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.assent import Assent, wait_for_assent
from chargepki.pki.inventory.audit_chain import ChainState, LogHead, genesis_hash
from chargepki.pki.inventory.audit_key import AuditKey
from chargepki.pki.inventory.codec import AUDITED
from chargepki.pki.inventory.combiner import Combiner, Job
from chargepki.pki.inventory.engine import BUSY_TIMEOUT, Database, Session
from chargepki.pki.inventory.mark import ChangeMark
from chargepki.pki.inventory.query_reads import Make
from chargepki.pki.inventory.quick import QuickReads
from chargepki.pki.inventory.reads import Reads, Row
from chargepki.pki.inventory.schema import ensure_schema
from chargepki.pki.inventory.transaction import Transaction
from chargepki.pki.inventory.watch import ChangeWatcher

__all__ = ["Inventory"]

_T = TypeVar("_T")
Work = Callable[[Transaction], object]


class Inventory(Reads):
    """One inventory, for all threads of a process; other processes may use the same database at the same time."""

    __slots__ = ("_combiner", "_database", "_key", "_trusted")

    def __init__(self, database: Database, log_key: AuditKey | None) -> None:
        self._database = database
        self._key = log_key
        self._combiner: Combiner[Work] = Combiner(self._run_batch)
        # The newest head that this process has signed or checked: it need not be checked again, and nothing older
        # may take its place.
        self._trusted: LogHead | None = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        log_key: AuditKey | None,
        create: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        process: str = "chargepki",
    ) -> Inventory:
        """Open the inventory at an SQLAlchemy URL (``sqlite:///PATH`` or ``postgresql+psycopg://…``).

        Args:
            log_key: signs the audit log; without it the inventory can be read only (presence and leases apart).
            create: make or migrate the schema if need be; several processes may do so at once. Without it, and
                without *log_key*, an SQLite file that may not be written is opened as it is: for an auditor.
            busy_timeout: seconds to wait for another process's transaction.
            process: what a PostgreSQL server shows of us, beginning with ``chargepki``; a restore names it.

        Raises:
            InputError: the URL is none, or of another database.
            StateError: the schema is newer than this program, or behind and *create* is false.
            UnavailableError: the database cannot be reached, read or written, or does not exist and *create* is false.
        """
        reads_only = log_key is None and not create
        address = DatabaseAddress.parse(url)
        database = Database(address, busy_timeout=busy_timeout, reads_only=reads_only, process=process)
        try:
            ensure_schema(database, create=create)
            inventory = cls(database, log_key)
            if create and log_key is not None and inventory.audit_head() is None:
                inventory._begin_log(log_key)
            database.remember_restorations()
        except BaseException:
            database.close()
            raise
        return inventory

    def __enter__(self) -> Inventory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Works that still run end with an error."""
        self._database.close()

    @property
    def dialect(self) -> Dialect:
        """``sqlite`` or ``postgresql``."""
        return self._database.dialect

    @property
    def location(self) -> str:
        """The URL without password and query, for messages."""
        return self._database.address.shown

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """Run *work* in a transaction and return its result after the durable commit.

        Works of several threads share one commit; each is rolled back alone if it raises. A work must be quick, must
        not use the inventory but through its transaction, and should have no effect outside: if the commit fails
        nothing of it has happened, and after an interrupt it may be run again.

        Raises:
            StateError: the audit log is not what this process may continue (see `audit verify`).
            UnavailableError: the database cannot be written, or the log key is in a token that cannot be used; nothing
                was written. If the connection broke during the commit itself, the outcome is unknown and must be
                looked up.
            RuntimeError: a write to an audited table was not followed by `Transaction.audit`.
        """
        self._prepare_key()
        return cast(_T, self._combiner.submit(work))

    def write_all(self, works: Sequence[Callable[[Transaction], _T]]) -> list[_T | Exception]:
        """Run several works in one transaction, and return for each its result or the error that rolled it back.

        As `write`, for a caller that has gathered what many wait for; their order is kept.

        Raises:
            RuntimeError: called from inside a work.
        """
        self._prepare_key()
        jobs = self._combiner.submit_all(works)
        return [cast("_T | Exception", job.result if job.error is None else job.error) for job in jobs]

    def watch(self) -> ChangeWatcher:
        """Return a watcher that tells when anybody committed: another process, or another thread of this one."""
        return ChangeWatcher(self._database)

    def change_mark(self) -> ChangeMark:
        """Return a mark that changes with every commit, to be asked on behalf of each answer from a cache."""
        return ChangeMark(self._database)

    def quick_reads(self) -> QuickReads | None:
        """Return reads that may be done in an event loop, not open yet; ``None`` where a read asks another machine."""
        return QuickReads(self._database) if self.dialect is Dialect.SQLITE else None

    def assent(self) -> Assent:
        """Return the lock that a process holds while it relies on what it remembers of the inventory."""
        return Assent(self._database)

    def wait_for_assent(self, *, timeout: float = 5.0) -> bool:
        """Return once no process relies on what it remembers from before this call; false if one still does.

        Args:
            timeout: seconds to wait for them.

        Raises:
            UnavailableError: the inventory went away, so that nobody knows.
        """
        return wait_for_assent(self._database, timeout=timeout)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Lend a connection that sees one committed state and cannot write (for verification and export)."""
        session, _ = self._database.start(Session.begin_snapshot)
        try:
            yield session
        finally:
            session.rollback()
            self._database.give_back(session)

    # -- reads --------------------------------------------------------------------------------------------------

    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Row]:
        return self._read(lambda session: session.run(statement, parameters))

    def _ask(self, make: Make) -> list[Row]:
        return self._read(lambda session: session.execute(*make(session.dialect)))

    def _select(self, table: str, filters: Mapping[str, object], order: str, limit: int) -> list[Row]:
        return self._read(lambda session: session.select(table, filters, order, limit))

    def _read(self, read: Callable[[Session], list[Row]]) -> list[Row]:
        session, rows = self._database.start(read)
        self._database.give_back(session)
        return rows

    # -- writes -------------------------------------------------------------------------------------------------

    def _prepare_key(self) -> None:
        """Open the log key before the transaction: others would wait while somebody types the PIN of its token."""
        if self._key is not None:
            try:
                self._key.prepare()
            except SignerError as exc:
                raise _cannot_sign(exc) from exc

    def _begin_log(self, key: AuditKey) -> None:
        """Write the first head of a new log; whoever comes second finds it there.

        A database that has entries or rows but no head is left as it is: it opens, for verification, and refuses
        every write.
        """
        key.prepare()
        session, _ = self._database.start(Session.begin_write)
        try:
            if self.dialect is Dialect.POSTGRESQL:
                session.execute("LOCK TABLE audit_head IN EXCLUSIVE MODE")
            if not session.run("head", {}) and self._is_blank(session):
                log_id = secrets.token_hex(16)
                head = LogHead.sign(ChainState(log_id, 0, genesis_hash(log_id), None), key)
                session.run("head_insert", head.to_values())
            session.commit()
        except BaseException:
            session.rollback()
            raise
        finally:
            self._database.give_back(session)

    @staticmethod
    def _is_blank(session: Session) -> bool:
        tables = ("audit_entry", *(kind.table for kind in AUDITED))
        return not any(
            session.execute(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608  # the names are constants of ours
            for table in tables
        )

    def _headless(self) -> StateError:
        return StateError(
            f"the audit log of {self.location} has no head",
            why="it was removed, so nothing can be appended that would be believed",
            fix="examine it with: chargepki audit verify; then restore the backup",
        )

    def _run_batch(self, batch: Sequence[Job[Work]]) -> None:
        """Run a batch in one transaction and settle its jobs: with the commit, not before."""
        try:
            session, _ = self._database.start(Session.begin_write)
        except ChargePkiError as exc:
            _fail_all(batch, exc)
            return
        try:
            head = self._check_head(session)
            done, chain, key = self._run_works(session, batch, head)
            if chain != head.state:
                assert key is not None, "only a holder of the key appends"
                head = LogHead.sign(chain, key)
                session.run("head_update", head.to_values())
            if done and self.dialect is Dialect.POSTGRESQL:
                session.execute("NOTIFY chargepki_inventory")
            if done:
                session.commit()
                self._trusted, self._key = head, key
            else:
                session.rollback()
        except ChargePkiError as exc:
            session.rollback()
            _fail_all(batch, _cannot_sign(exc) if isinstance(exc, SignerError) else exc)
        except BaseException:
            session.rollback()
            raise
        else:
            for job, result in done:
                job.succeed(result)
        finally:
            self._database.give_back(session)

    def _run_works(
        self, session: Session, batch: Sequence[Job[Work]], head: LogHead
    ) -> tuple[list[tuple[Job[Work], object]], ChainState, AuditKey | None]:
        """Run each work behind a savepoint; return those that succeeded, where the log stands, and who signs that."""
        chain, key = head.state, self._key
        done: list[tuple[Job[Work], object]] = []
        alone = len(batch) == 1
        for job in batch:
            transaction = Transaction(session, key, chain)
            if not alone:
                session.execute("SAVEPOINT work")
            try:
                result = job.work(transaction)
                transaction.finish()
            except Exception as exc:  # whatever a caller's work raises goes back to that caller alone
                if session.is_broken:
                    raise
                if not alone:
                    session.execute("ROLLBACK TO SAVEPOINT work")
                    session.execute("RELEASE SAVEPOINT work")
                job.fail(exc)
                continue
            if not alone:
                session.execute("RELEASE SAVEPOINT work")
            chain, key = transaction.chain, transaction.log_key
            done.append((job, result))
        return done, chain, key

    def _check_head(self, session: Session) -> LogHead:
        """Lock the head and make sure that this process may continue the log.

        Without this check the next lawful commit would sign over whatever somebody had done to the log meanwhile.

        Raises:
            StateError: no head, another key's, a bad signature, older than one seen before, or not the log's end.
        """
        rows = session.run("head_lock", {})
        if not rows:
            raise self._headless()
        head = LogHead.from_row(rows[0])
        if head == self._trusted:
            self._check_tail(session, head)
            return head
        if self._key is None:
            return head
        if head.key_id != self._key.key_id:
            successor = self._key.find_successor(head.key_id)
            if successor is None:
                raise StateError(
                    f"the audit log of {self.location} is signed with another log key",
                    why=f"its key is {head.key_id[:16]}, this workspace's is {self._key.key_id[:16]}",
                    fix="use the workspace that made it or changed its key, or copy its log key (audit.key) here",
                )
            self._key = successor
        if not head.is_signed_by(self._key.public):
            raise self._tampered("the signature of its head is wrong")
        if self._trusted is not None and (head.count < self._trusted.count or head.log_id != self._trusted.log_id):
            raise self._tampered(f"it ends at entry {head.count}, but had {self._trusted.count} before")
        self._check_tail(session, head)
        return head

    def _check_tail(self, session: Session, head: LogHead) -> None:
        tail = session.run("audit_tail", {})
        found = (int(tail[0][0]), str(tail[0][1])) if tail else (0, genesis_hash(head.log_id))
        if found != (head.count, head.hash):
            raise self._tampered(f"it ends at entry {found[0]}, its head says {head.count}")

    def _tampered(self, why: str) -> StateError:
        return StateError(
            f"the audit log of {self.location} was changed behind our back: nothing is appended to it",
            why=why,
            fix="examine it with: chargepki audit verify; then restore the backup",
        )


def _cannot_sign(error: SignerError) -> UnavailableError:
    """Return what it means that the log key cannot be used: nothing can be written now, as when the disk is full.

    Whoever writes would otherwise take it for a fault of what was to be written, a request for example.
    """
    return UnavailableError(error.what, why=error.why, fix=error.fix)


def _fail_all(batch: Sequence[Job[Work]], error: ChargePkiError) -> None:
    """Settle every job of a batch that was not committed with an error of its own."""
    for job in batch:
        if not job.settled:
            own = type(error)(error.what, why=error.why, fix=error.fix)
            own.__cause__ = error.__cause__
            job.fail(own)
