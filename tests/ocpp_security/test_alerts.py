"""Tests of chargepki.ocpp_security.alerts and alert_settings."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from chargepki.ocpp_security.alert_settings import parse_alert_plan
from chargepki.ocpp_security.alerts import (
    AlertPlan,
    AlertRule,
    Criticality,
    ExecTarget,
    LogTarget,
    WebhookTarget,
    document_of,
    evaluate,
    matches,
    trial_alert,
)
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.event_records import EventSeries
from chargepki.pki.inventory.records import SecurityEventRecord

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = AlertRule("tampering", ("log",))


def series(
    number: int = 1, *, kind: str = "TamperDetectionActivated", station: str | None = "CS-1", at: datetime = NOW,
    critical: bool = True, source: str = "station", times: int = 1,
) -> EventSeries:  # fmt: skip
    event = SecurityEventRecord(number, station, source, kind, critical, "door", at, at)
    minute = str(int(at.timestamp()) // 60 * 60)
    return EventSeries(event, times, at, at, {minute: times}, changed=number)


@pytest.mark.parametrize(
    ("changes", "event", "expected"),
    [
        ({}, series(), True),
        ({"events": ("Tamper*",)}, series(), True),
        ({"events": ("Invalid*",)}, series(), False),
        ({"events": ("InvalidCsmsCertificate",)}, series(kind="InvalidCentralSystemCertificate"), True),
        ({"events": ("tamperdetectionactivated",)}, series(), False),
        ({"criticality": Criticality.CRITICAL}, series(critical=False), False),
        ({"criticality": Criticality.NON_CRITICAL}, series(critical=False), True),
        ({"source": "csms"}, series(), False),
        ({"stations": ("CS-*",)}, series(), True),
        ({"stations": ("CS-2", "DE-*")}, series(), False),
        ({"stations": ("CS-*",)}, series(station=None), False),
        ({}, series(station=None), True),
    ],
)
def test_what_a_rule_looks_at(changes: dict[str, object], event: EventSeries, expected: bool) -> None:
    assert matches(replace(RULE, **changes), event) is expected  # type: ignore[arg-type]  # fields of AlertRule


def test_a_threshold_counts_occurrences_within_the_window() -> None:
    rule = replace(RULE, threshold=3, window=timedelta(minutes=5))
    old, first, second, third = (
        series(n, at=NOW + timedelta(minutes=m)) for n, m in ((1, -20), (2, 0), (3, 1), (4, 2))
    )
    assert evaluate([rule], [second], [old, first, second], {}, NOW) == []
    (alert,) = evaluate([rule], [third], [old, first, second, third], {}, NOW)
    assert alert.details["count"] == 3
    assert "3 times within 300 s" in alert.summary


def test_repetitions_of_one_event_count() -> None:
    rule = replace(RULE, threshold=5, window=timedelta(minutes=5))
    assert evaluate([rule], [series(times=4)], [series(times=4)], {}, NOW) == []
    assert len(evaluate([rule], [series(times=5)], [series(times=5)], {}, NOW)) == 1


def test_stations_are_counted_apart_or_together() -> None:
    events = [series(n, station=f"CS-{n}") for n in (1, 2, 3)]
    rule = replace(RULE, threshold=3)
    assert evaluate([rule], events, events, {}, NOW) == []
    (alert,) = evaluate([replace(rule, per_station=False)], events, events, {}, NOW)
    assert alert.scope == ""


def test_a_rule_is_silent_while_it_cools_down_about_the_same_station() -> None:
    rule = replace(RULE, cool_down=timedelta(minutes=10))
    first = series(1)
    again = series(2, at=NOW + timedelta(minutes=9))
    other = series(3, station="CS-2", at=NOW + timedelta(minutes=9))
    late = series(4, at=NOW + timedelta(minutes=10))
    events = [first, again, other, late]
    alerts = evaluate([rule], events, events, {}, NOW)
    assert [alert.details["event"] for alert in alerts] == [1, 3, 4]
    assert evaluate([rule], [again], events, {("tampering", "CS-1"): NOW}, NOW) == []


def test_the_same_cause_gives_the_same_alert_wherever_it_is_found() -> None:
    (one,), (two,) = (evaluate([RULE], [series()], [series()], {}, at) for at in (NOW, NOW + timedelta(seconds=5)))
    assert one.id == two.id
    (other,) = evaluate([RULE], [series(2)], [series(2)], {}, NOW)
    assert other.id != one.id


def test_the_document_is_json_of_a_named_schema() -> None:
    (alert,) = evaluate([RULE], [series()], [series()], {}, NOW)
    document = orjson.loads(document_of(alert))
    assert (document["schema"], document["schema_version"], document["id"]) == ("chargepki/alert", 1, alert.id)
    assert (document["station"], document["details"]["type"]) == ("CS-1", "TamperDetectionActivated")
    assert orjson.loads(document_of(trial_alert(NOW)))["details"] == {"test": True}


GOOD = """
[[alerts.target]]
name = "log"
kind = "log"
level = "warning"
[[alerts.target]]
name = "pager"
kind = "exec"
command = ["/usr/local/bin/page", "--security"]
timeout = "5s"
[[alerts.target]]
name = "siem"
kind = "webhook"
url = "https://siem.example/hook?tenant=1"
secret_file = "/etc/chargepki/siem.key"
[[alerts.rule]]
name = "guessing"
events = ["CsmsFailedToAuthenticate", "Invalid*"]
criticality = "any"
source = "csms"
stations = "CS-*"
threshold = 5
window = "10m"
cool_down = "1h"
per_station = true
targets = ["siem", "pager"]
"""


def parse(text: str) -> AlertPlan:
    return parse_alert_plan(tomllib.loads(text).get("alerts", {}), "chargepki.toml")


def test_rules_and_targets_are_read() -> None:
    plan = parse(GOOD)
    (rule,) = plan.rules
    assert (rule.threshold, rule.window, rule.stations) == (5, timedelta(minutes=10), ("CS-*",))
    assert plan.targets["log"] == LogTarget("log", "warning")
    assert plan.targets["pager"] == ExecTarget("pager", ("/usr/local/bin/page", "--security"), timedelta(seconds=5))
    assert isinstance(plan.targets["siem"], WebhookTarget)
    assert parse("") == AlertPlan()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "guessing"', 'name = "a b"', "rule.1.name"),
        ('threshold = 5', "threshold = 0", "threshold"),
        ('threshold = 5', "threshold = true", "threshold"),
        ('window = "10m"', 'window = "2h"', "longest"),
        ('window = "10m"', "window = 10", "duration"),
        ('criticality = "any"', 'criticality = "loud"', "one of any, critical, non-critical"),
        ('targets = ["siem", "pager"]', 'targets = ["nobody"]', "there is no target"),
        ('targets = ["siem", "pager"]', "targets = []", "targets"),
        ('per_station = true', 'per_station = "yes"', "true or false"),
        ('source = "csms"', 'sauce = "csms"', "unknown setting"),
        ('kind = "exec"', 'kind = "shell"', "one of log, exec, webhook"),
        ('"/usr/local/bin/page"', '"page"', "absolute path"),
        ("https://siem", "http://siem", "not https"),
        ("https://siem", "https://user:pass@siem", "no address"),
        ("https://siem", "ftp://siem", "no address"),
        ('secret_file = "/etc/chargepki/siem.key"', "", "secret_file"),
        ('secret_file = "/etc/chargepki/siem.key"', 'secret_file = "siem.key"', "secret_file"),
        ('name = "pager"', 'name = "log"', "taken"),
        ("[[alerts.rule]]", "[alerts.rule]", "array of tables"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_clear_error(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert words in str(caught.value)
    assert "chargepki.toml" in caught.value.what
