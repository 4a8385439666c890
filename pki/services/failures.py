"""Failed passwords by account and address, counted by all processes that serve together; in memory that they share."""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import BinaryIO, Final

try:
    import fcntl
except ImportError:  # Windows, where one process serves
    fcntl = None  # type: ignore[assignment]  # a module, to mypy

__all__ = ["FAILURES", "Leave", "SharedFailures"]

FAILURES: Final = 10
"""As many wrong passwords of one account from one address within the window are judged."""
_WINDOW_SECONDS: Final = 60.0
_VERIFYING_SECONDS: Final = 20.0
"""What is not judged by then was taken up by a process that has died, and counts as wrong."""

_BUCKETS: Final = 1024
_WAYS: Final = 8
_KEY_BYTES: Final = 16
_TIMES: Final = struct.Struct(f"<{FAILURES}d")
_SLOT_BYTES: Final = _KEY_BYTES + _TIMES.size
_BUCKET_BYTES: Final = _WAYS * _SLOT_BYTES
_PROOFS: Final = 4096
_PROOF_BYTES: Final = 2 * _KEY_BYTES

_Slot = tuple[int, list[float]]


class Leave(Enum):
    """What an attempt is entitled to."""

    GRANTED = 1
    """It is counted as wrong until it is said to be right."""
    LATER = 2
    """So many are being judged that, all wrong, they would reach the limit."""
    DENIED = 3


class SharedFailures:
    """Made before processes are forked, it counts for all of them together; in each for one thread.

    Its size is fixed, a mebibyte. Where more pairs of account and address fail than there is room for, the oldest are
    forgotten; which ones share their room is known to nobody outside. A process that dies leaves no lock behind.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._file = _open_nameless()
        size = _BUCKETS * _BUCKET_BYTES + _PROOFS * _PROOF_BYTES
        self._file.truncate(size)
        self._memory = mmap.mmap(self._file.fileno(), size)

    def begin(self, account: str, peer: str, now: float) -> Leave:
        """Ask for leave to judge a password, and count it if that is granted.

        Args:
            now: monotonic seconds, on the clock of the machine.
        """
        key = self._digest(account, peer)
        with self._bucket(key) as start:
            place, times = self._find(start, key, now)
            recent = [at for at in times if now - abs(at) < _WINDOW_SECONDS and at]
            wrong = sum(at > 0 or now + at > _VERIFYING_SECONDS for at in recent)
            if wrong >= FAILURES:
                return Leave.DENIED
            if len(recent) >= FAILURES:
                return Leave.LATER
            self._write(place, key, [*recent, -now])
        return Leave.GRANTED

    def end(self, account: str, peer: str, began: float, *, right: bool) -> None:
        """Tell how the password was that was granted leave at *began*; a right one clears the account at this address.

        Args:
            right: false counts it.
        """
        key = self._digest(account, peer)
        with self._bucket(key) as start:
            place, times = self._find(start, key, began)
            kept = [at for at in times if at]
            if -began in kept:
                kept.remove(-began)
            if right:
                # Those that are being judged elsewhere stay counted.
                self._write(place, key, [at for at in kept if at < 0])
            else:
                self._write(place, key, [*kept[1 - FAILURES :], began])

    def keep_proof(self, account: str, peer: str, stored: str, password: bytes) -> None:
        """Remember that this account has shown the right password from this address."""
        key = self._digest(account, peer)
        start = self._proof_place(key)
        self._memory[start : start + _PROOF_BYTES] = key + self._proof(stored, password)

    def is_proven(self, account: str, peer: str, stored: str, password: bytes) -> bool:
        """Whether this password of this account was right lately from this address; costs next to nothing.

        Args:
            stored: the hash that it belongs to; with another one it proves nothing.
        """
        key = self._digest(account, peer)
        start = self._proof_place(key)
        wanted = key + self._proof(stored, password)
        return hmac.compare_digest(self._memory[start : start + _PROOF_BYTES], wanted)

    # -- places -----------------------------------------------------------------------------------------------------

    def _digest(self, account: str, peer: str) -> bytes:
        text = f"{account}\0{peer}".encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=_KEY_BYTES).digest()

    def _proof(self, stored: str, password: bytes) -> bytes:
        text = stored.encode() + b"\0" + password
        return hashlib.blake2b(text, key=self._secret, digest_size=_KEY_BYTES, person=b"proof").digest()

    @staticmethod
    def _proof_place(key: bytes) -> int:
        return _BUCKETS * _BUCKET_BYTES + int.from_bytes(key[4:8], "big") % _PROOFS * _PROOF_BYTES

    @contextmanager
    def _bucket(self, key: bytes) -> Iterator[int]:
        """Lock the bucket of a key against other processes and yield where it starts; held for microseconds."""
        number = int.from_bytes(key[:4], "big") % _BUCKETS
        if fcntl is not None:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield number * _BUCKET_BYTES
        finally:
            if fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def _find(self, start: int, key: bytes, now: float) -> _Slot:
        """Return place and times of a key, or the place of the key that failed last the longest time ago, empty."""
        slots: list[tuple[float, int]] = []
        for place in range(start, start + _BUCKET_BYTES, _SLOT_BYTES):
            times = list(_TIMES.unpack_from(self._memory, place + _KEY_BYTES))
            if self._memory[place : place + _KEY_BYTES] == key:
                return place, times
            slots.append((max(abs(at) for at in times), place))
        return min(slots)[1], []

    def _write(self, place: int, key: bytes, times: list[float]) -> None:
        padded = [*times, *([0.0] * (FAILURES - len(times)))]
        self._memory[place : place + _SLOT_BYTES] = key + _TIMES.pack(*padded)


def _open_nameless() -> BinaryIO:
    """Return an empty file that has no name, in memory where there is such a thing: nothing need be writable."""
    in_memory = getattr(os, "memfd_create", None)  # of Linux
    if in_memory is not None:
        return os.fdopen(in_memory("chargepki-failures"), "w+b")
    return tempfile.TemporaryFile(prefix="chargepki-")
