"""Read certificates for an export: all that a filter asks for, from one state of the inventory, in constant memory.

The database writes each certificate as JSON: to fetch two dozen values of a row, and to join them here, takes longer
than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chargepki.pki.inventory.verdict_reads import SessionForms

if TYPE_CHECKING:
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.inventory.store import Inventory

__all__ = ["ExportRow", "exported_columns", "stream_arrays", "stream_certificates", "stream_ders"]

ExportRow = tuple[str | bytes | None, ...]
"""The text of a JSON object, and what else was asked for."""


def exported_columns(*, provenance: bool = False) -> tuple[str, ...]:
    """Return the names of what an export tells of a certificate, in its order."""
    from chargepki.pki.inventory.filter_sql import EXPORTED, PROVENANCE

    return (*EXPORTED, *PROVENANCE) if provenance else EXPORTED


def stream_certificates(
    inventory: Inventory,
    wanted: Filter,
    *,
    provenance: bool = False,
    with_verdict: bool = False,
    with_der: bool = False,
) -> Iterator[list[ExportRow]]:
    """Yield the certificates that a filter asks for in batches, by id, as one committed state has them.

    Each comes as the text of a JSON object, on one line: the members are `exported_columns`, times are RFC 3339 text in
    UTC, to the second.

    Args:
        provenance: with the first of the places where imports found it, by name.
        with_verdict: the verdict with which it was issued follows, JSON of `CertificateRecord.verdict`.
        with_der: the certificate (DER) follows as the last value; ``None`` where none was signed.
    """
    from chargepki.pki.inventory.filter_sql import json_statement

    sql, parameters = json_statement(
        wanted, inventory.dialect, provenance=provenance, also=["verdict"] * with_verdict + ["der"] * with_der
    )
    with inventory.snapshot() as session:
        forms = SessionForms(session)
        for rows in session.pages(sql, parameters):
            if with_verdict:
                yield [(row[0], forms.whole(row[1]), *row[2:]) for row in rows]
            else:
                yield list(map(tuple, rows))


def stream_arrays(inventory: Inventory, wanted: Filter, *, provenance: bool = False) -> Iterator[list[str]]:
    """Yield the same values, each certificate as the text of a JSON array of texts; a missing value is an empty one."""
    from chargepki.pki.inventory.filter_sql import array_statement

    sql, parameters = array_statement(wanted, inventory.dialect, provenance=provenance)
    with inventory.snapshot() as session:
        for rows in session.pages(sql, parameters):
            yield [row[0] for row in rows]


def stream_ders(inventory: Inventory, wanted: Filter) -> Iterator[bytes]:
    """Yield the certificates themselves (DER), of those that were signed."""
    from chargepki.pki.inventory.filter_sql import der_statement

    sql, parameters = der_statement(wanted, inventory.dialect)
    with inventory.snapshot() as session:
        for rows in session.pages(sql, parameters):
            yield from [bytes(row[0]) for row in rows]
