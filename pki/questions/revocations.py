"""Did each revocation take effect: which list was the first to tell it, how long that took, and what none tells."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, Filter
from chargepki.pki.inventory.question_reads import PublishedList, RevocationRow
from chargepki.pki.inventory.reads import Reads

__all__ = ["Publication", "RevocationEffect", "RevocationSummary", "revocation_effects", "summarise_revocations"]

_QUANTILES: Final = (0.5, 0.95, 1.0)


class Publication(StrEnum):
    """Whether relying parties can know of a revocation."""

    PUBLISHED = "published"
    UNPUBLISHED = "unpublished"
    """No list that was signed since tells it; OCSP answers from the inventory, but lists say that it is good."""
    STALE_ANSWER = "stale-answer"
    """A prepared OCSP response still says that it is good."""
    EXTERNAL = "external"
    """The CA is somebody else's (`ca connect`): so are its lists."""
    NEEDLESS = "needless"
    """No list tells it, and it had expired before one was due: lists leave expired certificates out (RFC 5280 3.3)."""


@dataclass(frozen=True, slots=True)
class RevocationEffect:
    """One revoked certificate."""

    certificate: str
    """Id, ``CA@N:SERIAL``."""
    ca: str
    profile: str
    subject: str
    station: str | None
    reason: str
    revoked_at: datetime
    publication: Publication
    list_number: int | None
    """Of the first list that told it; ``None`` while none does."""
    published_at: datetime | None
    """thisUpdate of that list."""
    effective_at: datetime | None = None
    """When the last list that is silent about it ends: from then on nobody can believe one that was signed before.

    Not before `published_at`; ``None`` while no list tells it. OCSP tells it at once.
    """

    @property
    def latency(self) -> timedelta | None:
        """From the revocation date to the list; ``None`` while it is not published.

        A date that was set back (``--revoked-at``) makes it longer: the certificate was bad for so long before
        relying parties could know.
        """
        return None if self.published_at is None else max(self.published_at - self.revoked_at, timedelta(0))


@dataclass(frozen=True, slots=True)
class RevocationSummary:
    """All of them together."""

    at: datetime
    revoked: int
    unpublished: int
    stale_answers: int
    by_reason: tuple[tuple[str, int], ...]
    """Most frequent first."""
    median_latency: timedelta | None
    """``None`` where nothing was published."""
    latency_95: timedelta | None
    """95 of 100 were published within this time."""
    longest_latency: timedelta | None
    pending: int = 0
    """Published, but lists that are silent about it have not ended yet."""
    median_effect: timedelta | None = None
    """From the revocation date until it was effective; ``None`` where nothing was published."""


def revocation_effects(
    reads: Reads, at: datetime, *, ca: str | None = None, wanted: Filter | None = None
) -> Iterator[RevocationEffect]:
    """Yield what became of each revocation, by CA and id.

    A revocation is published by the first list of the certificate's own scope (the shard that its distribution point
    names, else the full list or a delta of it) that was signed behind the change. What was revoked or published after
    *at* does not count.

    Args:
        ca: only one CA: a generation ``NAME@N``, or ``NAME`` for all of its generations.
        wanted: only certificates that this filter asks for.
    """
    stale = frozenset(reads.list_stale_answers())
    chosen = None if wanted is None else _revoked_ids(reads, wanted)
    for record in reads.list_cas():
        if ca is not None and ca not in (record.id, record.name):
            continue
        shelf = _Shelf([each for each in reads.list_published(record.id) if each.this_update <= at])
        for row in reads.list_revocations(record.id):
            if row.revoked_at > at or (chosen is not None and row.certificate not in chosen):
                continue
            effect = _effect(record.id, row, shelf, at, is_stale=row.certificate in stale)
            yield replace(effect, publication=Publication.EXTERNAL) if record.is_external else effect


def _revoked_ids(reads: Reads, wanted: Filter) -> frozenset[str]:
    revoked = And((Compare(FIELDS["state"], "=", "revoked"), wanted))
    return frozenset(str(name) for page in reads.scan_certificates(revoked, ("id",)) for (name,) in page)


def _effect(ca: str, row: RevocationRow, shelf: _Shelf, at: datetime, *, is_stale: bool) -> RevocationEffect:
    published = shelf.first(row)
    if is_stale and row.not_after >= at:
        publication = Publication.STALE_ANSWER
    elif published is not None:
        publication = Publication.PUBLISHED
    else:
        publication = Publication.UNPUBLISHED if row.not_after >= at else Publication.NEEDLESS
    return RevocationEffect(
        *(row.certificate, ca, row.profile, row.subject, row.station, row.reason, row.revoked_at, publication),
        list_number=None if published is None else published.number,
        published_at=None if published is None else published.this_update,
        effective_at=None if published is None else max(published.this_update, shelf.silent_until(row, published)),
    )


class _Shelf:
    """The lists of one CA, for the question which was the first to tell a change."""

    def __init__(self, lists: Sequence[PublishedList]) -> None:
        self._numbered: dict[int, tuple[list[int], list[PublishedList]]] = {}
        self._old: dict[int, list[PublishedList]] = {}
        self._ends: dict[int, tuple[list[int], list[datetime]]] = {}
        for each in lists:
            # In the order of their numbers; each place has the latest end of all lists up to there.
            numbers, ends = self._ends.setdefault(each.shard, ([], []))
            numbers.append(each.number)
            ends.append(max(each.next_update, ends[-1]) if ends else each.next_update)
            if each.changes is None:
                self._old.setdefault(each.shard, []).append(each)
                continue
            changes, found = self._numbered.setdefault(each.shard, ([], []))
            # In the order of their numbers they tell ever more; a list that tells no more was never the first.
            if not changes or each.changes > changes[-1]:
                changes.append(each.changes)
                found.append(each)

    def first(self, row: RevocationRow) -> PublishedList | None:
        """Return the first list that tells of *row*, or ``None``."""
        changes, found = self._numbered.get(row.shard, ([], []))
        position = bisect_left(changes, row.change)
        numbered = found[position] if position < len(found) else None
        if row.change:
            return numbered
        # Neither the revocation nor the lists of its time have numbers: any list signed at or after it tells it.
        old = next((each for each in self._old.get(row.shard, ()) if each.this_update >= row.revoked_at), None)
        return old or numbered

    def silent_until(self, row: RevocationRow, first: PublishedList) -> datetime:
        """Return the latest nextUpdate of the lists before *first*, or its thisUpdate where there are none."""
        numbers, ends = self._ends[row.shard]
        position = bisect_left(numbers, first.number)
        return ends[position - 1] if position else first.this_update


def summarise_revocations(
    effects: Iterator[RevocationEffect] | Sequence[RevocationEffect], at: datetime
) -> RevocationSummary:
    """Return the figures over *effects*: constant memory but for one number each."""
    reasons: dict[str, int] = {}
    latencies: list[timedelta] = []
    delays: list[timedelta] = []
    unpublished = stale = total = pending = 0
    for each in effects:
        total += 1
        reasons[each.reason] = reasons.get(each.reason, 0) + 1
        unpublished += each.publication is Publication.UNPUBLISHED
        stale += each.publication is Publication.STALE_ANSWER
        if each.latency is not None:
            latencies.append(each.latency)
        if each.effective_at is not None:
            pending += each.effective_at > at
            delays.append(max(each.effective_at - each.revoked_at, timedelta(0)))
    latencies.sort()
    delays.sort()
    median, most, longest = (_quantile(latencies, share) for share in _QUANTILES)
    by_reason = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return RevocationSummary(
        *(at, total, unpublished, stale, tuple(by_reason), median, most, longest),
        pending=pending,
        median_effect=_quantile(delays, 0.5),
    )


def _quantile(ordered: Sequence[timedelta], share: float) -> timedelta | None:
    """Return the smallest of *ordered* that at least *share* of them do not exceed."""
    if not ordered:
        return None
    position = -int(-share * len(ordered) // 1) - 1
    return ordered[min(max(position, 0), len(ordered) - 1)]
