"""Which stations stop believing what is below a root, on which day, and what has to be done before, in which order.

A station breaks when none of the roots that it holds for a use leads, over any cross-certificate, to the newest
generation of the root: what is issued below that from then on, it refuses. And one that was given the newest alone
breaks while a CA issues below an older one that no cross-certificate leads up from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from chargepki.ocpp_security.estate import Recogniser, list_station_trust
from chargepki.ocpp_security.root_impact import CutCertificates, root_impact
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaRecord, CaState, StationState
from chargepki.pki.profiles import get_profile
from chargepki.pki.questions.authorities import AuthorityCertificate
from chargepki.pki.questions.paths import PathFinder

__all__ = ["BreakReason", "BreakingStation", "PlanStep", "RolloverPlan", "StepKind", "rollover_plan"]

_SECOND: Final = timedelta(seconds=1)
_NAMED: Final = 10
"""So many stations are named in a command; more are chosen by ``--all``, which leaves out those that have the root."""


class BreakReason(StrEnum):
    """Why a station stops believing."""

    NO_PATH = "no-path"
    """None of its roots leads to the newest generation: it breaks with the first certificate from there."""
    PATH_ENDS = "path-ends"
    """The way there is open until a cross-certificate or an old root ends."""
    ROOT_ENDS = "root-ends"
    """There is no next generation yet, and the root that it holds ends."""
    NO_WAY_BACK = "no-way-back"
    """It holds newer generations alone, to which nothing leads from a CA that still issues below an older one."""


class StepKind(StrEnum):
    """What a step does."""

    ROLL_OVER = "roll-over"
    INSTALL = "install-root"
    MOVE = "move-sub-ca"
    DELETE = "delete-root"
    ASK = "ask-stations"


@dataclass(frozen=True, slots=True)
class BreakingStation:
    """One station that breaks unless the newest generation is installed on it."""

    station: str
    use: str
    holds: tuple[str, ...]
    """The generations of the root that it holds."""
    breaks_at: datetime
    """The first instant at which it refuses."""
    reason: BreakReason


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One thing to do; the steps are in the order in which nothing breaks."""

    number: int
    kind: StepKind
    what: str
    command: str
    before: datetime | None
    """It has to be done by then; ``None`` where no day hangs on it."""
    after: datetime | None = None
    """It must not be done earlier."""
    stations: int = 0


@dataclass(frozen=True, slots=True)
class RolloverPlan:
    """What a rollover of one root asks for."""

    root: str
    """Id of the newest generation."""
    generations: Mapping[str, datetime]
    """Every generation that is valid, with its last second."""
    at: datetime
    stations: tuple[BreakingStation, ...]
    """The first to break first; at most as many as were asked for."""
    station_counts: Mapping[str, int]
    """``USE REASON`` to the number of stations, all of them."""
    unknown: tuple[str, ...]
    """Active stations of which nobody knows what they hold; at most as many as were asked for."""
    unknown_count: int
    certificates: tuple[CutCertificates, ...]
    """Valid certificates that chain to nothing any more once the oldest generation has ended."""
    steps: tuple[PlanStep, ...]

    @property
    def breaks(self) -> bool:
        """Whether anything breaks unless the steps are taken."""
        return bool(self.station_counts)


def rollover_plan(
    reads: Reads, authorities: Sequence[AuthorityCertificate], name: str, at: datetime, *, limit: int = 1000
) -> RolloverPlan:
    """Return the plan for the root *name* as things are at *at*.

    Args:
        authorities: of `list_authorities`.
        limit: at most so many stations are named; all are counted.

    Raises:
        NotFound: there is no such CA.
        PolicyRefusal: it is no root.
    """
    newest = reads.get_ca(name)
    newest = reads.get_ca(newest.name)
    if not get_profile(newest.profile).is_root:
        raise PolicyRefusal(
            f"{newest.id} is no root",
            why="stations hold roots; a CA below one is rolled over without them noticing",
            fix=f"roll it over at any time: chargepki ca rollover {newest.name}",
        )
    generations = [each for each in reads.list_cas(name=newest.name) if _is_alive(each, at)]
    seen = _look(reads, authorities, newest, generations, at)
    stations, unknown = seen.stations, seen.unknown
    stations.sort(key=lambda each: (each.breaks_at, each.station, each.use))
    steps = _steps(reads, newest, generations, seen, at)
    return RolloverPlan(
        root=newest.id,
        generations={each.id: each.not_after for each in generations if each.not_after is not None},
        at=at,
        stations=tuple(stations[:limit]),
        station_counts=dict(sorted(seen.counts.items())),
        unknown=tuple(unknown[:limit]),
        unknown_count=len(unknown),
        certificates=_certificates(reads, authorities, generations),
        steps=steps,
    )


def _is_alive(ca: CaRecord, at: datetime) -> bool:
    return ca.state in (CaState.ACTIVE, CaState.RETIRED) and ca.not_after is not None and at <= ca.not_after


@dataclass(slots=True)
class _Seen:
    """What is on record of the fleet."""

    stations: list[BreakingStation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """By ``USE REASON``."""
    holders: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By generation and use."""
    unknown: list[str] = field(default_factory=list)


def _look(
    reads: Reads,
    authorities: Sequence[AuthorityCertificate],
    newest: CaRecord,
    generations: Sequence[CaRecord],
    at: datetime,
) -> _Seen:
    """Return the stations that break, who holds what, and of whom nothing is known."""
    recogniser = Recogniser(reads)
    finder = PathFinder(authorities)
    by_digest = {each.sha256: each for each in authorities}
    ours = {each.sha256: each.ca for each in authorities if each.ca in {ca.id for ca in generations}}
    newest_digest = next((digest for digest, ca in ours.items() if ca == newest.id), "")
    ends: dict[frozenset[str], tuple[datetime, BreakReason] | None] = {}
    behind = _below(reads, [each for each in generations if each.id != newest.id], at)
    seen = _Seen()
    told: set[str] = set()
    only = len(generations) == 1
    for trust in list_station_trust(reads):
        told.add(trust.station)
        for use, (roots, _) in sorted(trust.uses(recogniser).items()):
            held = tuple(sorted(ca for digest in roots if (ca := ours.get(digest)) is not None))
            seen.holders.update((generation, use) for generation in held)
            if not held:
                continue
            if roots not in ends:
                anchors = [by_digest[each].der for each in roots if each in by_digest]
                if newest_digest in roots and not only:
                    ends[roots] = _way_back(finder, behind, anchors, at)
                else:
                    ends[roots] = _way_up(finder, newest, anchors, at, only=only)
            if (end := ends[roots]) is not None:
                seen.stations.append(BreakingStation(trust.station, use, held, *end))
                seen.counts[f"{use} {end[1]}"] += 1
    seen.unknown = [each.id for each in reads.list_stations(state=StationState.ACTIVE) if each.id not in told]
    return seen


def _way_up(
    finder: PathFinder, newest: CaRecord, anchors: Sequence[bytes], at: datetime, *, only: bool
) -> tuple[datetime, BreakReason]:
    """Return when and why nothing leads from the newest generation to *anchors* any more."""
    last = max((path.not_after for path in finder.paths(newest.id, anchors, at)), default=None)
    if last is None:
        return at, BreakReason.NO_PATH
    return last + _SECOND, BreakReason.ROOT_ENDS if only else BreakReason.PATH_ENDS


def _way_back(
    finder: PathFinder, behind: Sequence[CaRecord], anchors: Sequence[bytes], at: datetime
) -> tuple[datetime, BreakReason] | None:
    """Return when the first of the CAs *behind*, below older generations, leads to *anchors* no more before it ends."""
    found = []
    for ca in behind:
        last = max((path.not_after for path in finder.paths(ca.id, anchors, at)), default=None)
        if last is None:
            found.append(at)
        elif ca.not_after is not None and last < ca.not_after:
            found.append(last + _SECOND)
    return (min(found), BreakReason.NO_WAY_BACK) if found else None


def _certificates(
    reads: Reads, authorities: Sequence[AuthorityCertificate], generations: Sequence[CaRecord]
) -> tuple[CutCertificates, ...]:
    """Return what chains to nothing on the day after the first generation to end, over every path."""
    first = min(generations, key=lambda each: each.not_after or each.created_at, default=None)
    root = next((each for each in authorities if first is not None and each.ca == first.id), None)
    if first is None or first.not_after is None or root is None:
        return ()
    return root_impact(reads, authorities, root, first.not_after + _SECOND, limit=0).certificates


def _steps(
    reads: Reads,
    newest: CaRecord,
    generations: Sequence[CaRecord],
    seen: _Seen,
    at: datetime,
) -> tuple[PlanStep, ...]:
    stations, unknown = seen.stations, seen.unknown
    steps: list[PlanStep] = []

    def add(
        kind: StepKind,
        what: str,
        command: str,
        before: datetime | None = None,
        *,
        after: datetime | None = None,
        stations: int = 0,
    ) -> None:
        steps.append(PlanStep(len(steps) + 1, kind, what, command, before, after, stations))

    if unknown:
        first = f"chargepki station roots {unknown[0]} --refresh"
        add(StepKind.ASK, "ask the stations of which nobody knows what they hold", first, stations=len(unknown))
    target_id = newest.id
    if len(generations) == 1:
        # What the next generation is called is known before it is there.
        add(StepKind.ROLL_OVER, "make the next generation", f"chargepki ca rollover {newest.name}", newest.not_after)
        target_id = f"{newest.name}@{newest.generation + 1}"
    lacking = [each for each in stations if each.reason is not BreakReason.NO_WAY_BACK]
    for use in sorted({each.use for each in lacking}):
        of_use = [each for each in lacking if each.use == use]
        chosen = " ".join(f"--station {each.station}" for each in of_use) if len(of_use) <= _NAMED else "--all"
        add(
            StepKind.INSTALL,
            f"install {target_id} for {use}",
            f"chargepki campaign create install-{target_id.replace('@', '-')}-{use} --kind install-root "
            f"--set use={use} --set root={target_id} {chosen}",
            of_use[0].breaks_at,
            stations=len(of_use),
        )
    earlier = [each for each in generations if each.id != target_id]
    for sub in _below(reads, earlier, at):
        issuer = next((each for each in earlier if each.id == sub.issuer), None)
        ends = [each.breaks_at for each in stations if each.reason is BreakReason.NO_WAY_BACK]
        ends += [] if issuer is None or issuer.not_after is None else [issuer.not_after]
        end = min(ends, default=None)
        add(StepKind.MOVE, f"move {sub.name} below {target_id}", f"chargepki ca rollover {sub.name}", end)
    for old in earlier:
        after = max((each.not_after for each in _below(reads, [old], at, retired=True) if each.not_after), default=None)
        for use in sorted(use for generation, use in seen.holders if generation == old.id):
            add(
                StepKind.DELETE,
                f"delete {old.id} for {use}, when nothing below it is in use",
                f"chargepki campaign create delete-{old.id.replace('@', '-')}-{use} --kind delete-root "
                f"--set use={use} --set root={old.id} --all",
                after=after,
                stations=seen.holders[old.id, use],
            )
    return tuple(steps)


def _below(reads: Reads, roots: Sequence[CaRecord], at: datetime, *, retired: bool = False) -> list[CaRecord]:
    """Return the CAs that stand directly below *roots* and issue; with *retired* those too that only did."""
    ids = {each.id for each in roots}
    states = (CaState.ACTIVE, CaState.RETIRED) if retired else (CaState.ACTIVE,)
    return [
        each
        for each in reads.list_cas()
        if each.issuer in ids and each.state in states and each.not_after is not None and at <= each.not_after
    ]
