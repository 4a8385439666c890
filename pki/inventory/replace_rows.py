"""Put the rows of an SQLite inventory into a PostgreSQL database, in one transaction: all of it is there, or none."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

from alembic import command
from sqlalchemy import Boolean, Connection
from sqlalchemy.exc import DBAPIError

from chargepki.pki.errors import StateError
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.faults import translate
from chargepki.pki.inventory.migrate import alembic_config, make_engine
from chargepki.pki.inventory.schema import NEWEST
from chargepki.pki.inventory.statements import TABLES

__all__ = ["put_rows"]

_PAGE: Final = 500
_FOREIGN_KEYS: Final = """
SELECT conrelid::regclass::text, conname FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND connamespace = current_schema()::regnamespace
"""


def put_rows(source: Path, database: Database, *, set_aside: str | None) -> None:
    """Fill a PostgreSQL database with the rows of the SQLite file *source*, which has the newest schema.

    Args:
        set_aside: schema that takes the tables that are there now, whole; ``None`` refuses if one has a row.

    Raises:
        StateError: there are rows, and *set_aside* is ``None``.
        UnavailableError: the server went away, or the account may not; nothing has changed.
    """
    assert database.dialect is Dialect.POSTGRESQL, "an SQLite inventory is a file, to be moved"
    engine = make_engine(database)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as rows,
            engine.connect() as connection,
            connection.begin(),
        ):
            _clear(connection, set_aside)
            command.upgrade(alembic_config(connection), NEWEST)
            _copy(rows, connection)
            connection.exec_driver_sql("NOTIFY chargepki_inventory")
    except DBAPIError as exc:
        raise translate(exc.orig or exc, database.address) from exc
    except database.errors as exc:
        raise translate(exc, database.address) from exc
    finally:
        engine.dispose()


def _clear(connection: Connection, set_aside: str | None) -> None:
    found = connection.exec_driver_sql("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")
    ours = [str(row[0]) for row in found if row[0] in TABLES or row[0] == "alembic_version"]
    filled = [
        name
        for name in ours
        if name != "alembic_version" and connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1").first()  # noqa: S608  # our own names
    ]
    if not filled:
        # What is there may be of an older version; without rows nothing of it is worth keeping.
        for name in ours:
            connection.exec_driver_sql(f"DROP TABLE {name} CASCADE")
        return
    if set_aside is None:
        raise StateError(
            "the database holds an inventory already",
            why=f"there are rows in {', '.join(filled[:3])}{', …' if len(filled) > 3 else ''}",
            fix="restore into an empty database, or pass --replace to set its tables aside",
        )
    connection.exec_driver_sql(f"CREATE SCHEMA {set_aside}")
    for name in ours:
        connection.exec_driver_sql(f"ALTER TABLE {name} SET SCHEMA {set_aside}")


def _copy(rows: sqlite3.Connection, connection: Connection) -> None:
    # Tables refer to each other and to themselves: the references are checked when all rows are there.
    keys = [(str(table), str(name)) for table, name in connection.exec_driver_sql(_FOREIGN_KEYS)]
    for owner, name in keys:
        connection.exec_driver_sql(f"ALTER TABLE {owner} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED")
    driver: Any = connection.connection.driver_connection
    for table_name, table in TABLES.items():
        columns = [column.name for column in table.columns]
        truths = [at for at, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
        names = ", ".join(columns)
        with driver.cursor().copy(f"COPY {table_name} ({names}) FROM STDIN") as sink:
            found = rows.execute(f"SELECT {names} FROM {table_name}")  # noqa: S608  # our own names
            while page := found.fetchmany(_PAGE):
                for row in page:
                    values = list(row)
                    for at in truths:
                        values[at] = None if values[at] is None else bool(values[at])
                    sink.write_row(values)
    connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
    for owner, name in keys:
        connection.exec_driver_sql(f"ALTER TABLE {owner} ALTER CONSTRAINT {name} NOT DEFERRABLE")
