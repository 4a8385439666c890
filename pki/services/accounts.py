"""Passwords of HTTP accounts: slow salted hashes, verified with bounded work, and guessing slowed down.

The limit counts failures of one account from one address, in all processes that serve together: nobody can lock another
out from elsewhere. Who shares that address with the account, behind a proxy say, cannot either: over the limit, a
password that was right from there lately is still let in.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from chargepki.pki.errors import InputError, UnavailableError
from chargepki.pki.services.failures import Leave, SharedFailures

__all__ = [
    "AccountGuard",
    "TooManyFailures",
    "check_account_name",
    "hash_account_password",
    "is_account_password",
    "network_of",
    "parse_basic",
]

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MIN_PASSWORD_BYTES: Final = 16
_MAX_PASSWORD_BYTES: Final = 256
_MAX_WAITING: Final = 64
_LOOK_SECONDS: Final = 0.02


class TooManyFailures(UnavailableError):
    """Wrong passwords came too often, or too many wait to be verified; answered 429."""

    code = "too-many-attempts"


def check_account_name(name: str) -> None:
    """Refuse what cannot be the name of an account.

    Raises:
        InputError: it is not of letters, digits, dots and dashes, or longer than 64.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:70]!r} cannot be the name of an account", fix="letters, digits, dot, dash; at most 64"
        )


def hash_account_password(password: bytes) -> str:
    """Return the argon2id hash of *password*.

    Raises:
        InputError: shorter than 16 or longer than 256 octets.
    """
    if not _MIN_PASSWORD_BYTES <= len(password) <= _MAX_PASSWORD_BYTES:
        raise InputError(
            f"the password has {len(password)} octets",
            why=f"it needs {_MIN_PASSWORD_BYTES} to {_MAX_PASSWORD_BYTES}, since it is all that its holder has to show",
            fix="leave out --password-file, and one is made",
        )
    return _HASHER.hash(password)


def is_account_password(stored: str, password: bytes) -> bool:
    """Return whether *password* is that of the argon2id hash *stored*; for who holds both, not for what peers send."""
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


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
        failures: shared with the other processes that serve; ``None`` counts for this one alone.
        workers: how many are verified at once; each costs about 20 ms and 19 MiB.
    """

    def __init__(self, failures: SharedFailures | None = None, *, workers: int = 2) -> None:
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="chargepki-accounts")
        self._failures = failures or SharedFailures()
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._users: dict[tuple[str, str], int] = {}
        """How many wait for their turn, or have it."""
        self._waiting = 0
        # Unknown accounts are verified against this, so that they take the time of known ones.
        self._nobody = _HASHER.hash(secrets.token_bytes(32))

    async def verify(self, stored: str | None, password: bytes, *, account: str, peer: str, now: float) -> bool:
        """Return whether *password* is the one of the hash *stored*; ``None`` costs as much and is never right.

        Args:
            peer: address without port.
            now: monotonic seconds.

        Raises:
            TooManyFailures: say 429.
        """
        key = (account[:64], network_of(peer))
        if self._waiting >= _MAX_WAITING:
            return self._recall(key, stored, password, "too many passwords wait to be verified")
        # One after the other: right ones that are sent at once would otherwise be told to come later.
        turn = self._turns.setdefault(key, asyncio.Lock())
        self._waiting += 1
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with turn:
                return await self._judge(key, stored, password, now)
        finally:
            self._waiting -= 1
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._turns[key]

    async def _judge(self, key: tuple[str, str], stored: str | None, password: bytes, now: float) -> bool:
        while (leave := self._failures.begin(*key, now)) is Leave.LATER:  # noqa: ASYNC110  # other processes wake nobody
            await asyncio.sleep(_LOOK_SECONDS)
        if leave is Leave.DENIED:
            return self._recall(key, stored, password, "too many wrong passwords")
        right = False
        try:
            loop = asyncio.get_running_loop()
            right = await loop.run_in_executor(self._executor, self._matches, stored, password)
        finally:
            self._failures.end(*key, now, right=right)
        if right and stored is not None:
            self._failures.keep_proof(*key, stored, password)
        return right

    def _matches(self, stored: str | None, password: bytes) -> bool:
        right = is_account_password(stored or self._nobody, password[: _MAX_PASSWORD_BYTES + 1])
        return right and stored is not None

    def _recall(self, key: tuple[str, str], stored: str | None, password: bytes, why: str) -> bool:
        if stored is not None and self._failures.is_proven(*key, stored, password):
            return True
        raise TooManyFailures(why, fix="wait a minute")

    def close(self) -> None:
        """Release the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def network_of(peer: str) -> str:
    """Return whom an address stands for: of IPv6 the /64, all of which one host may use.

    >>> network_of("192.0.2.9"), network_of("[2001:db8::9]"), network_of("somewhere")
    ('192.0.2.9', '2001:db8::', 'somewhere')
    """
    try:
        address = ip_address(peer.strip("[]").partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
