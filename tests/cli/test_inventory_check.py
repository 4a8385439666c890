"""`inventory check`: findings with clause and cure, in four forms; a check that is killed goes on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lxml import etree

from chargepki.pki.checking.report import CheckReport
from chargepki.pki.inventory.codec import encode_time
from testkit.command_line import CommandLine
from testkit.inventories import NOW


def change(run: CommandLine, sql: str, *values: object) -> None:
    """Change a row behind everybody's back."""
    with sqlite3.connect(run.home / "inventory.db") as connection:
        connection.execute(sql, values)
    connection.close()


def rules(run: CommandLine, *arguments: str, code: int = 0) -> dict[str, int]:
    found = run("inventory", "check", "--json", *arguments, code=code).json()
    assert found["ok"] is (code == 0)
    return {each["rule"]: each["count"] for each in found["findings"]}


def junit(run: CommandLine, *, code: int) -> Any:
    """Return the suites of a report that readers of Ant's and of Jenkins' form can both read."""
    schema = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
    suites = etree.fromstring(run("inventory", "check", "--format", "junit", code=code).stdout)
    schema.assertValid(suites)
    return suites


def test_junit_holds_text_of_others_and_is_valid_without_a_finding(run: CommandLine) -> None:
    (suite,) = junit(run, code=0)
    assert suite.get("failures") == "0"
    change(run, "UPDATE certificate SET station = ']]>&\x01\u2028<a \"' || station, der = x'30'")
    (suite,) = junit(run, code=1)
    assert int(suite.get("failures")) > 0
    report = CheckReport(NOW.astimezone(timezone(timedelta(hours=3))), 0, 0, ())
    assert f'timestamp="{NOW:%Y-%m-%dT%H:%M:%S}"' in report.to_junit()


def test_sound_inventory_passes(run: CommandLine) -> None:
    found = run("inventory", "check", "--json").json()
    every = run("cert", "list", "--json").json()["certificates"]
    assert found["ok"] is True
    assert found["certificates"] == len(every)
    assert found["paths"] == sum(row["state"] == "issued" for row in every)
    assert not [each for each in found["findings"] if each["severity"] == "error"]
    assert "judged" in run("inventory", "check").stderr
    assert not (run.home / "inventory-check.json").exists()


def test_faults_are_found_with_clause_and_cure(run: CommandLine) -> None:
    rows = run("cert", "list", "--ca", "t-cso-sub", "--json").json()["certificates"]
    live, dead = (next(row["id"] for row in rows if row["state"] == state) for state in ("issued", "revoked"))
    change(run, "UPDATE certificate SET der = CAST(replace(der, x'30', x'31') AS BLOB) WHERE id = ?", live)
    change(run, "UPDATE crl SET changes = 0")
    change(run, "UPDATE certificate SET revoked_at = ? WHERE id = ?", encode_time(NOW), dead)
    found = run("inventory", "check", "--json", code=1).json()
    by_rule = {each["rule"]: each for each in found["findings"]}
    assert by_rule["e_der_strict"]["examples"][0]["name"] == live
    late = by_rule["e_unpublished_revocation"]
    assert late["examples"][0]["name"] == dead
    assert late["clause"] == "RFC 5280 3.3"
    assert late["hint"] == "chargepki crl publish --ca t-cso-sub@1"
    assert rules(run, "--where", "state = 'revoked'", code=1).keys() & {"e_der_strict"} == set()

    (suite,) = junit(run, code=1)
    cases = suite.findall("testcase")
    failed = {each.get("name", "").partition(":")[0] for each in cases if each.find("failure") is not None}
    told = {each["rule"] for each in found["findings"] if each["severity"] != "error"}
    assert failed == {each["rule"] for each in found["findings"]} - told
    assert (suite.get("failures"), suite.get("tests")) == (str(len(failed)), str(len(cases)))
    assert {each.get("name", "").partition(":")[0] for each in cases[1:]} == failed | told
    words = suite.findtext("system-out") or ""
    assert all(f" {rule}: " in words for rule in told) and not any(f" {rule}: " in words for rule in failed)
    (late_case,) = (each for each in cases if each.get("name") == "e_unpublished_revocation: 1")
    assert f"cure: {late['hint']}\n{dead}: " in (late_case.findtext("failure") or "")
    sarif = json.loads(run("inventory", "check", "--format", "sarif", code=1).out)["runs"][0]
    assert {each["ruleId"] for each in sarif["results"]} == set(by_rule)
    shown = run("inventory", "check", code=1).out
    assert "e_unpublished_revocation" in shown and "crl publish" in shown


@pytest.mark.foreign
def test_sarif_is_valid(run: CommandLine, sarif_schema: dict[str, Any]) -> None:
    validate = jsonschema.validators.validator_for(sarif_schema)(sarif_schema).validate
    validate(json.loads(run("inventory", "check", "--format", "sarif").out))
    change(run, "UPDATE certificate SET der = CAST(replace(der, x'30', x'31') AS BLOB)")
    change(run, "UPDATE crl SET changes = 0")
    log = json.loads(run("inventory", "check", "--format", "sarif", code=1).out)
    validate(log)
    told = log["runs"][0]
    assert {each["level"] for each in told["results"]} >= {"error"}
    assert {each["id"] for each in told["tool"]["driver"]["rules"]} == {each["ruleId"] for each in told["results"]}


def test_row_that_says_another_thing_than_its_certificate_is_found(run: CommandLine) -> None:
    rows = run("cert", "list", "--ca", "t-cso-sub", "--state", "issued", "--json").json()["certificates"]
    change(run, "UPDATE certificate SET not_after = ? WHERE id = ?", encode_time(NOW.replace(year=2099)), rows[0]["id"])
    assert rules(run, code=1)["e_row_mismatch"] == 1


def test_path_is_judged_at_the_instant_of_the_check(run: CommandLine) -> None:
    found = run("inventory", "check", "--json", "--at", "2100-01-01", code=1).json()
    assert found["paths"] == 0  # everything has expired, which is no fault of a certificate
    assert {each["rule"] for each in found["findings"] if each["severity"] == "error"} == {"e_ca_expired"}


def test_settings_of_the_linter_hold(run: CommandLine) -> None:
    (noisy,) = [each for each in rules(run) if each.startswith("w_placeholder")]
    (run.home / "chargepki.toml").write_text(f'[lint.severity]\n{noisy} = "error"\n')
    assert noisy in rules(run, code=1)
    (run.home / "chargepki.toml").write_text(f'[lint.severity]\n{noisy} = "off"\n')
    assert noisy not in rules(run)


def test_check_that_is_killed_goes_on(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from chargepki.pki.checking import RangeJudge, RangeResult
    from chargepki.pki.checking import run as kept

    whole = run("inventory", "check", "--json", "--at", "2026-12-01").json()
    monkeypatch.setattr(kept.list_ranges, "__kwdefaults__", {"size": 1})
    judged: list[str] = []
    judge = RangeJudge.judge

    def stumble(self: RangeJudge, after: str | None, last: str) -> RangeResult:
        judged.append(last)
        if len(judged) == 3:
            raise KeyboardInterrupt
        return judge(self, after, last)

    monkeypatch.setattr(RangeJudge, "judge", stumble)
    assert run.run("inventory", "check", "--json", "--at", "2026-12-01").code == 130
    file = run.home / "inventory-check.json"
    assert file.stat().st_mode & 0o777 == 0o600
    # Another question does not go on with it, and leaves no trace of it either.
    assert json.loads(file.read_bytes())["judged"] == 2
    goes_on = run("inventory", "check", "--json", "--at", "2026-12-01")
    assert goes_on.json() == whole
    assert len(judged) == len(set(judged)) + 1 == whole["certificates"] + 1
    assert not file.exists()
    file.write_text("{}")
    run("inventory", "check", code=1).check_one_error(1)
    run("inventory", "check", "--fresh")


def test_processes_find_what_one_finds(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from chargepki.cli import checking
    from chargepki.pki.checking import processes
    from chargepki.pki.checking import run as kept

    one = run("inventory", "check", "--json", "--at", "2026-12-01").json()
    monkeypatch.setattr(kept, "RANGE", 1)
    monkeypatch.setattr(checking, "_RANGES_A_PROCESS", 1)
    monkeypatch.setattr(kept.list_ranges, "__kwdefaults__", {"size": 1})
    used: list[int] = []
    judge_ranges = processes.judge_ranges

    def noted(make: Any, ranges: Any, jobs: int) -> Any:
        used.append(jobs)
        return judge_ranges(make, ranges, jobs)

    monkeypatch.setattr("chargepki.pki.checking.judge_ranges", noted)
    assert run("inventory", "check", "--json", "--at", "2026-12-01", "--jobs", "2").json() == one
    assert used == [2]


def test_processes_end_with_the_one_that_reads_them(run: CommandLine, place: Path) -> None:
    marks = place / "marks"
    marks.mkdir()
    environ = {**os.environ, **run.variables, "CHARGEPKI_HOME": str(run.home), "MARKS": str(marks)}
    command = [sys.executable, "-c", _MANY, "inventory", "check", "--jobs", "2"]
    parent = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    try:
        while len(list(marks.iterdir())) < 2:
            assert time.monotonic() < deadline, "the processes do not begin"
            time.sleep(0.02)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    left = [int(each.name) for each in marks.iterdir()]
    assert parent.pid not in left
    while any(_is_running(pid) for pid in left):
        assert time.monotonic() < deadline, "processes outlive the one that reads them"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Small ranges, so that few certificates are enough for several processes; the processes never finish.
_MANY = """
import os, sys, time
from chargepki.cli import checking
from chargepki.cli.main import main
from chargepki.pki.checking import processes, run
run.RANGE = checking._RANGES_A_PROCESS = 1
run.list_ranges.__kwdefaults__["size"] = 1
def slow(self, after, last):
    open(os.path.join(os.environ["MARKS"], str(os.getpid())), "w").close()
    time.sleep(600)
processes.RangeJudge.judge = slow
sys.argv = ["chargepki", *sys.argv[1:]]
main()
"""
