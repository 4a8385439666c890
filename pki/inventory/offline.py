"""Make sure that nobody has an inventory open, so that it can be replaced; an SQLite one is one whole file then."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chargepki.pki.errors import StateError, printable
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.engine import Database

__all__ = ["take_offline"]

_WHY: Final = "it would go on with what it remembers, and write to what is set aside"
_FIX: Final = "stop what uses it (chargepki serve, authority serve, csms serve; on every machine), then repeat"
_MOST: Final = 5
"""Of the processes that are named."""
_PATIENCE: Final = 1.0
"""Seconds."""
_OTHERS: Final = """
SELECT pid, application_name, client_addr::text, backend_start::text FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'chargepki%' ORDER BY pid
"""


def take_offline(address: DatabaseAddress) -> None:
    """Refuse while another process is connected, and write an SQLite inventory into its file alone.

    A damaged file, which no process can use, is left as it is.

    Raises:
        StateError: a process has it open; the ones that could be found are named.
        UnavailableError: the server cannot be reached.
    """
    if address.path is None:
        _refuse_connections(address)
    elif address.path.exists() and not _leaves_wal(address.path):
        raise _in_use(address, [*_holders(address.path)])


def _leaves_wal(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1)) as found:
            # Leaving WAL mode is the one thing that even an idle connection of another process prevents.
            return bool(found.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "wal")
    except sqlite3.OperationalError as exc:
        return "locked" not in str(exc)
    except sqlite3.DatabaseError:
        return True


def _refuse_connections(address: DatabaseAddress) -> None:
    """Refuse while a process of ours is connected; other clients (a monitor, a backup) hold nothing of it in memory."""
    database = Database(address)
    deadline = time.monotonic() + _PATIENCE
    try:
        with database.session() as session:
            # The server takes a moment to notice that a connection was closed.
            while (rows := session.execute(_OTHERS)) and time.monotonic() < deadline:
                time.sleep(0.02)
    finally:
        database.close()
    if rows:
        found = (f"{name} from {host or 'this machine'} since {since[:19]}" for _, name, host, since in rows)
        raise _in_use(address, [*dict.fromkeys(found)])


def _in_use(address: DatabaseAddress, holders: list[str]) -> StateError:
    more = f", and {len(holders) - _MOST} more" if len(holders) > _MOST else ""
    named = f": {printable(', '.join(holders[:_MOST]))}{more}" if holders else ""
    return StateError(f"another process has the inventory {address.shown} open{named}", why=_WHY, fix=_FIX)


def _holders(path: Path) -> Iterator[str]:
    """Yield who has *path* open, where the system tells (Linux), of the processes that this user may look at."""
    wanted = path.stat()
    for process in sorted(Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            opened = (each.stat() for each in (process / "fd").iterdir())
            if any((each.st_dev, each.st_ino) == (wanted.st_dev, wanted.st_ino) for each in opened):
                yield f"process {process.name} ({_words((process / 'cmdline').read_bytes())})"


def _words(command: bytes) -> str:
    """Return what a command line runs, without its options.

    >>> _words(b"/usr/bin/python3\\0/opt/bin/chargepki\\0--json\\0csms\\0serve\\0--listen\\0127.0.0.1:9000\\0")
    'chargepki csms serve'
    """
    parts = [part.decode("utf-8", "replace") for part in command.split(b"\0") if part]
    names = [Path(part).name for part in parts]
    if "chargepki" not in names:
        return names[0] if names else "no name"
    after = parts[names.index("chargepki") + 1 :]
    return " ".join(["chargepki", *[part for part in after if part.isalpha() and part.islower()][:2]])
