"""Pages of lists, and ``--where`` of those that are no certificates: CAs, stations, operations, events, firmware."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chargepki.cli.globals import GlobalState

if TYPE_CHECKING:
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.inventory.row_fields import ListedKind

__all__ = ["PAGE", "all_rows", "asked_of", "behind", "page_options", "row_options", "show_page"]

_F = TypeVar("_F", bound=Callable[..., Any])
PAGE: Final = 1000
"""How many rows a list shows unless it is told otherwise."""


def page_options(function: _F) -> _F:
    """Add ``--limit`` and ``--after`` to a command that lists."""
    for option in (
        click.option("--after", metavar="ID", help="Only those that come behind this one: the next page."),
        click.option("--limit", type=click.IntRange(min=1), default=PAGE, show_default=True, help="At most so many."),
    ):
        function = option(function)
    return function


def row_options(function: _F) -> _F:
    """Add ``--where``, ``--query``, ``--at``, ``--limit`` and ``--after`` to a command that lists."""
    from chargepki.cli.filtering import filter_options

    return filter_options(page_options(function))


def asked_of(state: GlobalState, kind: str, where: str | None, query: str | None, at: datetime | None) -> Filter | None:
    """Return what ``--where`` and ``--query`` ask for together, ``None`` without them.

    Args:
        kind: of `ListedKind`: which fields there are.

    Raises:
        FilterError: it cannot be read.
        NotFound: there is no query of that name.
        StateError: the query is about another kind.
    """
    if where is None and query is None:
        return None
    from chargepki.cli.filtering import combined, read_rows_filter, saved_filter
    from chargepki.pki.inventory.row_fields import ListedKind

    listed = ListedKind(kind)
    texts = [] if where is None else [where]
    texts += [] if query is None else [saved_filter(state, query, listed)]
    return combined(read_rows_filter(state, text, listed, at) for text in texts)


def show_page(
    state: GlobalState,
    schema: str,
    columns: tuple[str, ...],
    rows: Iterable[dict[str, Any]],
    *,
    key: str,
    limit: int,
    cursor: str = "id",
) -> None:
    """Write the first *limit* rows, and say how to go on when there are more.

    Args:
        rows: one more than *limit* of them is read at most.
        cursor: the field by which ``--after`` names the last row of a page.
    """
    page = _Page(rows, limit, cursor)
    state.output.rows(schema, columns, page, key=key, tail=page.tail)
    if page.next is not None:
        from shlex import quote

        state.output.say(f"there are more; go on with --after {quote(page.next)}, or pass a larger --limit")


class _Page:
    """Rows that end at a limit; when they were read, `next` is where the page behind them begins."""

    def __init__(self, rows: Iterable[dict[str, Any]], limit: int, cursor: str) -> None:
        self._rows = rows
        self._limit = limit
        self._cursor = cursor
        self.next: str | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        last: dict[str, Any] = {}
        for number, row in enumerate(self._rows):
            if number == self._limit:
                self.next = str(last[self._cursor])
                return
            yield row
            last = row

    def tail(self) -> dict[str, Any]:
        """Return what ``--json`` tells behind the rows."""
        return {"next": self.next}


def behind(rows: Iterable[dict[str, Any]], after: str | None, *, cursor: str, noun: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that come behind the one that *after* names; all without it.

    Raises:
        NotFound: no row is it.
    """
    if after is None:
        yield from rows
        return
    found = dropwhile(lambda row: row[cursor] != after, rows)
    if next(found, None) is None:
        from chargepki.pki.errors import NotFound

        raise NotFound(f"there is no {noun} {after[:100]} to go on behind", fix="leave out --after for the first page")
    yield from found


def all_rows(inventory: Inventory, kind: ListedKind) -> Iterator[dict[str, Any]]:
    """Yield every row of a kind, as the command that lists them would without an option."""
    from chargepki.cli import station_rows
    from chargepki.cli.ca import ca_row
    from chargepki.cli.firmware_store import release_rows
    from chargepki.pki.inventory.row_fields import ListedKind

    rows: dict[ListedKind, Callable[[], Iterable[dict[str, Any]]]] = {
        ListedKind.CA: lambda: map(ca_row, inventory.list_cas()),
        ListedKind.STATION: lambda: station_rows.station_rows(inventory),
        ListedKind.OPERATION: lambda: map(station_rows.operation_row, inventory.list_newest_operations()),
        ListedKind.EVENT: lambda: map(station_rows.event_row, inventory.list_all_events()),
        ListedKind.RELEASE: lambda: release_rows(inventory, vendor=None, model=None, wanted=None),
    }
    yield from rows[kind]()
