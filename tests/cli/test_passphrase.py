"""The passphrase: from a file, standard input or a terminal; wrong, missing or hostile it is one clear error."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.command_line import CommandLine, snapshot

PUBLISH = ("crl", "publish", "--ca", "t-cso-sub")
NONE = {"CHARGEPKI_PASSPHRASE_FILE": None}


def test_it_is_read_from_standard_input(run: CommandLine, prepared: Path) -> None:
    done = run(*PUBLISH, "--passphrase-file", "-", stdin=(prepared / "passphrase").read_bytes())
    assert "t-cso-sub@1" in done.out


def test_it_is_asked_for_once_however_many_keys_it_opens(run: CommandLine, prepared: Path) -> None:
    run("crl", "publish", "--all", "--passphrase-file", "-", stdin=(prepared / "passphrase").read_bytes())


def test_standard_input_cannot_be_request_and_passphrase(run: CommandLine) -> None:
    words = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", "-")
    assert "cannot be both" in run.run(*words, "--passphrase-file", "-").check_one_error(2).stderr


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_line_end_is_not_part_of_it(run: CommandLine, prepared: Path, ending: bytes) -> None:
    run(*PUBLISH, "--passphrase-file", "-", stdin=(prepared / "passphrase").read_bytes().strip() + ending)


def test_without_one_and_without_a_terminal_the_command_refuses_and_says_how(run: CommandLine, place: Path) -> None:
    before = snapshot(place)
    for words in (
        PUBLISH,
        ("ca", "create", "x", "--profile", "ocpp/cso-root", "--subject", "CN=x,O=y"),
        ("ca", "create-hierarchy", "ocpp", "--prefix", "n", "--organization", "A", "--country", "DE"),
        ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", place / "station.csr"),
        ("authority", "serve", "--once"),
    ):
        refused = run.run(*words, variables=NONE).check_one_error(3)
        assert "no passphrase" in refused.stderr and "--passphrase-file" in refused.stderr
    assert snapshot(place) == before


def test_without_one_the_first_ca_creates_no_workspace(fresh: CommandLine) -> None:
    for words in (
        ("ca", "create", "x", "--profile", "ocpp/cso-root", "--subject", "CN=x,O=y"),
        ("ca", "create-hierarchy", "ocpp", "--prefix", "n", "--organization", "A", "--country", "DE"),
    ):
        assert "no passphrase" in fresh.run(*words).check_one_error(3).stderr
    assert not fresh.home.exists()


HOSTILE = {
    "wrong": (b"battery horse", 4),
    "two lines": (b"correct horse\nbattery staple\n", 4),
    "invalid UTF-8": (b"\xff\xfe", 4),
    "binary": (bytes(range(1, 256)), 4),
    "empty": (b"", 3),
    "empty line": (b"\n", 3),
    "NUL": (b"a\0b", 3),
    "10 MB": (b"x" * 10_000_000, 3),
}


@pytest.mark.parametrize(("content", "code"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_wrong_one_is_one_clear_error_and_changes_nothing(
    run: CommandLine, place: Path, content: bytes, code: int
) -> None:
    before = snapshot(place)
    for words in (PUBLISH, ("ca", "create", "x", "--profile", "ocpp/cso-root", "--subject", "CN=x,O=y")):
        done = run.run(*words, "--passphrase-file", "-", stdin=content).check_one_error(code)
        assert b"battery" not in done.stderr.encode(), "it is never shown"
    assert snapshot(place) == before


@pytest.mark.parametrize(("file", "code"), [("none", 4), ("", 3), (".", 3), ("/dev/zero", 3), ("x" * 5000, 4)])
def test_what_is_no_file_is_one_clear_error(
    run: CommandLine, place: Path, monkeypatch: pytest.MonkeyPatch, file: str, code: int
) -> None:
    monkeypatch.chdir(place)
    before = snapshot(place)
    run.run(*PUBLISH, "--passphrase-file", file).check_one_error(code)
    assert snapshot(place) == before


def test_a_damaged_key_file_is_one_clear_error(run: CommandLine) -> None:
    path = run.home / "keys" / "t-cso-sub@1.key"
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\0" * 100, whole.replace(b"ENCRYPTED ", b""), b"A" * 2_000_000):
        path.write_bytes(damaged)
        run.run(*PUBLISH).check_one_error(4)
    path.write_bytes((run.home / "keys" / "t-cso-root@1.key").read_bytes())
    assert "is not the key of t-cso-sub@1" in run.run(*PUBLISH).check_one_error(4).stderr
    path.unlink()
    assert "no key file" in run.run(*PUBLISH).check_one_error(4).stderr
    path.write_bytes(whole)
    path.chmod(0o644)
    assert "chmod 600" in run.run(*PUBLISH).check_one_error(4).stderr


def test_on_a_terminal_it_is_asked_for_and_not_shown(run: CommandLine, prepared: Path) -> None:
    try:
        terminal, end = pty.openpty()
    except OSError as error:
        pytest.skip(f"this system gives out no pseudo-terminal: {error}")
    environment = {**os.environ, "CHARGEPKI_HOME": str(run.home)}
    environment.pop("CHARGEPKI_PASSPHRASE_FILE", None)
    process = subprocess.Popen(
        [Path(sys.executable).parent / "chargepki", *PUBLISH, "--json"],
        stdin=end, stderr=end, stdout=subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    shown = b""
    while b"Passphrase of the CA keys:" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, (prepared / "passphrase").read_bytes())
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and b'"t-cso-sub@1"' in out
    assert b"correct horse" not in shown
    os.close(terminal)


def test_a_wrong_passphrase_is_told_with_where_it_came_from(run: CommandLine, place: Path) -> None:
    (place / "wrong").write_bytes(b"hunter2-hunter2")
    (place / "wrong").chmod(0o600)
    words = ("crl", "publish", "--ca", "t-cso-sub")
    by_flag = run.run(*words, "--passphrase-file", place / "wrong").check_one_error(4).stderr
    assert "share one passphrase" in by_flag and f"read from {place / 'wrong'} (named by flag)" in by_flag
    by_variable = run.run(*words, variables={"CHARGEPKI_PASSPHRASE_FILE": str(place / "wrong")}).check_one_error(4)
    assert "(named by environment)" in by_variable.stderr and "hunter2" not in by_flag + by_variable.stderr


def test_a_passphrase_file_that_others_can_read_is_warned_of(run: CommandLine, place: Path) -> None:
    (place / "passphrase").chmod(0o640)
    done = run("crl", "publish", "--ca", "t-cso-sub")
    assert "warning: others can read the passphrase file" in done.stderr and "cure: chmod 600" in done.stderr
    assert "warning" not in run("crl", "publish", "--ca", "t-cso-sub", "-q").stderr
    (place / "passphrase").chmod(0o600)
    assert "warning" not in run("crl", "publish", "--ca", "t-cso-sub").stderr
