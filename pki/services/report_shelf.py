"""The newest report, in memory that the processes that serve share with the one that makes it."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

import orjson

try:
    import fcntl
except ImportError:  # Windows, where one process serves
    fcntl = None  # type: ignore[assignment]  # a module, to mypy

__all__ = ["MAX_REPORT_BYTES", "ReportShelf", "Shelved"]

MAX_REPORT_BYTES: Final = 8 << 20
"""Of all forms together; a report has some hundred thousand."""
_HEADER: Final = struct.Struct("<dddQ")


@dataclass(frozen=True, slots=True)
class Shelved:
    """What lies on the shelf. Times are monotonic seconds of the machine."""

    forms: Mapping[str, bytes]
    """By the name of the form; empty where no report could be made yet."""
    until: float
    """Another one is not made before: as long as it lasts, this one is the newest that there can be."""
    failed: bool
    """Whether the last try to make one failed."""


class ReportShelf:
    """Made before processes are forked, it is shared by all of them.

    Nothing of it has a name in the file system where the machine can do that, and nothing is left when they end.
    """

    def __init__(self) -> None:
        in_memory = getattr(os, "memfd_create", None)  # of Linux
        self._file: BinaryIO = (
            os.fdopen(in_memory("chargepki-report"), "w+b")
            if in_memory is not None
            else tempfile.TemporaryFile(prefix="chargepki-")  # noqa: SIM115 - it lives as long as this object
        )
        self._put(0.0, 0.0, 0.0, b"")

    def want(self, now: float) -> None:
        """Say that somebody waits for a newer report."""
        self._lock(exclusive=True)
        try:
            wanted, until, failed, size = self._header()
            os.pwrite(self._file.fileno(), _HEADER.pack(max(now, wanted), until, failed, size), 0)
        finally:
            self._unlock()

    def is_wanted(self, now: float) -> bool:
        """Whether a report should be made: somebody asked since the last one, and its time is over."""
        wanted, until, _, _ = self._header()
        return bool(wanted) and until <= now

    def until(self) -> float:
        """Return until when no other report is made; see `Shelved`."""
        return self._header()[1]

    def put(self, forms: Mapping[str, bytes], *, until: float) -> None:
        """Lay a new report on the shelf.

        Raises:
            ValueError: it is too large.
        """
        names = {name: len(content) for name, content in forms.items()}
        index = orjson.dumps(names)
        content = struct.pack("<I", len(index)) + index + b"".join(forms.values())
        if len(content) > MAX_REPORT_BYTES:
            raise ValueError("a report of that size")
        self._lock(exclusive=True)
        try:
            self._put(0.0, until, 0.0, content)
        finally:
            self._unlock()

    def fail(self, *, until: float) -> None:
        """Say that none could be made; the last one stays."""
        self._lock(exclusive=True)
        try:
            *_, size = self._header()
            os.pwrite(self._file.fileno(), _HEADER.pack(0.0, until, 1.0, size), 0)
        finally:
            self._unlock()

    def take(self) -> Shelved:
        """Return what lies on the shelf."""
        self._lock(exclusive=False)
        try:
            _, until, failed, size = self._header()
            content = os.pread(self._file.fileno(), size, _HEADER.size)
        finally:
            self._unlock()
        forms: dict[str, bytes] = {}
        if content:
            (length,) = struct.unpack_from("<I", content)
            start = 4 + length
            for name, number in orjson.loads(content[4:start]).items():
                forms[name] = content[start : start + number]
                start += number
        return Shelved(forms, until, bool(failed))

    def _header(self) -> tuple[float, float, float, int]:
        wanted, until, failed, size = _HEADER.unpack(os.pread(self._file.fileno(), _HEADER.size, 0))
        return wanted, until, failed, size

    def _put(self, wanted: float, until: float, failed: float, content: bytes) -> None:
        os.pwrite(self._file.fileno(), content, _HEADER.size)
        os.pwrite(self._file.fileno(), _HEADER.pack(wanted, until, failed, len(content)), 0)
        os.ftruncate(self._file.fileno(), _HEADER.size + len(content))

    def _lock(self, *, exclusive: bool) -> None:
        if fcntl is not None:
            # Held for the copy of some hundred kilobytes; a process that dies lets go of it.
            fcntl.lockf(self._file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, _HEADER.size)

    def _unlock(self) -> None:
        if fcntl is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _HEADER.size)
