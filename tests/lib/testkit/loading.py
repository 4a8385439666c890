"""Put very many certificates into an SQLite inventory fast: their indexes are made at the end.

Durability is given up meanwhile, which is why nothing of this is part of the product.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.engine import Database, Session

__all__ = ["loading"]

_CACHE_KIB = 1 << 20


@contextlib.contextmanager
def loading(url: str) -> Iterator[Session]:
    """Lend a connection to an SQLite database that takes very many certificates: their indexes are made at the end."""
    database = Database(DatabaseAddress.parse(url))
    with database.session() as session:
        for setting in (f"cache_size = -{_CACHE_KIB}", "synchronous = OFF", "wal_autocheckpoint = 100000"):
            session.execute(f"PRAGMA {setting}")
        indexes = [
            (str(name), str(text))
            for name, text in session.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'certificate' AND sql NOT NULL"
            )
        ]
        for name, _ in indexes:
            session.execute(f'DROP INDEX "{name}"')
        yield session
        for _, text in indexes:
            session.execute(text)
        session.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
