"""Whoever answers from memory assents to a revocation before it is acknowledged; on PostgreSQL by an advisory lock.

A process that answers from memory looks at the inventory before each answer, and goes on answering while the server
is away. A revocation that was committed and acknowledged just before the server went would then still be denied. So
each such process holds a shared lock while its memory can be relied upon, and whoever revokes takes the lock for
himself once before he reports success: by then every holder has let go of it, and must look again before it relies on
its memory. A holder that dies loses the lock with its connection. SQLite has no server that could go away.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database, Session
from chargepki.pki.inventory.faults import translate

__all__ = ["Assent", "wait_for_assent"]

_LOCK: Final = 0x63686B69
"""Key of the advisory lock; such keys are local to a database."""
_SETTLE_SECONDS: Final = 1.5
"""How old a server must be before anybody is told that all have let go.

A holder whose server went away relies on its memory until it is connected again (`services.reliance` tries every half
second): what was acknowledged before that, it would deny if the server went away once more.
"""
_FIRST_SLICE: Final = 0.02
_LAST_SLICE: Final = 0.32

# A holder whose network is gone must lose its lock within seconds, not with the two hours of the system's default.
_KEEPALIVE: Final = (
    "SELECT set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),"
    " set_config('tcp_keepalives_count', '3', false)"
)


class Assent:
    """The lock of one process that answers from memory. For one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: Session | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the database can be away while this process lives."""
        return self._database.dialect is Dialect.POSTGRESQL

    def connect(self) -> None:
        """Make the connection if there is none.

        Raises:
            UnavailableError: the inventory cannot be reached.
        """
        if self._session is not None and not self._session.is_broken:
            return
        self.close()
        session = self._database.connect()
        try:
            session.execute(_KEEPALIVE)
            session.execute("LISTEN chargepki_assent")
        except BaseException:
            session.close()
            raise
        self._session = session

    def take(self) -> None:
        """Take the lock; waits while somebody who revokes has it.

        Raises:
            UnavailableError: the inventory cannot be reached, or the lock not be had.
        """
        self._connected().execute(f"SELECT pg_advisory_lock_shared({_LOCK})")

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until somebody asks for the lock.

        Raises:
            UnavailableError: the connection has ended, and the lock with it.
        """
        try:
            return any(True for _ in self._connected().connection.notifies(timeout=timeout, stop_after=1))
        except self._database.errors as exc:
            raise translate(exc, self._database.address) from exc

    def release(self) -> None:
        """Let go of the lock; whoever waits for it has it next.

        Raises:
            UnavailableError: the connection has ended, and the lock with it.
        """
        session = self._connected()
        session.execute(f"SELECT pg_advisory_unlock_shared({_LOCK})")

    def close(self) -> None:
        """End the connection."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _connected(self) -> Session:
        if self._session is None or self._session.is_broken:
            raise UnavailableError("the connection to the inventory has ended")
        return self._session


def wait_for_assent(database: Database, *, timeout: float) -> bool:
    """Return once no process relies on what it remembers from before this call; false if one still does.

    Args:
        timeout: seconds to wait for those that do not let go.

    Raises:
        UnavailableError: the inventory went away, so that nobody knows whether they have let go.
    """
    if database.dialect is not Dialect.POSTGRESQL:
        return True
    deadline = time.monotonic() + timeout
    session, had = database.start(lambda session: _ask_until(session, deadline))
    database.give_back(session)
    return had


def _ask_until(session: Session, deadline: float) -> bool:
    age = session.execute("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8")[0][0]
    if age < _SETTLE_SECONDS:  # also when a clock was set back: never for longer than this
        time.sleep(min(_SETTLE_SECONDS, _SETTLE_SECONDS - age))
    pause = _FIRST_SLICE
    while True:
        # A holder may have let go and taken the lock again before this request for it is queued: ask once more.
        session.execute("NOTIFY chargepki_assent")
        if _had_alone(session, pause):
            return True
        if time.monotonic() >= deadline:
            return False
        pause = min(pause * 2, _LAST_SLICE)


def _had_alone(session: Session, seconds: float) -> bool:
    session.execute("BEGIN")
    try:
        session.execute(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")
        session.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
    except UnavailableError:
        if session.is_broken:
            raise
        return False
    finally:
        with contextlib.suppress(UnavailableError):
            session.rollback()
    return True
