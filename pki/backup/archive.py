"""The archive inside of a backup: tar under gzip, written as a stream, read without trusting a name or a size in it.

backup.json              what it is, and under which schema its rows were written
inventory/TABLE-N.jsonl  rows, see `inventory.dump`
workspace/…              files of the workspace
manifest.json            size and SHA-256 of everything before it
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Final, cast

import orjson

from chargepki.pki.errors import InputError
from chargepki.pki.tar_headers import BoundedHeader

__all__ = ["MANIFEST", "ArchiveReader", "ArchiveWriter", "Member", "check_name"]

MANIFEST: Final = "manifest.json"
_BLOCK: Final = 512
_CHUNK: Final = 1 << 18
_MAX_MEMBERS: Final = 10_000_000


def check_name(name: str) -> PurePosixPath:
    """Return the path that *name* says, if it is a relative one that leads nowhere else.

    Raises:
        InputError: it is absolute, climbs, or holds what no file of ours has.
    """
    path = PurePosixPath(name)
    wrong = path.is_absolute() or not path.parts or str(path) != name or any(part == ".." for part in path.parts)
    if wrong or "\\" in name or not name.isprintable() or any(len(part.encode()) > 255 for part in path.parts):
        raise InputError(
            f"the backup holds a file with the name {name[:80]!a}",
            why="no backup of ours does",
            fix="find out who made it; nothing was restored",
        )
    return path


class ArchiveWriter:
    """Writes members one after the other, as compressed pieces that are yielded."""

    def __init__(self, now: int) -> None:
        """Begin; *now* (seconds since 1970) is the time of every member."""
        self._now = now
        self._deflate = zlib.compressobj(level=6, wbits=31)
        self._members: list[dict[str, object]] = []

    def member(self, name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the archive's bytes for one member of exactly *size* octets."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self._now
        yield self._deflate.compress(info.tobuf(tarfile.PAX_FORMAT))
        digest, written = hashlib.sha256(), 0
        for piece in content:
            digest.update(piece)
            written += len(piece)
            yield self._deflate.compress(piece)
        assert written == size, f"{name} has {written} octets, not {size}"
        yield self._deflate.compress(bytes(-size % _BLOCK))
        self._members.append({"name": name, "size": size, "sha256": digest.hexdigest()})

    def end(self) -> Iterator[bytes]:
        """Yield the manifest and the end of the archive."""
        manifest = orjson.dumps({"schema": "chargepki/backup-manifest", "schema_version": 1, "members": self._members})
        yield from self.member(MANIFEST, len(manifest), [manifest])
        yield self._deflate.compress(bytes(2 * _BLOCK))
        yield self._deflate.flush()


@dataclass(slots=True)
class Member:
    """One member, to be read before the next one is asked for."""

    name: str
    size: int
    _stream: IO[bytes]
    _digest: Any = field(default_factory=hashlib.sha256)

    def chunks(self) -> Iterator[bytes]:
        """Yield its content."""
        while piece := self._stream.read(_CHUNK):
            self._digest.update(piece)
            yield piece

    def read(self, most: int) -> bytes:
        """Return its content.

        Raises:
            InputError: it is larger than *most*.
        """
        if self.size > most:
            raise InputError(f"{self.name} in the backup has {self.size} bytes", why=f"at most {most} are read")
        return b"".join(self.chunks())

    @property
    def sha256(self) -> str:
        """Digest of what was read."""
        return str(self._digest.hexdigest())


class ArchiveReader:
    """Reads the members of an archive in their order; `check` tells at the end whether they were all."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seen: list[dict[str, object]] = []

    def members(self) -> Iterator[Member]:
        """Yield each member but the manifest, which is compared with them.

        Raises:
            InputError: it is no archive of ours, or not whole.
        """
        try:
            with tarfile.open(fileobj=self._stream, mode="r|gz", tarinfo=BoundedHeader) as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it would remember all of them
                    if not info.isreg() or len(self._seen) > _MAX_MEMBERS:
                        raise InputError(f"the backup holds {info.name[:80]!a}, which is no plain file")
                    member = Member(info.name, info.size, cast("IO[bytes]", archive.extractfile(info)))
                    if info.name == MANIFEST:
                        self._compare(b"".join(member.chunks()))
                        return
                    yield member
                    for _ in member.chunks():  # what its reader has left
                        pass
                    self._seen.append({"name": member.name, "size": member.size, "sha256": member.sha256})
        except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError) as exc:
            raise InputError("the archive in the backup cannot be read", why=str(exc)[:200]) from exc
        raise InputError("the archive in the backup is cut short", why="it ends without a manifest")

    def _compare(self, manifest: bytes) -> None:
        try:
            told = orjson.loads(manifest)["members"]
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError("the manifest of the backup cannot be read", why=str(exc)[:200]) from exc
        if told != self._seen:
            raise InputError("the backup does not hold what its manifest says", fix="take another backup")
