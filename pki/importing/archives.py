"""Walk through archives without unpacking them to the disk, and without being filled up by one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Final, cast

from chargepki.pki.errors import InputError
from chargepki.pki.tar_headers import BoundedHeader

__all__ = ["Allowance", "Member", "is_archive", "members"]

_CHUNK: Final = 1 << 20
_PIECE: Final = 1 << 16
_MAGIC: Final = 10
"""Octets that tell what compressed a file."""
_MAX_DICTIONARY: Final = 80 << 20
"""Memory that xz may take: what its highest preset needs, with some to spare."""
_BZIP2_BLOCK, _BZIP2_END = b"1AY&SY", b"\x17rE8P\x90"


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
    """Whether the first 512 bytes are those of a zip or tar file, or of what gzip, bzip2 or xz compressed."""
    is_zip = head[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return is_zip or head[257:262] == b"ustar" or _compression_of(head) is not None


def _compression_of(head: bytes) -> str | None:
    """Return the name of what compressed a file that begins so."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] in (_BZIP2_BLOCK, _BZIP2_END):
        return "bzip2"
    return "xz" if head[:6] == b"\xfd7zXZ\0" else None


def members(source: BinaryIO, allowance: Allowance) -> Iterator[Member]:
    """Yield the files of the zip or tar file *source*, compressed or not, or the one that was compressed alone.

    Raises:
        InputError: it is damaged, encrypted or a bomb. What came before is good.
    """
    head = source.read(512)
    source.seek(0)
    try:
        compression = _compression_of(head)
        if head[:2] == b"PK":
            yield from _zip(source, allowance)
        elif compression is not None:
            yield from _compressed(_Expanded(source, compression, allowance), allowance)
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


class _Expanded(io.RawIOBase):
    """What comes out of a compressed file, counted, from the front to the end."""

    def __init__(self, source: BinaryIO, compression: str, allowance: Allowance) -> None:
        self._source = source
        self._compression = compression
        self._allowance = allowance
        self._decoder = self._new_decoder()
        self._input = b""
        self._ahead = b""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the first *size* bytes, which the next read returns again."""
        while len(self._ahead) < size and (piece := self._expand(size)):
            self._ahead += piece
        return self._ahead[:size]

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes; nothing at the end."""
        wanted = min(size, _CHUNK) if size >= 0 else _CHUNK
        if self._ahead:
            data, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
            return data
        return self._expand(wanted)

    def _new_decoder(self) -> Any:
        if self._compression == "gzip":
            return _Gunzip()
        if self._compression == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY)

    def _expand(self, size: int) -> bytes:
        """Return up to *size* bytes more; several compressed files behind one another are one."""
        while True:
            if self._decoder.eof and not self._begin_next():
                return b""
            if not self._input and self._decoder.needs_input:
                self._input = self._source.read(_PIECE)
                if not self._input:
                    raise EOFError("it is cut off")
            data: bytes = self._decoder.decompress(self._input, size)
            self._input = b""
            if data:
                self._allowance.take(len(data))
                return data

    def _begin_next(self) -> bool:
        """Go on with what lies behind the end; return whether there is anything."""
        rest = self._decoder.unused_data
        while len(rest) < _MAGIC and (more := self._source.read(_PIECE)):
            rest += more
        if not rest.strip(b"\0"):
            return False
        if _compression_of(rest[:_MAGIC]) != self._compression:
            raise ValueError("something else lies behind the end of what was compressed")
        self._decoder, self._input = self._new_decoder(), rest
        return True


class _Gunzip:
    """Zlib's decoder of gzip, with the face that those of bzip2 and xz have."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the end was reached, and its check sum was right."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What lies behind the end."""
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether nothing is left of what was given."""
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return up to *max_length* bytes."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _compressed(stream: _Expanded, allowance: Allowance) -> Iterator[Member]:
    if stream.peek(512)[257:262] == b"ustar":
        yield from _tar(stream, allowance)  # type: ignore[arg-type]  # a stream is all it needs
        return
    allowance.member()
    yield _member("", cast("IO[bytes]", stream), allowance, is_counted=True)


def _member(name: str, stream: IO[bytes], allowance: Allowance, *, is_counted: bool = False) -> Member:
    """Read one file, or leave it out.

    Args:
        is_counted: what comes out of the stream is taken from the allowance there.
    """
    pieces, size = [], 0
    while piece := stream.read(_CHUNK):
        size += len(piece)
        if not is_counted:
            allowance.take(len(piece))
        if size > allowance.member_bytes:
            return Member(name, None, f"larger than {allowance.member_bytes >> 20} MiB")
        pieces.append(piece)
    return Member(name, b"".join(pieces))
