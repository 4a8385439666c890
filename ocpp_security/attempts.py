"""Limit failed attempts so that guessing is slow, while nobody can lock a station out by failing in its name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from chargepki.ocpp_security.passwords import PasswordMatch, PasswordVerifier, TooManyAttempts
from chargepki.ocpp_security.throttle import WindowCounter

__all__ = ["AttemptLimits", "AuthenticationGuard", "Standing"]

_MAX_KNOWN_STATIONS = 50_000
_MAX_KNOWN_HOSTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """How many refused attempts within `window` are judged; more are answered 429 unread."""

    window: timedelta = timedelta(minutes=1)
    per_identity_and_address: int = 10
    per_identity: int = 100
    """From all addresses together, other than those that the station came from lately."""
    per_address: int = 600
    """For all identities together. Large: a fleet behind one address may hold many stations with a wrong password."""


class Standing(StrEnum):
    """What an attempt is entitled to before anything about it was checked."""

    OPEN = "open"
    RECALL = "recall"
    """Over a limit: a password is only compared with those that were verified lately, which costs next to nothing."""
    BLOCKED = "blocked"


class AuthenticationGuard:
    """Counts refused attempts and bounds what the verification of passwords costs; one for each endpoint.

    A limit that counts an identity alone would let anybody lock a station out by failing in its name. So an attempt
    over a limit is blocked, unless it comes from an address from which that station has proven itself lately; and a
    password that was verified lately is let in from there, whatever else came from that address.

    Args:
        verifier: shared with others that verify passwords; a new one by default, which `close` then ends.
    """

    def __init__(self, limits: AttemptLimits | None = None, *, verifier: PasswordVerifier | None = None) -> None:
        self.limits = limits or AttemptLimits()
        self._owns_verifier = verifier is None
        self.verifier = verifier or PasswordVerifier()
        window = self.limits.window
        self._pairs = WindowCounter(window, self.limits.per_identity_and_address)
        self._identities = WindowCounter(window, self.limits.per_identity)
        self._hosts = WindowCounter(window, self.limits.per_address)
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def standing(self, host: str, identity: str, now: datetime) -> Standing:
        """Return what an attempt of *host* in the name of *identity* is entitled to."""
        if self.knows(host, identity):
            # Who shares the station's address may have failed as often as he likes: the limit is that of guesses.
            is_over = self._pairs.reached((host, identity), now) or self._hosts.reached(host, now)
            return Standing.RECALL if is_over else Standing.OPEN
        is_over = (
            self._pairs.reached((host, identity), now)
            or self._identities.reached(identity, now)
            or self._hosts.reached(host, now)
        )
        return Standing.BLOCKED if is_over else Standing.OPEN

    def knows(self, host: str, identity: str) -> bool:
        """Say whether *identity* has proven itself from *host* lately."""
        return host in self._known.get(identity, ())

    def failed(self, host: str, identity: str, now: datetime) -> None:
        """Count a refused attempt."""
        self._pairs.add((host, identity), now)
        self._hosts.add(host, now)
        if not self.knows(host, identity):
            self._identities.add(identity, now)

    def succeeded(self, host: str, identity: str) -> None:
        """Remember where a station proved itself, and forget that it failed there before."""
        self._pairs.forget((host, identity))
        hosts = self._known.get(identity, ())
        if hosts[-1:] != (host,):
            hosts = (*(each for each in hosts if each != host), host)[-_MAX_KNOWN_HOSTS:]
        self._known[identity] = hosts
        self._known.move_to_end(identity)
        if len(self._known) > _MAX_KNOWN_STATIONS:
            self._known.popitem(last=False)

    async def verify(self, standing: Standing, accepted: Sequence[str | None], password: bytes) -> PasswordMatch | None:
        """Return which of the *accepted* hashes *password* belongs to, or ``None``.

        Raises:
            TooManyAttempts: over a limit, and the password is none that was verified lately.
        """
        if standing is Standing.OPEN:
            return await self.verifier.verify(accepted, password)
        match = self.verifier.recall(accepted, password) if standing is Standing.RECALL else None
        if match is None:
            raise TooManyAttempts(
                "too many failed attempts", why="guessing is limited", fix="wait a minute, and correct the credential"
            )
        return match

    def close(self) -> None:
        """End the threads that verify passwords."""
        if self._owns_verifier:
            self.verifier.close()
