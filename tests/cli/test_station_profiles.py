"""`chargepki station set-profile` and `migrate`: what is planned, fetched first, and refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import PresenceRecord
from testkit.command_line import CommandLine, snapshot
from testkit.hierarchy import make_node

URL = "wss://csms.test/ocpp"
CSMS = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/csms", "--subject", "CN=csms.test,O=Acme Charging")


def seen(run: CommandLine, station: str, protocol: str, profile: int) -> None:
    """Put a live connection on record, as a CSMS does."""
    key = AuditKey.load_or_create(run.home / "audit.key")
    now = datetime.now(UTC)
    presence = PresenceRecord(station, True, "csms", "c1", protocol, profile, None, "127.0.0.1:1", now, now)
    inventory = Inventory.open(f"sqlite:///{run.home / 'inventory.db'}", log_key=key)
    inventory.write(lambda tx: tx.set_presence(presence))
    inventory.close()


@pytest.fixture
def fleet(run: CommandLine, tmp_path: Path) -> CommandLine:
    """A CSMS certificate, a 1.6 station without a profile, and one of 2.0.1 on profile 1."""
    run(*CSMS, "--dns", "csms.test", "--new-key", "--key-out", tmp_path / "csms.key", "--out", tmp_path / "csms.pem")
    (tmp_path / "password").write_text("a-password-of-20-chr\n")
    run("station", "add", "OLD", "--security-profile", "0")
    run("station", "add", "NEW", "--security-profile", "1", "--password-file", tmp_path / "password")
    seen(run, "OLD", "ocpp1.6", 0)
    seen(run, "NEW", "ocpp2.0.1", 1)
    return run


def test_a_dry_run_shows_every_step_and_changes_nothing(fleet: CommandLine) -> None:
    """A05.FR.02 to FR.04: root, password, certificate, then the profile."""
    before = snapshot(fleet.home)
    planned = fleet("station", "set-profile", "OLD", "2", "--dry-run", "--json")
    steps = planned.json()["steps"]
    assert [step.split()[0] for step in steps] == ["read", "give", "set", "wait"]
    assert "no password of it is on record; it is fetched first" in planned.stderr
    steps = fleet("station", "set-profile", "NEW", "3", "--url", URL, "--dry-run", "--json").json()["steps"]
    assert [step.split()[0] for step in steps] == ["read", "have", "write", "reset", "wait"]
    assert snapshot(fleet.home) == before


def test_the_root_above_our_csms_certificates_is_the_one_unless_another_is_named(
    fleet: CommandLine, tmp_path: Path
) -> None:
    other = make_node("Other Root", None, ca=True).certificate.public_bytes(Encoding.DER)
    (tmp_path / "other.der").write_bytes(other)
    words = ("station", "set-profile", "NEW", "2", "--url", URL, "--dry-run", "--json")
    own = fleet(*words).json()["parameters"]["root"]
    assert fleet(*words, "--root", "t-cso-root").json()["parameters"]["root"] == own
    named = fleet(*words, "--root", tmp_path / "other.der").json()["parameters"]["root"]
    assert named == hashlib.sha256(other).hexdigest() != own
    assert "root" not in fleet(*words, "--root", "none").json()["parameters"]
    fleet.run(*words[:-1], "--root", "t-cso-unknown").check_one_error(3)
    campaign = (
        "campaign",
        "create",
        "up",
        "--kind",
        "set-profile",
        "--set",
        "profile=2",
        "--set",
        f"url={URL}",
        "--all",
    )
    planned = fleet(*campaign, "--dry-run", "--json").json()["stations"]
    ready = {row["station"]: row["steps"] for row in planned if row["verdict"] == "ready"}
    assert ready.keys() == {"OLD", "NEW"} and any(own[:16] in step for step in ready["NEW"])
    assert fleet(*campaign, "--json").json()["parameters"]["root"] == own
    fleet.run(*campaign[:2], "up2", *campaign[3:], "--set", "root=t-unknown").check_one_error(3)


def test_a_station_is_lowered_only_where_the_errata_allow_it_and_only_when_told_so(fleet: CommandLine) -> None:
    """A05.FR.08 to FR.10; 1.6 A05.FR.01."""
    seen(fleet, "NEW", "ocpp2.0.1", 3)
    seen(fleet, "OLD", "ocpp1.6", 3)
    words = ("station", "set-profile", "NEW", "2", "--url", URL)
    fleet.run(*words).check_one_error(3)
    assert "A05.FR.08" in fleet.run("station", "set-profile", "OLD", "2", "--allow-downgrade").check_one_error(3).stderr
    fleet.run(*words, "--record-only", "--allow-downgrade").check_one_error(2)
    fleet.run("station", "set-profile", "NEW", "1", "--url", "ws://csms.test", "--allow-downgrade").check_one_error(3)
    row = fleet(*words, "--allow-downgrade", "--json").json()
    assert row["parameters"]["downgrade"] is True
    campaign = ("campaign", "create", "down", "--kind", "set-profile", "--set", "profile=2", "--set", f"url={URL}")
    planned = fleet(*campaign, "--set", "downgrade=yes", "--station", "OLD", "--dry-run", "--json").json()["stations"]
    assert [(item["verdict"], "A05.FR.08" in item["why"]) for item in planned] == [("skipped", True)]


def test_a_slot_of_2_1_gets_a_password_of_its_own_and_no_other_version(fleet: CommandLine, tmp_path: Path) -> None:
    """B09.FR.14; TC_B_100."""
    words = ("2", "--url", URL, "--root", "none", "--password-file", tmp_path / "password", "--dry-run")
    refused = fleet.run("station", "set-profile", "NEW", *words).check_one_error(3).stderr
    assert "2.1" in refused and "station set-password NEW" in refused
    seen(fleet, "NEW", "ocpp2.1", 1)
    steps = fleet("station", "set-profile", "NEW", *words, "--json").json()["steps"]
    assert [step.split()[0] for step in steps] == ["write", "reset", "wait"]
    assert "with a password of its own" in steps[0]
    (tmp_path / "password").write_text("too-short")
    fleet.run("station", "set-profile", "NEW", *words).check_one_error(3)


def test_what_profile_1_would_bring_without_tls_needs_an_allowance_that_is_recorded(fleet: CommandLine) -> None:
    """ocpp-security 12, row 32."""
    words = ("station", "set-profile", "NEW", "2", "--url", URL, "--dry-run", "--json")
    told, allowed = fleet(*words), fleet(*words, "--allow-unsecured")
    assert "and without TLS it gets none unless --allow-unsecured" in told.stderr
    assert "allow-unsecured" not in allowed.stderr
    assert told.json()["steps"][0].endswith("; refused while it has no TLS")
    assert allowed.json()["steps"][0].endswith(", without TLS, which was allowed")
    assert "allow_unsecured" not in told.json()["parameters"]
    assert allowed.json()["parameters"]["allow_unsecured"] is True
    fleet.run("station", "set-profile", "NEW", "2", "--record-only", "--allow-unsecured").check_one_error(2)
    renewal = fleet("station", "trigger-renewal", "NEW", "--allow-unsecured", "--dry-run", "--json").json()
    assert renewal["parameters"]["allow_unsecured"] is True
    settings = {
        "set-profile": ("profile=2", f"url={URL}"),
        "install-root": ("use=csms", "root=t-cso-root"),
        "delete-root": ("use=csms", "root=t-cso-root"),
        "trigger-renewal": ("use=charging-station",),
    }
    for kind, given in settings.items():
        pairs = [word for text in given for word in ("--set", text)]
        create = ("campaign", "create", f"a-{kind}", "--kind", kind, *pairs, "--all")
        made = fleet(*create, "--set", "allow-unsecured=yes", "--json").json()
        assert made["parameters"]["allow_unsecured"] is True
        fleet.run(*create, "--set", "allow-unsecured=maybe").check_one_error(3)


def test_the_migration_plan_tells_what_would_be_fetched(fleet: CommandLine) -> None:
    rows = fleet("station", "migrate", "--plan", "--to", "2", "--json").json()["stations"]
    assert {row["station"]: row["verdict"] for row in rows} == {
        "CS-0001": "locked-out", "CS-0002": "locked-out", "OLD": "fetched", "NEW": "fetched",
    }  # fmt: skip
    kinds = {row["station"]: [each["kind"] for each in row["obstacles"]] for row in rows}
    assert kinds["OLD"] == ["no-password", "no-root"] and kinds["NEW"] == ["no-root"]


def test_the_plan_for_another_version_tells_what_is_carried_over_and_the_way_back(fleet: CommandLine) -> None:
    words = ("station", "migrate", "--plan", "--to-protocol", "ocpp2.0.1")
    rows = {row["station"]: row for row in fleet(*words, "--json").json()["stations"]}
    assert (rows["NEW"]["verdict"], rows["OLD"]["verdict"]) == ("there", "locked-out")
    assert "neither a password nor a certificate" in rows["OLD"]["why"] and "set-profile OLD 1" in rows["OLD"]["why"]
    assert "it has never connected" in rows["CS-0001"]["why"]
    seen(fleet, "NEW", "ocpp1.6", 2)
    (row,) = fleet(*words, "--matching", "NEW", "--json").json()["stations"]
    assert (row["verdict"], row["carries"]) == ("ready", ["identity NEW", "password"])
    assert [step.split()[:3] for step in row["steps"]][1] == ["chargepki", "station", "set-password"]
    assert row["steps"][-1].startswith("back: ")
    assert fleet(*words, "--matching", "NEW", "--locked-out", "--json").json()["stations"] == []
    fleet.run(*words, "--to", "3").check_one_error(2)
