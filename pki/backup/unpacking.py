"""Unpack a backup into a folder of its own, and make an inventory of its rows that can be opened and judged there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import orjson

from chargepki.pki import files
from chargepki.pki.backup.age import Decrypted
from chargepki.pki.backup.archive import ArchiveReader, Member, check_name
from chargepki.pki.backup.making import HEADER, JOURNAL
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.codec import decode_time
from chargepki.pki.inventory.dump import load_parts

__all__ = ["BackupHeader", "Unpacked", "unpack"]

_ROWS: Final = re.compile(r"inventory/([a-z_]{1,64})-[0-9]{6}\.jsonl")
_MAX_HEADER: Final = 1 << 16
_MAX_PART: Final = 1 << 28
"""A part is about 1 MiB, or one row: the largest hold revocation lists."""


@dataclass(frozen=True, slots=True)
class BackupHeader:
    """What a backup says of itself."""

    id: str
    made_at: datetime
    made_by: str
    program: str
    schema: str
    """Version of the inventory's tables."""
    dialect: str
    log_count: int
    log_hash: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A backup that was unpacked; nothing of it has been judged."""

    header: BackupHeader
    folder: Path
    """Holds the files of the workspace."""
    inventory: Path
    """An SQLite inventory of the newest schema, with the rows."""
    files: tuple[str, ...]


def unpack(stream: IO[bytes], identities: Sequence[Any], folder: Path, inventory: Path) -> Unpacked:
    """Decrypt and unpack the backup *stream* into *folder* and the new file *inventory*, both for the owner alone.

    Raises:
        InputError: it is no backup, was changed or cut short, or a newer program has written it.
        SignerError: none of *identities* opens it.
        UnavailableError: it cannot be read, or the disk is full.
    """
    with Decrypted(stream, identities) as plain:
        try:
            unpacked = _Unpacking(ArchiveReader(plain), folder, inventory).run()
        except InputError:
            plain.finish()  # the cause may lie below the archive: a changed file, another's identity
            raise
        plain.finish()
    return unpacked


class _Unpacking:
    def __init__(self, archive: ArchiveReader, folder: Path, inventory: Path) -> None:
        self._members = archive.members()
        self._folder = folder
        self._inventory = inventory
        self._next: Member | None = None

    def run(self) -> Unpacked:
        files.make_private_folder(self._folder)
        first = next(self._members, None)
        if first is None or first.name != HEADER:
            raise InputError("this is no backup of chargepki", why=f"it does not begin with {HEADER}")
        header = _parse_header(first.read(_MAX_HEADER))
        load_parts(self._inventory, header.schema, self._parts())
        names: list[str] = []
        while self._next is not None:
            names.append(self._take_file(self._next))
            self._next = next(self._members, None)
        return Unpacked(header, self._folder, self._inventory, tuple(names))

    def _parts(self) -> Iterator[tuple[str, bytes]]:
        for member in self._members:
            found = _ROWS.fullmatch(member.name)
            if found is None:
                self._next = member
                return
            yield found[1], member.read(_MAX_PART)

    def _take_file(self, member: Member) -> str:
        path = check_name(member.name)
        if path.parts[0] != "workspace" or len(path.parts) < 2 or path.parts[1] == JOURNAL:
            raise InputError(f"the backup holds {member.name[:80]!a}, which no backup of ours does")
        name = Path(*path.parts[1:])
        target = self._folder / name
        files.make_private_folder(target.parent)
        file = files.NewFile(target)
        try:
            for piece in member.chunks():
                file.write(piece)
            file.commit()
        finally:
            file.abandon()
        return name.as_posix()


def _parse_header(data: bytes) -> BackupHeader:
    try:
        found = orjson.loads(data)
        if found["schema"] != "chargepki/backup":
            raise InputError("this is no backup of chargepki", why=f"it is {str(found['schema'])[:80]}")
        if found["schema_version"] != 1:
            raise InputError(
                f"the backup has the format {str(found['schema_version'])[:20]}, which this program does not know",
                why=f"it was written by {str(found.get('program'))[:40]}",
                fix="use the chargepki that wrote it, or a newer one",
            )
        rows = found["inventory"]
        header = BackupHeader(
            id=found["id"],
            made_at=decode_time(found["made_at"]),
            made_by=found["made_by"],
            program=found["program"],
            schema=rows["schema"],
            dialect=rows["dialect"],
            log_count=rows["log_count"],
            log_hash=rows["log_hash"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(f"{HEADER} in the backup cannot be read", why=str(exc)[:200]) from exc
    texts = (header.id, header.made_by, header.program, header.schema, header.dialect, header.log_hash)
    if not all(type(text) is str for text in texts) or type(header.log_count) is not int:
        raise InputError(f"{HEADER} in the backup holds what no backup of ours does")
    if not all(text.isprintable() and len(text) < 200 for text in texts):
        raise InputError(f"{HEADER} in the backup holds what no backup of ours does")
    return header
