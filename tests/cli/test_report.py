"""`inventory report`: every figure is what its command answers, findings are of now or of the last check."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit.command_line import CommandLine
from testkit.databases import copy_rows, postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]

COMMAND = Path(sys.executable).parent / "chargepki"


@pytest.mark.parametrize(
    "part", [(), ("--where", "profile = 'ocpp/charging-station'", "--query", "issued")], ids=["everything", "part"]
)
def test_every_command_repeats_its_figure(run: CommandLine, part: tuple[str, ...]) -> None:
    run("query", "save", "issued", "origin = 'issued' and not state = 'reserved'")
    found = run("inventory", "report", "--json", *part).json()

    def repeat(command: str, code: int = 0) -> dict[str, Any]:
        program, *words = shlex.split(command)
        assert program == "chargepki"
        return run(*words, "--json", code=code).json()

    for figure in found["figures"]:
        answer = repeat(figure["command"])
        if "certificates" in answer:
            assert answer["certificates"] == figure["value"]
        else:
            (listed,) = (each for each in answer.values() if isinstance(each, list))
            assert len(listed) == figure["value"], figure["name"]
    assert {figure["name"] for figure in found["figures"]} >= {"valid", "revoked"}
    timeline = repeat(found["timeline"]["command"])
    columns = {each["begin"]: each["certificates"] for each in found["timeline"]["columns"]}
    told = {each["begin"]: each["certificates"] for each in timeline["buckets"]}
    assert {begin: number for begin, number in columns.items() if number} == {
        begin: number for begin, number in told.items() if begin in columns
    }
    assert timeline["valid"] == found["timeline"]["valid"] == sum(columns.values()) + found["timeline"]["later"]
    for each in found["breakdowns"]:
        answer = repeat(each["command"])
        assert (answer["rows"][: len(each["rows"])], answer["total"]) == (each["rows"], each["total"])
    revocations = repeat(found["revocations"]["command"])
    assert revocations["revoked"] == found["revocations"]["revoked"] == 1
    assert revocations["median_latency_seconds"] == found["revocations"]["median_latency_seconds"]
    (row,) = found["revocations"]["shown"]
    assert row.items() <= revocations["revocations"][0].items()
    check = repeat(found["findings"]["command"])
    assert {each["rule"]: each["count"] for each in check["findings"]} == {
        each["rule"]: each["count"] for each in found["findings"]["rules"]
    }
    audit = repeat(found["audit"]["command"])
    assert (audit["entries"], audit["rows"]) == (found["audit"]["entries"], found["audit"]["rows"])
    assert found["audit"]["ok"] is True
    cas = [repeat(each) for each in found["hierarchy"]["commands"]]
    ours = {each["name"] for each in found["hierarchy"]["cas"] if each["provenance"] == "ca"}
    assert ours == {f"{each['name']}@{each['generation']}" for each in cas[0]["cas"]}


def test_forms_say_the_same(run: CommandLine, place: Path) -> None:
    at = ("--at", "2030-01-01T00:00:00Z", "--findings", "questions")
    content = run("inventory", "report", "--format", "json", *at).json()
    rows = list(csv.DictReader(io.StringIO(run("inventory", "report", "--format", "csv", *at).out)))
    figures = {row["measure"]: row["value"] for row in rows if row["section"] == "figures"}
    assert figures == {each["name"]: str(each["value"]) for each in content["figures"]}
    out = place / "report.html"
    assert run("inventory", "report", "--out", out, *at).out == ""
    page = out.read_text()
    assert page == run("inventory", "report", *at).out
    for each in content["figures"]:
        assert f"{each['value']:,}" in page
        # Quotation marks are written as character references.
        assert (
            each["command"].replace("'", "&#x27;").replace('"', "&quot;").replace(">", "&gt;").replace("<", "&lt;")
            in page
        )
    assert "as of 2030-01-01 00:00:00 UTC" in page
    run("inventory", "report", "--out", place / "no" / "report.html", code=4).check_one_error(4)
    assert "column 1" in run("inventory", "report", "--where", "nonsense = 1", code=3).stderr


def test_findings_are_those_of_the_last_check_while_nothing_was_written(run: CommandLine) -> None:
    def findings(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = run("inventory", "report", "--json", *arguments).json()["findings"]
        return found

    run("inventory", "report", "--findings", "last", code=3).check_one_error(3)
    assert findings()["source"] == "run"
    assert findings()["source"] == "last"
    assert findings("--findings", "run")["source"] == "run"
    run("inventory", "check")
    last = findings()
    assert (last["source"], last["entries_since"]) == ("last", 0)
    assert findings("--where", "country = 'DE'")["source"] == "run"
    assert findings("--at", "2100-01-01")["source"] == "run"
    # What was checked for a part, or as of another day, does not pass for the last check of everything now.
    assert findings()["source"] == "run"
    run("station", "add", "CS-NEW")
    old = findings("--findings", "last")
    assert (old["source"], old["entries_since"], old["at"]) == ("last", 1, findings("--findings", "last")["at"])
    assert findings()["source"] == "run"
    (run.home / "inventory-check-last.json").write_text("{}")
    run("inventory", "report", "--findings", "last", code=3).check_one_error(3)
    assert findings()["source"] == "run"
    assert findings("--findings", "last")["entries_since"] == 0


def test_verdicts_are_told(run: CommandLine, place: Path) -> None:
    sound = run("inventory", "report", "--findings", "questions").out
    assert "whole: " in sound and "all 1 published" in sound
    sealed = run("inventory", "report", "--findings", "questions", "--checkpoint", place / "checkpoint.json", "--json")
    assert sealed.json()["audit"]["checkpoint"] == "agreed"
    with sqlite3.connect(run.home / "inventory.db") as connection:
        connection.execute("UPDATE crl SET changes = 0")
        connection.execute("UPDATE certificate SET requester = '<script>mallory</script>'")
    connection.close()
    page = run("inventory", "report", "--findings", "questions").out
    assert "contradicted: " in page and "1 of 1 not published" in page
    assert "row-changed" in page
    assert "<script" not in page
    (run.home / "audit.key").rename(place / "audit.key")
    unknown = run("inventory", "report", "--findings", "questions", "--json").json()["audit"]
    assert (unknown["verified"], unknown["ok"]) == (False, False)
    assert "--log-key" in unknown["reason"]


def test_hostile_subjects_are_text_everywhere(run: CommandLine) -> None:
    evil = "CN=<img src=x onerror=alert(1)>,O==HYPERLINK(1),C=</td>"
    with sqlite3.connect(run.home / "inventory.db") as connection:
        # Without traits, readers derive them from the subject.
        connection.execute("UPDATE certificate SET subject = ?, traits = NULL", (evil,))
    connection.close()
    page = run("inventory", "report", "--findings", "questions").out
    assert "=HYPERLINK(1)" in page and "&lt;/td&gt;" in page
    assert not re.search(r"<img|</td></td>", page)
    rows = csv.reader(io.StringIO(run("inventory", "report", "--findings", "questions", "--format", "csv").out))
    cells = [cell for row in rows for cell in row]
    assert "'=HYPERLINK(1)" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert json.loads(run("inventory", "report", "--findings", "questions", "--format", "json").out)


@contextmanager
def served(run: CommandLine, log: Path, *words: str | Path) -> Iterator[int]:
    """Serve and yield the port; at the end the server has to leave in good order."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [COMMAND, "serve", "--listen", "127.0.0.1:0", "--presigned-only", *words],
            env={**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 120
        while "ready: " not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield int(re.findall(r"ready: http://127.0.0.1:(\d+)", log.read_text())[0])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()


def ask(port: int, path: str, password: str | None) -> tuple[int, bytes]:
    """Ask as the auditor; while the first report is made, ask again."""
    named = {} if password is None else {"Authorization": f"Basic {b64encode(f'auditor:{password}'.encode()).decode()}"}
    deadline = time.monotonic() + 120
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path, headers=named)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        if status != 503:
            return status, body
        assert time.monotonic() < deadline, "no report is made"
        time.sleep(0.05)


def test_report_is_served_to_its_accounts(run: CommandLine, place: Path) -> None:
    readers = place / "readers.txt"
    account = ("inventory", "report-account", "auditor", "--file", readers)
    run(*account, "--dry-run")
    assert not readers.exists()
    run(*account, "--password-out", place / "password")
    made = (place / "password").read_text().strip()
    assert made not in readers.read_text()
    run("inventory", "report-account", "auditor", "--file", readers, "--remove", code=3).check_one_error(3)
    run("serve", "--listen", "127.0.0.1:0", "--reports", place / "nothing", code=4).check_one_error(4)
    with served(run, place / "serve.log", "--reports", readers) as port:
        assert ask(port, "/reports/", None)[0] == 401
        status, body = ask(port, "/reports/", made)
        assert status == 200 and b"<h1>Certificate inventory</h1>" in body
        status, body = ask(port, "/reports/report.json", made)
        found = json.loads(body)
        assert found["findings"]["source"] == "questions"
        assert found["figures"] and found["audit"]["ok"] is True


def test_postgresql_reports_the_same_and_several_processes_serve_it(
    run: CommandLine, place: Path, postgresql_url: str
) -> None:
    words = ("inventory", "report", "--at", "2030-01-01T00:00:00Z", "--findings", "questions", "--format")
    on_sqlite = {form: run(*words, form).out for form in ("html", "json", "csv")}
    copy_rows(run.home / "inventory.db", postgresql_url)
    other = CommandLine(run.home, {**run.variables, "CHARGEPKI_DATABASE": postgresql_url})
    for form, expected in on_sqlite.items():
        assert other(*words, form).out == expected
    readers = place / "readers.txt"
    other("inventory", "report-account", "auditor", "--file", readers, "--password-out", place / "password")
    made = (place / "password").read_text().strip()
    # What is not in this database would be seen in the figures.
    (run.home / "inventory.db").unlink()
    with served(other, place / "serve.log", "--reports", readers, "--workers", "2") as port:
        # The kernel chooses which of the processes a connection goes to.
        assert {ask(port, "/reports/", wrong)[0] for wrong in (None, "wrong") for _ in range(4)} == {401}
        figures = set()
        for _ in range(8):
            status, body = ask(port, "/reports/report.json", made)
            assert status == 200
            figures.add(json.dumps([each["value"] for each in json.loads(body)["figures"] if each["name"] == "cas"]))
        assert figures == {json.dumps([3])}
