"""``--where`` of lists that are no certificates: CAs, stations, operations, security events, firmware releases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import click

from chargepki.cli.globals import GlobalState

__all__ = ["chosen_rows", "row_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def row_options(function: _F) -> _F:
    """Add ``--where``, ``--at`` and ``--limit`` to a command that lists."""
    from chargepki.cli.values import INSTANT

    for option in (
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many; all by default."),
        click.option("--at", type=INSTANT, metavar="TIME", help="What `now` in a filter stands for; now by default."),
        click.option("--where", metavar="FILTER", help="Only those that a filter asks for (guide: Ask the inventory)."),
    ):
        function = option(function)
    return function


def chosen_rows(
    state: GlobalState,
    kind: str,
    rows: Iterable[dict[str, Any]],
    *,
    where: str | None,
    at: datetime | None,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    """Return the first *limit* rows that a filter asks for.

    Args:
        kind: of `ListedKind`: which fields there are.

    Raises:
        FilterError: it cannot be read; nothing was listed then.
    """
    if where is None:
        return islice(rows, limit)
    from chargepki.cli.filtering import pointing_parse
    from chargepki.pki.inventory.row_fields import ROW_FIELDS, ListedKind, keep_rows

    asked = pointing_parse(state, where, now=at or datetime.now(UTC), fields=ROW_FIELDS[ListedKind(kind)])
    return islice(keep_rows(rows, asked), limit)
