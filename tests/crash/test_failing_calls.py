"""Let system calls fail, once or from some point on as on a full disk: one clear error, exit 4, and then it goes on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.crash import SEED, Fault, Outcome, Place, Runner, choose, need_strace
from testkit.crash_commands import ALL
from testkit.crash_judge import problems
from testkit.crash_scenarios import ISSUE, Scenario, arguments_of, goes_on, undisturbed
from testkit.effort import CAMPAIGN
from testkit.small_disk import do_without_mount, fill_but, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.foreign, pytest.mark.timeout(3600 if CAMPAIGN else 300)]

FLUSHES = ("fsync", "fdatasync")
FREE = (0, 8, 32, 96, 4096)
"""KiB that a disk has left."""
MOST = 36
"""At most so many calls are tried in an ordinary test run."""
SCENARIOS_TRIED = tuple(ALL) if CAMPAIGN else ("create-root", "issue", "revoke", "serve")


def complaint(outcome: Outcome, ends: tuple[int, ...] = (0,), *, lists: bool = False) -> Iterator[str]:
    """Yield what is wrong with how a command reported that a file or disk failed it."""
    if outcome.code not in (*ends, 4):
        yield f"it ended with {outcome.code}: {outcome.stderr.strip()}"
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    if (len(errors) != (1 if outcome.code else 0) and not lists) or "Traceback" in outcome.stderr:
        yield f"it ended with {outcome.code} and said: {outcome.stderr.strip()}"


def one_fault(
    runner: Runner, scenario: Scenario, start: Place, fault: Fault, folder: Path
) -> tuple[Outcome, list[str]]:
    """Run the command under *fault*, then repeat it; return what is wrong."""
    place = start.copy_to(folder / "failing")
    try:
        first = runner.run(place, *arguments_of(scenario, place), fault=fault)
        # Its own message may be the call that failed.
        wrong = (
            []
            if fault.name == "write" and not first.stderr
            else list(complaint(first, scenario.ends, lists=scenario.lists))
        )
        wrong += goes_on(runner, scenario, place, first, start)
        return first, [f"{fault}: {item}" for item in wrong]
    finally:
        shutil.rmtree(place.root)


@pytest.mark.parametrize("name", SCENARIOS_TRIED)
def test_a_failing_call_is_one_clear_error_and_the_repeat_succeeds(
    name: str, runner: Runner, start_of: Callable[[str], Place], folder: Path
) -> None:
    need_strace()
    scenario = ALL[name]
    start = start_of(name)
    calls = choose(undisturbed(runner, scenario, start, folder), sample=3, every=CAMPAIGN)
    if len(calls) > MOST and not CAMPAIGN:
        calls = random.Random(SEED).sample(calls, MOST)
    wrong: list[str] = []
    silent = 0
    for call in calls:
        error = "EIO" if call.name in FLUSHES else "ENOSPC"
        outcome, found = one_fault(runner, scenario, start, Fault(call.name, call.nth, f"error={error}"), folder)
        wrong += [f"{call}: {item}" for item in found]
        silent += outcome.code == 0
    print(f"{name}: {len(calls)} failing calls, {silent} of them did not matter, seed {SEED}")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
    assert silent < len(calls), "no fault made a difference"


@pytest.mark.parametrize("name", ALL if CAMPAIGN else ("issue",))
def test_a_disk_that_stays_full_is_one_clear_error_and_the_repeat_succeeds(
    name: str, runner: Runner, start_of: Callable[[str], Place], folder: Path
) -> None:
    """From some write to the database on, none succeeds any more; files are among what the small disk below refuses."""
    need_strace()
    scenario, start = ALL[name], start_of(name)
    calls = [call for call in undisturbed(runner, scenario, start, folder) if call.name == "pwrite64"]
    wrong: list[str] = []
    codes: list[int] = []
    for call in choose(calls, sample=2, every=CAMPAIGN):
        fault = Fault(call.name, call.nth, "error=ENOSPC", lasting=True)
        outcome, found = one_fault(runner, scenario, start, fault, folder)
        codes.append(outcome.code)
        wrong += found
    print(f"{name}: {len(codes)} points from which on the disk was full, seed {SEED}, codes {sorted(set(codes))}")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
    assert codes or not calls, "a command that writes was not tried"


def test_a_command_on_a_disk_that_is_really_full_goes_on_once_there_is_space(
    runner: Runner, templates: dict[str, Place], folder: Path
) -> None:
    """A real full disk where the tests may mount one; elsewhere the injected errors above stand for it."""
    with small_disk(folder / "disk", 2048) as disk:
        if disk is None:
            do_without_mount("the injected errors stand for it")
            return
        place = templates["ready"].copy_to(disk / "place")
        filler = disk / "filler"
        answers: list[int] = []
        for free in (0, 4, 12, 24, 36, 48, 64, 80, 96, 128, 192, 256):
            arguments = [*ISSUE, "--csr", "a.csr", "--out", f"out/{free}.pem", "--request-id", f"free-{free}"]
            fill_but(filler, free * 1024)
            first = runner.run(place, *arguments)
            filler.unlink()
            assert list(complaint(first)) == []
            if first.code:
                assert "space" in first.stderr or "full" in first.stderr, first.stderr
            assert not (first.code and (place.out / f"{free}.pem").exists())
            repeat = runner.run(place, *arguments)
            assert repeat.code == 0, repeat.stderr
            answers.append(first.code)
        assert problems(place.copy_to(folder / "look")) == []
        assert 4 in answers and 0 in answers, answers


@pytest.mark.campaign
@pytest.mark.parametrize("name", ALL)
def test_every_command_on_a_disk_that_is_really_full_goes_on_once_there_is_space(
    name: str, runner: Runner, start_of: Callable[[str], Place], folder: Path
) -> None:
    """Workspace, published files and what the command writes are on one small disk, which leaves it some blocks."""
    scenario, start = ALL[name], start_of(name)
    with small_disk(folder / "disk", 64 << 10) as disk:
        if disk is None:
            pytest.skip("this process may not mount a small file system; the injected errors stand for it")
        wrong: list[str] = []
        answers: list[int] = []
        for free in FREE:
            place = start.copy_to(disk / "place")
            filler = disk / "filler"
            filler.write_bytes(b"")
            filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free * 1024)))
            first = runner.run(place, *arguments_of(scenario, place))
            filler.unlink()
            found = [
                *complaint(first, scenario.ends, lists=scenario.lists),
                *goes_on(runner, scenario, place, first, start),
            ]
            wrong += [f"{free} KiB free: {item}" for item in found]
            answers.append(first.code)
            shutil.rmtree(place.root)
        print(f"{name}: {dict(zip(FREE, answers, strict=True))}")
        assert not wrong, "\n".join(wrong)
        assert 0 in answers, "even the largest room was too small"


@pytest.mark.parametrize("options", [(), ("--json",), ("--out", "-"), ("--chain-out", "-")])
def test_a_standard_output_that_is_full_is_exit_4_and_the_certificate_stays_to_be_fetched(
    options: tuple[str, ...], runner: Runner, templates: dict[str, Place], folder: Path
) -> None:
    if not Path("/dev/full").exists():
        return  # a device of Linux
    place = templates["ready"].copy_to(folder / "place")
    arguments = (*ISSUE, "--csr", "a.csr", *options)
    first = runner.run(place, *arguments, real=True, stdout=Path("/dev/full"))
    assert list(complaint(first)) == []
    assert first.code == 4, first.stderr
    repeat = runner.run(place, *arguments)
    assert repeat.code == 0
    assert "already issued" in repeat.stderr
    assert problems(place, [repeat]) == []
