"""Connections to the two databases, in one shape: autocommit drivers, explicit transactions, translated errors.

SQLite runs in WAL mode with synchronous=FULL: a commit that returned survives a loss of power. The statements are
compiled from the SQLModel tables beforehand (`statements`, ``compiled.json``).
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from chargepki.pki import files
from chargepki.pki.errors import ChargePkiError, Conflict, StateError, UnavailableError
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.faults import translate
from chargepki.pki.inventory.readers import Guard, is_writable, open_reader

__all__ = ["BUSY_TIMEOUT", "Database", "Session", "compiled_statements"]

BUSY_TIMEOUT: Final = 30.0
"""Seconds that a writer waits for another process before it says that the inventory is locked."""
_MAX_IDLE: Final = 8
_MANY: Final = 64
"""Rows of one statement from which on a connection is one that writes in bulk."""
_BULK_PRAGMAS: Final = ("PRAGMA cache_size=-16384", "PRAGMA wal_autocheckpoint=16000")
"""16 MiB for pages, and 64 MiB of WAL between two checkpoints: keys of certificates are random, so that a group touches
a page of each index for nearly each of its rows, and pages that are written again and again are copied once. Where
there are 18,000 certificates already, a group of 512 writes 13 MiB."""

_Result = TypeVar("_Result")


@functools.cache
def compiled_statements(dialect: Dialect) -> dict[str, Any]:
    """Return the statements of a dialect, compiled beforehand by `statements`."""
    text = (Path(__file__).parent / "compiled.json").read_bytes()
    found: dict[str, Any] = orjson.loads(text)[str(dialect)]
    return found


_PLACES: Final = {
    Dialect.SQLITE: (re.compile(r":(\w+)"), "?"),
    Dialect.POSTGRESQL: (re.compile(r"%\((\w+)\)s"), "%s"),
}


@functools.cache
def _by_position(dialect: Dialect, name: str, names: tuple[str, ...]) -> str:
    """Return a compiled statement with its parameters *names* by position in place of by name."""
    sql: str = compiled_statements(dialect)["named"][name]
    pattern, place = _PLACES[dialect]
    if tuple(pattern.findall(sql)) != names:
        raise ValueError(f"the parameters of {name} are {', '.join(pattern.findall(sql))}")
    return pattern.sub(place, sql)


class Session:
    """One connection. Every error of the driver leaves it translated."""

    __slots__ = (
        *("_address", "_bulk", "_cursor", "_errors", "_guard", "_lost", "_named", "_parts", "_updates", "_writing"),
        "connection",
    )

    def __init__(
        self, connection: Any, address: DatabaseAddress, errors: type[Exception], guard: Guard | None = None
    ) -> None:
        self.connection = connection
        self._address = address
        self._errors = errors
        self._guard = guard
        self._cursor = connection.cursor()
        self._parts = compiled_statements(address.dialect)
        self._named: dict[str, str] = self._parts["named"]
        self._updates: dict[tuple[str, ...], str] = {}
        self._writing = False
        self._lost = False
        self._bulk = False

    @property
    def dialect(self) -> Dialect:
        """Which database it is connected to."""
        return self._address.dialect

    def run(self, name: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]:
        """Run a compiled statement and return its rows (none for a write without RETURNING)."""
        return self.execute(self._named[name], parameters)

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Sequence[Any]]:
        """Run SQL text of our own making and return its rows."""
        self._check_transaction()
        cursor = self._cursor
        try:
            cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description is not None else []
            if self._guard is not None:
                self._guard.check()
            return rows
        except self._errors as exc:
            raise self._failed(exc) from exc

    def change(self, name: str, parameters: Mapping[str, object]) -> int:
        """Run a compiled statement that writes and return how many rows it inserted or changed."""
        self.execute(self._named[name], parameters)
        return int(self._cursor.rowcount)

    def run_rows(self, name: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
        """Do what `run_many` does with rows of values in the order of *names*, which a driver binds in half the time.

        Raises:
            ValueError: a programming error: the statement has other parameters, or in another order.
        """
        self._check_transaction()
        sql = _by_position(self._address.dialect, name, tuple(names))
        try:
            if len(rows) >= _MANY and not self._bulk:
                self._prepare_for_bulk()
            self._cursor.executemany(sql, rows)
            return int(self._cursor.rowcount)
        except self._errors as exc:
            raise self._failed(exc) from exc

    def run_many(self, name: str, parameters: Sequence[Mapping[str, object]]) -> int:
        """Run a compiled statement that returns nothing once for each of *parameters*; return how many rows changed."""
        self._check_transaction()
        try:
            self._cursor.executemany(self._named[name], parameters)
            return int(self._cursor.rowcount)
        except self._errors as exc:
            raise self._failed(exc) from exc

    def _prepare_for_bulk(self) -> None:
        # Not for every connection: most of them read, and a process may have many.
        self._bulk = True
        if self._address.dialect is Dialect.SQLITE:
            for pragma in _BULK_PRAGMAS:
                self._cursor.execute(pragma)

    def _check_transaction(self) -> None:
        if self._lost:
            raise UnavailableError(f"the inventory {self._address.shown} has given up this transaction")

    def _failed(self, exc: Exception) -> ChargePkiError:
        # After some errors (a full disk, an I/O error) SQLite has rolled the transaction back by itself. What a work
        # that swallows the error writes then would be committed at once, piece by piece and without an audit entry.
        if self._writing and self._address.dialect is Dialect.SQLITE and not self.connection.in_transaction:
            self._lost = True
        return translate(exc, self._address)

    def stream(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, size: int = 2000
    ) -> Iterator[Sequence[Any]]:
        """Run SQL text inside a transaction and yield its rows without holding them all in memory."""
        for rows in self.pages(sql, parameters, size=size):
            yield from rows

    def pages(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, size: int = 2000
    ) -> Iterator[list[Sequence[Any]]]:
        """Do what `stream` does, and yield as many rows at once as are fetched together."""
        try:
            if self._address.dialect is Dialect.POSTGRESQL:
                cursor = self.connection.cursor(name="chargepki_stream")
                cursor.itersize = size
            else:
                cursor = self.connection.cursor()
            with contextlib.closing(cursor):
                cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
                while rows := cursor.fetchmany(size):
                    if self._guard is not None:
                        self._guard.check()
                    yield rows
        except self._errors as exc:
            raise translate(exc, self._address) from exc

    @contextlib.contextmanager
    def tolerant_text(self) -> Iterator[None]:
        """Read text that is no UTF-8 as well, which only tampering can put into SQLite, in place of an error."""
        if self._address.dialect is Dialect.POSTGRESQL:
            yield
            return
        self.connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            yield
        finally:
            self.connection.text_factory = str

    def select(self, table: str, filters: Mapping[str, object], order: str, limit: int) -> list[Sequence[Any]]:
        """Run a select with the given compiled conditions, ordered by a column, at most *limit* rows."""
        parts = self._parts["select"][table]
        sql = parts["select"]
        if filters:
            sql += " WHERE " + " AND ".join(parts["where"][name] for name in filters)
        sql += parts["order"][order]
        return self.execute(sql, {**filters, "limit": limit})

    def update(self, table: str, changed: Mapping[str, object], key: Mapping[str, object]) -> None:
        """Set the changed columns of one row."""
        shape = (table, *changed)
        sql = self._updates.get(shape)
        if sql is None:
            parts = self._parts["update"][table]
            sql = parts["prefix"] + ", ".join(parts["set"][name] for name in changed) + parts["suffix"]
            self._updates[shape] = sql
        self.execute(sql, {**changed, **{f"key_{name}": value for name, value in key.items()}})

    def begin_write(self) -> None:
        """Start a write transaction; on SQLite nobody else can write from here on."""
        self.execute("BEGIN IMMEDIATE" if self._address.dialect is Dialect.SQLITE else "BEGIN")
        self._writing = True

    def commit(self) -> None:
        """End a write transaction with its changes; durable when it returns."""
        self.execute("COMMIT")
        self._writing = False

    def begin_snapshot(self) -> None:
        """Start a transaction that sees one state of the database until it ends, and cannot write."""
        if self._address.dialect is Dialect.SQLITE:
            self.execute("BEGIN")
            # A deferred transaction takes its snapshot with its first read.
            self.execute("SELECT count(*) FROM sqlite_master")
        else:
            self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def rollback(self) -> None:
        """End a transaction without its changes; a broken connection is no further error."""
        self._writing = self._lost = False
        with contextlib.suppress(self._errors):
            if self._address.dialect is Dialect.POSTGRESQL or self.connection.in_transaction:
                self._cursor.execute("ROLLBACK")

    @property
    def is_broken(self) -> bool:
        """Whether the server has closed the connection, or a file that is read without locks was changed."""
        if self._guard is not None:
            return self._guard.is_stale
        return self._address.dialect is Dialect.POSTGRESQL and bool(self.connection.broken or self.connection.closed)

    @property
    def has_hung_up(self) -> bool:
        """Whether the server has said something on a connection that nobody uses: its farewell, as a rule."""
        if self._address.dialect is not Dialect.POSTGRESQL:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(self._errors):
            self.connection.close()


class Database:
    """Opens connections and keeps idle ones. Not to be used across a fork."""

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        reads_only: bool = False,
        process: str = "chargepki",
    ) -> None:
        self.address = address
        self._process = process
        self.busy_timeout = busy_timeout
        self.reads_only = reads_only
        self._idle: deque[Session] = deque()
        self._closed = False
        self._restored: tuple[object] | None = None
        self.errors: type[Exception]
        if address.dialect is Dialect.SQLITE:
            self.errors = sqlite3.Error
        else:
            self.errors = _psycopg().Error

    @property
    def dialect(self) -> Dialect:
        """Which of the two it is."""
        return self.address.dialect

    def exists(self) -> bool:
        """Whether there is a file to open (a PostgreSQL database is asked when it is opened)."""
        return self.address.path is None or self.address.path.exists()

    def create_file(self) -> None:
        """Make an empty SQLite file with mode 0600 if there is none: password hashes are nobody else's business.

        Raises:
            UnavailableError: its folder does not exist or cannot be written.
        """
        if self.address.path is not None and not self.address.path.exists():
            with contextlib.suppress(Conflict):
                files.write_new(self.address.path, b"", mode=0o600)

    def connect_raw(self) -> Any:
        """Open a connection of the driver, in autocommit mode.

        Raises:
            UnavailableError: the database cannot be reached or is none.
        """
        try:
            if self.address.path is not None:
                return self._connect_sqlite(self.address.path)
            return self._connect_postgresql()
        except self.errors as exc:
            raise translate(exc, self.address) from exc

    def connect(self) -> Session:
        """Open a connection."""
        path = self.address.path
        if self.reads_only and path is not None and path.exists() and not is_writable(path):
            try:
                connection, guard = open_reader(path, self.busy_timeout)
            except self.errors as exc:
                raise translate(exc, self.address) from exc
            return self._checked(Session(connection, self.address, self.errors, guard))
        return self._checked(Session(self.connect_raw(), self.address, self.errors))

    def remember_restorations(self) -> None:
        """Take note which restore this inventory went through last: no later connection may find another one.

        A restore is refused while a connection is open. Whoever had none just then would go on with what it
        remembers of certificates and lists that are not in the inventory any more.
        """
        # A damaged inventory, without that table, opens all the same: to be examined.
        with contextlib.suppress(StateError):
            session, rows = self.start(lambda session: session.run("restoration_floor", {}))
            self.give_back(session)
            self._restored = (rows[0][0],)

    def _checked(self, session: Session) -> Session:
        if self._restored is None:
            return session
        try:
            found = session.run("restoration_floor", {})[0][0]
        except StateError:
            return session
        except BaseException:
            session.close()
            raise
        if (found,) != self._restored:
            session.close()
            raise UnavailableError(
                f"the inventory {self.address.shown} was replaced by a restore while this process ran",
                why="what it remembers of certificates and lists may not be true any more",
                fix="start it again",
            )
        return session

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Lend a connection, an idle one if there is one; a dead one is not kept."""
        session = self.take()
        try:
            yield session
        finally:
            self.give_back(session)

    def start(self, work: Callable[[Session], _Result]) -> tuple[Session, _Result]:
        """Run *work*, which may be run twice, on an idle connection, and on a new one if that turns out to be dead.

        The server ends connections when it pleases, also between `take` and the first statement. The second try is
        not on another idle connection, whose end may be the same.

        Returns:
            the connection, for the caller to give back, and the result.
        """
        session = self.take()
        try:
            return session, work(session)
        except BaseException as exc:
            is_dead = isinstance(exc, UnavailableError) and session.is_broken
            self._discard(session)
            if not is_dead:
                raise
        session = self.connect()
        try:
            return session, work(session)
        except BaseException:
            self._discard(session)
            raise

    def _discard(self, session: Session) -> None:
        """Give a connection back in which a transaction may have begun."""
        session.rollback()
        self.give_back(session)

    def take(self) -> Session:
        """Return an idle connection that works, as far as one can tell without asking the server, or a new one."""
        if self._closed:
            raise UnavailableError(f"the inventory {self.address.shown} was closed")
        while True:
            try:
                session = self._idle.pop()
            except IndexError:
                return self.connect()
            if not session.is_broken and not session.has_hung_up:
                return session
            session.close()

    def give_back(self, session: Session) -> None:
        """Keep a connection for later use, or close it."""
        if self._closed or session.is_broken or len(self._idle) >= _MAX_IDLE:
            session.close()
        else:
            self._idle.append(session)

    def close(self) -> None:
        """Close all idle connections and lend no more."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect_sqlite(self, path: Path) -> sqlite3.Connection:
        # Never create the file here: a mistyped path must not leave an empty database behind.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=self.busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_wal(self, connection: sqlite3.Connection) -> None:
        # Two processes that open a new file at once may find it locked although a busy timeout is set: SQLite does not
        # call its busy handler while it changes the journal mode. So wait here.
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _connect_postgresql(self) -> Any:
        connection = _psycopg().connect(
            self.address.dsn,
            autocommit=True,
            connect_timeout=10,
            client_encoding="utf8",
            application_name=self._process,
        )
        connection.execute(f"SET lock_timeout = {int(self.busy_timeout * 1000)}")
        if connection.execute("SHOW synchronous_commit").fetchone()[0] == "off":
            connection.execute("SET synchronous_commit = on")
        return connection


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as exc:
        raise UnavailableError(
            "the PostgreSQL driver is not installed", fix="pip install 'chargepki[postgresql]'"
        ) from exc
    return psycopg
