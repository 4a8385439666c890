"""Answer what a filter asks about the places of imported certificates beforehand, where few certificates are meant.

SQLite asks it of one certificate after another: where five of a million come from a folder, it looks at a million.
Looking through the places instead, until enough are found, tells which five; a filter then names them by their ids.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, Filter, Like, Not, OneOf, Or

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chargepki.pki.inventory.query_reads import Make

__all__ = ["FEW", "settle_places"]

FEW: Final = 4000
"""Up to so many places count as few; either database binds many times as many values in one statement."""
_MOST_TERMS: Final = 4
"""So many terms of one filter are answered beforehand; what they bind has to fit into one statement."""


def settle_places(ask: Callable[[Make], Sequence[Sequence[Any]]], wanted: Filter) -> Filter:
    """Return a filter that means the same now, with the ids of certificates in place of terms about few places.

    Args:
        ask: runs SQL that `filter_sql` makes.
    """
    return _Settling(ask).settled(wanted)


class _Settling:
    def __init__(self, ask: Callable[[Make], Sequence[Sequence[Any]]]) -> None:
        self._ask = ask
        self._left = _MOST_TERMS

    def settled(self, wanted: Filter) -> Filter:
        if isinstance(wanted, And):
            return And(tuple(self.settled(part) for part in wanted.parts))
        if isinstance(wanted, Or):
            return Or(tuple(self.settled(part) for part in wanted.parts))
        if isinstance(wanted, Not):
            return Not(self.settled(wanted.part))
        if not wanted.field.of_places or not isinstance(wanted, Compare | OneOf | Like) or self._left == 0:
            return wanted
        from chargepki.pki.inventory.filter_sql import placed_statement

        self._left -= 1
        rows = self._ask(partial(placed_statement, wanted, limit=FEW + 1))
        return wanted if len(rows) > FEW else OneOf(FIELDS["id"], tuple(sorted({str(row[0]) for row in rows})))
