"""Read the certificate database of cfssl (SQLite): it was made by others, and may be hostile."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chargepki.pki.errors import InputError, NotFound, UnavailableError
from chargepki.pki.inventory.import_records import ForeignRevocation

__all__ = ["CfsslRow", "is_sqlite", "read_cfssl"]

_MAGIC: Final = b"SQLite format 3\0"
_SECONDS: Final = 600.0
_STEPS: Final = 100_000
_MAX_PEM: Final = 1 << 20
_MAX_VALUE: Final = 64 << 20
_REASONS: Final = {
    0: "unspecified",
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    6: "certificateHold",
    9: "privilegeWithdrawn",
    10: "aACompromise",
}


@dataclass(frozen=True, slots=True)
class CfsslRow:
    """One row of the table ``certificates``."""

    serial: str
    """As cfssl writes it: a decimal number."""
    pem: bytes
    revocation: ForeignRevocation | None
    """Without the serial number and digest, which are the certificate's."""


def is_sqlite(head: bytes) -> bool:
    """Whether a file begins like an SQLite database."""
    return head.startswith(_MAGIC)


def read_cfssl(source: Path | bytes) -> Iterator[CfsslRow]:
    """Yield the rows of the database in a file, or in memory. Nothing is written to it.

    Raises:
        NotFound: it has no table of certificates.
        InputError: it is damaged, or none of cfssl.
        UnavailableError: it cannot be opened.
    """
    try:
        with closing(_open(source)) as connection:
            yield from _rows(connection)
    except sqlite3.OperationalError as error:
        raise UnavailableError("the SQLite database cannot be read", why=str(error)[:200]) from error
    except (sqlite3.Error, OverflowError, ValueError) as error:
        raise InputError("the SQLite database cannot be read", why=str(error)[:200]) from error


def _open(source: Path | bytes) -> sqlite3.Connection:
    if isinstance(source, bytes):
        connection = sqlite3.connect(":memory:")
        connection.deserialize(source)
    else:
        connection = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    deadline = time.monotonic() + _SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.text_factory = bytes
    return connection


def _rows(connection: sqlite3.Connection) -> Iterator[CfsslRow]:
    # A table, not a view, which could ask for anything.
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'certificates'").fetchone():
        raise NotFound("the SQLite database has no table of certificates", why="that is how cfssl keeps them")
    columns = {
        bytes(row[1]).decode("utf-8", "replace") for row in connection.execute("PRAGMA table_info(certificates)")
    }
    if not {"serial_number", "status", "reason", "revoked_at", "pem"} <= columns:
        raise InputError("the table of certificates is none of cfssl", why=f"it has {', '.join(sorted(columns))[:200]}")
    for serial, status, reason, revoked_at, pem in connection.execute(
        "SELECT serial_number, status, reason, revoked_at, pem FROM certificates ORDER BY rowid"
    ):
        text = bytes(serial).decode("ascii", "replace") if isinstance(serial, bytes) else str(serial)
        content = pem if isinstance(pem, bytes) and len(pem) <= _MAX_PEM else b""
        revocation = None
        if status == b"revoked":
            named = _REASONS.get(reason if isinstance(reason, int) else 0, "unspecified")
            revocation = ForeignRevocation("", _time(revoked_at), named)
        yield CfsslRow(text[:100], content, revocation)


def _time(value: object) -> datetime:
    """Return an instant as the driver of cfssl writes it: ``2026-03-01 12:00:00.5+00:00``, or seconds."""
    if isinstance(value, int):
        return datetime.fromtimestamp(value, UTC)
    text = bytes(value).decode("ascii", "replace") if isinstance(value, bytes) else ""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
