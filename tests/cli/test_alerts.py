"""`chargepki alerts`: list, acknowledge and try."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from chargepki.pki.inventory import AuditKey, Inventory
from testkit.command_line import CommandLine, snapshot
from testkit.inventories import ACTOR, alert_record


@pytest.fixture
def alerts(run: CommandLine) -> CommandLine:
    log_key = AuditKey.load_or_create(run.home / "audit.key")
    with Inventory.open(f"sqlite:///{run.home / 'inventory.db'}", log_key=log_key) as inventory:
        for number in (1, 2):
            record = alert_record(f"al-{number}", scope=f"CS-000{number}", cause=number)

            def work(tx: object, record: object = record) -> None:
                tx.add_alert(record)  # type: ignore[attr-defined]  # a Transaction
                tx.audit(ACTOR, "alert.raise", "al", now=datetime.now(UTC))  # type: ignore[attr-defined]  # the same

            inventory.write(work)
    return run


def test_alerts_are_listed_and_acknowledged_in_the_audit_log(alerts: CommandLine) -> None:
    rows = alerts("alerts", "list", "--json").json()["alerts"]
    assert [(row["id"], row["state"], row["station"]) for row in rows] == [
        ("al-1", "open", "CS-0001"),
        ("al-2", "open", "CS-0002"),
    ]
    before = snapshot(alerts.home)
    alerts("alerts", "ack", "al-1", "--dry-run")
    alerts.run("alerts", "ack", "al-1", "al-9").check_one_error(3)
    assert snapshot(alerts.home) == before
    row = alerts("alerts", "ack", "al-1", "--note", "door was serviced", "--json").json()
    assert (row["schema"], row["state"], row["note"]) == ("chargepki/alert", "acknowledged", "door was serviced")
    assert alerts("alerts", "ack", "al-1", "--note", "again", "--json").json()["note"] == "door was serviced"
    assert [row["id"] for row in alerts("alerts", "list", "--state", "open", "--json").json()["alerts"]] == ["al-2"]
    assert [row["id"] for row in alerts("alerts", "list", "--station", "CS-0002", "--json").json()["alerts"]] == [
        "al-2"
    ]
    entries = [entry for entry in alerts("audit", "show", "--json").json()["entries"]]
    acknowledged = [entry for entry in entries if entry["action"] == "alert.acknowledge"]
    assert [(entry["subject"], entry["details"]["note"]) for entry in acknowledged] == [("al-1", "door was serviced")]
    alerts("audit", "verify")


def test_a_test_alert_goes_to_every_target_and_says_which_did_not_take_it(alerts: CommandLine, tmp_path: Path) -> None:
    config = alerts.home / "chargepki.toml"
    alerts.run("alerts", "test").check_one_error(3)
    config.write_text(
        '[[alerts.target]]\nname = "log"\nkind = "log"\n'
        f'[[alerts.target]]\nname = "broken"\nkind = "exec"\ncommand = ["{tmp_path / "none"}"]\n'
    )
    rows = alerts("alerts", "test", "log", "--json").json()["targets"]
    assert [(row["target"], row["taken"]) for row in rows] == [("log", True)]
    outcome = alerts.run("alerts", "test")
    assert outcome.code == 4
    assert "broken did not take" in outcome.stderr
    assert alerts("alerts", "test", "--dry-run", "--json").json()["targets"][1]["taken"] is None
    alerts.run("alerts", "test", "nobody").check_one_error(3)


def test_a_wrong_rule_is_one_error_that_names_it(alerts: CommandLine) -> None:
    (alerts.home / "chargepki.toml").write_text('[[alerts.rule]]\nname = "x"\ntargets = ["nobody"]\n')
    assert "line 3, column 1: alerts.rule.1.targets" in alerts.run("alerts", "test").check_one_error(3).stderr
