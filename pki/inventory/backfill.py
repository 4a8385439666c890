"""Derive the traits of certificates that an older release has stored, some at a time.

The migration itself is one transaction. Of a large inventory most is done before it, in many short ones: whoever stops
it loses nothing, and a log of changes never holds the whole table.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from chargepki.pki.inventory.traits import derive_traits, stored_traits

__all__ = ["add_traits", "fill_ahead", "fill_traits"]

_BATCH: Final = 5000
_MANY: Final = 50_000
"""From so many certificates on most is done ahead."""
# Rows come as they lie there, which the ids of certificates, being random, do not.
_KEY: Final = {"sqlite": "rowid", "postgresql": "id"}
_WRITE: Final = {
    "sqlite": "UPDATE certificate SET traits = :traits WHERE rowid = :key",
    "postgresql": "UPDATE certificate SET traits = found.traits"
    " FROM unnest(CAST(:keys AS text[]), CAST(:all AS text[])) AS found (id, traits) WHERE certificate.id = found.id",
}
_COLUMNS: Final = {
    "sqlite": "SELECT count(*) FROM pragma_table_info('certificate') WHERE name = 'traits'",
    "postgresql": "SELECT count(*) FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = 'certificate' AND column_name = 'traits'",
}


def add_traits(connection: Connection) -> None:
    """Add the column unless it is there: releases that know nothing of it leave it empty."""
    dialect = connection.dialect.name
    if not connection.exec_driver_sql(_COLUMNS[dialect]).scalar():
        kind = 'TEXT COLLATE "C"' if dialect == "postgresql" else "TEXT"
        connection.exec_driver_sql(f"ALTER TABLE certificate ADD COLUMN traits {kind}")


def fill_traits(connection: Connection, *, after: str | int | None = None, size: int = _BATCH) -> str | int | None:
    """Derive the traits of the next *size* certificates that have none; return where to go on, or ``None`` at the end.

    Args:
        after: what the last call returned.
    """
    dialect = connection.dialect.name
    key = _KEY[dialect]
    wanted = f"traits IS NULL AND {key} > :after" if after is not None else "traits IS NULL"
    rows = connection.execute(
        text(
            f"SELECT {key}, subject, CASE WHEN der IS NULL THEN tbs END, der FROM certificate"  # noqa: S608  # our own names
            f" WHERE {wanted} ORDER BY {key} LIMIT :size"
        ),
        {"size": size} | ({} if after is None else {"after": after}),
    ).all()
    found = [(row[0], stored_traits(derive_traits(row[1], row[2], row[3]))) for row in rows]
    if found:
        _write(connection, found)
    return found[-1][0] if len(found) == size else None


def _write(connection: Connection, found: list[tuple[Any, str | None]]) -> None:
    statement = text(_WRITE[connection.dialect.name])
    if connection.dialect.name == "sqlite":
        connection.execute(statement, [{"key": key, "traits": traits} for key, traits in found])
    else:
        connection.execute(statement, {"keys": [each[0] for each in found], "all": [each[1] for each in found]})


def fill_ahead(engine: Engine) -> bool:
    """Fill most of a large inventory before it is migrated, each batch durable; return whether it was large."""
    with engine.connect() as connection:
        with connection.begin():
            if not connection.dialect.has_table(connection, "certificate"):
                return False
            many = connection.exec_driver_sql(
                f"SELECT count(*) FROM (SELECT 1 FROM certificate LIMIT {_MANY}) AS found"  # noqa: S608  # a constant
            ).scalar()
            if many != _MANY:
                return False
            add_traits(connection)
        after: str | int | None = None
        while True:
            with connection.begin():
                after = fill_traits(connection, after=after)
            if after is None:
                return True
