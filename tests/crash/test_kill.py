"""End the issuing process at every system call that changes something, and look at what it left and how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.crash import CHANGING_CALLS, POINTS, SEED, Call, Fault, Place, Runner, choose, need_strace
from testkit.crash_commands import ALL, TRIED
from testkit.crash_postgresql import PostgresqlServer
from testkit.crash_scenarios import Scenario, arguments_of, goes_on, undisturbed
from testkit.effort import CAMPAIGN

pytestmark = [pytest.mark.slow, pytest.mark.foreign, pytest.mark.timeout(3600 if CAMPAIGN else 300)]

SENDING = ("sendto", "sendmsg")
PARTS = 2
"""Each scenario is this many tests, for the workers to share."""
REAL = 1
"""Calls at which the installed program is killed as well; the others are forks of a process that has imported it."""


def one_kill(
    runner: Runner,
    scenario: Scenario,
    start: Place,
    call: Call,
    folder: Path,
    *,
    real: bool,
    calls: tuple[str, ...] = CHANGING_CALLS,
) -> tuple[bool, list[str]]:
    """Kill the command at *call*; return whether it was reached, and what is wrong afterwards."""
    place = start.copy_to(folder / "killed")
    try:
        fault = Fault(call.name, call.nth, "signal=KILL")
        first = runner.run(place, *arguments_of(scenario, place), fault=fault, real=real, calls=calls)
        wrong = [] if first.killed or first.code in scenario.ends else [f"it ended with {first.code}: {first.stderr}"]
        wrong += goes_on(runner, scenario, place, first, start)
        return first.killed, [f"killed at {call}{' (real program)' if real else ''}: {item}" for item in wrong]
    finally:
        shutil.rmtree(place.root)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", TRIED)
def test_a_killed_command_loses_nothing_and_is_completed_by_repeating_it(
    name: str,
    part: int,
    runner: Runner,
    start_of: Callable[[str], Place],
    folder: Path,
) -> None:
    need_strace()
    scenario = ALL[name]
    start = start_of(name)
    calls = undisturbed(runner, scenario, start, folder)
    chosen = choose(calls, sample=scenario.sample, every=CAMPAIGN, most=2 if scenario.campaign else 36)
    # The counts of opening calls differ between the program and a fork of it, which has imported everything.
    real = chosen if CAMPAIGN else [call for call in chosen if call.name in ("fdatasync", "fsync", "link", "rename")]
    real = [call for call in real if not call.name.startswith("open")]
    if not CAMPAIGN or len(calls) > POINTS:
        real = real[len(real) // 2 :][:REAL]
    points = [(call, False) for call in chosen] + [(call, True) for call in real]
    if scenario.campaign and not CAMPAIGN:
        real = []
    wrong: list[str] = []
    missed: list[str] = []
    for call, as_program in points[part::PARTS]:
        reached, found = one_kill(runner, scenario, start, call, folder, real=as_program)
        wrong += found
        if not reached:
            missed.append(str(call))
    print(f"{name}: {len(points[part::PARTS])} kill points of {len(calls)} calls, seed {SEED}, missed: {missed}")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
    # The page count of a commit may differ by one or two between runs, so a last call may not come.
    assert len(missed) <= 2, f"not reached: {missed}"


@pytest.mark.campaign
@pytest.mark.parametrize("name", [name for name, row in ALL.items() if row.campaign])
def test_on_postgresql_a_command_killed_at_what_it_sends_is_completed_by_repeating_it(
    name: str, runner: Runner, server: PostgresqlServer, postgresql_template: tuple[Place, str], folder: Path
) -> None:
    need_strace()
    row, every = ALL[name], (*CHANGING_CALLS, *SENDING)
    template, database = postgresql_template
    if row.start == "ready":
        filled, url = server.new_database(like=database)
        start = Place(template.copy_to(folder / "start").root, url)
    else:
        filled, url = server.new_database()
        start = Place.new(folder / "start", url)
    row.setup(runner, start)

    def fresh(where: str) -> Place:
        return Place(start.copy_to(folder / where).root, server.new_database(like=filled)[1])

    calls = undisturbed(runner, row, fresh("first"), folder, every)
    telling = [call for call in calls if call.name in (*SENDING, "rename", "link", "unlink", "fsync")]
    wrong: list[str] = []
    reached = 0
    for number, call in enumerate(choose(telling, sample=0, every=True)):
        killed, found = one_kill(runner, row, fresh(f"start{number}"), call, folder, real=False, calls=every)
        reached += killed
        wrong += found
    print(f"{name}: {reached} kills, seed {SEED}")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
