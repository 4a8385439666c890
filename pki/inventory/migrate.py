"""Run the packaged migrations; safe when several processes open a new inventory at once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.backfill import fill_ahead
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.faults import translate
from chargepki.pki.inventory.schema import NEWEST, VERSIONS

__all__ = ["alembic_config", "make_engine", "migrate", "migrate_to"]

# Any number does, as long as every chargepki uses the same: it names the advisory lock on PostgreSQL.
_LOCK = 0x6368_6172_6765
_FILLED = "0017"
"""The version in which every certificate has its traits."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for the packaged migrations, without an ini file."""
    config = Config()
    # A percent sign in the path would be an interpolation to Alembic's configuration parser.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def make_engine(database: Database) -> Engine:
    """Return an SQLAlchemy engine over our own connections, whose transactions lock out other writers at once."""

    def connect() -> Any:
        connection = database.connect_raw()
        if database.dialect is Dialect.POSTGRESQL:
            connection.autocommit = False
        return connection

    url = "sqlite://" if database.dialect is Dialect.SQLITE else "postgresql+psycopg://"
    engine = create_engine(url, creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _lock(connection: Connection) -> None:
        if database.dialect is Dialect.SQLITE:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    return engine


def migrate(database: Database) -> None:
    """Bring the database to the newest version in one transaction; what takes long at size is done before it.

    Raises:
        UnavailableError: it is locked, full, read-only or cannot be reached.
    """
    engine = make_engine(database)
    try:
        with engine.connect() as connection, connection.begin():
            is_behind = _version(connection, database.dialect) in VERSIONS[: VERSIONS.index(_FILLED)]
        is_large = is_behind and fill_ahead(engine)
        with engine.connect() as connection, connection.begin():
            # Somebody else may have done it while this process waited for the lock.
            if _version(connection, database.dialect) != NEWEST:
                command.upgrade(alembic_config(connection), NEWEST)
        if is_large and database.dialect is Dialect.POSTGRESQL:
            # Until then each count would look at every row: autovacuum, if it is on, may take its time.
            with contextlib.closing(database.connect_raw()) as raw:
                raw.execute("VACUUM ANALYZE certificate")
    except (DBAPIError, database.errors) as exc:
        raise translate(getattr(exc, "orig", None) or exc, database.address) from exc
    finally:
        engine.dispose()


def migrate_to(database: Database, version: str) -> None:
    """Bring an empty database to *version*, an older one as a rule: for rows that were written under it.

    Raises:
        UnavailableError: it is locked, full, read-only or cannot be reached.
    """
    engine = make_engine(database)
    try:
        with engine.connect() as connection, connection.begin():
            command.upgrade(alembic_config(connection), version)
    except DBAPIError as exc:
        raise translate(exc.orig or exc, database.address) from exc
    finally:
        engine.dispose()


def _version(connection: Connection, dialect: Dialect) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    assert version is None or version in VERSIONS, dialect
    return version
