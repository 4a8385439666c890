"""A password that is made for an account reaches its file, however often the command was interrupted before."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chargepki.cli.made_passwords import PasswordFile
from chargepki.cli.made_passwords import make_password as made
from chargepki.pki.inventory import Inventory
from chargepki.pki.services.accounts import is_account_password
from chargepki.pki.services.report_accounts import read_accounts
from testkit.command_line import CommandLine


@pytest.fixture
def out(place: Path) -> Path:
    return place / "acme.txt"


def account(out: Path, name: str = "acme", label: str = "cpo") -> tuple[str, ...]:
    return ("-q", "est", "account", "add", name, "--label", label, "--password-out", str(out))


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if out.name in path.name)


def interrupt(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PasswordFile, what, crash)


def after_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    put: Callable[[PasswordFile, str], None] = PasswordFile.put

    def crash(self: PasswordFile, password: str) -> None:
        put(self, password)
        raise KeyboardInterrupt

    monkeypatch.setattr(PasswordFile, "put", crash)


def after_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "hand_out")


@pytest.mark.parametrize("interrupted", [after_the_file, after_the_account])
def test_an_interrupted_run_is_completed_by_repeating_it(
    run: CommandLine, out: Path, monkeypatch: pytest.MonkeyPatch, interrupted: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch)
        run(*account(out), code=130)
    assert beside(out) == [".acme.txt.acme.new"]
    password = (out.parent / ".acme.txt.acme.new").read_bytes()
    run(*account(out))
    assert beside(out) == ["acme.txt"] and out.read_bytes() == password
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with Inventory.open(f"sqlite:///{run.home / 'inventory.db'}", create=False, log_key=None) as inventory:
        stored = inventory.find_est_account("acme")
        assert stored is not None and stored.password_hash is not None
        assert is_account_password(stored.password_hash, password.removesuffix(b"\n"))
    run(*account(out), code=3).check_one_error(3)
    assert out.read_bytes() == password


def test_what_waits_is_for_the_same_account_alone(run: CommandLine, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        after_the_account(patch)
        run(*account(out), code=130)
    run(*account(out, label="other"), code=3).check_one_error(3)
    assert beside(out) == [".acme.txt.acme.new"]
    run(*account(out, name="bob"))
    assert out.read_bytes() != (out.parent / ".acme.txt.acme.new").read_bytes()
    run(*account(out), code=3).check_one_error(3)


def test_no_password_is_left_of_an_account_whose_name_was_taken(run: CommandLine, out: Path) -> None:
    run(*account(out))
    other = out.with_name("other.txt")
    run(*account(other), code=3).check_one_error(3)
    assert beside(other) == []
    run(*account(out, name="bob"), code=3).check_one_error(3)
    assert "bob" not in run("est", "account", "list").out


def test_something_else_in_the_place_of_what_waits_is_refused(run: CommandLine, out: Path) -> None:
    waiting = out.with_name(".acme.txt.acme.new")
    waiting.write_text("not made here\n")
    waiting.chmod(0o600)
    run(*account(out), code=3).check_one_error(3)
    waiting.write_text(made() + "\n")
    waiting.chmod(0o644)
    run(*account(out), code=4).check_one_error(4)
    assert not out.exists() and run("est", "account", "list", "--json").json()["accounts"] == []


def test_an_account_of_readers_is_completed_in_the_same_way(
    run: CommandLine, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = out.with_name("readers")
    command = ("inventory", "report-account", "acme", "--file", str(readers), "--password-out", str(out))
    for interrupted in (after_the_file, after_the_account):
        with monkeypatch.context() as patch:
            interrupted(patch)
            run(*command, code=130)
    run(*command)
    assert beside(out) == ["acme.txt"]
    assert is_account_password(read_accounts(readers)["acme"], out.read_bytes().removesuffix(b"\n"))
    before = readers.read_bytes()
    run(*command, code=3).check_one_error(3)
    assert readers.read_bytes() == before
    slash = ("inventory", "report-account", "a/b", "--file", str(readers), "--password-out", str(out))
    run(*slash, code=3).check_one_error(3)
