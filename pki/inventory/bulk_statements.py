"""The statements of many certificates at once: questions about many keys, which come as a JSON array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, Text, bindparam, cast, func, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.base import Executable

from chargepki.pki.inventory.bulk_records import RESERVED
from chargepki.pki.inventory.traits import COLUMN

__all__ = ["bulk_statements"]


def bulk_statements(
    tables: Mapping[str, Table], record: Callable[[str], Select[tuple[object, ...]]], dialect: str
) -> dict[str, Executable]:
    """Return the statements by name; *record* selects the columns of a record in their order."""
    certificate, station, form = tables["certificate"], tables["station"], tables["verdict_form"]
    if dialect == "postgresql":
        each = func.jsonb_array_elements_text(cast(bindparam("wanted"), JSONB)).table_valued("value")
    else:
        each = func.json_each(bindparam("wanted")).table_valued("value")
    wanted = select(cast(each.c.value, Text()))
    make: Callable[[Table], Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
    reserved: dict[str, Any] = {name: bindparam(name) for name in (*RESERVED, COLUMN)}
    alive = certificate.c.state != literal_column("'voided'")
    return {
        "certificate_keys_taken": select(certificate.c.spki_sha256)
        .where(certificate.c.spki_sha256.in_(wanted), alive)
        .distinct(),
        "certificate_requests_taken": select(certificate.c.request_key)
        .where(certificate.c.request_key.in_(wanted), alive)
        .distinct(),
        "verdict_forms": record("verdict_form").where(form.c.id.in_(wanted)),
        "certificate_reserve": make(certificate).values(reserved).on_conflict_do_nothing(index_elements=["id"]),
        "stations_of_serial_numbers": record("station").where(
            station.c.serial_number.in_(wanted), station.c.state == literal_column("'active'")
        ),
        # What else may have been written to a reservation is demanded unchanged here, so that the row after is known
        # without reading it back.
        "certificate_issue_unchanged": update(certificate)
        .where(
            certificate.c.id == bindparam("id"),
            certificate.c.state == literal_column("'reserved'"),
            certificate.c.der.is_(None),
            certificate.c.sha256.is_(None),
            certificate.c.issued_at.is_(None),
            certificate.c.delivery.is_(None),
            func.coalesce(certificate.c.station, literal_column("''")) == bindparam("station"),
            certificate.c.verdict == bindparam("verdict"),
            certificate.c.tbs == bindparam("tbs"),
        )
        .values(
            {
                "state": literal_column("'issued'"),
                "der": bindparam("der"),
                "sha256": bindparam("sha256"),
                "issued_at": bindparam("issued_at"),
            }
        ),
    }
