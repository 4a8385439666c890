"""Walk through archives without unpacking them to the disk, and without being filled up by one."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Final, cast

from chargepki.pki.errors import InputError
from chargepki.pki.tar_headers import BoundedHeader

__all__ = ["Allowance", "Member", "is_archive", "members"]

_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class Allowance:
    """What archives may cost, together with those inside of them.

    A member that is larger than `member_bytes` is left out; the rest is refused when it grows beyond all measure: text
    and DER of certificates shrink to a fifth, and a bomb to a thousandth.
    """

    member_bytes: int
    ratio: int = 200
    free_bytes: int = 256 << 20
    """So much may come out of any archive, however small it is."""
    total_bytes: int = 1 << 40
    members: int = 10_000_000
    depth: int = 3
    _put_in: int = field(default=0, init=False)
    _taken_out: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)

    def begin(self, size: int) -> None:
        """Note an archive of *size* bytes on the disk."""
        self._put_in += size

    def member(self) -> None:
        """Count a member.

        Raises:
            InputError: there are too many.
        """
        self._seen += 1
        if self._seen > self.members:
            raise InputError(f"the archive holds more than {self.members} files", fix="unpack it, and name the folder")

    def take(self, size: int) -> None:
        """Count bytes that came out.

        Raises:
            InputError: too many for what went in.
        """
        self._taken_out += size
        if self._taken_out > min(self.total_bytes, max(self.free_bytes, self.ratio * self._put_in)):
            raise InputError(
                "the archive grows beyond all measure",
                why=f"more than {self._taken_out >> 20} MiB came out of {self._put_in >> 10} KiB",
                fix="unpack it where that does no harm, and name the folder",
            )


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive."""

    name: str
    data: bytes | None
    """``None`` for one that was left out."""
    reason: str = ""
    """Why."""


def is_archive(head: bytes) -> bool:
    """Whether the first 512 bytes are those of a zip, tar or gzip file."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar"


def members(source: BinaryIO, allowance: Allowance) -> Iterator[Member]:
    """Yield the files of the zip, tar, tar.gz or gz file *source*, which can be sought in.

    Raises:
        InputError: it is damaged, encrypted or a bomb. What came before is good.
    """
    head = source.read(512)
    source.seek(0)
    try:
        if head[:2] == b"PK":
            yield from _zip(source, allowance)
        elif head[:2] == b"\x1f\x8b":
            yield from _gzip(source, allowance)
        else:
            yield from _tar(source, allowance)
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile),
        # Of hostile numbers and names in headers, and of a compression that this Python does not know.
        *(ValueError, OverflowError, NotImplementedError, OSError, RuntimeError),
    ) as error:
        raise InputError("the archive cannot be read any further", why=f"{error}"[:200]) from error


def _zip(source: BinaryIO, allowance: Allowance) -> Iterator[Member]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            allowance.member()
            if info.flag_bits & 1:
                yield Member(info.filename, None, "it is encrypted; unpack it first")
                continue
            with archive.open(info) as stream:
                yield _member(info.filename, stream, allowance)


def _tar(source: BinaryIO, allowance: Allowance) -> Iterator[Member]:
    # As a stream: nothing is kept of what has passed, and no header can send the reader back.
    with tarfile.open(fileobj=source, mode="r|", tarinfo=BoundedHeader) as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would remember a million of them
            if not info.isreg() or info.issparse():
                continue
            allowance.member()
            stream = archive.extractfile(info)
            if stream is not None:
                yield _member(info.name, stream, allowance)


class _Counted(io.RawIOBase):
    """What comes out of a compressed stream, counted."""

    def __init__(self, stream: gzip.GzipFile, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes."""
        data = self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        self._allowance.take(len(data))
        return data


def _gzip(source: BinaryIO, allowance: Allowance) -> Iterator[Member]:
    with gzip.GzipFile(fileobj=source) as stream:
        head = stream.read(512)
        stream.seek(0)
        if head[257:262] == b"ustar":
            yield from _tar(_Counted(stream, allowance), allowance)  # type: ignore[arg-type]  # a stream is all it needs
            return
        allowance.member()
        yield _member("", cast("IO[bytes]", stream), allowance)


def _member(name: str, stream: IO[bytes], allowance: Allowance) -> Member:
    """Read one file, or leave it out."""
    pieces, size = [], 0
    while piece := stream.read(_CHUNK):
        size += len(piece)
        allowance.take(len(piece))
        if size > allowance.member_bytes:
            return Member(name, None, f"larger than {allowance.member_bytes >> 20} MiB")
        pieces.append(piece)
    return Member(name, b"".join(pieces))
