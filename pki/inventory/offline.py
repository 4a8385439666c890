"""Make an SQLite inventory one whole file that nobody has open, so that it can be moved."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from chargepki.pki.errors import StateError

__all__ = ["take_offline"]


def take_offline(path: Path) -> None:
    """Write everything into the file *path* itself; a damaged one, which no process can use, is left as it is.

    Raises:
        StateError: a process has it open.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1)) as found:
            # Leaving WAL mode is the one thing that even an idle connection of another process prevents.
            mode = found.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except sqlite3.OperationalError as exc:
        if "locked" not in str(exc):
            return
        mode = "wal"
    except sqlite3.DatabaseError:
        return
    if mode == "wal":
        raise StateError(
            f"another process has the inventory {path} open",
            why="it would go on writing to what is set aside",
            fix="stop the services that use the workspace, then repeat",
        )
