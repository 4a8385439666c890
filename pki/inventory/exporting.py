"""Read certificates for an export: all that a filter asks for, from one state of the inventory, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.inventory.store import Inventory

__all__ = ["Cell", "exported_columns", "stream_certificates", "stream_csv"]

Cell = str | int | bytes | None
"""Times are RFC 3339 text in UTC, to the second."""


def exported_columns(*, provenance: bool = False) -> tuple[str, ...]:
    """Return the names of what `stream_certificates` yields, in its order; DER and verdict have none."""
    from chargepki.pki.inventory.filter_sql import EXPORTED, PROVENANCE

    return (*EXPORTED, *PROVENANCE) if provenance else EXPORTED


def stream_certificates(
    inventory: Inventory,
    wanted: Filter,
    *,
    provenance: bool = False,
    with_verdict: bool = False,
    with_der: bool = False,
) -> Iterator[tuple[Cell, ...]]:
    """Yield the values of each certificate that a filter asks for, by id, as one committed state has them.

    Args:
        provenance: with the first of the places where imports found it, by name.
        with_verdict: the verdict with which it was issued follows, JSON of `CertificateRecord.verdict`.
        with_der: the certificate (DER) follows as the last value; ``None`` where none was signed.
    """
    from chargepki.pki.inventory.filter_sql import export_statement

    sql, parameters = export_statement(
        wanted, inventory.dialect, provenance=provenance, also=["verdict"] * with_verdict + ["der"] * with_der
    )
    with inventory.snapshot() as session:
        for row in session.stream(sql, parameters):
            yield tuple(row)


def stream_csv(inventory: Inventory, wanted: Filter, *, provenance: bool = False) -> Iterator[str]:
    """Yield the same values as a line of comma-separated ones (RFC 4180), each in quotes, without the end of the line.

    No column holds U+0000, which ends a text of SQLite here; PostgreSQL takes none.
    """
    from chargepki.pki.inventory.filter_sql import csv_statement

    sql, parameters = csv_statement(wanted, inventory.dialect, provenance=provenance)
    with inventory.snapshot() as session:
        for row in session.stream(sql, parameters):
            yield row[0]
