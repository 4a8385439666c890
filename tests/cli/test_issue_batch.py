"""`chargepki cert issue-batch`: every request of a folder is answered, whatever the others are and whoever dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.cli import batch_issuing
from chargepki.pki import files, names
from chargepki.pki.errors import UnavailableError
from testkit.command_line import CommandLine, snapshot
from testkit.databases import postgresql_server, postgresql_url
from testkit.requests import make_csr

__all__ = ["postgresql_server", "postgresql_url"]

BATCH = ("cert", "issue-batch", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station")
_PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 150 sound requests: three shares of what one commit takes, the last one not full."""
    return fill(tmp_path_factory.mktemp("requests"), 150)


def fill(folder: Path, count: int) -> Path:
    for number in range(count):
        subject = names.parse_rdns(f"CN=BATCH-{number:03d},O=Acme Charging")
        (folder / f"B-{number:03d}.csr").write_bytes(make_csr(subject))
    return folder


def serials(folder: Path) -> dict[str, int]:
    """Return the serial of the leaf of each file, which must be for the station of the file's name."""
    found: dict[str, int] = {}
    for path in folder.glob("*.pem"):
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
        assert f"BATCH-{path.stem[2:]}" in leaf.subject.rfc4514_string()
        found[path.stem] = leaf.serial_number
    return found


def in_inventory(run: CommandLine) -> list[int]:
    rows = run("cert", "list", "--where", "subject like '%BATCH-%'", "--json").json()["certificates"]
    assert all(row["state"] == "issued" for row in rows), "a reservation was left open"
    return [int(row["serial"], 16) for row in rows]


def test_two_processes_answer_every_request_once(run: CommandLine, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    found = run(*BATCH, "--csr-dir", many, "--out-dir", out, "--jobs", "2", "--json").json()
    assert (found["requests"], found["issued"], found["refused"]) == (150, 150, 0)
    assert [item["file"] for item in found["items"]] == sorted(path.name for path in many.iterdir())
    written = serials(out)
    assert len(written) == 150 and sorted(written.values()) == sorted(in_inventory(run))
    ca = x509.load_pem_x509_certificates(run("ca", "chain", "t-cso-sub").stdout)[0]
    for path in out.iterdir():
        (leaf,) = x509.load_pem_x509_certificates(path.read_bytes())
        leaf.verify_directly_issued_by(ca)


def test_processes_share_no_connection(run: CommandLine, postgresql_url: str, many: Path, tmp_path: Path) -> None:
    shared = CommandLine(tmp_path / "home", {**run.variables, "CHARGEPKI_DATABASE": postgresql_url})
    shared("ca", "create-hierarchy", "ocpp", "--prefix", "t", "--organization", "Acme Charging", "--country", "DE")
    out = tmp_path / "out"
    found = shared(*BATCH, "--csr-dir", many, "--out-dir", out, "--jobs", "2", "--json").json()
    assert found["issued"] == 150 and sorted(serials(out).values()) == sorted(in_inventory(shared))
    shared("audit", "verify")


def test_bad_files_are_reported_and_the_rest_go_on(run: CommandLine, tmp_path: Path) -> None:
    folder, out = tmp_path / "requests", tmp_path / "out"
    folder.mkdir()
    fill(folder, 2)
    (folder / "B-garbage.csr").write_bytes(b"\x30\x80not a request")
    (folder / "B-001.pem").write_bytes((folder / "B-001.csr").read_bytes())
    (folder / "ca.csr").write_bytes(
        make_csr(names.parse_rdns("CN=x,O=y"), extensions=((x509.BasicConstraints(ca=True, path_length=None), True),))
    )
    os.mkfifo(folder / "pipe.csr")
    (folder / "gone.csr").symlink_to("nowhere")
    (folder / "README").write_text("not ours")
    (folder / ".hidden.csr").write_text("not ours")
    done = run.run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--json")
    assert done.code == 3 and "2 other entries" in done.stderr
    items = {item["file"]: item for item in done.json()["items"]}
    assert items["B-000.csr"]["state"] == "issued" and serials(out).keys() == {"B-000"}
    for name, word in {
        "B-001.csr": "several requests", "B-001.pem": "several requests", "B-garbage.csr": "not DER",
        "ca.csr": "refused", "pipe.csr": "no file", "gone.csr": "cannot read",
    }.items():  # fmt: skip
        assert items[name]["state"] == "refused" and word in items[name]["what"], items[name]
    table = run.run(*BATCH, "--csr-dir", folder, "--out-dir", out)
    assert "ca.csr" in table.out and "B-000.csr" not in table.out, "people see what went wrong"
    assert "1 repeated, 6 refused" in table.stderr
    lines = run.run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--json-lines").json_lines()
    assert {line["file"] for line in lines} == items.keys()


def test_a_repeat_returns_the_same_certificates_and_writes_what_is_missing(run: CommandLine, tmp_path: Path) -> None:
    folder, out = tmp_path / "requests", tmp_path / "out"
    folder.mkdir()
    fill(folder, 3)
    run(*BATCH, "--csr-dir", folder, "--out-dir", out)
    first = serials(out)
    (out / "B-001.pem").unlink()
    (out / "B-002.pem").write_text("half a certif")
    found = run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--chain", "--json").json()
    assert (found["issued"], found["repeated"]) == (0, 3) and serials(out) == first
    assert len(x509.load_pem_x509_certificates((out / "B-001.pem").read_bytes())) == 2, "leaf and sub-CA"


def test_keys_and_requests_are_never_overwritten(run: CommandLine, tmp_path: Path) -> None:
    folder, out = tmp_path / "requests", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    fill(folder, 3)
    (out / "B-000.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (out / "B-001.pem").mkdir()
    before = snapshot(folder)
    done = run.run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--json")
    what = [item.get("what") or "" for item in done.json()["items"]]
    assert done.code == 3 and "holds a private key" in what[0] and "is no file" in what[1] and what[2] == ""
    assert (out / "B-000.pem").read_text() == "-----BEGIN PRIVATE KEY-----\n" and len(in_inventory(run)) == 1
    run.run(*BATCH, "--csr-dir", folder, "--out-dir", folder).check_one_error(3)
    assert snapshot(folder) == before


def test_nothing_to_do_and_no_folder_are_one_error(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("--out-dir", tmp_path / "out")
    run.run(*BATCH, "--csr-dir", tmp_path / "empty", *arguments).check_one_error(3)
    run.run(*BATCH, "--csr-dir", tmp_path / "absent", *arguments).check_one_error(4)
    other = ("cert", "issue-batch", "--ca", "absent", "--profile", "ocpp/charging-station")
    run.run(*other, "--csr-dir", fill(tmp_path / "empty", 1), *arguments).check_one_error(3)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_on_record_and_written_by_the_repeat(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "requests", tmp_path / "out"
    folder.mkdir()
    fill(folder, 2)
    whole = files.write_durable

    def full(path: Path | str, data: bytes, *, mode: int = 0o644) -> None:
        if Path(path).name == "B-000.pem":
            raise UnavailableError("cannot write B-000.pem", why="No space left on device")
        whole(path, data, mode=mode)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_durable", full)
        done = run.run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--json")
    first, second = done.json()["items"]
    assert done.code == 4 and (first["state"], second["state"]) == ("unwritten", "issued")
    assert first["certificate"] and "repeat this command" in first["fix"]
    assert run(*BATCH, "--csr-dir", folder, "--out-dir", out, "--json").json()["repeated"] == 2
    assert sorted(serials(out).values()) == sorted(in_inventory(run))


def test_a_dead_process_is_told_of_after_the_others_have_ended() -> None:
    dead, its_writer = multiprocessing.Pipe(duplex=False)
    alive, writer = multiprocessing.Pipe(duplex=False)
    its_writer.close()
    writer.send([])
    writer.send(None)
    received = batch_issuing._received([dead, alive])
    assert next(received) == []
    with pytest.raises(UnavailableError, match="died"):
        next(received)


def test_a_killed_run_leaves_no_process_and_is_continued(
    run: CommandLine, place: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [*BATCH, "--csr-dir", str(many), "--out-dir", str(out), "--jobs", "2"]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("chargepki"), *arguments],
        env={**os.environ, **run.variables, "CHARGEPKI_HOME": str(place / "home")},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: process.poll() is not None or (out.is_dir() and any(out.glob("*.pem"))))
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in workers))
    run(*BATCH, "--csr-dir", many, "--out-dir", out, "--jobs", "1")
    written = serials(out)
    assert len(written) == 150 and sorted(written.values()) == sorted(in_inventory(run))


def children_of(pid: int) -> Sequence[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether it still runs; one that nobody has waited for has ended all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_large_folders_share_more_files_to_a_commit_and_small_ones_still_all_processes() -> None:
    def sizes(requests: int, jobs: int) -> list[int]:
        return [len(chunk) for chunk in batch_issuing._chunks([Path("x")] * requests, jobs)]

    assert sizes(66, 2) == [64, 2]
    assert set(sizes(2048, 1)) == {256} and set(sizes(1024, 2)) == {64} and max(sizes(100_000, 2)) == 512
    assert sum(sizes(1337, 3)) == 1337
