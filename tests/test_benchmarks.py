"""The benchmark harness reports the ratio that is there, and says when a limit is missed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import names
from benchmarks.harness import (
    SIZE,
    SIZED,
    Case,
    Comparison,
    Limit,
    command_case,
    compare,
    main,
    result_name,
    table,
    write_measured,
    write_results,
)
from benchmarks.publish import CLOSING, OPENING, PUBLISHED, README, between, publish, render
from benchmarks.renewals import MeasuredWave


def spin(turns: int) -> None:
    for _ in range(turns):
        pass


def three_to_one(limit: float | None) -> Comparison:
    return compare(
        "is three times the work three times the cost?",
        subject=Case("three", lambda: spin(60_000)),
        reference=Case("one", lambda: spin(20_000)),
        rounds=7,
        seconds=0.02,
        limit=None if limit is None else Limit(limit, "a test"),
    )


def test_ratio_is_that_of_the_work_done() -> None:
    comparison = three_to_one(None)
    assert 2 < comparison.ratio < 4.5
    assert comparison.ratio_low <= comparison.ratio <= comparison.ratio_high
    assert comparison.met


def test_cost_is_per_operation_not_per_call() -> None:
    comparison = compare(
        "three operations in one call",
        subject=Case("three", lambda: spin(60_000), operations=3),
        reference=Case("one", lambda: spin(20_000)),
        rounds=7,
        seconds=0.02,
    )
    assert 0.6 < comparison.ratio < 1.6


def test_missed_limit_is_shown_and_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["example", "--results", str(tmp_path)])
    missed = three_to_one(1.5)
    assert main("example", lambda: [missed]) == 1
    assert "1.5 MISSED" in table([missed])
    written = json.loads((tmp_path / "example.json").read_text())
    assert [entry["met"] for entry in written["comparisons"]] == [False]


def test_limit_may_be_one_of_the_time_on_the_clock() -> None:
    comparison = three_to_one(None)
    assert comparison.wall_ratio is not None
    short = replace(comparison, limit=Limit(comparison.wall_ratio * 0.9, "a test", wall=True), ratio=0.0)
    assert not short.met
    assert "by clock MISSED" in table([short])
    assert not replace(short, wall_ratio=None).met
    assert replace(short, limit=Limit(comparison.wall_ratio, "a test", wall=True)).met


def test_results_can_be_read_back(tmp_path: Path) -> None:
    from benchmarks.__main__ import read

    comparison = three_to_one(100)
    assert read(write_results("example", [comparison], tmp_path)) == [comparison]


def test_a_failing_command_is_not_measured() -> None:
    with pytest.raises(Exception, match="exit status 3"):
        command_case("fails", "sh", "-c", "exit 3").run()


def test_the_table_in_the_readme_is_that_of_the_published_figures() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert between(README.read_text(encoding="utf-8")) == render(published), "run: python -m benchmarks NAME --publish"
    assert {script.partition("-")[0] for script in published["scripts"]} <= set(names())


def test_results_of_an_inventory_of_another_size_have_a_name_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIZE, raising=False)
    assert [result_name(script) for script in ("reads", "lint")] == ["reads", "lint"]
    monkeypatch.setenv(SIZE, "1000000")
    assert [result_name(script) for script in ("reads", "lint")] == ["reads-1000000", "lint"]
    assert set(names()) >= SIZED


def test_the_table_tells_of_the_largest_inventory_alone(tmp_path: Path) -> None:
    comparison, scripts = three_to_one(4.0), ("lint", "reads", "reads-1000000")
    for script in scripts:
        write_results(script, [replace(comparison, question=f"a question of {script}")], tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"{OPENING}{CLOSING}")
    publish(scripts, results=tmp_path, published=tmp_path / "published.json", readme=readme)
    rows = [line.split(" | ")[0] for line in readme.read_text().splitlines() if line.startswith("| a question")]
    assert rows == ["| a question of lint (`lint`)", "| a question of reads-1000000 (`reads-1000000`)"]


def test_what_has_no_reference_is_written_as_it_is_shown(tmp_path: Path) -> None:
    found = MeasuredWave(
        stations=10, renewals=2, wall=1.5, cpu=0.5, trigger_to_certificate_p50=0.1, trigger_to_certificate_p99=0.2,
        heartbeat_p50=0.01, heartbeat_p99=0.02, resident_before=1, resident_after=2, closed=0,
        triggers=Counter({"CS-1": 1, "CS-2": 1}), states=Counter({"done": 2}), in_use=2,
    )  # fmt: skip
    written = json.loads(write_measured("renewals", found, tmp_path).read_text())
    assert (written["schema"], written["machine"].keys() >= {"cores", "load_1min"}) == ("chargepki.measured", True)
    assert (written["measured"]["states"], written["measured"]["in_use"]) == ({"done": 2}, 2)
    assert "triggers" not in written["measured"]


def test_a_run_is_published_with_its_spread_its_goal_and_what_was_missed(tmp_path: Path) -> None:
    comparison = replace(three_to_one(2.5), ratio=2.2, ratio_low=2.1, ratio_high=2.6, question="a | b")
    guarded = replace(comparison, limit=Limit(2.5, "a guard", goal=2.0))
    less = replace(comparison, ratio=0.25, ratio_low=0.2, ratio_high=0.5, limit=Limit(1 / 3, "a test"))
    clock = replace(comparison, wall_ratio=2.4, limit=Limit(2.3, "a test", wall=True))
    write_results("example", [comparison, guarded, less, clock, replace(comparison, limit=None)], tmp_path)
    readme, published = tmp_path / "README.md", tmp_path / "published.json"
    readme.write_text(f"before\n{OPENING}old\n{CLOSING}after\n")
    published.write_text(
        json.dumps({"scripts": {"other": json.loads((tmp_path / "example.json").read_text()) | {"comparisons": []}}})
    )
    publish(["example", "broken"], results=tmp_path, published=published, readme=readme)
    text = readme.read_text()
    lines = [line.replace("a \\| b", "a") for line in text.splitlines()]
    rows = [line.split(" | ")[2:] for line in lines if line.startswith("| a ")]
    assert rows == [
        ["2.2 times (2.1 to 2.6)", "at most 2.5 times", "met |"],
        ["2.2 times (2.1 to 2.6)", "at most 2 times", "**missed** |"],
        ["4 times less (2 to 5)", "3 times less", "met |"],
        ["2.4 times, by the clock", "at most 2.3 times", "**missed** |"],
    ]
    assert text.startswith("before\n") and text.endswith(f"{CLOSING}after\n") and "old" not in text
    assert set(json.loads(published.read_text())["scripts"]) == {"example", "other"}
    with pytest.raises(ValueError, match="two markers"):
        between("no markers")
