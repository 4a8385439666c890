"""Run a fleet of simulated stations for ``station simulate --count`` and tell how it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from chargepki.cli.globals import GlobalState
from chargepki.cli.listening import event_loop_factory
from chargepki.cli.output import counted
from chargepki.cli.progress import progress
from chargepki.cli.simulating import StationPlant, tell_progress
from chargepki.cli.values import format_duration
from chargepki.ocpp_security.station import Milestone, Progress
from chargepki.ocpp_security.station.fleet import FleetMember, StationFleet, StationTally
from chargepki.pki.errors import StateError, UnavailableError, printable

__all__ = ["simulate_fleet"]

_FILES_BESIDE = 64
"""Open files of the process that are no station's connection."""
_SHOWN_TROUBLES = 20


def simulate_fleet(
    state: GlobalState,
    plant: StationPlant,
    members: Sequence[FleetMember],
    until: Milestone | None,
    timeout: timedelta | None,
    *,
    at_once: int,
) -> None:
    """Run the stations until each has reached *until*, or a signal; then tell what became of them.

    Raises:
        StateError: the system allows this process fewer open files than it needs.
        UnavailableError: some stations did not reach *until*, or none is left.
    """
    _allow_files(len(members) + at_once + _FILES_BESIDE)
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        fleet, reached = runner.run(_run(state, plant, members, until, timeout, at_once))
    _tell_result(state, fleet)
    for tally in fleet.tallies:
        if tally.bug is not None:
            raise tally.bug
    missing = [tally for tally in fleet.tallies if until is not None and not tally.reached[until]]
    if reached or (until is None and any(tally.ended is None for tally in fleet.tallies)):
        return
    first = (missing or fleet.tallies)[0]
    why = first.ended or next(iter(first.troubles), "it is on its way")
    goal = "could go on" if until is None else f"reached {until.value}"
    fix = "see the troubles above, and the log of the CSMS" + ("" if timeout is None else "; or allow more time")
    raise UnavailableError(
        f"{len(members) - len(missing) if until else 0} of {counted(len(members), 'station')} {goal}"
        + ("" if timeout is None else f" within {format_duration(timeout)}"),
        why=printable(f"{first.member.identity}: {why}"),
        fix=fix,
    )


async def _run(
    state: GlobalState,
    plant: StationPlant,
    members: Sequence[FleetMember],
    until: Milestone | None,
    timeout: timedelta | None,
    at_once: int,
) -> tuple[StationFleet, bool]:
    stop, goal = asyncio.Event(), until or Milestone.BOOTED
    loop = asyncio.get_running_loop()
    with _telling(state, goal, len(members)) as told:
        fleet = StationFleet(members, plant.build, at_once=at_once, progress=told)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            late = None if timeout is None else loop.call_later(timeout.total_seconds(), stop.set)
            return fleet, await fleet.run(until=until, stop=stop)
        finally:
            if late is not None:
                late.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def _telling(state: GlobalState, goal: Milestone, count: int) -> Iterator[Any]:
    """Yield what is called with each event: it writes lines of JSON, draws a bar, or says when all are there."""
    there: set[str] = set()
    with progress(state, f"stations {goal.value}") as show:

        def told(tally: StationTally, event: Progress) -> None:
            if state.output.is_json_lines:
                tell_progress(state, event, tally.member.identity)
            if event.milestone is goal and tally.member.identity not in there:
                there.add(tally.member.identity)
                show(len(there), count)
                if len(there) == count:
                    state.output.say(f"all {counted(count, 'station')}: {goal.value}")

        yield told


def _tell_result(state: GlobalState, fleet: StationFleet) -> None:
    """Write the totals, a row for each kind of station, and every trouble with how many had it."""
    if state.output.for_machines:
        rows = [_row(tally) for tally in fleet.tallies]
        state.output.document("chargepki/station-fleet", {**fleet.totals, "rows": rows})
        return
    groups: dict[tuple[str, str], list[StationTally]] = {}
    for tally in fleet.tallies:
        profile = "-" if tally.profile is None else str(tally.profile)
        groups.setdefault((tally.member.version, profile), []).append(tally)
    columns = ("protocol", "profile", "stations", "booted", "certified", "disconnected", "events", "ended")
    state.output.rows("chargepki/station-fleet", columns, [_group(key, groups[key]) for key in sorted(groups)])
    found: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    for tally in fleet.tallies:
        for text, times in tally.troubles.items():
            found[text] += times
            hit[text] += 1
        if tally.ended is not None:
            found[f"ended: {tally.ended}"] += 1
            hit[f"ended: {tally.ended}"] += 1
    troubles = [
        {"stations": hit[text], "times": times, "trouble": printable(text)}
        for text, times in found.most_common(_SHOWN_TROUBLES)
    ]
    if troubles:
        state.output.rows("chargepki/station-troubles", ("stations", "times", "trouble"), troubles)
    if len(found) > _SHOWN_TROUBLES:
        state.output.say(f"{len(found) - _SHOWN_TROUBLES} more kinds of trouble: see --json")


def _group(key: tuple[str, str], tallies: Sequence[StationTally]) -> dict[str, Any]:
    def times(milestone: Milestone) -> int:
        return sum(tally.reached[milestone] for tally in tallies)

    return {
        "protocol": key[0],
        "profile": key[1],
        "stations": len(tallies),
        "booted": sum(bool(tally.reached[Milestone.BOOTED]) for tally in tallies),
        "certified": sum(bool(tally.reached[Milestone.CERTIFICATE_INSTALLED]) for tally in tallies),
        "disconnected": times(Milestone.DISCONNECTED),
        "events": times(Milestone.SECURITY_EVENT),
        "ended": sum(tally.ended is not None for tally in tallies),
    }


def _row(tally: StationTally) -> dict[str, Any]:
    conduct = tally.member.conduct
    wrong = [*conduct.own, *conduct.hash_defects, *(f"firmware-{each}" for each in conduct.firmware)]
    return {
        "id": tally.member.identity,
        "url": tally.member.url,
        "protocol": tally.member.version,
        "profile": tally.profile,
        "misbehaves": sorted(map(str, wrong)),
        "reached": dict(sorted(tally.reached.items())),
        "troubles": dict(sorted(tally.troubles.items())),
        "ended": tally.ended,
    }


def _allow_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    if hard < needed:
        raise StateError(
            f"{needed} open files are needed, and this process may have {hard}",
            why="every station has a connection",
            fix=f"allow more (ulimit -Hn {needed}), or run fewer stations in one process",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
