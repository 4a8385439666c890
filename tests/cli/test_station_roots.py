"""`chargepki station install-root`, `roots` and `delete-root`: what is queued, what is refused, what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from testkit.command_line import CommandLine, snapshot
from testkit.hierarchy import make_node

HASH = {"hashAlgorithm": "SHA256", "issuerNameHash": "aa" * 32, "issuerKeyHash": "bb" * 32, "serialNumber": "1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(make_node("New Root", None, ca=True).certificate.public_bytes(Encoding.PEM))
    return path


def test_an_installation_is_queued_and_shown_as_an_operation(run: CommandLine, root: Path) -> None:
    row = run("station", "install-root", "CS-0001", "--use", "V2GRootCertificate", root, "--json").json()
    assert (row["kind"], row["state"], row["parameters"]["use"]) == ("install-root", "queued", "v2g")
    assert run("station", "show", "CS-0001", "--json").json()["operations"][0]["id"] == row["id"]
    run.run("station", "install-root", "CS-0001", "--use", "v2g", root).check_one_error(3)
    told = run("station", "roots", "CS-0001")
    assert "--refresh" in told.stderr


def test_what_a_station_must_refuse_is_refused_at_once(run: CommandLine, root: Path, tmp_path: Path) -> None:
    leaf, junk = tmp_path / "leaf.pem", tmp_path / "junk.pem"
    leaf.write_bytes(make_node("Leaf", None, ca=False).certificate.public_bytes(Encoding.PEM))
    junk.write_text("junk")
    before = snapshot(run.home)
    words = ("station", "install-root", "CS-0001", "--use", "csms")
    assert "M05.FR.07" in run.run(*words, leaf).check_one_error(3).stderr
    run.run(*words, junk).check_one_error(3)
    run.run(*words, tmp_path / "absent.pem").check_one_error(4)
    run.run("station", "install-root", "CS-0001", "--use", "v2g-chain", root).check_one_error(3)
    run.run("station", "install-root", "CS-0404", "--use", "csms", root).check_one_error(3)
    assert run("station", "install-root", "CS-0001", "--use", "csms", root, "--dry-run", "--json").json()["id"]
    assert snapshot(run.home) == before


def test_a_deletion_wants_a_confirmation_and_one_name_of_the_certificate(run: CommandLine, root: Path) -> None:
    before = snapshot(run.home)
    words = ("station", "delete-root", "CS-0001", "--use", "csms")
    assert "--yes" in run.run(*words, root).check_one_error(3).stderr
    run.run(*words, "--yes").check_one_error(2)
    run.run(*words, root, "--hash", json.dumps(HASH), "--yes").check_one_error(2)
    run.run(*words, root, "--verbatim", "--yes").check_one_error(2)
    for text in (
        "{",
        "[]",
        "{}",
        json.dumps({**HASH, "serialNumber": 1}),
        json.dumps({**HASH, "serialNumber": "1" * 129}),
    ):
        run.run(*words, "--hash", text, "--yes").check_one_error(3)
    assert snapshot(run.home) == before
    row = run(*words, "--hash", json.dumps(HASH), "--verbatim", "--last", "--yes", "--json").json()
    assert row["parameters"] == {"use": "csms", "hash": HASH, "verbatim": True, "last": True}


def test_a_refresh_of_a_station_that_is_away_ends_in_time(run: CommandLine) -> None:
    run.run("station", "roots", "CS-0001", "--refresh", "--wait", "1s").check_one_error(3)
    run.run("station", "roots", "CS-0001", "--use", "nothing").check_one_error(3)
    assert run("station", "roots", "CS-0001", "--use", "csms", "--json").json()["roots"] == []
