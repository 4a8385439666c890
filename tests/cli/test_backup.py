"""`chargepki backup` and `restore`: what they print, refuse and leave behind."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pyrage
import pytest

from testkit.command_line import CommandLine, snapshot


@pytest.fixture(scope="module")
def keys() -> Mapping[str, str]:
    identity = pyrage.x25519.Identity.generate()
    return {"identity": str(identity), "recipient": str(identity.to_public())}


@pytest.fixture
def identity(place: Path, keys: Mapping[str, str]) -> Path:
    path = place / "identity"
    path.write_text(f"{keys['identity']}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def backup(run: CommandLine, place: Path, keys: Mapping[str, str]) -> Path:
    run("backup", "create", "--recipient", keys["recipient"], "--out", place / "b.age")
    return place / "b.age"


def test_a_workspace_comes_back_on_another_machine_and_goes_on_issuing(
    run: CommandLine, place: Path, backup: Path, identity: Path
) -> None:
    drill = ("backup", "verify", backup, "--identity", identity, "--checkpoint", place / "checkpoint.json", "--json")
    judged = run(*drill).json()
    assert judged["findings"] == [] and judged["keys_opened"] is True and judged["keys"] == 3
    shutil.rmtree(run.home)
    row = run("restore", backup, "--identity", identity, "--json").json()
    assert (row["schema"], row["schema_version"], row["set_aside"]) == ("chargepki/restoration", 1, [])
    run("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", place / "station.csr",
        "--again", "--out", place / "again.pem")  # fmt: skip
    run("crl", "publish", "--ca", "t-cso-sub", "--out", place / "newer.crl")
    assert int(run("crl", "show", place / "newer.crl", "--json").json()["number"]) > row["crl_floor"]
    run("audit", "verify", "--checkpoint", place / "checkpoint.json")
    assert run.run("restore", "--resume").check_one_error(3).stderr.count("no restore was interrupted") == 1


def test_a_drill_tells_which_key_does_not_fit_and_needs_no_workspace(
    run: CommandLine, fresh: CommandLine, place: Path, keys: Mapping[str, str], identity: Path
) -> None:
    shutil.copy(run.home / "keys" / "t-cso-root@1.key", run.home / "keys" / "t-cso-sub@1.key")
    (run.home / "keys" / "t-manufacturer-root@1.key").unlink()
    run("backup", "create", "--recipient", keys["recipient"], "--out", place / "b.age")
    words = ("backup", "verify", place / "b.age", "--identity", identity)
    done = fresh(*words, "--passphrase-file", place / "passphrase", code=1)
    assert "file:t-cso-sub@1.key is not the key of t-cso-sub@1" in done.out
    assert "the key of t-manufacturer-root@1 is not there" in done.out
    assert not fresh.home.exists()
    assert "the key files were not opened" in fresh(*words, code=1).stderr
    run("restore", place / "b.age", "--identity", identity, "--home", place / "n", code=3)
    assert not (place / "n").exists()


def test_dry_runs_write_nothing_and_tell_what_would_be(
    run: CommandLine, place: Path, backup: Path, identity: Path, keys: Mapping[str, str]
) -> None:
    before = snapshot(place)
    run("backup", "create", "--recipient", keys["recipient"], "--out", place / "c.age", "--dry-run")
    run("restore", backup, "--identity", identity, "--home", place / "n", "--dry-run")
    assert snapshot(place) == before


def test_nothing_is_overwritten_and_every_refusal_is_one_error(
    run: CommandLine, place: Path, backup: Path, identity: Path, keys: Mapping[str, str]
) -> None:
    other = place / "other"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    other.chmod(0o600)
    cut = place / "cut.age"
    cut.write_bytes(backup.read_bytes()[:-100])
    before = snapshot(place)
    refusals: list[tuple[int, tuple[str | Path, ...]]] = [
        (3, ("backup", "create", "--recipient", keys["recipient"], "--out", backup)),
        (3, ("backup", "create", "--recipient", "age1x", "--out", place / "x.age")),
        (4, ("backup", "create", "--recipient", keys["recipient"], "--out", place / "no" / "x.age")),
        (1, ("backup", "verify", cut, "--identity", identity)),
        (4, ("backup", "verify", backup, "--identity", other)),
        (4, ("restore", place / "absent", "--identity", identity, "--home", place / "n")),
        (3, ("restore", cut, "--identity", identity, "--home", place / "n")),
        (3, ("restore", backup, "--identity", identity)),
        (4, ("restore", backup, "--identity", place / "checkpoint.json", "--home", place / "n")),
    ]
    for code, words in refusals:
        done = run.run(*words).check_one_error(code)
        assert keys["identity"] not in done.stderr
    assert run.run("restore", backup).code == run.run("restore", backup, "--resume").code == 2
    run.home.joinpath("restore.lock").unlink(missing_ok=True)
    assert {name: entry for name, entry in snapshot(place).items() if "inventory.db" not in name} == {
        name: entry for name, entry in before.items() if "inventory.db" not in name
    }


def test_a_workspace_in_the_middle_of_a_restore_is_not_opened(run: CommandLine) -> None:
    (run.home / "restore.json").write_text("{}")
    assert "chargepki restore --resume" in run.run("ca", "list").check_one_error(3).stderr
    assert "is no journal" in run.run("restore", "--resume").check_one_error(3).stderr


def test_a_backup_goes_through_a_pipe(run: CommandLine, place: Path, identity: Path, keys: Mapping[str, str]) -> None:
    done = run("backup", "create", "--recipient", keys["recipient"], "--out", "-")
    assert done.stdout.startswith(b"age-encryption.org/v1\n")
    row = run("restore", "-", "--identity", identity, "--home", place / "n", "--json", stdin=done.stdout).json()
    assert row["keys"] == 3
