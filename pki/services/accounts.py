"""Passwords of HTTP accounts: slow salted hashes, verified with bounded work, and guessing slowed down.

The limit counts failures of one account from one address: nobody can lock another out from elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from chargepki.pki.errors import InputError, UnavailableError

__all__ = ["AccountGuard", "TooManyFailures", "hash_account_password", "parse_basic"]

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
_NOBODY: Final = _HASHER.hash("nobody has this password, and a wrong one costs as much")
_MIN_PASSWORD_BYTES: Final = 16
_MAX_PASSWORD_BYTES: Final = 256
_FAILURES: Final = 10
_WINDOW_SECONDS: Final = 60.0
_MAX_TRACKED: Final = 10_000
_MAX_WAITING: Final = 64


class TooManyFailures(UnavailableError):
    """Wrong passwords came too often, or too many wait to be verified; answered 429."""

    code = "too-many-attempts"


def hash_account_password(password: bytes) -> str:
    """Return the argon2id hash of *password*.

    Raises:
        InputError: shorter than 16 or longer than 256 octets.
    """
    if not _MIN_PASSWORD_BYTES <= len(password) <= _MAX_PASSWORD_BYTES:
        raise InputError(
            f"the password has {len(password)} octets",
            why=f"it needs {_MIN_PASSWORD_BYTES} to {_MAX_PASSWORD_BYTES}, since it alone lets its holder enrol",
            fix="leave out --password-file, and one is made",
        )
    return _HASHER.hash(password)


def parse_basic(header: str | None) -> tuple[str, bytes] | None:
    """Return user name and password of an ``Authorization: Basic`` header (RFC 7617); ``None`` when it is none."""
    if header is None or len(header) > 1024:
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        return (name.decode("utf-8"), password) if colon and password else None
    except (binascii.Error, ValueError):
        return None


class AccountGuard:
    """Verifies passwords off the event loop, a few at a time.

    Args:
        workers: how many are verified at once; each costs about 20 ms and 19 MiB.
    """

    def __init__(self, *, workers: int = 2) -> None:
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="chargepki-accounts")
        self._failures: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._users: dict[tuple[str, str], int] = {}
        """How many wait for their turn, or have it."""
        self._waiting = 0

    async def verify(self, stored: str | None, password: bytes, *, account: str, peer: str, now: float) -> bool:
        """Return whether *password* is the one of the hash *stored*; ``None`` costs as much and is never right.

        Args:
            peer: address without port.
            now: monotonic seconds.

        Raises:
            TooManyFailures: say 429.
        """
        key = (account[:64], peer)
        self._check(key, now)
        if self._waiting >= _MAX_WAITING:
            raise TooManyFailures("too many passwords wait to be verified", fix="wait a minute")
        # One after the other: guesses that are sent at once would all be let through before the first one fails.
        turn = self._turns.setdefault(key, asyncio.Lock())
        self._waiting += 1
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with turn:
                self._check(key, now)
                loop = asyncio.get_running_loop()
                right = await loop.run_in_executor(self._executor, _matches, stored, password)
                self._note(key, now, right=right)
        finally:
            self._waiting -= 1
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._turns[key]
        return right

    def _check(self, key: tuple[str, str], now: float) -> None:
        recent = [at for at in self._failures.get(key, ()) if now - at < _WINDOW_SECONDS]
        if len(recent) >= _FAILURES:
            raise TooManyFailures("too many wrong passwords", fix="wait a minute")

    def _note(self, key: tuple[str, str], now: float, *, right: bool) -> None:
        if right:
            self._failures.pop(key, None)
            return
        self._failures[key] = [*self._failures.get(key, [])[1 - _FAILURES :], now]
        self._failures.move_to_end(key)
        while len(self._failures) > _MAX_TRACKED:
            self._failures.popitem(last=False)

    def close(self) -> None:
        """Release the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _matches(stored: str | None, password: bytes) -> bool:
    try:
        _HASHER.verify(stored or _NOBODY, password[: _MAX_PASSWORD_BYTES + 1])
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
