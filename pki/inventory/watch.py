"""Tell within 50 ms that somebody committed to the inventory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database, Session
from chargepki.pki.inventory.faults import translate

__all__ = ["ChangeWatcher"]

_POLL: Final = 0.02
"""Seconds between two looks at SQLite's change counter, which costs microseconds."""
_SLICE: Final = 0.25
"""Seconds that PostgreSQL is listened to at a stretch, so that `ChangeWatcher.close` is heard."""


class ChangeWatcher:
    """Watches over a connection of its own; for one thread at a time. What changed is in the audit entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = threading.Event()
        # Held while a wait uses the connection: closing an SQLite connection under another thread's query crashes.
        self._in_use = threading.Lock()
        self._session: Session | None = None
        self._seen = 0
        self._open()

    def __enter__(self) -> ChangeWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds; true when anybody committed since the last call (or since the start).

        Says true as well after a lost connection was made again, since a change may have been missed meanwhile.
        Returns false at once when the watcher is closed.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        try:
            with self._in_use:
                return not self._closed.is_set() and self._wait(timeout)
        finally:
            self._drop_if_closed()

    def close(self) -> None:
        """Stop watching; a `wait` in another thread returns soon."""
        self._closed.set()
        self._drop_if_closed()

    def _wait(self, timeout: float) -> bool:
        if self._session is None or self._session.is_broken:
            self._drop()
            self._open()
            return True
        if self._database.dialect is Dialect.SQLITE:
            return self._poll(self._session, timeout)
        return self._listen(self._session, timeout)

    def _drop_if_closed(self) -> None:
        """Close the connection unless a wait uses it, which will do so when it ends."""
        if self._closed.is_set() and self._in_use.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._in_use.release()

    def _open(self) -> None:
        self._session = self._database.connect()
        if self._database.dialect is Dialect.SQLITE:
            self._seen = self._version(self._session)
        else:
            self._session.execute("LISTEN chargepki_inventory")

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    @staticmethod
    def _version(session: Session) -> int:
        return int(session.execute("PRAGMA data_version")[0][0])

    def _poll(self, session: Session, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            version = self._version(session)
            if version != self._seen:
                self._seen = version
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._closed.wait(min(_POLL, left)):
                return False

    def _listen(self, session: Session, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        heard = False
        while not self._closed.is_set():
            left = deadline - time.monotonic()
            try:
                heard = any(
                    True for _ in session.connection.notifies(timeout=max(0.0, min(_SLICE, left)), stop_after=1)
                )
                if heard:
                    # Several commits wake once: take the notices that are there already.
                    for _ in session.connection.notifies(timeout=0):
                        pass
            except self._database.errors as exc:
                if session.is_broken:
                    return self._reconnected()
                raise translate(exc, self._database.address) from exc
            if heard or left <= 0:
                break
        return heard and not self._closed.is_set()

    def _reconnected(self) -> bool:
        self._drop()
        self._open()
        return True
