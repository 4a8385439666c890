"""Station passwords: rules per version, generation, wire form, salted slow hashes and a bounded verifier."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import string
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from unicodedata import category

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError, UnavailableError

__all__ = [
    "PasswordMatch",
    "PasswordRules",
    "PasswordVerifier",
    "TooManyAttempts",
    "check_password",
    "generate_password",
    "hash_password",
    "parse_operator_password",
    "password_from_wire",
    "password_rules",
    "verify_password",
]

# OWASP's smallest argon2id setting (19 MiB, two passes, one lane), about 20 ms here. Station passwords are random
# and at least 16 characters long, so the cost only has to cover an operator's own weaker choice, while thousands of
# stations may come back at once after an outage.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)

_GENERATED_CHARACTERS = string.ascii_letters + string.digits
_GENERATED_LENGTH = 20


class TooManyAttempts(UnavailableError):
    """More passwords are waiting to be verified than the verifier takes; the peer is answered 429."""

    code = "too-many-attempts"


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """Lengths of one version; both bounds inclusive."""

    minimum: int
    maximum: int
    unit: str
    """``bytes`` or ``characters``."""
    clause: str


_RULES_16 = PasswordRules(16, 20, "bytes", "A00.FR.205 and A00.FR.304 (1.6 white paper, edition 3)")
_RULES_2X = PasswordRules(16, 64, "characters", "A00.FR.205 and A00.FR.304 (2.0.1 errata 2025-01, 2.1)")


def password_rules(version: OcppVersion) -> PasswordRules:
    """Return the length rules of *version*: 16 to 20 octets in 1.6, 16 to 64 characters of UTF-8 in 2.x.

    A 2.0.1 station that predates the errata takes at most 40 characters; `generate_password` stays below that.
    """
    return _RULES_16 if version is OcppVersion.V16 else _RULES_2X


def check_password(password: bytes, version: OcppVersion) -> None:
    """Refuse a password that a station of *version* could not take; the text never repeats the password.

    Raises:
        InputError: wrong length, or not UTF-8 in 2.x.

    Clause: A00.FR.205, A00.FR.304.
    """
    rules = password_rules(version)
    length = len(password)
    if version is not OcppVersion.V16:
        try:
            length = len(password.decode("utf-8"))
        except UnicodeDecodeError:
            # Suppressed on purpose: the decoder's message repeats octets of the password.
            raise InputError(
                "the password is not UTF-8 text", why=rules.clause, fix="binary passwords exist in OCPP 1.6 only"
            ) from None
    if not rules.minimum <= length <= rules.maximum:
        raise InputError(
            f"the password has {length} {rules.unit}",
            why=f"{version.value} takes {rules.minimum} to {rules.maximum} ({rules.clause})",
            fix="let one be generated: 20 letters and digits fit every version",
        )


def generate_password() -> str:
    """Return a random password that every version takes: 20 ASCII letters and digits, about 119 bits.

    Clause: A01.FR.06, A01.FR.07 (random, and different for each station).

    >>> len(generate_password())
    20
    """
    return "".join(secrets.choice(_GENERATED_CHARACTERS) for _ in range(_GENERATED_LENGTH))


def parse_operator_password(text: bytes) -> bytes:
    """Return the octets of a password as an operator wrote it into a file: one trailing line end is dropped.

    Raises:
        InputError: fits no version, or is text with control characters: most likely the wrong file.
    """
    password = text.removesuffix(b"\n").removesuffix(b"\r")
    if _has_control_characters(password):
        raise InputError(
            "the password holds line breaks or other control characters",
            why="a password file holds one line of text, or the octets of a binary password of OCPP 1.6",
            fix="check that it is the right file",
        )
    try:
        check_password(password, OcppVersion.V16)
    except InputError:
        check_password(password, OcppVersion.V201)
    return password


def _has_control_characters(password: bytes) -> bool:
    try:
        text = password.decode("utf-8")
    except UnicodeDecodeError:
        return False  # Octets that are no text may be anything.
    return any(category(character) == "Cc" for character in text)


def password_from_wire(value: str, version: OcppVersion) -> bytes:
    """Return the octets that a password in an OCPP message stands for; what a station stores and sends.

    In 1.6, 32 to 40 hex digits are decoded and 16 to 20 other characters are taken as text, as conformance
    tooling does; anything else is refused.

    Raises:
        InputError: fits neither form.

    >>> password_from_wire("30313233343536373839616263646566", OcppVersion.V16)
    b'0123456789abcdef'
    """
    if version is not OcppVersion.V16:
        password = value.encode("utf-8", "surrogatepass")
    elif 32 <= len(value) <= 40 and len(value) % 2 == 0 and all(char in string.hexdigits for char in value):
        password = bytes.fromhex(value)
    else:
        password = value.encode("utf-8", "surrogatepass")
    check_password(password, version)
    return password


def hash_password(password: bytes) -> str:
    """Return the salted argon2id hash (PHC string) that the inventory stores. Takes about 20 ms of CPU.

    Clause: A01.FR.08 (salted hashes only).
    """
    return _HASHER.hash(password)


def verify_password(stored: str, password: bytes) -> bool:
    """Say whether *password* belongs to the hash *stored*. Takes about 20 ms of CPU.

    A hash that cannot be read verifies nothing.
    """
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@dataclass(frozen=True, slots=True)
class PasswordMatch:
    """Which of the accepted hashes a password belongs to."""

    index: int
    """Position in the sequence that was given: 0 the password on record, 1 the pending one."""


class PasswordVerifier:
    """Verifies passwords off the event loop: bounded, alike in time for unknown stations, cheap for reconnects.

    A password that was verified lately is recognised by an HMAC under a key that lives in this object only, so that
    thousands of stations coming back after an outage do not cost one argon2 each. A changed or removed hash is never
    matched by an older entry, because the hash is part of what is authenticated.
    """

    def __init__(self, *, workers: int = 2, max_waiting: int = 256, cached: int = 20_000) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="password")
        self._max_waiting = max_waiting
        self._waiting = 0
        self._cached = cached
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._key = secrets.token_bytes(32)
        # Unknown identities are verified against this, so that they take the time of known ones.
        self._dummy = hash_password(secrets.token_bytes(20))

    def recall(self, accepted: Sequence[str | None], password: bytes) -> PasswordMatch | None:
        """Return which of the *accepted* hashes *password* was verified against lately; costs next to nothing.

        ``None`` says nothing about the password, only that it was not verified lately.
        """
        for index, stored in enumerate(accepted):
            if stored is not None and self._recall(stored, password):
                return PasswordMatch(index)
        return None

    async def verify(self, accepted: Sequence[str | None], password: bytes) -> PasswordMatch | None:
        """Return which of the *accepted* hashes *password* belongs to, or ``None``.

        A refusal costs the same for an unknown station (*accepted* empty), for one with one password and for one
        with a pending second password: always two verifications.

        Args:
            accepted: at most two hashes: the one on record, then the pending one; ``None`` where there is none.

        Raises:
            TooManyAttempts: the queue is full; nothing was verified.
        """
        known = self.recall(accepted, password)
        if known is not None:
            return known
        if self._waiting >= self._max_waiting:
            raise TooManyAttempts(
                f"{self._waiting} passwords are waiting to be verified",
                why="verification is slow on purpose, and bounded",
                fix="let the stations retry with their back-off",
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            match = await loop.run_in_executor(self._pool, self._verify_all, tuple(accepted), password)
        finally:
            self._waiting -= 1
        if match is not None:
            stored = accepted[match.index]
            if stored is not None:
                self._remember(stored, password)
        return match

    def close(self) -> None:
        """Stop the workers; verifications under way are finished first."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _verify_all(self, accepted: Sequence[str | None], password: bytes) -> PasswordMatch | None:
        for index in range(max(2, len(accepted))):
            stored = accepted[index] if index < len(accepted) else None
            if verify_password(stored if stored is not None else self._dummy, password) and stored is not None:
                return PasswordMatch(index)
        return None

    def _tag(self, stored: str, password: bytes) -> bytes:
        # The stored hash has no NUL, so the two parts cannot run into each other.
        return hmac.digest(self._key, stored.encode("utf-8") + b"\0" + password, hashlib.sha256)

    def _recall(self, stored: str, password: bytes) -> bool:
        tag = self._tag(stored, password)
        if tag in self._seen:
            self._seen.move_to_end(tag)
            return True
        return False

    def _remember(self, stored: str, password: bytes) -> None:
        self._seen[self._tag(stored, password)] = None
        while len(self._seen) > self._cached:
            self._seen.popitem(last=False)
