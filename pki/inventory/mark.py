"""A mark that changes with every commit of anybody, and costs microseconds to look at."""

from __future__ import annotations

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database, Session

__all__ = ["ChangeMark"]


class ChangeMark:
    """Compare two readings: equal ones mean that nothing was committed in between. For one thread at a time.

    On SQLite it is the connection's ``data_version``, on PostgreSQL the length of the audit log; every change of a
    certificate, a CA or a list is audited.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: Session | None = None
        self._generation = 0

    @property
    def is_quick(self) -> bool:
        """Whether reading takes microseconds, so that it may be done in an event loop."""
        return self._database.dialect is Dialect.SQLITE

    def read(self) -> tuple[int, int]:
        """Return the mark; a connection that was lost is made again, which changes the mark.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        if self._session is not None and not self._session.is_broken:
            try:
                return self._look(self._session)
            except UnavailableError:
                # A connection that an earlier death of the server has ended says nothing about the server of now.
                pass
        self.close()
        session = self._session = self._database.connect()
        self._generation += 1
        return self._look(session)

    def _look(self, session: Session) -> tuple[int, int]:
        try:
            if self.is_quick:
                return self._generation, int(session.execute("PRAGMA data_version")[0][0])
            rows = session.run("change_count", {})
        except BaseException:
            self.close()
            raise
        return self._generation, int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the connection; `read` opens another."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
