"""Which version the database has, without loading Alembic; migrate only when it is behind."""

from __future__ import annotations

from typing import Final

from chargepki.pki.errors import StateError, UnavailableError
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.engine import Database, Session

__all__ = ["NEWEST", "VERSIONS", "ensure_schema", "list_tables"]

VERSIONS: Final = tuple(f"{number:04d}" for number in range(1, 22))
"""Every version there has been, oldest first; a test compares it with the migrations."""
NEWEST: Final = VERSIONS[-1]

_TABLES: Final = {
    Dialect.SQLITE: "SELECT name FROM sqlite_master WHERE type = 'table'",
    Dialect.POSTGRESQL: "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()",
}


def ensure_schema(database: Database, *, create: bool) -> None:
    """Bring the database to the newest version, or refuse it.

    Raises:
        StateError: it is newer than this program, or somebody else's; or it is behind and *create* is false.
        UnavailableError: there is none and *create* is false, or it cannot be used.
    """
    if not database.exists():
        if not create:
            raise _absent(database)
        database.create_file()
    with database.session() as session:
        version = read_version(session, database)
    if version == NEWEST:
        return
    if not create:
        if version is None:
            raise _absent(database)
        raise StateError(
            f"the inventory {database.address.shown} has the older schema {version}",
            fix="any command that writes brings it up to date; make a backup first",
        )
    from chargepki.pki.inventory.migrate import migrate

    migrate(database)


def list_tables(session: Session, dialect: Dialect) -> set[str]:
    """Return the names of the tables that are there."""
    return {str(row[0]) for row in session.execute(_TABLES[dialect])}


def read_version(session: Session, database: Database) -> str | None:
    """Return the version that the database says it has, or ``None`` if it is empty.

    Raises:
        StateError: it is newer than this program, or holds tables that are not ours.
    """
    tables = list_tables(session, database.dialect)
    if "alembic_version" not in tables:
        if tables and database.dialect is Dialect.SQLITE:
            raise StateError(
                f"{database.address.shown} holds tables that are not an inventory's",
                fix="give the inventory a file of its own",
            )
        return None
    rows = session.execute("SELECT version_num FROM alembic_version")
    version = str(rows[0][0]) if rows else None
    if version is not None and version not in VERSIONS:
        raise StateError(
            f"the inventory {database.address.shown} has the schema {version}, which this program does not know",
            why=f"a newer chargepki has written it; this one knows up to {NEWEST}",
            fix="use the newer chargepki",
        )
    return version


def _absent(database: Database) -> UnavailableError:
    return UnavailableError(
        f"there is no inventory at {database.address.shown}",
        fix="create a CA first (chargepki ca create), or name the right --database or --home",
    )
