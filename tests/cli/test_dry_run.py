"""`--dry-run`: judges like the real command, prints what would be, and touches nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chargepki.pki.lint import lint_tbs
from chargepki.pki.profiles import get_profile
from testkit.command_line import CommandLine, snapshot

ISSUE = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station")
WRITES = {
    "ca create root": ["ca", "create", "n", "--profile", "ocpp/cso-root", "--subject", "CN=n,O=A"],
    "ca create sub": [
        "ca", "create", "n", "--profile", "ocpp/cso-sub", "--issuer", "t-cso-root", "--subject", "CN=n,O=A",
    ],
    "ca create-hierarchy": [
        "ca", "create-hierarchy", "ocpp", "--prefix", "n", "--organization", "A", "--country", "DE",
    ],
    "ca rollover": ["ca", "rollover", "t-cso-root"],
    "cert issue": [*ISSUE, "--csr", "station.csr", "--again", "--out", "leaf.pem", "--chain-out", "chain.pem"],
    "cert issue-batch": ["cert", "issue-batch", *ISSUE[2:], "--csr-dir", "requests", "--out-dir", "issued"],
    "cert renew": ["cert", "renew", "live.pem", "--out", "renewed.pem"],
    "cert issue --new-key": [*ISSUE, "--new-key", "--key-out", "new.key", "--subject", "CN=x,O=y"],
    "crl publish": ["crl", "publish", "--ca", "t-cso-sub", "--out", "new.crl", "--publish-dir", "www"],
    "crl publish --all": ["crl", "publish", "--all", "--publish-dir", "www"],
    "station add": ["station", "add", "CS-9", "--password-file", "password"],
    "station remove": ["station", "remove", "CS-0001"],
    "station set-password": ["station", "set-password", "CS-0001"],
    "station set-password --record-only": ["station", "set-password", "CS-0001", "--record-only"],
    "station trigger-renewal": ["station", "trigger-renewal", "CS-0001"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def beside_the_workspace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "password").write_text("a-password-of-20-chr")
    (place / "requests").mkdir()
    shutil.copy(place / "station.csr", place / "requests")
    monkeypatch.chdir(place)


@pytest.mark.parametrize("words", WRITES.values(), ids=list(WRITES))
def test_a_dry_run_touches_nothing_and_the_real_run_still_works(
    run: CommandLine, place: Path, words: list[str]
) -> None:
    before = snapshot(place)
    done = run(*words, "--dry-run")
    assert done.stderr.startswith("dry run: nothing is changed") and done.out
    assert snapshot(place) == before
    assert run(*words, "--dry-run", "--json").json()["schema"].startswith("chargepki/")
    assert snapshot(place) == before
    run(*words, *(["--yes"] if "remove" in words else []))
    assert snapshot(place) != before


def test_a_dry_run_of_a_revocation_shows_the_row_that_would_be(run: CommandLine, place: Path) -> None:
    listed = run("cert", "list", "--state", "issued", "--station", "CS-0001", "--json").json()
    (live,) = [row["id"] for row in listed["certificates"]]
    before = snapshot(place)
    row = run("cert", "revoke", live, "--reason", "keyCompromise", "--dry-run", "--json").json()
    assert (row["state"], row["revocation_reason"]) == ("revoked", "keyCompromise")
    run.run("cert", "revoke", live, "--reason", "because", "--dry-run").check_one_error(3)
    assert snapshot(place) == before
    assert run("cert", "show", live, "--json").json()["state"] == "issued"


@pytest.mark.parametrize("name", ["ca create root", "ca create sub", "cert issue", "cert issue --new-key"])
def test_a_dry_run_shows_linted_bytes_that_would_be_signed(run: CommandLine, name: str) -> None:
    row = run(*WRITES[name], "--dry-run", "--json").json()
    assert row["schema"] == "chargepki/certificate-preview"
    report = lint_tbs(bytes.fromhex(row["tbs_hex"]), profile=get_profile(row["profile"]))
    assert not report.errors and report.rules_run


def test_a_dry_run_shows_the_key_algorithm_that_was_asked_for(run: CommandLine) -> None:
    row = run(*WRITES["cert issue --new-key"], "--key", "secp521r1", "--dry-run", "--json").json()
    assert "06052b81040023" in row["tbs_hex"], "OID of secp521r1"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ca", "create", "t-cso-root", "--profile", "ocpp/cso-root", "--subject", "CN=n,O=A"], 3),
        (["ca", "create", "n", "--profile", "ocpp/cso-sub", "--issuer", "none", "--subject", "CN=n,O=A"], 3),
        (["ca", "create-hierarchy", "none", "--prefix", "n", "--organization", "A", "--country", "DE"], 3),
        ([*ISSUE, "--csr", "passphrase"], 3),
        (["crl", "publish", "--ca", "none"], 3),
        (["station", "add", "CS-0001"], 3),
        (["station", "remove", "none"], 3),
        (["station", "trigger-renewal", "none"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_dry_run_refuses_what_the_real_run_refuses(
    run: CommandLine, place: Path, words: list[str], code: int
) -> None:
    before = snapshot(place)
    run.run(*words, "--dry-run").check_one_error(code)
    assert snapshot(place) == before
    run.run(*words, *(["--yes"] if "remove" in words else [])).check_one_error(code)


def test_a_first_ca_can_be_tried_before_there_is_a_workspace(fresh: CommandLine) -> None:
    """Not even a passphrase is needed for that."""
    for name in ("ca create root", "ca create-hierarchy"):
        assert fresh(*WRITES[name], "--dry-run").out
    assert not fresh.home.exists()


def test_a_dry_run_of_a_change_creates_no_workspace(fresh: CommandLine) -> None:
    fresh.run("station", "add", "X", "--dry-run").check_one_error(4)
    assert not fresh.home.exists()
