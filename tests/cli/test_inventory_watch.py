"""`inventory watch`: once for cron, and as a service; what it tells is delivered and can be acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testkit.command_line import CommandLine

_RULES = """
[[alerts.target]]
name = "file"
kind = "exec"
command = ["{program}"]

[[alerts.watch]]
name = "ends"
kind = "expiry"
within = ["3650d"]
targets = ["file"]
where = "profile = 'ocpp/charging-station'"
"""


@pytest.fixture
def told(run: CommandLine, place: Path) -> Path:
    """Set up a rule, and a target that writes what it is told into a file each."""
    folder = place / "told"
    folder.mkdir()
    program = place / "tell"
    program.write_text(f'#!/bin/sh\nf=$(mktemp "{folder}/XXXXXX.tmp")\ncat > "$f"\nmv "$f" "$f.json"\n')
    program.chmod(0o700)
    (run.home / "chargepki.toml").write_text(_RULES.format(program=program))
    return folder


def test_watch_tells_once_and_alerts_are_acknowledged(run: CommandLine, told: Path) -> None:
    assert len(run("inventory", "watch", "--dry-run", "--json").json()["alerts"]) == 1
    assert not list(told.iterdir())
    (alert,) = run("inventory", "watch", "--json").json()["alerts"]
    assert "ocpp/charging-station of t-cso-sub@1 expire on" in alert["summary"]
    (file,) = told.iterdir()
    assert alert["id"] in file.read_text()
    assert run("inventory", "watch", "--json").json()["alerts"] == []
    assert len(list(told.iterdir())) == 1
    run("alerts", "ack", alert["id"], "--note", "renewal is planned")
    (listed,) = run("alerts", "list", "--json").json()["alerts"]
    assert (listed["state"], listed["note"]) == ("acknowledged", "renewal is planned")
    assert run("inventory", "watch", "--json").json()["alerts"] == []
    run("audit", "verify")


def test_watch_without_a_rule_says_what_to_write(run: CommandLine) -> None:
    run("inventory", "watch", code=3).check_one_error(3)


def test_service_tells_and_ends_when_it_is_told_to(run: CommandLine, told: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from chargepki.cli.main import main; main()",
        "inventory",
        "watch",
        "--every",
        "1s",
    ]
    environ = {**os.environ, **run.variables, "CHARGEPKI_HOME": str(run.home)}
    service = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(told.glob("*.json")):
            assert service.poll() is None and time.monotonic() < deadline, "the service tells nobody"
            time.sleep(0.05)
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(timeout=120)
    assert code == 0
    assert len(list(told.glob("*.json"))) == 1
