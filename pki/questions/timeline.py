"""When certificates expire: how many on each day, week or month, and where so many expire at once that it hurts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

from chargepki.pki.inventory.filter_fields import FIELDS, Step
from chargepki.pki.inventory.filters import And, Compare, Filter
from chargepki.pki.inventory.reads import Reads

__all__ = ["Bucket", "Cliff", "CliffRule", "ExpiryTimeline", "Span", "expiry_timeline", "find_cliffs", "valid_at"]

_EVERYTHING: Final = And(())
_DAY: Final = timedelta(days=1)


class Span(StrEnum):
    """How finely a timeline counts. Days, weeks (from Monday) and months are those of UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def begin(self, day: date) -> date:
        """Return the first day of the span in which *day* lies.

        >>> Span.WEEK.begin(date(2026, 3, 1)), Span.MONTH.begin(date(2026, 3, 1))
        (datetime.date(2026, 2, 23), datetime.date(2026, 3, 1))
        """
        if self is Span.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self is Span.MONTH else day


@dataclass(frozen=True, slots=True)
class Bucket:
    """What expires in one span."""

    begin: date
    """First day, in UTC."""
    certificates: int
    by_profile: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CliffRule:
    """From when on expiries at one time are a cliff.

    A cliff is a span of `window` days within which at least `share` of all valid certificates of one profile expire,
    and at least `minimum` of them. Certificates of 60 days that are renewed evenly lose 12 % in any week, those of 90
    days 8 %: more than a quarter means that they were issued, and will be renewed, at one time.
    """

    window: int = 7
    """Days."""
    share: float = 0.25
    minimum: int = 10

    def __post_init__(self) -> None:
        """Refuse a rule that means nothing with ValueError."""
        if self.window < 1 or not 0 < self.share <= 1 or self.minimum < 1:
            raise ValueError("a cliff needs a window of a day or more, a share from 0 to 1, and a minimum of 1 or more")


@dataclass(frozen=True, slots=True)
class Cliff:
    """So many certificates of one profile expire at one time."""

    profile: str
    begin: date
    """First day on which any of them expires."""
    end: date
    """Last such day, inclusive."""
    certificates: int
    share: float
    """Of the valid certificates of the profile."""


@dataclass(frozen=True, slots=True)
class ExpiryTimeline:
    """What expires when, of what is valid at `at`."""

    at: datetime
    span: Span
    valid: int
    """Certificates that are valid at `at`: issued, not revoked, not expired. The sum of the buckets."""
    buckets: tuple[Bucket, ...]
    """Earliest first; spans in which nothing expires are left out."""
    cliffs: tuple[Cliff, ...]
    """Earliest first."""
    rule: CliffRule


def valid_at(at: datetime, wanted: Filter = _EVERYTHING) -> Filter:
    """Return the filter for what is issued, not revoked and not expired at *at*, and asked for by *wanted*.

    notAfter is the last valid second (RFC 5280 4.1.2.5); what is not valid yet counts as valid.
    """
    return And((Compare(FIELDS["state"], "=", "issued"), Compare(FIELDS["not_after"], ">=", at), wanted))


def expiry_timeline(
    reads: Reads,
    at: datetime,
    *,
    wanted: Filter = _EVERYTHING,
    span: Span = Span.MONTH,
    rule: CliffRule | None = None,
) -> ExpiryTimeline:
    """Count what expires when, by profile, and find the cliffs.

    Args:
        at: aware; only what is valid then counts.
        wanted: only certificates that this filter asks for.
    """
    rule = rule or CliffRule()
    grouped = reads.count_groups(valid_at(at, wanted), (FIELDS["not_after"], FIELDS["profile"]), step=Step.DAY)
    days = [(date.fromisoformat(str(day)), str(profile), number) for (day, profile), number in grouped]
    buckets: dict[date, dict[str, int]] = {}
    for day, profile, number in days:
        counts = buckets.setdefault(span.begin(day), {})
        counts[profile] = counts.get(profile, 0) + number
    listed = [Bucket(begin, sum(counts.values()), dict(sorted(counts.items()))) for begin, counts in buckets.items()]
    return ExpiryTimeline(
        at=at.astimezone(UTC),
        span=span,
        valid=sum(number for _, _, number in days),
        buckets=tuple(sorted(listed, key=lambda each: each.begin)),
        cliffs=find_cliffs(days, rule),
        rule=rule,
    )


def find_cliffs(days: Iterable[tuple[date, str, int]], rule: CliffRule) -> tuple[Cliff, ...]:
    """Return the cliffs among expiries given as (day, profile, number), earliest first; they do not overlap.

    Of overlapping windows the one of the most certificates is told, of equal ones the earliest; then what is left is
    looked at again.

    >>> found = find_cliffs([(date(2026, 3, 1), "ocpp/csms", 9), (date(2026, 3, 9), "ocpp/csms", 30)], CliffRule())
    >>> [(each.begin.isoformat(), each.certificates) for each in found]
    [('2026-03-09', 30)]
    """
    profiles: dict[str, dict[date, int]] = {}
    for day, profile, number in days:
        counts = profiles.setdefault(profile, {})
        counts[day] = counts.get(day, 0) + number
    found = [cliff for profile, counts in profiles.items() for cliff in _cliffs_of(profile, counts, rule)]
    return tuple(sorted(found, key=lambda each: (each.begin, each.profile)))


def _cliffs_of(profile: str, counts: dict[date, int], rule: CliffRule) -> Iterable[Cliff]:
    total = sum(counts.values())
    least = max(rule.minimum, rule.share * total)
    left = dict(sorted(counts.items()))
    while left:
        number, begin = _fullest(list(left.items()), rule.window)
        if number < least:
            return
        inside = [day for day in left if begin <= day < begin + rule.window * _DAY]
        yield Cliff(profile, inside[0], inside[-1], number, number / total)
        for day in inside:
            del left[day]


def _fullest(days: Sequence[tuple[date, int]], window: int) -> tuple[int, date]:
    """Return the largest number of expiries in any window, and the first day of the first such window."""
    best, begin = 0, days[0][0]
    first = total = 0
    for day, number in days:
        total += number
        while days[first][0] <= day - window * _DAY:
            total -= days[first][1]
            first += 1
        if total > best:
            best, begin = total, days[first][0]
    return best, begin
