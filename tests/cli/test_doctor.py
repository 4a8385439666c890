"""`chargepki doctor`: text and JSON, the bundle it writes, what it refuses, exit codes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chargepki.pki import private_keys
from chargepki.pki.pem import to_pem
from testkit.chains import Made, hierarchy
from testkit.command_line import CommandLine, snapshot

AT = ("--at", "2026-03-01T00:00:00Z")


@pytest.fixture(scope="module")
def four() -> tuple[Made, ...]:
    """Root, sub-CA 1, sub-CA 2, leaf."""
    return hierarchy()


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


@pytest.fixture
def heap(tmp_path: Path, four: tuple[Made, ...]) -> Path:
    """A folder with a bundle in the wrong order, CRLF, and the key of its leaf."""
    folder = tmp_path / "heap"
    folder.mkdir()
    text = "".join(to_pem("CERTIFICATE", each.der) for each in four)
    (folder / "bundle.pem").write_bytes(text.replace("\n", "\r\n").encode())
    (folder / "bundle.key").write_text(private_keys.serialise_private_key(four[3].key).decode())
    (folder / "bundle.key").chmod(0o600)
    (folder / "notes.txt").write_text("call Bob")
    return folder


def test_heap_is_explained_and_the_bundle_written_and_found_sound(run: CommandLine, heap: Path, tmp_path: Path) -> None:
    before = snapshot(heap)
    told = run("doctor", heap, *AT, code=1)
    assert "its key: " in told.out
    assert "leaf-not-first" in told.out
    assert "PRIVATE KEY" not in told.out
    written = tmp_path / "chain.pem"
    run("doctor", heap, *AT, "--write", written)
    assert written.read_bytes().count(b"BEGIN CERTIFICATE") == 3
    assert b"\r" not in written.read_bytes()
    assert snapshot(heap) == before
    root = tmp_path / "root.pem"
    root.write_bytes((heap / "bundle.pem").read_bytes()[: (heap / "bundle.pem").read_bytes().index(b"-----END") + 27])
    again = run("doctor", written, root, *AT, "--json").json()
    assert again["sound"] is True
    assert again["chains"][0]["path"] == [f"{written}#1", f"{written}#2", f"{written}#3", str(root)]


def test_json_names_its_schema_and_what_each_party_says(run: CommandLine, heap: Path) -> None:
    report = run("doctor", heap, *AT, "--json", code=1).json()
    assert (report["schema"], report["schema_version"]) == ("chargepki/doctor-report", 1)
    assert [each["party"] for each in report["chains"][0]["parties"]] == ["any relying party", "openssl", "Java"]
    assert report["skipped"][0]["file"].endswith("notes.txt")
    assert {each["kind"] for each in report["objects"]} == {"certificate", "private-key"}


def test_existing_file_is_overwritten_with_force_alone_and_a_key_never(
    run: CommandLine, heap: Path, tmp_path: Path
) -> None:
    target = tmp_path / "chain.pem"
    target.write_text("precious")
    run("doctor", heap, *AT, "--write", target, code=3).check_one_error(3)
    assert target.read_text() == "precious"
    run("doctor", heap, *AT, "--write", target, "--force")
    assert "BEGIN CERTIFICATE" in target.read_text()
    shutil.copy(heap / "bundle.key", target)
    run("doctor", heap, *AT, "--write", target, "--force", code=3).check_one_error(3)
    assert "PRIVATE KEY" in target.read_text()


def test_bundle_goes_to_stdout_alone(run: CommandLine, heap: Path) -> None:
    done = run("doctor", heap, *AT, "--write", "-")
    assert done.out.startswith("-----BEGIN CERTIFICATE-----\n")
    assert done.out.endswith("-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--leaf", "x"), 2), (("--write", "missing/chain.pem"), 4), (("--write", "chain.pem", "--leaf", "nobody"), 3)],
    ids=["leaf without write", "no such folder", "no such leaf"],
)
def test_what_cannot_be_done_is_one_error(run: CommandLine, heap: Path, arguments: tuple[str, ...], code: int) -> None:
    assert run.run("doctor", heap, *AT, *arguments).code == code
    assert not Path("chain.pem").exists()


def test_nothing_of_ours_and_nothing_there(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("call Bob")
    run("doctor", tmp_path / "notes.txt", code=1).check_one_error(1)
    run("doctor", tmp_path / "absent.pem", code=4).check_one_error(4)


def test_clock_decides(run: CommandLine, heap: Path) -> None:
    later = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=5)).isoformat()
    told = run("doctor", heap, "--at", later, "--write", "-", code=1)
    assert told.out.startswith("-----BEGIN")
