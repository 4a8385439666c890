"""A fuzz campaign on the frame path: whatever comes, it is judged, answered as the standard says, and forgotten."""

from __future__ import annotations

import os
import time
import tracemalloc
from random import Random

import pytest

from chargepki.ocpp_security.versions import OcppVersion, Role
from testkit.frame_fuzz import Fuzzer, Tally

CAMPAIGN_SECONDS = float(os.environ.get("CHARGEPKI_FUZZ_SECONDS", "600"))


def run(frames: int, seed: int) -> Tally:
    tally = Tally()
    fuzzers = [
        Fuzzer(version, role, Random(f"{seed}/{version}/{role}"), tally) for version in OcppVersion for role in Role
    ]
    for number in range(frames):
        fuzzers[number % len(fuzzers)].step()
    return tally


def test_fuzzed_frames_are_judged_answered_and_forgotten() -> None:
    tally = run(700, seed=1)
    # The fuzzer itself must reach what it is there for.
    assert tally.calls > 80
    assert tally.with_secret > 25
    assert tally.misplaced < tally.with_secret / 10
    assert tally.checked_by_jsonschema > 4
    assert {"unreadable", "bad-call", "unknown-type", "unsolicited-answer"} <= set(tally.violations)
    assert {"FormationViolation", "FormatViolation", "RpcFrameworkError", "TypeConstraintViolation"} <= set(
        tally.answered_with
    )


def test_memory_stays_where_it_is_however_many_frames_come() -> None:
    fuzzer = Fuzzer(OcppVersion.V21, Role.CSMS, Random(7), Tally())
    for _ in range(150):  # compiled schemas and caches are there to stay
        fuzzer.step()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(150):
            fuzzer.step()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4_000_000


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    tally, seed = Tally(), int(os.environ.get("CHARGEPKI_FUZZ_SEED", "0")) or int(time.time())
    ends = [(version, role) for version in OcppVersion for role in Role]
    end = time.process_time() + CAMPAIGN_SECONDS
    rounds = 0
    while time.process_time() < end:
        # A fresh session each round: the seed and the round name a failure well enough to repeat it.
        fuzzers = [Fuzzer(*which, Random(f"{seed}/{rounds}/{which}"), tally) for which in ends]
        for _ in range(500):
            for fuzzer in fuzzers:
                fuzzer.step()
        rounds += 1
    with capsys.disabled():
        print(f"\nframe fuzz, seed {seed}, {rounds} rounds, {CAMPAIGN_SECONDS:.0f} CPU-seconds")
        print("\n".join(tally.lines()))
