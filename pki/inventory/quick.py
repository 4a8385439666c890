"""Reads of an SQLite inventory that never wait, so that they may be done in an event loop."""

from __future__ import annotations

from collections.abc import Mapping

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory.engine import Database, Session
from chargepki.pki.inventory.query_reads import Make
from chargepki.pki.inventory.reads import Reads, Row

__all__ = ["QuickReads"]


class QuickReads(Reads):
    """Reads over a connection of its own, for one thread at a time.

    A row that is looked up by its key costs tens of microseconds; handing the work over to a thread and back costs
    ten times that, most of it in the two threads' contest for the interpreter. In WAL mode nobody who writes holds up
    a reader. Where SQLite would have to wait all the same (a recovery after a crash, a migration), the read fails at
    once, and the caller asks the `Inventory` in a thread.
    """

    __slots__ = ("_database", "_session")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: Session | None = None

    def open(self) -> None:
        """Connect; blocks, so call it in a thread. Without it every read fails.

        Raises:
            UnavailableError: the database cannot be opened.
        """
        session = self._database.connect()
        session.execute("PRAGMA busy_timeout=0")
        self._session = session

    def close(self) -> None:
        """Close the connection; every read fails from then on. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def version(self) -> int:
        """Return a number that changes with every commit of anybody else: two readings that differ, not their order.

        Raises:
            UnavailableError: it is not open, or SQLite would have to wait.
        """
        return int(self._open_session.execute("PRAGMA data_version")[0][0])

    @property
    def _open_session(self) -> Session:
        if self._session is None:
            raise UnavailableError(f"the quick reads of {self._database.address.shown} are not open")
        return self._session

    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Row]:
        return self._open_session.run(statement, parameters)

    def _ask(self, make: Make) -> list[Row]:
        session = self._open_session
        return session.execute(*make(session.dialect))

    def _select(self, table: str, filters: Mapping[str, object], order: str, limit: int) -> list[Row]:
        return self._open_session.select(table, filters, order, limit)
