"""The main job, as its user starts it: `chargepki demo` on loopback, for each OCPP version."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testkit.commands import INSTALLED, forked_program


def run(folder: Path, *arguments: str, program: Path = INSTALLED) -> subprocess.CompletedProcess[str]:
    """Run a command with an environment that holds nothing of the developer's."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )


def documents(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of *text*, one a line."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_station_enrols_forged_requests_are_refused_and_a_revocation_bites(tmp_path: Path, protocol: str) -> None:
    kept = tmp_path / "kept"
    told = run(tmp_path, "demo", "--protocol", protocol, "--json", "--keep", str(kept))
    assert told.returncode == 0, told.stderr
    (facts,) = documents(told.stdout)
    assert facts["cas"] == 15
    reasons = [refusal["reason"] for refusal in facts["refusals"]]
    assert "CA:TRUE" in reasons[0]
    assert "CS-0001" in reasons[1] and "A00.FR.405" in reasons[1]

    # What the story said is what the next command finds in the workspace that it left.
    def ask(*arguments: str) -> str:
        done = run(tmp_path, *arguments, "--home", str(kept / "home"), program=forked_program())
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = documents(ask("cert", "list", "--profile", "ocpp/charging-station", "--json-lines"))
    assert [(item["id"], item["state"], item["station"]) for item in listed] == [
        (facts["certificate"], "revoked", "CS-0001")
    ]
    ask("audit", "verify")
    crl = documents(ask("crl", "show", str(kept / "www" / "crl" / "demo-cso-sub@1.crl"), "--json"))
    assert [entry["serial"] for entry in crl[0]["entries"]] == [listed[0]["serial"]]


@pytest.mark.slow
def test_the_demo_tells_its_story_in_plain_sentences_and_leaves_nothing(tmp_path: Path) -> None:
    told = run(tmp_path, "demo")
    assert told.returncode == 0, told.stderr
    for sentence in (
        "connected on security profile 2",
        "connected on security profile 3",
        "it asks for CA rights: refused",
        "revoked (keyCompromise); its connection closed after",
        "The same with your own CSR",
    ):
        assert sentence in told.stdout
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_demo_does_not_write_into_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    told = run(tmp_path, "demo", "--keep", "mine")
    assert told.returncode == 3
    assert "exists already" in told.stderr
    assert list((tmp_path / "mine").iterdir()) == []
