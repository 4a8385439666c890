"""Put very many rows into a database fast: indexes are made at the end, and a second database is copied from a first.

Durability is given up meanwhile, which is why nothing of this is part of the product.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.harness import tell
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.audit import AuditKey

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

from testkit.databases import create_database, libpq, server_uri
from testkit.loading import loading

__all__ = ["copy_to_postgresql", "loading", "postgresql_url"]


_MOST_IN_MEMORY = 200_000


def postgresql_url(name: str, certificates: int = 0) -> str:
    """Start a PostgreSQL server for this process, and return the URL of a new, empty database of it.

    Its files lie on disk (``TMPDIR``) where they will hold very many certificates: gigabytes.
    """
    return create_database(server_uri(on_disk=certificates > _MOST_IN_MEMORY), name, "template0")


def copy_to_postgresql(source: Path, url: str, log_key: AuditKey) -> Inventory:
    """Copy all rows of an inventory in an SQLite file to the empty database at *url*, and return it opened."""
    tell("copying to PostgreSQL")
    inventory = Inventory.open(url, log_key=log_key)
    if inventory.dialect is not Dialect.POSTGRESQL:
        raise AssertionError(url)
    with contextlib.closing(sqlite3.connect(source)) as rows, psycopg.connect(libpq(url), autocommit=True) as target:
        tables = [str(name) for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with target.transaction():
            # The order of the tables does not matter then, nor do triggers.
            target.execute("SET LOCAL session_replication_role = replica")
            made = target.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'certificate'"
                " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
            ).fetchall()
            for name, _ in made:
                target.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            for table in tables:
                if not table.startswith("sqlite_"):
                    _copy_table(rows, target, table)
            for _, definition in made:
                target.execute(definition.encode())
        # As autovacuum would within a minute.
        target.execute("VACUUM ANALYZE")
    return inventory


def _copy_table(rows: sqlite3.Connection, target: psycopg.Connection, table: str) -> None:
    cursor = rows.execute(f'SELECT * FROM "{table}"')  # a name out of the database's own catalogue
    columns = sql.SQL(", ").join(sql.Identifier(column[0]) for column in cursor.description)
    named = sql.Identifier(table)
    target.execute(sql.SQL("DELETE FROM {}").format(named))
    with target.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(named, columns)) as copy:
        for row in cursor:
            copy.write_row(row)
