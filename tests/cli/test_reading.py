"""The commands that only read: profile, crl, lint, inventory, audit; and `authority serve --once`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from chargepki.pki.profiles import list_profiles
from testkit.command_line import CommandLine, snapshot


@pytest.mark.parametrize("profile", [profile.id for profile in list_profiles()])
def test_every_profile_is_shown_with_its_clauses(fresh: CommandLine, profile: str) -> None:
    text = fresh("profile", "show", profile).out
    described = fresh("profile", "show", profile, "--json").json()
    assert described["schema"] == "chargepki/profile" and described["id"] == profile
    clauses = [rule["clause"] for rule in (*described["extensions"], *described["subject"]["attributes"])]
    clauses += [
        described[field]["clause"] for field in ("keys", "validity", "basic_constraints", "key_usage", "pointers")
    ]
    for clause in (described["clause"], *clauses):
        assert clause and clause in text
    for word in (
        *described["keys"]["algorithms"],
        *described["key_usage"]["emitted"],
        described["validity"]["default"],
    ):
        assert word in text
    assert not any(line.startswith("{") or "[" in line[:1] for line in text.splitlines())


def test_profiles_are_listed(fresh: CommandLine) -> None:
    rows = fresh("profile", "list", "--json").json()["profiles"]
    assert [row["id"] for row in rows] == [profile.id for profile in list_profiles()]
    assert not fresh.home.exists()


def test_crl_show_and_publish(run: CommandLine, place: Path, tmp_path: Path) -> None:
    shown = run("crl", "show", place / "sub.crl", "--json").json()
    assert shown["number"] > 2 and shown["entry_count"] == 1
    assert (
        shown["entries"][0].keys() == {"serial", "revoked_at", "reason", "invalidity_date"}
        and shown["entries"][0]["reason"] == "superseded"
    )
    assert "reason superseded" in run("crl", "show", place / "sub.crl").out
    rows = run("crl", "publish", "--all", "--publish-dir", tmp_path / "www", "--json").json()["crls"]
    assert [(row["ca"], row["entries"]) for row in rows][1] == ("t-cso-sub@1", 1)
    assert rows[1].keys() == {
        "ca", "kind", "shard", "number", "base", "entries", "this_update", "next_update", "bytes", "sha256",
    }  # fmt: skip
    der = (tmp_path / "www" / "crl" / "t-cso-sub@1.crl").read_bytes()
    assert der[:1] == b"\x30"
    run("crl", "publish", "--ca", "t-cso-sub", "--out", tmp_path / "sub.pem", "--pem")
    assert (tmp_path / "sub.pem").read_bytes().startswith(b"-----BEGIN X509 CRL-----")
    assert run("crl", "publish", "--ca", "t-cso-sub", "--out", "-", "-q").stdout[:1] == b"\x30"


@pytest.mark.parametrize("words", [("--ca", "none"), ("--ca", ""), ("--ca", "t-cso-sub", "--pem")], ids=repr)
def test_a_crl_of_nobody_is_refused(run: CommandLine, words: tuple[str, ...]) -> None:
    before = snapshot(run.home)
    assert run.run("crl", "publish", *words).code in (2, 3)
    assert snapshot(run.home) == before


def test_lint_judges_and_lists_its_rules(fresh: CommandLine, prepared: Path) -> None:
    leaf = prepared / "live.pem"
    done = fresh("lint", leaf, "--profile", "ocpp/charging-station")
    assert "ocpp/charging-station (given)" in done.out and "0 errors" in done.stderr
    wrong = fresh("lint", leaf, "--profile", "iso15118-2/cpo-sub1", code=1)
    assert "  error: " in wrong.out and "    rule " in wrong.out
    report = fresh("lint", leaf, prepared / "sub.crl", "--json").json()
    assert report["schema"] == "chargepki/lint-report-list"
    assert [item["kind"] for item in report["reports"]] == ["certificate", "crl"]
    lines = fresh("lint", prepared / "chain.pem", leaf, "--json-lines").json_lines()
    # Each of the three certificates, then those of the chain and those of both files together.
    assert [line["kind"] for line in lines].count("certificate") == 3
    assert lines[-1]["object"] == "all files"
    rules = fresh("lint", "--list-rules", "--json").json()["rules"]
    assert rules and all(rule.keys() >= {"id", "severity", "judges", "title", "clause", "hint"} for rule in rules)
    assert not fresh.home.exists()


def test_lint_names_the_file_that_it_cannot_read(fresh: CommandLine, prepared: Path) -> None:
    refused = fresh.run("lint", prepared / "live.pem", prepared / "passphrase").check_one_error(1)
    assert "passphrase" in refused.stderr


def test_inventory_counts_shows_and_exports(run: CommandLine, tmp_path: Path) -> None:
    listed = run("inventory", "list", "--json").json()
    assert {"cas", "stations", "open_operations", "audit_entries"} <= listed.keys() and listed["stations"] == 2
    assert "t-cso-sub@1" in run("inventory", "list").out
    assert run("inventory", "show", "CS-0001", "--json").json()["schema"] == "chargepki/station"
    assert run("inventory", "show", "t-cso-sub", "--json").json()["schema"] == "chargepki/ca"
    run("inventory", "export", "--out", tmp_path / "all.ndjson")
    lines = [json.loads(line) for line in (tmp_path / "all.ndjson").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["ca"] * 3 + ["certificate"] * 5 + ["station"] * 2
    assert run("inventory", "export").out == (tmp_path / "all.ndjson").read_text()
    assert "argon2" not in run("inventory", "export").out and "PRIVATE" not in run("inventory", "export").out


def test_audit_shows_verifies_and_exports(run: CommandLine, tmp_path: Path) -> None:
    rows = run("audit", "show", "--last", "3", "--json").json()["entries"]
    assert len(rows) == 3 and rows[-1]["action"] == "crl.publish"
    assert rows[0]["actor_authenticated"] is False and "unauthenticated" not in rows[0]["actor"]
    assert "(unauthenticated)" in run("audit", "show").out
    report = run("audit", "verify", "--json").json()
    assert report["schema"] == "chargepki/audit-report" and report["findings"] == []
    exported = run("audit", "export").out.splitlines()
    assert len(exported) == report["entries"]
    run("audit", "export", "--out", tmp_path / "audit.ndjson")
    assert (tmp_path / "audit.ndjson").read_text().splitlines() == exported
    run("audit", "checkpoint", "--out", tmp_path / "head.json")
    run("audit", "verify", "--checkpoint", tmp_path / "head.json")


def test_a_checkpoint_of_another_log_is_a_no(run: CommandLine, place: Path, tmp_path: Path) -> None:
    other = CommandLine(tmp_path / "other")
    other("station", "add", "X")
    done = other("audit", "verify", "--checkpoint", place / "checkpoint.json", code=1)
    assert "1 finding" in done.out or "findings" in done.out


def test_reading_leaves_every_byte_as_it_was(run: CommandLine) -> None:
    before = snapshot(run.home)
    for words in (
        ("ca", "list"), ("ca", "show", "t-cso-sub"), ("cert", "list"), ("station", "show", "CS-0001"),
        ("station", "list"), ("inventory", "list"), ("inventory", "export"), ("audit", "show"), ("audit", "verify"),
        ("config", "show"),
    ):  # fmt: skip
        run(*words)
        run(*words, "--json")
    assert snapshot(run.home) == before


def test_an_empty_queue_is_served_and_left(run: CommandLine) -> None:
    assert "answered 0 requests" in run("authority", "serve", "--once").stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--listen", "nonsense"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "127.0.0.1:0", "--security-profile", "4"),
        ("--listen", "127.0.0.1:0", "--security-profile", "1,2"),
        ("--listen", "127.0.0.1:0", "--security-profile", "2"),
        ("--listen", "127.0.0.1:0", "--security-profile", "1", "--tls-ca", "t-cso-sub"),
        ("--listen", "127.0.0.1:0", "--security-profile", "2", "--tls-ca", "t-cso-sub", "--issue", "Nonsense=x"),
        ("--listen", "127.0.0.1:0", "--security-profile", "2", "--tls-ca", "t-cso-sub", "--issue", "V2GCertificate"),
    ],
    ids=" ".join,
)
def test_contradicting_options_of_the_endpoint_are_usage_errors(run: CommandLine, words: tuple[str, ...]) -> None:
    before = snapshot(run.home)
    profile = () if "--security-profile" in words else ("--security-profile", "2")
    run.run("csms", "serve", *words, *profile).check_one_error(2)
    assert snapshot(run.home) == before


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--tls-ca", "none"), 3),
        (("--tls-ca", "t-cso-root"), 3),
        (("--tls-ca", "t-cso-sub", "--issue", "ChargingStationCertificate=none"), 3),
        (("--tls-ca", "t-cso-sub", "--issue", "ChargingStationCertificate=t-cso-sub:ocpp/none"), 3),
        (("--tls-ca", "t-cso-sub", "--dns", "a b"), 3),
        (("--tls-cert", "none.pem", "--tls-key", "none.key"), 4),
    ],
    ids=repr,
)
def test_an_endpoint_that_cannot_start_changes_nothing(run: CommandLine, words: tuple[str, ...], code: int) -> None:
    before = snapshot(run.home)
    run.run("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "2", *words).check_one_error(code)
    assert snapshot(run.home) == before


def test_a_verdict_says_what_was_tested(run: CommandLine, place: Path) -> None:
    done = run("audit", "verify")
    assert "0 findings: log and inventory are whole; head " in done.out and "signed by log key" in done.out
    assert "truncation was not tested: pass --checkpoint" in done.out
    assert "agreed" in run("audit", "verify", "--checkpoint", place / "checkpoint.json").out
    with contextlib.closing(sqlite3.connect(run.home / "inventory.db")) as database, database:
        database.execute("UPDATE audit_entry SET outcome = 'never' WHERE seq = 2")
        database.execute("UPDATE certificate SET station = 'CS-0009' WHERE station = 'CS-0001'")
        database.execute("UPDATE audit_head SET signature = ''")
    done = run("audit", "verify", code=1)
    codes = [line.partition(":")[0] for line in done.out.splitlines() if line.startswith(("head-", "entry-", "row-"))]
    assert codes == sorted(codes, key=lambda code: "her".index(code[0])), "head first, rows last"
    assert {"head-signature", "entry-changed", "row-changed"} <= set(codes)
    assert "entry 2: entry 2" not in done.out and "next: keep a copy" in done.stderr


def test_an_unknown_item_is_none_of_the_three_kinds(run: CommandLine) -> None:
    for item in ("nobody", "deadbeef", "t-cso-sub:deadbeef", "x" * 300):
        refused = run.run("inventory", "show", item).check_one_error(3)
        assert "there is no CA, station, operation, firmware release or certificate" in refused.stderr
