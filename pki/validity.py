"""When a certificate is valid: inclusive windows, back-dated a little, never beyond the issuer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chargepki.pki.errors import ClockBehind, InputError, IssuerOutlived
from chargepki.pki.profiles.base import Profile

__all__ = ["BACKDATING", "CLOCK_TOLERANCE", "Window", "choose_window"]

BACKDATING: Final = timedelta(minutes=5)
"""How far notBefore lies before now, for peers whose clock is a little behind (OCPP A02.FR.06)."""

CLOCK_TOLERANCE: Final = timedelta(hours=1)
"""How far the clock may lie before the issuer's notBefore: another machine, whose clock is ahead, may have dated it."""

_SECOND: Final = timedelta(seconds=1)
_END_OF_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """First and last valid second, both inclusive (RFC 5280 4.1.2.5), in whole seconds.

    Raises:
        TypeError: a bound is naive.
        ValueError: a bound has a fraction of a second, which a certificate cannot hold, or the bounds are inverted.
    """

    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        if self.not_before.tzinfo is None or self.not_after.tzinfo is None:
            raise TypeError("a validity window needs aware datetimes")
        if self.not_before.microsecond or self.not_after.microsecond:
            raise ValueError("a validity window has whole seconds")
        if self.not_after < self.not_before:
            raise ValueError("a validity window ends before it begins")

    @property
    def duration(self) -> timedelta:
        """How long it lasts, both bounds counted."""
        return self.not_after - self.not_before + _SECOND

    def contains(self, at: datetime) -> bool:
        """Return whether *at* lies inside; a fraction of the last second still does."""
        return self.not_before <= at < self.not_after + _SECOND


def choose_window(
    profile: Profile, now: datetime, issuer: Window | None, requested: timedelta | None
) -> tuple[Window, bool]:
    """Return the window of a new certificate, and whether the profile's default had to be clamped to the issuer's end.

    notBefore is ``max(now - 5 min, issuer's notBefore)``; notAfter is notBefore plus the duration minus one second.
    The limits in the profile do not matter here: breaking one is for the linter to report.

    Args:
        now: the instant of issuance, aware; fractions of a second are cut off.
        issuer: the issuer's own window; ``None`` for a self-signed root.
        requested: an explicit duration; ``None`` takes the profile's default.

    Raises:
        TypeError: *now* is naive.
        InputError: *requested* is shorter than a second, or ends after the year 9999.
        ClockBehind: *now* lies more than an hour before the issuer's notBefore.
        IssuerOutlived: an explicit duration ends after the issuer, or the issuer has expired.

    Clause: ISO 15118-20 [V2G20-1004]; RFC 5280 4.1.2.5 (both bounds inclusive).
    """
    if now.tzinfo is None:
        raise TypeError("the instant of issuance must be an aware datetime")
    duration = profile.validity.default if requested is None else requested
    if duration < _SECOND:
        raise InputError(f"a validity of {duration} is no validity", fix="give at least one second, for example 60d")
    now = now.astimezone(UTC).replace(microsecond=0)
    begin = now - BACKDATING
    if issuer is not None:
        begin = max(begin, issuer.not_before.astimezone(UTC))
        if now < issuer.not_before - CLOCK_TOLERANCE:
            raise ClockBehind(
                f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC, and the issuer begins on"
                f" {issuer.not_before:%Y-%m-%d %H:%M:%S} UTC",
                why="a clock that was lost would date certificates wrongly",
                fix="set the clock, or wait until the issuer is valid",
            )
        if now > issuer.not_after:
            raise IssuerOutlived(
                f"the issuer expired on {issuer.not_after:%Y-%m-%d %H:%M:%S} UTC",
                why="nothing that it signs now would be accepted (ISO 15118-20 [V2G20-1004])",
                fix="renew the issuing CA first",
            )
    if duration > _END_OF_TIME - begin:
        raise InputError(f"a validity of {duration.days} days ends after the year 9999", why="RFC 5280 4.1.2.5")
    # One second less, because notAfter itself is still valid.
    end = begin + timedelta(seconds=int(duration.total_seconds())) - _SECOND
    if issuer is None or end <= issuer.not_after:
        return Window(begin, end), False
    if requested is None:
        return Window(begin, issuer.not_after.astimezone(UTC)), True
    raise IssuerOutlived(
        f"the certificate would expire on {end:%Y-%m-%d %H:%M:%S} UTC, "
        f"after its issuer on {issuer.not_after:%Y-%m-%d %H:%M:%S} UTC",
        why="relying parties stop accepting it when the issuer expires (ISO 15118-20 [V2G20-1004])",
        fix="pass a shorter --validity, or renew the issuing CA first",
    )
