"""Reads by the filter language, and of saved queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.codec import CERTIFICATE, SAVED_QUERY
from chargepki.pki.inventory.placing import settle_places
from chargepki.pki.inventory.query_records import SavedQueryRecord
from chargepki.pki.inventory.records import CertificateRecord

if TYPE_CHECKING:
    from chargepki.pki.inventory.filter_fields import Field, Step
    from chargepki.pki.inventory.filters import Filter

__all__ = ["QueryReads"]

_PAGE = 1000
Make = Callable[[Dialect], tuple[str, Mapping[str, object]]]
"""Makes SQL and its parameters for the database at hand."""


class _Base(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...
    def _ask(self, make: Make) -> list[Sequence[Any]]: ...
    def find_query(self, name: str) -> SavedQueryRecord | None: ...


class QueryReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_certificates(
        self: _Base, wanted: Filter, *, limit: int | None = None, after: str | None = None
    ) -> Iterator[CertificateRecord]:
        """List the certificates that a filter asks for, by id, without their DER, request and verdict.

        Args:
            limit: at most so many.
            after: only ids behind this one (for paging).
        """
        from chargepki.pki.inventory.filter_sql import page_statement

        wanted = settle_places(self._ask, wanted)
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            rows = self._ask(partial(page_statement, wanted, after=after, limit=size))
            for row in rows:
                yield CERTIFICATE.decode(row)
            if len(rows) < size:
                return
            after = rows[-1][0]
            left = None if left is None else left - len(rows)

    def count_matching(self: _Base, wanted: Filter) -> int:
        """Count the certificates that a filter asks for."""
        from chargepki.pki.inventory.filter_sql import count_statement

        return int(self._ask(partial(count_statement, settle_places(self._ask, wanted)))[0][0])

    def count_by(
        self: _Base, wanted: Filter, field: Field, *, step: Step | None = None
    ) -> tuple[tuple[str | int | None, int], ...]:
        """Count the certificates that a filter asks for, by the values of *field*, most frequent first.

        Args:
            step: times are counted by the day, month (without it) or year in UTC, earliest first; ``2026-03``.
        """
        from chargepki.pki.inventory.filter_fields import Step
        from chargepki.pki.inventory.filter_sql import count_statement

        make = partial(count_statement, settle_places(self._ask, wanted), by=field, step=step or Step.MONTH)
        return tuple([(row[0], int(row[1])) for row in self._ask(make)])

    def find_query(self: _Base, name: str) -> SavedQueryRecord | None:
        """Return the saved query of this name; a deleted one is none."""
        rows = self._rows("saved_query_get", {"id": name})
        found = SAVED_QUERY.decode(rows[0]) if rows else None
        return None if found is None or found.filter is None else found

    def get_query(self: _Base, name: str) -> SavedQueryRecord:
        """Return the saved query of this name.

        Raises:
            NotFound: there is none.
        """
        found = self.find_query(name)
        if found is None:
            raise NotFound(f"there is no query {name[:100]}", fix="list them with: chargepki query list")
        return found

    def list_queries(self: _Base) -> tuple[SavedQueryRecord, ...]:
        """Return the saved queries by name."""
        return tuple([SAVED_QUERY.decode(row) for row in self._rows("saved_queries", {})])
