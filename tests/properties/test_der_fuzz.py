"""Whatever a stranger sends as DER gets an answer: no bug, no hang, no flood of memory.

`tools/fuzz_der.py` runs more of it, and prints the figures.
"""

from __future__ import annotations

import os

import pytest

from testkit.fuzz.corpus import FuzzKind, corpus
from testkit.fuzz.run import Campaign, make_mutant

SEED = 15118
IN_CI = 100
CAMPAIGN_CPU_SECONDS = float(os.environ.get("CHARGEPKI_FUZZ_SECONDS", "600"))


def test_mutants_of_every_kind_are_answered() -> None:
    with Campaign() as campaign:
        for number in range(IN_CI):
            campaign.try_mutant(make_mutant(SEED, number), with_commands=number % 3 == 0)
    assert not campaign.failures, campaign.report()
    assert all(campaign.counts[kind].inputs for kind in FuzzKind)


def test_a_mutant_is_the_same_in_every_run() -> None:
    assert make_mutant(SEED, 7) == make_mutant(SEED, 7)
    assert len({make_mutant(SEED, number).data for number in range(100)}) > 90


def test_the_corpus_has_every_kind() -> None:
    kinds = [sample.kind for sample in corpus()]
    assert all(kinds.count(kind) >= 8 for kind in FuzzKind)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_the_whole_corpus_is_answered_by_every_reader(capsys: pytest.CaptureFixture[str]) -> None:
    with Campaign() as campaign:
        for sample in corpus():
            campaign.try_sample(sample, everywhere=True)
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert not campaign.failures, campaign.report()


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_run_of_mutants_is_answered(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Campaign() as campaign:
        campaign.run(seed=seed, cpu_seconds=CAMPAIGN_CPU_SECONDS / 2)
    with capsys.disabled():
        print(f"\nseed {seed}\n{campaign.report()}")
    assert not campaign.failures, campaign.report()
