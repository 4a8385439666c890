"""The digest of a firmware image: read once and in constant memory, if wished in a thread that begins at once."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

# Nothing of ours is imported here: reading begins before the rest of the command is loaded.

__all__ = ["BegunDigest", "FirmwareHash", "ImageDigest", "Tick", "begin_digest", "hash_image"]

Tick = Callable[[int], None]
"""Called with the octets read until now."""

_CHUNK: Final = 1 << 20
"""Large enough to seldom ask for the interpreter, which loads the rest of a command meanwhile."""
_TOLD_SECONDS: Final = 0.1
_SWITCH_SECONDS: Final = 0.0002


class FirmwareHash(StrEnum):
    """Hash over the whole image; the standard names SHA-256 alone (L01.FR.04)."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


@dataclass(frozen=True, slots=True)
class ImageDigest:
    """The digest of a whole image."""

    hash: FirmwareHash
    digest: bytes
    size: int
    """Octets."""

    @property
    def hex(self) -> str:
        """The digest in lower-case hex."""
        return self.digest.hex()


def hash_image(
    image: Path | BinaryIO, hash_name: FirmwareHash = FirmwareHash.SHA256, *, tick: Tick | None = None
) -> ImageDigest:
    """Return the digest of *image*, read once and in constant memory.

    Args:
        image: a file, or a stream that is read from where it stands to its end.
        tick: told of the progress every few MiB.

    Raises:
        UnavailableError: it cannot be read, or is a file that changed meanwhile.
    """
    if not isinstance(image, Path):
        return _hash_stream(image, hash_name, tick)
    try:
        with image.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            digest = _hash_stream(stream, hash_name, tick)
            after = os.fstat(stream.fileno())
    except OSError as exc:
        raise _unavailable(f"cannot read the image {image}", why=exc.strerror or type(exc).__name__) from exc
    # Else a half-written image would be called forged, which sends people looking in the wrong place.
    was, became = ((each.st_size, each.st_mtime_ns) for each in (before, after))
    if stat.S_ISREG(before.st_mode) and (was != became or digest.size != after.st_size):
        raise _unavailable(
            f"the image {image} changed while it was read",
            why=f"it had {before.st_size} bytes at first, {digest.size} were read, and {after.st_size} are there now",
            fix="wait until it is written, and do it again",
        )
    return digest


def _unavailable(what: str, *, why: str, fix: str = "") -> Exception:
    from chargepki.pki.errors import UnavailableError

    return UnavailableError(what, why=why, fix=fix)


def _hash_stream(stream: Any, hash_name: FirmwareHash, tick: Tick | None) -> ImageDigest:
    state = hashlib.new(hash_name.value)
    # Read, not mapped: a mapped file that is cut short kills the process. The buffer is a mapping of its own because it
    # begins on a page then: into one that begins elsewhere the kernel copied five times as slowly (measured on x86-64).
    buffer = mmap.mmap(-1, _CHUNK)
    view = memoryview(buffer)
    size = told = 0
    while count := stream.readinto(buffer):
        state.update(view[:count])
        size += count
        if tick is not None and size - told >= 4 * _CHUNK:
            tick(size)
            told = size
    if tick is not None:
        tick(size)
    return ImageDigest(hash_name, state.digest(), size)


class _StoppedReading(Exception):
    """Nobody wants the digest any more."""


class BegunDigest:
    """The digest of a plain file, computed in a thread while its owner does something else.

    Nothing is concluded from it before `result`: whoever verifies still judges the certificate first.
    """

    def __init__(self, image: Path, hash_name: FirmwareHash = FirmwareHash.SHA256) -> None:
        """Begin."""
        self.hash = hash_name
        self._image = image
        self._read = 0
        self._is_wanted = True
        self._found: ImageDigest | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="image digest", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = hash_image(self._image, self.hash, tick=self._note)
        except BaseException as exc:  # noqa: BLE001 - whatever it is belongs to the thread that asks for the result
            self._found = exc

    def _note(self, octets: int) -> None:
        if not self._is_wanted:
            raise _StoppedReading
        self._read = octets

    def result(self, tick: Tick | None = None) -> ImageDigest:
        """Wait for the digest and return it.

        Args:
            tick: told of the progress ten times a second, in the thread that waits.

        Raises:
            UnavailableError: as `hash_image`.
        """
        while self._thread.is_alive():
            self._thread.join(_TOLD_SECONDS)
            if tick is not None:
                tick(self._read)
        if isinstance(self._found, BaseException):
            raise self._found
        assert self._found is not None
        return self._found

    def close(self) -> None:
        """Stop reading; the thread ends within a few MiB."""
        self._is_wanted = False
        self._thread.join()


@contextmanager
def begin_digest(image: str, hash_name: FirmwareHash = FirmwareHash.SHA256) -> Iterator[BegunDigest | None]:
    """Begin to read *image* and yield its digest to come; ``None`` for what is no plain file, or cannot be looked at.

    Whoever opens such a thing later says what is wrong with it.
    """
    try:
        is_plain = stat.S_ISREG(os.stat(image).st_mode)  # noqa: PTH116 - a name as it was typed
    except (OSError, ValueError):
        is_plain = False
    if not is_plain:
        yield None
        return
    interval = sys.getswitchinterval()
    # Python lets a thread wait 5 ms for another that computes: in that time 8 MiB could have been read.
    sys.setswitchinterval(_SWITCH_SECONDS)
    begun = BegunDigest(Path(image), hash_name)
    try:
        yield begun
    finally:
        sys.setswitchinterval(interval)
        begun.close()
