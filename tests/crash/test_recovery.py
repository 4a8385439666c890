"""Backups, restores, passphrases, imports and renewals, killed or starved at their system calls: nothing is lost."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from testkit.crash import CHANGING_CALLS, POINTS, SEED, Call, Fault, Place, Runner, need_strace
from testkit.crash_postgresql import PostgresqlServer
from testkit.crash_recovery import RECOVERY, Recovery, prepare, recovers, undisturbed
from testkit.effort import CAMPAIGN

pytestmark = [pytest.mark.slow, pytest.mark.foreign, pytest.mark.timeout(3600 if CAMPAIGN else 300)]

SENDING = ("sendto", "sendmsg")
_NAMES = ("fsync", "fdatasync", "rename", "link", "unlink", "pwrite64", "mkdir")


@pytest.fixture(scope="session")
def ready(templates: dict[str, Place], runner: Runner, fast_folder: Path) -> Place:
    """A workspace with a backup of it and an older CA beside it."""
    place = templates["ready"].copy_to(fast_folder / "recovery")
    prepare(runner, place)
    return place


def chosen(calls: tuple[Call, ...], most: int) -> list[Call]:
    """Return every call in a campaign, and otherwise *most* of them, where it matters most: at moves and flushes."""
    if CAMPAIGN:
        return random.Random(SEED).sample(calls, min(POINTS, len(calls)))
    found = [call for call in calls if call.name in _NAMES]
    return random.Random(SEED).sample(found, min(most, len(found)))


def judged(
    runner: Runner, recovery: Recovery, start: Place, place: Place, fault: Fault, calls: tuple[str, ...]
) -> tuple[bool, list[str]]:
    """Run the command under *fault*; return whether that was reached, and what is wrong afterwards."""
    try:
        first = runner.run(place, *recovery.arguments, fault=fault, calls=calls)
        starved = "error" in fault.action
        wrong = [] if first.killed or first.code in ((0, 4) if starved else (0,)) else [f"it ended with {first.code}"]
        if starved and (first.stderr.count("error: ") > 1 or "Traceback" in first.stderr):
            wrong.append(f"it said: {first.stderr}")
        wrong += recovers(runner, recovery, place, first, start)
        return first.fired, [f"{fault}: {item}" for item in wrong]
    finally:
        shutil.rmtree(place.root)


@pytest.mark.parametrize("name", RECOVERY)
def test_a_killed_command_leaves_the_old_or_the_new_and_is_completed(
    name: str, runner: Runner, ready: Place, folder: Path
) -> None:
    need_strace()
    recovery = RECOVERY[name]
    calls = undisturbed(runner, recovery, ready.copy_to(folder / "undisturbed"), CHANGING_CALLS)
    wrong: list[str] = []
    missed = 0
    points = chosen(calls, recovery.points)
    for call in points:
        fault = Fault(call.name, call.nth, "signal=KILL")
        reached, found = judged(runner, recovery, ready, ready.copy_to(folder / "killed"), fault, CHANGING_CALLS)
        wrong += [f"{call}: {item}" for item in found]
        missed += not reached
    print(f"{name}: {len(points)} kill points of {len(calls)} calls, seed {SEED}, {missed} missed")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
    assert missed <= max(2, len(points) // 10)


@pytest.mark.campaign
@pytest.mark.parametrize("name", RECOVERY)
def test_a_call_that_fails_is_one_clear_error_and_the_repeat_succeeds(
    name: str, runner: Runner, ready: Place, folder: Path
) -> None:
    need_strace()
    recovery = RECOVERY[name]
    calls = undisturbed(runner, recovery, ready.copy_to(folder / "undisturbed"), CHANGING_CALLS)
    wrong: list[str] = []
    for call in chosen(tuple(call for call in calls if call.target not in ("stdout", "stderr")), POINTS):
        error = "EIO" if call.name in ("fsync", "fdatasync") else "ENOSPC"
        fault = Fault(call.name, call.nth, f"error={error}")
        place = ready.copy_to(folder / "failing")
        wrong += [f"{call}: {item}" for item in judged(runner, recovery, ready, place, fault, CHANGING_CALLS)[1]]
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])


@pytest.mark.campaign
@pytest.mark.parametrize("name", RECOVERY)
def test_on_postgresql_a_kill_at_anything_it_sends_or_changes_loses_nothing(
    name: str, runner: Runner, server: PostgresqlServer, postgresql_template: tuple[Place, str], folder: Path
) -> None:
    need_strace()
    recovery = RECOVERY[name]
    template, database = postgresql_template
    filled, url = server.new_database(like=database)
    start = Place(template.copy_to(folder / "start").root, url)
    prepare(runner, start)
    every = (*CHANGING_CALLS, *SENDING)

    def fresh(where: str) -> Place:
        return Place(start.copy_to(folder / where).root, server.new_database(like=filled)[1])

    calls = undisturbed(runner, recovery, fresh("undisturbed"), every)
    wrong: list[str] = []
    telling = (*SENDING, "rename", "link", "unlink", "fsync")
    for call in chosen(tuple(call for call in calls if call.name in telling), POINTS):
        fault = Fault(call.name, call.nth, "signal=KILL")
        wrong += [f"{call}: {item}" for item in judged(runner, recovery, start, fresh("killed"), fault, every)[1]]
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
