"""Write a backup: one consistent state of the inventory, and the files of the workspace, encrypted as they are read."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson

from chargepki.pki import files
from chargepki.pki.backup.age import Recipients, encrypt
from chargepki.pki.backup.archive import ArchiveWriter, check_name
from chargepki.pki.config import Settings
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.audit_chain import LogHead
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.dump import dump_parts
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.schema import NEWEST
from chargepki.pki.signer import KEYS_LOCK

__all__ = ["HEADER", "JOURNAL", "Backup", "make_backup"]

HEADER: Final = "backup.json"
JOURNAL: Final = "restore.json"
"""A restore that has begun to replace; see `replacing`."""
_CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was written."""

    id: str
    made_at: datetime
    head: LogHead
    """Where the audit log stood; its last entry tells of this backup."""
    recipients: tuple[str, ...]
    files: int
    rows: int
    left_out: tuple[tuple[str, str], ...]
    """Files of the workspace that are not in it, each with the reason."""


def make_backup(
    inventory: Inventory,
    settings: Settings,
    recipients: Recipients,
    write: Callable[[bytes], object],
    *,
    actor: Actor,
    now: datetime,
) -> Backup:
    """Back up *inventory* and the workspace's folder while others go on writing; memory does not grow with either.

    That it was made is the last entry of the log in it. Not in it: keys in tokens, the configured passphrase file and
    PIN file, sockets and links.

    Args:
        write: takes the encrypted file piece by piece.

    Raises:
        UnavailableError: the inventory or a file cannot be read, or *write* has no space.
        StateError: the audit log is not what this process may continue.
    """
    backup_id = secrets.token_hex(16)
    details = {"recipients": list(recipients.names)}
    inventory.write(lambda tx: tx.audit(actor, "workspace.backup", backup_id, now=now, details=details))
    run = _Run(inventory, settings, backup_id, actor, now)
    # Key files that are read while the passphrase is changed would be under two passphrases.
    with files.locked(settings.home / KEYS_LOCK, mode=0o600):
        encrypt(run.archive(), write, recipients)
    assert run.head is not None, "the archive was written to its end"
    return Backup(backup_id, now, run.head, recipients.names, run.files, run.rows, tuple(run.left_out))


class _Run:
    def __init__(self, inventory: Inventory, settings: Settings, backup_id: str, actor: Actor, now: datetime) -> None:
        self._inventory = inventory
        self._settings = settings
        self._id = backup_id
        self._actor = actor
        self._now = now
        self.head: LogHead | None = None
        self.files = self.rows = 0
        self.left_out: list[tuple[str, str]] = []

    def archive(self) -> Iterator[bytes]:
        """Yield the archive: rows first, so that every key that a row names is among the files read after it."""
        writer = ArchiveWriter(int(self._now.timestamp()))
        with self._inventory.snapshot() as session:
            self.head = LogHead.from_row(session.run("head", {})[0])
            header = orjson.dumps(self._header(self.head), option=orjson.OPT_INDENT_2)
            yield from writer.member(HEADER, len(header), [header])
            counts: dict[str, int] = {}
            for table, text in dump_parts(session):
                number = counts[table] = counts.get(table, 0) + 1
                self.rows += text.count(b"\n") - 1
                yield from writer.member(f"inventory/{table}-{number:06}.jsonl", len(text), [text])
        for path in self._find_files():
            yield from self._file(writer, path)
        yield from writer.end()

    def _header(self, head: LogHead) -> dict[str, object]:
        return {
            "schema": "chargepki/backup",
            "schema_version": 1,
            "id": self._id,
            "made_at": encode_time(self._now),
            "made_by": f"{self._actor.kind.value}:{self._actor.name}",
            "program": f"chargepki {version('chargepki')}",
            "inventory": {
                "schema": NEWEST,
                "dialect": self._inventory.dialect.value,
                "log_id": head.log_id,
                "log_count": head.count,
                "log_hash": head.hash,
                "log_key": head.key_id,
            },
        }

    def _find_files(self) -> Iterator[Path]:
        home = self._settings.home
        apart = {path.absolute() for path in (self._settings.pkcs11_pin_file,) if path is not None}
        if self._settings.passphrase_file not in (None, "-"):
            apart.add(Path(str(self._settings.passphrase_file)).expanduser().absolute())
        database = DatabaseAddress.parse(self._settings.database).path
        for folder, names, plain in os.walk(home, onerror=_unreadable):
            here = Path(folder)
            if here == home:
                names[:] = [name for name in names if not name.startswith((".restore-", "replaced-"))]
            for name in sorted(names):
                if (here / name).is_symlink():
                    self._leave_out(here / name, "it is a link")
            names.sort()
            for path in (here / name for name in sorted(plain)):
                if database is not None and str(path).removeprefix(str(database.absolute())) in _OF_SQLITE:
                    continue
                if path.name.endswith(".tmp") and path.name.startswith("."):
                    continue
                if here == home and path.name in (JOURNAL, KEYS_LOCK, "restore.lock"):
                    continue
                if path in apart:
                    self._leave_out(path, "it opens the keys: keep a copy of it elsewhere")
                elif not stat.S_ISREG(path.lstat().st_mode):
                    self._leave_out(path, "it is no plain file")
                else:
                    yield path

    def _leave_out(self, path: Path, reason: str) -> None:
        self.left_out.append((str(path.relative_to(self._settings.home)), reason))

    def _file(self, writer: ArchiveWriter, path: Path) -> Iterator[bytes]:
        name = path.relative_to(self._settings.home).as_posix()
        try:
            check_name(name)
        except (ChargePkiError, UnicodeEncodeError):
            self._leave_out(path, "its name has characters that a backup does not hold")
            return
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return  # removed meanwhile
        except OSError as exc:
            raise _unread(path, exc) from exc
        try:
            size = os.fstat(handle).st_size
            yield from writer.member(f"workspace/{name}", size, _content(handle, size, path))
        finally:
            os.close(handle)
        self.files += 1


_OF_SQLITE: Final = ("", "-wal", "-shm", "-journal")


def _content(handle: int, size: int, path: Path) -> Iterator[bytes]:
    """Yield the first *size* octets: what is appended meanwhile is not part of it."""
    left = size
    while left:
        try:
            piece = os.read(handle, min(left, _CHUNK))
        except OSError as exc:
            raise _unread(path, exc) from exc
        if not piece:
            raise UnavailableError(
                f"{path} was cut short while it was read", why="another process changed it", fix="repeat the backup"
            )
        left -= len(piece)
        yield piece


def _unreadable(error: OSError) -> None:
    raise _unread(Path(str(error.filename)), error)


def _unread(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"cannot read {path}",
        why=error.strerror or type(error).__name__,
        fix="run it as the owner of the workspace: a backup without a file would be found out too late",
    )
