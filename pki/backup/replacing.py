"""Put a restored workspace in its place, so that a crash at any instant leaves the old one or the new one.

Everything is prepared beside: files in ``.restore-…``, rows in an SQLite file. Then the journal ``restore.json`` is
written, durably: from that instant the new workspace is decided. What it lists is carried out in its order, each step
only if it is not done yet, so that whoever repeats it after a crash continues; meanwhile no other command opens the
workspace. What was there before is not deleted but set aside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

from chargepki.pki import files
from chargepki.pki.backup.making import JOURNAL
from chargepki.pki.errors import StateError, UnavailableError
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.dump import has_restoration
from chargepki.pki.inventory.engine import Database

__all__ = ["Journal", "carry_out", "clean", "read_journal", "write_journal"]

_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_MAX_JOURNAL: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Journal:
    """A restore that was decided. Paths are absolute."""

    restoration: str
    backup: str
    database: str
    """Where the rows go, without a password."""
    staging: str
    rows: str
    """The SQLite file with the new rows."""
    set_aside: str | None
    """Schema for the tables of a PostgreSQL inventory that is replaced."""
    aside: tuple[tuple[str, str], ...]
    """What is moved away first, and where to."""
    placed: tuple[tuple[str, str], ...]
    """What is moved into its place then, from where."""


def write_journal(home: Path, journal: Journal) -> None:
    """Decide for the new workspace: after this, `carry_out` only goes forward."""
    files.write_durable(home / JOURNAL, orjson.dumps({"schema": "chargepki/restore-journal", **asdict(journal)}))


def read_journal(home: Path) -> Journal | None:
    """Return the restore that was interrupted in *home*, if there is one.

    Raises:
        StateError: the journal is none of ours.
    """
    path = home / JOURNAL
    if not path.exists():
        return None
    try:
        found = orjson.loads(files.read_limited(path, _MAX_JOURNAL, "journal"))
        texts = {name: str(found[name]) for name in ("restoration", "backup", "database", "staging", "rows")}
        aside, placed = (tuple((str(a), str(b)) for a, b in found[name]) for name in ("aside", "placed"))
        return Journal(**texts, set_aside=found["set_aside"], aside=aside, placed=placed)
    except (ValueError, KeyError, TypeError) as exc:
        raise StateError(f"{path} is no journal of a restore", why=str(exc)[:200], fix="move it away") from exc


def carry_out(home: Path, journal: Journal, database: str) -> None:
    """Do what *journal* lists and is not done yet, then forget it.

    Args:
        database: URL of the inventory, with its password; the one that the journal names.

    Raises:
        StateError: *database* is another one.
        UnavailableError: a file cannot be moved, or the database cannot be reached; the same call continues.
    """
    address = DatabaseAddress.parse(database)
    if address.shown != journal.database:
        raise StateError(
            f"the interrupted restore is one into {journal.database}, not {address.shown}",
            fix="pass the same --database as then",
        )
    if address.dialect is Dialect.POSTGRESQL:
        _fill(journal, Database(address))
    folders = {Path(path).parent for pair in (*journal.aside, *journal.placed) for path in pair}
    _move(journal.aside)
    _flush(folders)
    _move(journal.placed)
    _flush(folders)
    files.remove_durable(home / JOURNAL)
    clean(Path(journal.staging), Path(journal.rows))


def clean(staging: Path, rows: Path) -> None:
    """Remove what a restore prepared; what cannot be removed stays, and harms nobody."""
    shutil.rmtree(staging, ignore_errors=True)
    for name in (rows, *(rows.with_name(rows.name + suffix) for suffix in _SIDE_FILES)):
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)


def _fill(journal: Journal, database: Database) -> None:
    from chargepki.pki.inventory.replace_rows import put_rows

    try:
        # After a lost connection nobody knows whether the transaction was committed; the rows themselves tell.
        if not has_restoration(database, journal.restoration):
            put_rows(Path(journal.rows), database, set_aside=journal.set_aside)
    finally:
        database.close()


def _move(pairs: Sequence[tuple[str, str]]) -> None:
    for source, target in pairs:
        try:
            # What is at its new place was moved before a crash; what now has its old name came after it.
            if Path(source).exists() and not Path(target).exists():
                Path(target).parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(source, target)  # noqa: PTH104 - one primitive for each step that a crash test interrupts
        except OSError as exc:
            raise UnavailableError(
                f"cannot move {source} to {target}",
                why=exc.strerror or type(exc).__name__,
                fix="once that is mended, complete it: chargepki restore --resume",
            ) from exc


def _flush(folders: set[Path]) -> None:
    for folder in sorted(folders):
        if folder.is_dir():
            files.flush_folder(folder)
