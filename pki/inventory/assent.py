"""Whoever answers from memory assents to a revocation before it is acknowledged; on PostgreSQL by an advisory lock.

A process that answers from memory looks at the inventory before each answer, and goes on answering while the server
is away. A revocation that was committed and acknowledged just before the server went would then still be denied. So
each such process, a *holder*, keeps a shared lock while its memory can be relied upon, and whoever revokes takes the
lock for himself once before he reports success: by then every holder has let go of it, and must look again before it
relies on its memory. SQLite has no server that could go away.

The lock goes with the connection, and a server may end that while it stays up. The holder cannot tell such an end from
the death of the server, after which it must go on answering; if the server dies right then, before the holder is back,
nobody would ever have waited for it. So the end is noticed by the other side: a holder is on record as a lease of kind
``assent``, made before it takes the lock and removed after it has let go, and shows that it is connected by a second
lock with the number of that record. Whoever revokes waits, after he had the lock to himself, for each holder on record
that is not connected, until it is back, or for `SETTLE_SECONDS`; then it is held to be dead, and its record goes.

For its part a holder relies on its memory only while it knows, by a clock that never jumps, that less than
`LEASE_SECONDS` ago its connection had not ended, or no server let it in (`services.reliance`); whatever stops it for
longer than that ends the reliance too. Let a revocation be committed, and acknowledged at *a* while the server is up.
A holder that does not know of it and relied on its memory at a later time would have had to lose its connection before
*a*, hence, by the wait, before *a* − `SETTLE_SECONDS`. Every attempt to be back that it made in that span would have
found the server and ended the reliance, and without an attempt the reliance ended by itself, since the span is longer
than `LEASE_SECONDS`.

What this cannot cover is a holder whose network is cut while the server stays up for others: it cannot be told from
one whose server is away, and denies what is revoked meanwhile until the answer in its memory ends, or it is back.
A holder that may not write the record relies on nothing once its connection has ended.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from enum import StrEnum
from typing import Final

from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database, Session
from chargepki.pki.inventory.faults import translate

__all__ = ["LEASE_SECONDS", "SETTLE_SECONDS", "Assent", "Presence", "judge_presence", "wait_for_assent"]

_log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 2.0
"""How long a holder may rely on its memory after it has last known that its connection, or the server, was away."""
SETTLE_SECONDS: Final = 2.5
"""How long whoever revokes waits for a holder that lost its connection; longer than the above."""

_LOCK: Final = 0x63686B69
"""Key of the advisory lock, and first half of the keys that show who is connected; they are local to a database."""
_KIND: Final = "assent"
_CONNECTED: Final = (
    "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    " AND classid = %(lock)s AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_RETURN_SLICE: Final = 0.05
_FIRST_SLICE: Final = 0.02
_LAST_SLICE: Final = 0.32

# A holder whose network is gone must lose its lock within seconds, not with the two hours of the system's default.
_KEEPALIVE: Final = (
    "SELECT set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),"
    " set_config('tcp_keepalives_count', '3', false)"
)


# What libpq says when nobody is there, in English, since nobody sets its language.
_NOBODY: Final = (
    "refused", "No such file", "No route", "unreachable", "timed out", "timeout expired", "could not translate",
    "not known", "name resolution",
)  # fmt: skip
# What a server says that lets nobody in: nothing is acknowledged over connections to it either, see `_wait_for_return`.
_CLOSED: Final = ("starting up", "shutting down", "recovery mode", "not yet accepting connections")


class Presence(StrEnum):
    """What an attempt to connect has told about the server."""

    AWAY = "away"
    """None was there, or one that lets nobody in."""
    THERE = "there"
    UNCLEAR = "unclear"


def judge_presence(error: ChargePkiError) -> Presence:
    """Return what the failure of `Assent.connect` tells."""
    said = str(error.__cause__)
    if "FATAL" in said:
        return Presence.AWAY if any(words in said for words in _CLOSED) else Presence.THERE
    return Presence.AWAY if any(words in said for words in _NOBODY) else Presence.UNCLEAR


class Assent:
    """The lock of one process that answers from memory. For one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: Session | None = None
        self._item = str(secrets.randbelow(1 << 31))
        self._owner = ""
        self.is_recorded = False
        """Whether those who revoke will wait for this holder when its connection has ended."""

    @property
    def is_needed(self) -> bool:
        """Whether the database can be away while this process lives."""
        return self._database.dialect is Dialect.POSTGRESQL

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._session is not None and not self._session.is_broken

    def connect(self) -> None:
        """Make a connection, in place of one that has ended.

        Raises:
            UnavailableError: the inventory cannot be reached.
        """
        self.close()
        session = self._database.connect()
        try:
            session.execute(_KEEPALIVE)
            session.execute("LISTEN chargepki_assent")
        except BaseException:
            session.close()
            raise
        self._session = session

    def enter(self) -> None:
        """Show that this holder is connected, and put it on record; nothing may be relied upon yet.

        Raises:
            UnavailableError: the connection has ended.
        """
        session = self._connected()
        session.execute(f"SELECT pg_advisory_lock_shared({_LOCK}, {self._item})")
        self._owner = secrets.token_hex(8)
        row = {"kind": _KIND, "item": self._item, "owner": self._owner, "until": None, "fence": 0, "state": "entered"}
        try:
            session.run("lease_put", row)
            self.is_recorded = True
        except UnavailableError as error:
            if session.is_broken:
                raise
            self.is_recorded = False
            _log.warning(
                "without the right to write the table lease this process answers nothing from memory once its"
                " connection has ended: %s", error,
            )  # fmt: skip

    def leave(self) -> None:
        """Remove the record, when nothing is relied upon any more, and end the connection."""
        if self._session is not None and self.is_recorded:
            with contextlib.suppress(UnavailableError):
                self._session.run("assent_drop", {"item": self._item, "owner": self._owner})
        self.close()

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
        """End the connection; the record stays, and those who revoke wait for this holder."""
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
    try:
        if had:
            _wait_for_return(session, database)
    finally:
        database.give_back(session)
    return had


def _ask_until(session: Session, deadline: float) -> bool:
    pause = _FIRST_SLICE
    while True:
        # A holder may have let go and taken the lock again before this request for it is queued: ask once more.
        session.execute("NOTIFY chargepki_assent")
        if _had_alone(session, pause):
            return True
        if time.monotonic() >= deadline:
            return False
        pause = min(pause * 2, _LAST_SLICE)


def _wait_for_return(session: Session, database: Database) -> None:
    """Wait for those holders on record now that are not connected; who enters later looks before it relies."""
    since = time.monotonic()
    missing = _missing(session)
    while missing and time.monotonic() < since + SETTLE_SECONDS:
        time.sleep(_RETURN_SLICE)
        missing &= _missing(session)
    if missing:
        # A server that lets nobody in any more counts as one that is away: who is still connected acknowledges nothing.
        database.connect().close()
    for item, owner in missing:
        # Only as it was seen: one that has come back meanwhile is on record under another owner.
        session.run("assent_drop", {"item": item, "owner": owner})


def _missing(session: Session) -> set[tuple[str, str]]:
    # First the records: a holder is connected before it is on record.
    recorded = {(str(item), str(owner)) for item, owner in session.run("assent_holders", {})}
    connected = {str(row[0]) for row in session.execute(_CONNECTED, {"lock": _LOCK})} if recorded else set()
    return {each for each in recorded if each[0] not in connected}


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
