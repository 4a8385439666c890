"""Typed writes of saved queries."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.errors import Conflict
from chargepki.pki.inventory.codec import SAVED_QUERY
from chargepki.pki.inventory.query_records import SavedQueryRecord
from chargepki.pki.inventory.writes import Writes

__all__ = ["QueryWrites"]


class QueryWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def save_query(self, record: SavedQueryRecord, *, replace: bool = False) -> SavedQueryRecord:
        """Store a filter under a name; a deleted name may be used again.

        Raises:
            Conflict: the name is taken, by another filter, and *replace* is false.
        """
        if not self._rows("saved_query_get", {"id": record.id}):
            self._add(SAVED_QUERY, record, "the query")
            return record
        before = self._stored(SAVED_QUERY, "query", id=record.id)
        if (before["filter"], before["kind"]) == (record.filter, record.kind):
            return SAVED_QUERY.decode([before[name] for name in SAVED_QUERY.columns])
        if before["filter"] is not None and not replace:
            asks = SAVED_QUERY.decode([before[name] for name in SAVED_QUERY.columns])
            raise Conflict(
                f"there is a query {record.id} already",
                why=f"it asks, of kind {asks.kind or 'certificate'}, for: {before['filter']!s:.200}",
                fix="pass --replace, or choose another name",
            )
        changes = {name: getattr(record, name) for name in ("filter", "kind", "saved_by", "saved_at")}
        return self._change(SAVED_QUERY, before, changes)

    def delete_query(self, name: str, *, actor: str, now: datetime) -> SavedQueryRecord:
        """Forget the filter of a name; that there was one stays in the audit log.

        Raises:
            NotFound: there is none.
        """
        found = self.get_query(name)
        before = self._stored(SAVED_QUERY, "query", id=name)
        self._change(SAVED_QUERY, before, {"filter": None, "saved_by": actor, "saved_at": now})
        return found
