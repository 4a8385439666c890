"""What is dear and comes out the same in nearly every test: the migrations of a new inventory, and costly key files.

Migrating an empty database takes 150 ms of CPU and opening a key file 60 ms, some thousand times in a run. So a test
process migrates one database as shipped and copies it from then on, and new key files ask for little work. A test that
is about either of them is marked ``as_shipped``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from chargepki.pki import keys
from chargepki.pki.inventory import migrate
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.engine import Database

__all__ = ["as_shipped", "be_quick", "cheapen_new_keys", "prepare_migrated_file"]

_AS_SHIPPED = migrate.migrate
_COST = keys.MIN_SCRYPT_N
_CHEAP = 2**8


@functools.cache
def _migrated_file() -> Path:
    """Return a file that was migrated as shipped, for this process to copy."""
    folder = Path(tempfile.mkdtemp(prefix="schema-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = Database(DatabaseAddress.parse(f"sqlite:///{folder}/inventory.db"))
    database.create_file()
    _AS_SHIPPED(database)
    database.close()
    return folder / "inventory.db"


def _copy_or_migrate(database: Database) -> None:
    if database.dialect is not Dialect.SQLITE:
        _AS_SHIPPED(database)
        return
    with contextlib.closing(database.connect_raw()) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.execute("PRAGMA synchronous=OFF")
            with contextlib.closing(sqlite3.connect(_migrated_file())) as template:
                template.backup(connection)
            return
    _AS_SHIPPED(database)


def prepare_migrated_file() -> None:
    """Migrate the file now, so that the forks of this process need not each do it."""
    _migrated_file()


def cheapen_new_keys(cost: int = _CHEAP) -> None:
    """Let new key files cost their reader a millisecond, in this process."""
    keys.MIN_SCRYPT_N = cost  # type: ignore[misc]  # a constant, but for tests
    keys.encrypt_private_key.__defaults__ = (cost,)


def _set(migrations: Callable[[Database], None], cost: int) -> None:
    migrate.migrate = migrations  # type: ignore[assignment]  # a function, which mypy takes for a constant
    cheapen_new_keys(cost)


def be_quick() -> None:
    """Copy migrated databases and write cheap key files from now on, in this process."""
    _set(_copy_or_migrate, _CHEAP)


@contextlib.contextmanager
def as_shipped() -> Iterator[None]:
    """Migrate and write key files as an installation does, while this lasts."""
    _set(_AS_SHIPPED, _COST)
    try:
        yield
    finally:
        be_quick()
