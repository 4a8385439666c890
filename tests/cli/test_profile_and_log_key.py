"""The expected profile of a station, and a log key that went missing."""

from __future__ import annotations

import pytest

from testkit.command_line import CommandLine


def test_the_expected_profile_is_set_upwards_and_downwards_and_audited(run: CommandLine) -> None:
    for profile in ("3", "1"):
        assert run("station", "set-profile", "CS-0002", profile, "--record-only").code == 0
        assert run("station", "show", "CS-0002", "--json").json()["security_profile"] == int(profile)
    entries = run("audit", "show", "--json").json()["entries"]
    assert [entry["details"] for entry in entries if entry["action"] == "station.change"] == [
        {"before": 2, "security_profile": 3},
        {"before": 3, "security_profile": 1},
    ]


def test_setting_the_same_profile_again_changes_nothing(run: CommandLine) -> None:
    before = run("audit", "show", "--json").json()
    assert run("station", "set-profile", "CS-0002", "2", "--record-only").code == 0
    assert run("audit", "show", "--json").json() == before


@pytest.mark.parametrize(
    "arguments", ["CS-0002 0", "CS-0002 4 --record-only", "CS-0002 --record-only", "CS-0002 3 --record-only --slot 2"]
)
def test_a_profile_is_not_set_by_half_a_command(run: CommandLine, arguments: str) -> None:
    assert run.run("station", "set-profile", *arguments.split()).code == 2


def test_a_higher_profile_is_an_operation_and_a_lower_one_is_refused(run: CommandLine) -> None:
    run("station", "set-profile", "CS-0002", "2", "--record-only")
    queued = run("station", "set-profile", "CS-0002", "3", "--url", "wss://csms.example/ocpp", "--json").json()
    assert queued["kind"] == "set-profile" and queued["state"] == "queued"
    assert queued["parameters"] == {
        "profile": 3, "url": "wss://csms.example/ocpp", "use": "ChargingStationCertificate",
    }  # fmt: skip
    refused = run.run("station", "set-profile", "CS-0002", "1").check_one_error(3)
    assert "--record-only" in refused.stderr
    run.run("station", "set-profile", "CS-0002", "3", "--url", "ws://csms.example").check_one_error(3)


def test_the_plan_names_who_would_be_locked_out_and_why(run: CommandLine) -> None:
    rows = run("station", "migrate", "--plan", "--to", "3", "--json").json()["stations"]
    mine = next(row for row in rows if row["station"] == "CS-0002")
    assert mine["verdict"] == "locked-out" and mine["obstacles"][0]["kind"] == "never-seen"
    assert run("station", "migrate", "--plan", "--matching", "NOBODY*", "--json").json()["stations"] == []


def test_a_lost_log_key_is_asked_for_and_never_replaced(run: CommandLine) -> None:
    key = run.home / "audit.key"
    key.unlink()
    refused = run.run("station", "add", "CS-9").check_one_error(4)
    assert "restore it from the backup" in refused.stderr
    assert not key.exists()
