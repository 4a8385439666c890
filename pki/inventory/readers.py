"""Read-only access for auditors: an SQLite file that may not be written, and a login of PostgreSQL that only looks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from chargepki.pki.errors import InputError, UnavailableError

__all__ = ["Guard", "is_writable", "open_reader", "reader_grants"]


class Guard:
    """Notices that a file which is read without locks was changed.

    That is how a database in WAL mode has to be read where no ``-wal`` and ``-shm`` file may be made beside it, while
    nobody has it open. Whoever opens it to write makes a ``-wal`` file first, and changes the file itself only after.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._before = self._look()
        self.is_stale = self._wal.exists()

    def _look(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Refuse what was just read if somebody has begun to write since the file was opened.

        Raises:
            UnavailableError: that is so; a new connection reads through what the writer has made.
        """
        with contextlib.suppress(OSError):
            if not self.is_stale and not self._wal.exists() and self._look() == self._before:
                return
        self.is_stale = True
        raise UnavailableError(
            f"{self._path} was changed while it was being read",
            why="nobody had it open, and it may not be locked from here",
            fix="repeat the command",
        )


def is_writable(path: Path) -> bool:
    """Whether the user of this process may write to the file."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def open_reader(path: Path, busy_timeout: float) -> tuple[sqlite3.Connection, Guard | None]:
    """Open an SQLite file that this user may not write, through its ``-wal`` file if there is one.

    Returns:
        the connection, and what to ask after each read; ``None`` where SQLite's own locks do.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _connect(address, busy_timeout), None
    except sqlite3.OperationalError:
        # There is no -shm file, and none can be made: nobody has the file open, or somebody is just about to.
        guard = Guard(path)
        if guard.is_stale:
            return _connect(address, busy_timeout), None
        return _connect(f"{address}&immutable=1", busy_timeout), guard


def _connect(address: str, busy_timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def reader_grants(role: str, *, database: str, schema: str = "public") -> str:
    """Return SQL for PostgreSQL that lets *role* read an inventory, and nothing else.

    To be run by the owner of the tables; what later versions add can be read as well.

    Raises:
        InputError: a name that PostgreSQL cannot have.

    >>> print(reader_grants("auditor", database="pki").splitlines()[0])
    GRANT CONNECT ON DATABASE "pki" TO "auditor";
    """
    who, where, within = _quoted(role), _quoted(database), _quoted(schema)
    return "\n".join(
        (
            f"GRANT CONNECT ON DATABASE {where} TO {who};",
            f"GRANT USAGE ON SCHEMA {within} TO {who};",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {within} TO {who};",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {within} GRANT SELECT ON TABLES TO {who};",
            f"ALTER ROLE {who} IN DATABASE {where} SET default_transaction_read_only = on;",
        )
    )


def _quoted(name: str) -> str:
    if not name or len(name.encode()) > 63 or not name.isprintable():
        raise InputError(f"{name[:80]!r} is no name of PostgreSQL", why="1 to 63 printable bytes", fix="check it")
    return '"' + name.replace('"', '""') + '"'
