"""Tests of `audit rotate-log-key`: interrupted, beside backups, and with a file that is damaged."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey
from testkit.command_line import CommandLine


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    """A workspace with one entry in its log, whose key is a file."""
    made = CommandLine(tmp_path / "home")
    made("station", "add", "CS-1")
    return made


def interrupt(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the change be in the log, and the file of the key not be in its place."""

    def fail(*_: object) -> None:
        raise UnavailableError("the disk is full", fix="make room")

    with monkeypatch.context() as patch:
        patch.setattr(AuditKey, "take_place", fail)
        run.run("audit", "rotate-log-key").check_one_error(4)
    assert (run.home / "audit.key.next").exists()


def test_the_key_in_the_file_is_another_one_and_the_old_public_half_still_verifies(
    run: CommandLine, tmp_path: Path
) -> None:
    before = (run.home / "audit.key").read_bytes()
    run("audit", "log-key", "--out", tmp_path / "old.pem")
    run("audit", "rotate-log-key", "--dry-run")
    assert (run.home / "audit.key").read_bytes() == before
    said = run("audit", "rotate-log-key")
    assert "entry 2: the log key is" in said.out and "backup" in said.stderr
    assert (run.home / "audit.key").read_bytes() != before
    assert (run.home / "audit.key").stat().st_mode & 0o777 == 0o600
    assert "changed the log key" in run("audit", "verify", "--log-key", tmp_path / "old.pem").out
    run("station", "add", "CS-2")
    run("audit", "verify")


def test_whatever_comes_after_an_interrupted_change_goes_on(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(run, monkeypatch)
    run("audit", "verify")
    assert (run.home / "audit.key.next").exists(), "who only reads puts nothing in its place"
    run("station", "add", "CS-2", "--dry-run")
    run("station", "add", "CS-2")
    assert not (run.home / "audit.key.next").exists()
    interrupt(run, monkeypatch)
    done = run("audit", "rotate-log-key", "--json").json()
    assert done["completed"] is True and not (run.home / "audit.key.next").exists()
    report = run("audit", "verify", "--json").json()
    assert len(report["key_changes"]) == 2 and report["key_id"] == done["key_id"]


def test_a_key_that_waits_and_is_damaged_is_made_anew_unless_the_log_names_it(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = run.home / "audit.key.next"
    waiting.write_bytes(b"half")
    waiting.chmod(0o600)
    run("station", "add", "CS-2")
    run("audit", "rotate-log-key")
    assert not waiting.exists()
    interrupt(run, monkeypatch)
    waiting.write_bytes(b"half")
    refused = run.run("station", "add", "CS-3").check_one_error(4)
    assert "audit.key.next" in refused.stderr and "backup" in refused.stderr


def test_a_restored_backup_goes_on_with_the_key_of_its_time(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before a change, from after it, and from the middle of one that was interrupted."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    (tmp_path / "identity").chmod(0o600)
    create = ("backup", "create", "--recipient", str(identity.to_public()), "--out")
    run(*create, tmp_path / "before.age")
    running = monkeypatch.context()
    run("audit", "rotate-log-key")
    run(*create, tmp_path / "after.age")
    run("audit", "log-key", "--out", tmp_path / "log.pem")
    with running as patch:
        # As while another process has not yet put the file in its place.
        interrupt(run, monkeypatch)
        patch.setattr("chargepki.pki.workspace.end_change", lambda *_: None)
        run(*create, tmp_path / "between.age")
    for name, changes in (("before", 0), ("after", 1), ("between", 2)):
        elsewhere = CommandLine(tmp_path / name)
        words = (tmp_path / f"{name}.age", "--identity", tmp_path / "identity")
        if changes:
            run("backup", "verify", *words, "--log-key", tmp_path / "log.pem")
        assert elsewhere("restore", *words, "--json").json()["findings"] == []
        elsewhere("station", "add", "CS-7")
        report = elsewhere("audit", "verify", "--json").json()
        assert len(report["key_changes"]) == changes and report["findings"] == []
    # Over a workspace in which a key waits: it goes aside with the rest.
    interrupt(run, monkeypatch)
    run("restore", tmp_path / "after.age", "--identity", tmp_path / "identity", "--replace")
    assert not (run.home / "audit.key.next").exists()
    run("station", "add", "CS-8")
    run("audit", "verify")
