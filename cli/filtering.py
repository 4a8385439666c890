"""Filters on the command line: ``--where`` and ``--query``, errors with a caret, and the flags that say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chargepki.cli.globals import GlobalState

if TYPE_CHECKING:
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.inventory.row_fields import ListedKind

__all__ = [
    "CERTIFICATE",
    "before",
    "combined",
    "equals",
    "filter_options",
    "pointing_parse",
    "read_filter",
    "read_rows_filter",
    "saved_filter",
    "wanted_of",
]

CERTIFICATE: Final = "certificate"
"""What a query asks for unless it says otherwise."""

_F = TypeVar("_F", bound=Callable[..., Any])


def filter_options(function: _F) -> _F:
    """Add ``--where``, ``--query`` and ``--at`` to a command."""
    from chargepki.cli.values import INSTANT

    for option in (
        click.option("--at", type=INSTANT, metavar="TIME", help="What `now` in a filter stands for; now by default."),
        click.option("--query", metavar="NAME", help="Only those that a saved query asks for."),
        click.option("--where", metavar="FILTER", help="Only those that a filter asks for (guide: Ask the inventory)."),
    ):
        function = option(function)
    return function


def read_filter(state: GlobalState, text: str, at: datetime | None) -> Filter:
    """Read a filter; for a person, point at what is wrong with it.

    Raises:
        FilterError: it cannot be read.
    """
    from chargepki.pki.inventory.records import FOREIGN
    from chargepki.pki.profiles import list_profiles

    profiles = [*(profile.id for profile in list_profiles()), FOREIGN]
    return pointing_parse(state, text, now=at or datetime.now(UTC), profiles=profiles)


def read_rows_filter(state: GlobalState, text: str, kind: ListedKind, at: datetime | None) -> Filter:
    """Read a filter about what is no certificate; for a person, point at what is wrong with it.

    Raises:
        FilterError: it cannot be read.
    """
    from chargepki.pki.inventory.row_fields import ROW_FIELDS

    return pointing_parse(state, text, now=at or datetime.now(UTC), fields=ROW_FIELDS[kind])


def pointing_parse(state: GlobalState, text: str, **told: Any) -> Filter:
    """Call `parse_filter`; for a person, point at what is wrong with the filter.

    Raises:
        FilterError: it cannot be read.
    """
    from chargepki.pki.inventory.filter_parser import FilterError, parse_filter

    try:
        return parse_filter(text, **told)
    except FilterError as error:
        if not state.output.for_machines:
            for line in error.pointer():
                state.output.say(f"  {line}")
        raise


def wanted_of(state: GlobalState, where: str | None, query: str | None, at: datetime | None) -> list[Filter]:
    """Return what ``--where`` and ``--query`` ask for; a certificate must keep both."""
    found = [] if where is None else [read_filter(state, where, at)]
    if query is not None:
        found.append(read_filter(state, saved_filter(state, query, None), at))
    return found


def saved_filter(state: GlobalState, name: str, kind: ListedKind | None) -> str:
    """Return the text of a saved query.

    Args:
        kind: what it has to be about; ``None`` for certificates.

    Raises:
        NotFound: there is none of that name.
        StateError: it is about another kind.
    """
    record = state.workspace.inventory.get_query(name)
    if record.kind != kind:
        from chargepki.pki.errors import StateError

        raise StateError(
            f"the query {record.id} is of kind {record.kind or CERTIFICATE}, not {kind or CERTIFICATE}",
            why="each kind has fields of its own",
            fix="see the kinds of all queries with: chargepki query list",
        )
    assert record.filter is not None, "a deleted query is not found"
    return record.filter


def equals(name: str, value: str | None) -> list[Filter]:
    """Return a flag as a filter, or nothing when it was not given."""
    from chargepki.pki.inventory.filter_fields import FIELDS
    from chargepki.pki.inventory.filters import Compare

    return [] if value is None else [Compare(FIELDS[name], "=", value)]


def before(name: str, instant: datetime | None) -> list[Filter]:
    """Return a flag with an end as a filter, or nothing when it was not given."""
    from chargepki.pki.inventory.filter_fields import FIELDS
    from chargepki.pki.inventory.filters import Compare

    return [] if instant is None else [Compare(FIELDS[name], "<", instant)]


def combined(parts: Iterable[Filter]) -> Filter:
    """Return the filter that asks for all of *parts*; with none, for every certificate."""
    from chargepki.pki.inventory.filters import And

    return And(tuple(parts))
