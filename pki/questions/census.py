"""What there is: certificates by profile, CA, country, vendor, state, and by algorithm and size of key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from chargepki.pki.inventory.filter_fields import FIELDS, Step
from chargepki.pki.inventory.filters import And, Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions.algorithms import Algorithms, algorithms_of
from chargepki.pki.questions.timeline import valid_at

__all__ = ["CENSUS_BY", "Census", "CensusRow", "take_algorithm_censuses", "take_census"]

_EVERYTHING: Final = And(())
_BY_DER: Final = ("key", "signature")

CENSUS_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "profile": "the certificate profile",
        "ca": "the issuing CA generation",
        "state": "issued, revoked, reserved or voided",
        "country": "C of the subject",
        "organization": "O of the subject: operator, or vendor of a station or vehicle",
        "requester": "who asked for it",
        "issued": "the year in which it was signed",
        "key": "algorithm and size of its key",
        "signature": "algorithm of its signature",
    }
)
"""What can be counted by. ``key`` and ``signature`` read every certificate, the others ask the database."""

_FIELD: Final = {"issued": "issued_at"}


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
    progress: Callable[[int], None] | None = None,
) -> Census:
    """Count certificates by one of `CENSUS_BY`.

    Args:
        at: only what is valid then counts, unless *only_valid* is false.
        progress: told how many certificates were read so far, where they are read one by one.

    Raises:
        ValueError: *by* is none of them.
    """
    if by not in CENSUS_BY:
        raise ValueError(f"a census is not taken by {by}")
    chosen = valid_at(at, wanted) if only_valid else wanted
    if by in _BY_DER:
        counts = _read_all(reads, chosen, progress)[_BY_DER.index(by)]
    else:
        field = FIELDS[_FIELD.get(by, by)]
        found = reads.count_groups(chosen, (field,), step=Step.YEAR)
        counts = Counter({None if value is None else str(value): number for (value,), number in found})
    return _census(by, at, counts, only_valid=only_valid)


def take_algorithm_censuses(
    reads: Reads, at: datetime, *, wanted: Filter = _EVERYTHING, progress: Callable[[int], None] | None = None
) -> tuple[Census, Census]:
    """Count what is valid by ``key`` and by ``signature``, reading each certificate once for both."""
    counts = _read_all(reads, valid_at(at, wanted), progress)
    key, signature = (_census(by, at, each, only_valid=True) for by, each in zip(_BY_DER, counts, strict=True))
    return key, signature


def _census(by: str, at: datetime, counts: Counter[str | None], *, only_valid: bool) -> Census:
    rows = sorted(counts.items(), key=lambda each: (-each[1], each[0] is None, each[0] or ""))
    return Census(by, at, only_valid, sum(counts.values()), tuple([CensusRow(*row) for row in rows]))


def _read_all(
    reads: Reads, chosen: Filter, progress: Callable[[int], None] | None
) -> tuple[Counter[str | None], Counter[str | None]]:
    """Return the counts by key and by signature."""
    both: Counter[Algorithms | None] = Counter()
    done = 0
    for page in reads.scan_certificates(chosen, ("id", "der")):
        # A reservation has no certificate yet: it lacks the value.
        both.update(None if der is None else algorithms_of(bytes(der)) for _, der in page)
        done += len(page)
        if progress is not None:
            progress(done)
    keys: Counter[str | None] = Counter()
    signatures: Counter[str | None] = Counter()
    for found, number in both.items():
        keys[None if found is None else found.key] += number
        signatures[None if found is None else found.signature] += number
    return keys, signatures
