"""The statements of imports: questions about many keys at once, which come as a JSON array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, Text, bindparam, cast, column, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.base import Executable

__all__ = ["import_statements"]


def import_statements(
    tables: Mapping[str, Table], record: Callable[[str], Select[Any]], dialect: str
) -> dict[str, Executable]:
    """Return the statements by name; *record* selects the columns of a record in their order."""
    certificate, provenance = tables["certificate"], tables["provenance"]
    if dialect == "postgresql":
        each = func.jsonb_array_elements_text(cast(bindparam("wanted"), JSONB)).table_valued("value")
    else:
        each = func.json_each(bindparam("wanted")).table_valued("value")
    wanted = select(cast(each.c.value, Text()))
    short = (certificate.c.id, certificate.c.sha256, certificate.c.profile)
    return {
        "certificates_of_sha256": select(*short).where(certificate.c.sha256.in_(wanted)),
        "certificates_of_ids": select(certificate.c.id).where(certificate.c.id.in_(wanted)),
        "certificates_of_serials": record("certificate").where(
            certificate.c.serial.in_(wanted), certificate.c.profile == "foreign"
        ),
        "provenance_of_certificates": select(provenance.c.certificate, provenance.c.place).where(
            provenance.c.certificate.in_(wanted)
        ),
        "provenance_of": record("provenance")
        .where(provenance.c.certificate == bindparam("certificate"))
        .order_by(provenance.c.place),
        "certificates_imported": select(func.count()).where(certificate.c.profile == "foreign"),
        "import_runs": record("import_run").order_by(column("started_at"), column("id")),
    }
