"""What there is: certificates by profile, CA, country, vendor, state, and by algorithm and size of key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from chargepki.pki.inventory.filter_fields import FIELDS, Step
from chargepki.pki.inventory.filters import And, Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.traits import Traits
from chargepki.pki.questions.timeline import valid_at

__all__ = ["CENSUS_BY", "Census", "CensusRow", "take_census", "take_trait_censuses"]

_EVERYTHING: Final = And(())
_TRAITS: Final = Traits._fields
_SAME: Final = {"vendor": "organization", "algorithm": "key"}

CENSUS_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "profile": "the certificate profile",
        "ca": "the issuing CA generation",
        "issuer": "the name of the issuing CA, whichever generation",
        "state": "issued, revoked, reserved or voided",
        "country": "C of the subject",
        "organization": "O of the subject: operator, or vendor of a station or vehicle",
        "vendor": "the same",
        "requester": "who asked for it",
        "issued": "the year in which it was signed",
        "key": "algorithm and size of its key",
        "algorithm": "the same",
        "signature": "algorithm of its signature",
    }
)
"""What can be counted by."""

_FIELD: Final = {"issued": "issued_at", "issuer": "ca"}


@dataclass(frozen=True, slots=True)
class CensusRow:
    """One value and how many have it."""

    value: str | None
    """``None`` for those that lack it."""
    certificates: int


@dataclass(frozen=True, slots=True)
class Census:
    """Counts by one thing; the most frequent value first."""

    by: str
    """A key of `CENSUS_BY`."""
    at: datetime
    only_valid: bool
    total: int
    rows: tuple[CensusRow, ...]


def take_census(
    reads: Reads,
    at: datetime,
    by: str,
    *,
    wanted: Filter = _EVERYTHING,
    only_valid: bool = True,
) -> Census:
    """Count certificates by one of `CENSUS_BY`.

    Args:
        at: only what is valid then counts, unless *only_valid* is false.

    Raises:
        ValueError: *by* is none of them.
    """
    if by not in CENSUS_BY:
        raise ValueError(f"a census is not taken by {by}")
    chosen = valid_at(at, wanted) if only_valid else wanted
    if by in _SAME:
        return replace(take_census(reads, at, _SAME[by], wanted=wanted, only_valid=only_valid), by=by)
    if by in _TRAITS:
        return _census(by, at, _by_trait(reads.count_traits(chosen), by), only_valid=only_valid)
    field = FIELDS[_FIELD.get(by, by)]
    found = reads.count_groups(chosen, (field,), step=Step.YEAR)
    counts = Counter({None if value is None else str(value): number for (value,), number in found})
    if by == "issuer":
        counts = _named(reads, counts)
    return _census(by, at, counts, only_valid=only_valid)


def take_trait_censuses(reads: Reads, at: datetime, *, wanted: Filter = _EVERYTHING) -> dict[str, Census]:
    """Count what is valid by ``country``, ``organization``, ``key`` and ``signature``, asking once for all of them."""
    counts = reads.count_traits(valid_at(at, wanted))
    return {by: _census(by, at, _by_trait(counts, by), only_valid=True) for by in _TRAITS}


def _by_trait(counts: Mapping[Traits, int], by: str) -> Counter[str | None]:
    place = _TRAITS.index(by)
    found: Counter[str | None] = Counter()
    for traits, number in counts.items():
        found[traits[place]] += number
    return found


def _named(reads: Reads, counts: Mapping[str | None, int]) -> Counter[str | None]:
    """Count by the names of CAs in place of their ids: generations, and strangers with several keys, share one."""
    subjects: dict[str | None, str] = {ca.id: ca.subject for ca in reads.list_cas(foreign=True) if ca.id in counts}
    found: Counter[str | None] = Counter()
    for ca, number in counts.items():
        found[subjects.get(ca, ca)] += number
    return found


def _census(by: str, at: datetime, counts: Counter[str | None], *, only_valid: bool) -> Census:
    rows = sorted(counts.items(), key=lambda each: (-each[1], each[0] is None, each[0] or ""))
    return Census(by, at, only_valid, sum(counts.values()), tuple([CensusRow(*row) for row in rows]))
