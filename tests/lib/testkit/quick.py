"""What is dear and comes out the same in nearly every test: migrations of a new inventory, key files, password hashes.

Migrating an empty database takes 150 ms of CPU, opening a key file 60 ms, and hashing a password 20 ms, each some
thousand times in a run. So a test process migrates one database as shipped and copies it from then on, and new key
files and password hashes ask for little work. A test that is about one of them is marked ``as_shipped``.
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

from argon2 import PasswordHasher
from argon2.low_level import Type

from chargepki.ocpp_security import passwords
from chargepki.pki import private_keys
from chargepki.pki.inventory import migrate
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.engine import Database
from chargepki.pki.services import accounts

__all__ = ["as_shipped", "be_quick", "cheapen_secrets", "prepare_migrated_file"]

_AS_SHIPPED = migrate.migrate
_COST = private_keys.MIN_SCRYPT_N
_CHEAP = 2**8
_STATIONS, _ACCOUNTS = passwords._HASHER, accounts._HASHER
_CHEAP_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)


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


def cheapen_secrets() -> None:
    """Let new key files cost their reader a millisecond, and new hashes of passwords less, in this process."""
    _set_costs(_CHEAP, _CHEAP_HASHER, _CHEAP_HASHER)


def _set_costs(cost: int, of_stations: PasswordHasher, of_accounts: PasswordHasher) -> None:
    passwords._HASHER = of_stations
    accounts._HASHER = of_accounts  # type: ignore[misc]  # a constant, but for tests
    private_keys.MIN_SCRYPT_N = cost  # type: ignore[misc]  # a constant, but for tests
    private_keys.encrypt_private_key.__defaults__ = (cost,)


def _set_migrations(migrations: Callable[[Database], None]) -> None:
    migrate.migrate = migrations  # type: ignore[assignment]  # a function, which mypy takes for a constant


def be_quick() -> None:
    """Copy migrated databases, and write cheap key files and hashes from now on, in this process."""
    _set_migrations(_copy_or_migrate)
    cheapen_secrets()


@contextlib.contextmanager
def as_shipped() -> Iterator[None]:
    """Migrate, write key files and hash passwords as an installation does, while this lasts."""
    _set_migrations(_AS_SHIPPED)
    _set_costs(_COST, _STATIONS, _ACCOUNTS)
    try:
        yield
    finally:
        be_quick()
