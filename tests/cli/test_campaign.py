"""`chargepki campaign`: choose, plan, create, steer; what a running CSMS does with it is tested with the endpoint."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from chargepki.cli.campaign import campaign as cli_campaign
from chargepki.ocpp_security.campaign_kinds import KINDS
from testkit.command_line import CommandLine, snapshot

FIELDS = {
    "schema", "schema_version", "name", "kind", "parameters", "pace", "state", "why", "requester", "created_at",
    "changed_at", "ends_at", "wave", "waves", "stations", "ended", "waiting", "running", "done", "failed", "unreached",
    "skipped", "cancelled",
}  # fmt: skip
RENEW = ("--kind", "trigger-renewal")


@pytest.fixture
def fleet(run: CommandLine) -> CommandLine:
    for number in (1, 2, 3):
        run("station", "add", f"DE-{number}")
    return run


def test_a_campaign_is_created_shown_steered_and_cancelled(fleet: CommandLine) -> None:
    words = ("--all", "--matching", "DE-*", "--wave", "1", "--rate", "60", "--jitter", "10m", "--stop-share", "10%")
    made = fleet("campaign", "create", "spring", *RENEW, *words, "--set", "use=v2g", "--json")
    row = made.json()
    assert row.keys() == FIELDS
    assert (row["state"], row["stations"], row["waiting"], row["parameters"]) == (
        "running", 3, 3, {"use": "V2GCertificate"},
    )  # fmt: skip
    assert row["pace"]["per_minute"] == 60 and row["pace"]["jitter_seconds"] == 600
    assert row["pace"]["stop_percent"] == 10
    assert [wave["waiting"] for wave in row["waves"]] == [1, 2]
    assert "next: chargepki campaign show spring --watch" in made.stderr
    assert fleet("campaign", "pause", "spring", "--why", "storm", "--json").json()["why"] == "storm"
    resumed = fleet("campaign", "resume", "spring", "--rate", "30", "--stop-share", "never", "--json").json()
    assert resumed["state"] == "running" and resumed["pace"]["per_minute"] == 30
    assert resumed["pace"]["stop_percent"] is None and resumed["pace"]["jitter_seconds"] == 600
    assert fleet("campaign", "cancel", "spring", "--json").json()["state"] == "cancelling"
    assert [item["name"] for item in fleet("campaign", "list", "--json").json()["campaigns"]] == ["spring"]
    stations = fleet("campaign", "stations", "spring", "--json").json()["stations"]
    assert [item["station"] for item in stations] == ["DE-1", "DE-2", "DE-3"]
    assert "trigger-renewal" in fleet("campaign", "show", "spring").out
    fleet.run("campaign", "resume", "spring").check_one_error(3)


def test_a_dry_run_judges_every_station_and_changes_nothing(fleet: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("DE-1\n\nDE-3\n")
    before = snapshot(fleet.home)
    words = ("create", "dry", *RENEW, "--stations-file", tmp_path / "list", "--dry-run")
    plan = fleet("campaign", *words, "--json").json()["stations"]
    assert plan == [
        {"station": name, "verdict": "later", "why": "the station has not connected yet", "steps": []}
        for name in ("DE-1", "DE-3")
    ]
    assert snapshot(fleet.home) == before
    fleet.run("campaign", "show", "dry").check_one_error(3)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("spring",), 2),
        (("spring", "--all", "--station", "DE-1"), 2),
        (("spring", "--station", "NOBODY"), 3),
        (("../x", "--all"), 3),
        (("spring", "--all", "--matching", "FR-*"), 3),
        (("spring", "--all", "--set", "use"), 2),
        (("spring", "--all", "--set", "use=tls"), 3),
        (("spring", "--all", "--set", "release=r"), 3),
        (("spring", "--all", "--stop-share", "some"), 2),
        (("spring", "--all", "--rate", "0"), 3),
    ],
)
def test_what_makes_no_campaign_is_refused(fleet: CommandLine, words: tuple[str, ...], code: int) -> None:
    before = snapshot(fleet.home)
    fleet.run("campaign", "create", *RENEW, *words).check_one_error(code)
    assert snapshot(fleet.home) == before


def test_every_kind_that_a_csms_carries_out_can_be_ordered(fleet: CommandLine, place: Path) -> None:
    option = next(each for each in cli_campaign.commands["create"].params if each.name == "kind")
    assert isinstance(option.type, click.Choice)
    assert {*option.type.choices, "replace-certificate"} == set(KINDS), "that one is ordered with `campaign replace`"
    for kind in ("install-root", "delete-root"):
        words = ("--kind", kind, "--set", "use=csms", "--set", "root=t-cso-root", "--all", "--dry-run", "--json")
        plan = fleet("campaign", "create", kind, *words).json()["stations"]
        assert len(plan) == 5 and all(item["verdict"] in ("ready", "later") for item in plan)


def test_an_update_needs_an_approved_release(fleet: CommandLine) -> None:
    words = ("campaign", "create", "fw", "--kind", "update-firmware", "--all")
    fleet.run(*words).check_one_error(3)
    fleet.run(*words, "--set", "release=none").check_one_error(3)


def test_following_ends_with_the_timeout_and_the_kinds_are_listed(fleet: CommandLine) -> None:
    fleet("campaign", "create", "follow", *RENEW, "--station", "DE-1")
    lines = fleet("campaign", "show", "follow", "--watch", "--timeout", "1s", "--json-lines").out.splitlines()
    assert len(lines) == 1 and '"waiting": 1' in lines[0]
    fleet.run("campaign", "show", "follow", "--timeout", "1s").check_one_error(2)
    assert "base-url" in fleet("campaign", "kinds").out


def test_a_replacement_finds_who_is_affected_and_revokes_the_rest_only_after_its_end(run: CommandLine) -> None:
    before = snapshot(run.home)
    words = ("--ca", "t-cso-sub", "--by", "t-other-sub", "--reason", "cACompromise")
    run.run("campaign", "replace", "leak", "--ca", "t-cso-sub", "--reason", "cACompromise").check_one_error(2)
    run.run("campaign", "replace", "leak", *words).check_one_error(3)  # no such CA
    assert snapshot(run.home) == before
    listed = run("cert", "list", "--json").json()["certificates"]
    mine = next(row for row in listed if row["station"] == "CS-0001" and row["state"] == "issued")
    one = ("--certificate", mine["id"], "--reason", "keyCompromise")
    plan = run("campaign", "replace", "leak", *one, "--dry-run", "--json").json()["stations"]
    assert [row["station"] for row in plan] == ["CS-0001"]
    row = run("campaign", "replace", "leak", *one, "--json").json()
    assert row["kind"] == "replace-certificate" and row["stations"] == 1
    refused = run.run("campaign", "revoke-rest", "leak", "--yes").check_one_error(3)
    assert "chargepki campaign cancel leak" in refused.stderr
