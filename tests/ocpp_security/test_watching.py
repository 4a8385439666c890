"""`inventory watch`: each thing is told once, to the targets of its rule, and stays acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security import watching
from chargepki.ocpp_security.alert_settings import parse_alert_plan
from chargepki.ocpp_security.alerts import AlertPlan, document_of
from chargepki.ocpp_security.watching import WatchKind, WatchRule, raise_watch_alerts, watch_alerts
from chargepki.pki.checking import Example, FindingGroup
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Severity
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.codec import CERTIFICATE
from chargepki.pki.inventory.event_records import AlertState
from chargepki.pki.inventory.records import CertificateState, Delivery
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.lint.settings import LintSettings
from testkit.authorities import log_findings
from testkit.estates import CERTIFICATES, fill_estate
from testkit.inventories import ACTOR, NOW, add_ca, certificate_record, do

DAY = timedelta(days=1)
SETTINGS = LintSettings()


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Inventory]:
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        yield inventory


def rule(kind: WatchKind, **changes: object) -> WatchRule:
    return WatchRule("r", kind, ("log",), **changes)  # type: ignore[arg-type]  # what a test varies


def test_expiry_is_told_once_for_each_span_and_again_never(estate: Inventory, tmp_path: Path) -> None:
    wanted = rule(WatchKind.EXPIRY, within=(30 * DAY, 22 * DAY))
    raised, more = raise_watch_alerts(estate, wanted, SETTINGS, ACTOR, NOW)
    ending = [
        row
        for row in CERTIFICATES
        if row.state == "issued" and NOW <= row.not_after <= NOW + 30 * DAY and row.delivery != "superseded"
    ]
    groups = {(row.not_after.date().isoformat(), row.ca, row.profile) for row in ending}
    assert {(each.details["day"], each.details["ca"], each.details["profile"]) for each in raised} == groups
    assert sum(int(str(each.details["certificates"])) for each in raised) == len(ending)
    assert {each.details["within_days"] for each in raised} == {22, 30}
    assert not more
    assert all([d.target for d in estate.list_alert_deliveries(each.id)] == ["log"] for each in raised)
    assert raise_watch_alerts(estate, wanted, SETTINGS, ACTOR, NOW) == ([], False)
    estate.write(lambda tx: _acknowledge(tx, raised[0].id))
    # Days later what came near is told once more, and what was acknowledged stays so.
    later, _ = raise_watch_alerts(estate, wanted, SETTINGS, ACTOR, NOW + 5 * DAY)
    assert {each.id for each in later}.isdisjoint(each.id for each in raised)
    again = {str(each.details["day"]) for each in later} & {str(each.details["day"]) for each in raised}
    assert again == {str(each.details["day"]) for each in raised if each.details["within_days"] == 30}
    assert estate.find_alert(raised[0].id) is not None
    assert {each.id for each in estate.list_alerts(state=AlertState.ACKNOWLEDGED)} == {raised[0].id}
    assert "examples" in document_of(raised[0]).decode()
    head = estate.audit_head()
    assert head is not None and head.count == len(raised) + len(later) + 1
    assert not [each for each in log_findings(estate, tmp_path) if "alert" in each]


def _acknowledge(tx: object, alert: str) -> None:
    tx.acknowledge_alert(alert, by="alice", now=NOW, note="renewal is planned")  # type: ignore[attr-defined]  # a Transaction
    tx.audit(ACTOR, "alert.acknowledge", alert, now=NOW)  # type: ignore[attr-defined]  # a Transaction


def test_filter_of_a_rule_holds(estate: Inventory) -> None:
    one = list(watch_alerts(estate, rule(WatchKind.EXPIRY, where="profile = 'ocpp/csms'"), SETTINGS, NOW))
    assert {each.details["profile"] for each in one} == {"ocpp/csms"}


def test_drift_is_about_its_station(estate: Inventory) -> None:
    raised, _ = raise_watch_alerts(estate, rule(WatchKind.DRIFT), SETTINGS, ACTOR, NOW)
    assert [each.scope for each in raised] == ["CS-3", "CS-3"]
    assert len({each.id for each in raised}) == 2


def test_cliffs_and_findings_are_told(estate: Inventory) -> None:
    cliffs = list(watch_alerts(estate, rule(WatchKind.CLIFF), SETTINGS, NOW))
    findings = list(watch_alerts(estate, rule(WatchKind.FINDING), SETTINGS, NOW))
    rules = {str(each.details["rule"]) for each in findings}
    assert {"w_orphan", "w_key_across_stations", "e_unpublished_revocation"} <= rules
    assert len(cliffs) == sum(each.details["rule"] == "w_expiry_cliff" for each in findings)
    errors = list(watch_alerts(estate, rule(WatchKind.FINDING, severity=Severity.ERROR), SETTINGS, NOW))
    assert {str(each.details["rule"])[0] for each in errors} == {"e"}
    judged = rule(WatchKind.FINDING, severity=Severity.ERROR, certificates=True, where="profile = 'ocpp/csms'")
    assert "e_row_mismatch" in {each.details["rule"] for each in watch_alerts(estate, judged, SETTINGS, NOW)}


def test_cliff_is_told_by_both_rules_and_what_is_superseded_by_none(estate: Inventory) -> None:
    assert not list(watch_alerts(estate, rule(WatchKind.CLIFF), SETTINGS, NOW))
    with estate._database.session() as session:
        for number in range(12):
            row = replace(
                CERTIFICATES[1],
                id=f"r@1:cc{number:x}",
                ca="r@1",
                serial=f"cc{number:x}",
                sha256=f"{number:x}" * 64,
                profile="iso15118-20/secc",
                state=CertificateState.ISSUED,
                not_after=NOW + 25 * DAY,
                delivery=Delivery.SUPERSEDED if number == 0 else None,
            )
            session.run("certificate_insert", with_traits(CERTIFICATE.encode(row)))
    (cliff,) = watch_alerts(estate, rule(WatchKind.CLIFF), SETTINGS, NOW)
    assert (cliff.details["profile"], cliff.details["certificates"]) == ("iso15118-20/secc", 12)
    findings = [each.details for each in watch_alerts(estate, rule(WatchKind.FINDING), SETTINGS, NOW)]
    assert [each["about"] for each in findings if each["rule"] == "w_expiry_cliff"] == ["iso15118-20/secc"]
    only = rule(WatchKind.EXPIRY, where="profile = 'iso15118-20/secc'")
    assert [each.details["certificates"] for each in watch_alerts(estate, only, SETTINGS, NOW)] == [11]


def test_what_another_watch_raises_meanwhile_is_not_raised_twice(
    estate: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = raise_watch_alerts(estate, rule(WatchKind.DRIFT), SETTINGS, ACTOR, NOW)
    # It looked before the other had committed.
    monkeypatch.setattr(Inventory, "find_alert", lambda _self, _alert: None)
    assert raise_watch_alerts(estate, rule(WatchKind.DRIFT), SETTINGS, ACTOR, NOW) == ([], False)
    assert {each.id for each in estate.list_alerts()} == {each.id for each in first}


def test_findings_of_one_certificate_are_not_told_as_several_certificates() -> None:
    examples = (Example("t@1:fa", "one"), Example("t@1:fa", "two"), Example("t@1:fb", "three"))
    group = FindingGroup("w_placeholder_url", Severity.WARNING, "RFC 2606", "set the public URL", 5, examples)
    told = watching._told_of(group, "finding/w_placeholder_url", None)
    assert told.summary == "warning: w_placeholder_url is broken 5 times by certificates, t@1:fa first"
    assert told.details["examples"] == ["t@1:fa", "t@1:fb"]


def test_certificates_recorded_later_that_break_a_rule_are_told_again(estate: Inventory) -> None:
    wanted = rule(WatchKind.FINDING, severity=Severity.ERROR, certificates=True, where="serial > 'f'")
    record = certificate_record()
    add_ca(estate)

    def look(hours: int) -> list[tuple[object, object]]:
        raised, _ = raise_watch_alerts(estate, wanted, SETTINGS, ACTOR, NOW + timedelta(hours=hours))
        about = [each.details for each in raised if each.details["rule"] == "e_der_strict"]
        return [(details["count"], details["examples"]) for details in about]

    def add(serial: str, hours: int) -> None:
        now = NOW + timedelta(hours=hours)
        new = replace(record, id=f"t@1:{serial}", serial=serial, request_key=serial, reserved_at=now)
        do(estate, lambda tx: tx.reserve_certificate(new), "certificate.reserve", new.id)
        do(estate, lambda tx: tx.record_certificate(new.id, b"no DER", f"{serial:0>64}", now))

    add("fa", 0)
    add("fb", 0)
    assert look(1) == [(2, ["t@1:fa", "t@1:fb"])]
    assert look(2) == []
    add("fc", 3)
    assert look(4) == [(1, ["t@1:fc"])]
    assert look(5) == []
    add("fd", 6)
    assert look(7) == [(1, ["t@1:fd"])]


def test_storm_is_told_in_portions(estate: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_AT_ONCE", 1)
    first, more = raise_watch_alerts(estate, rule(WatchKind.DRIFT), SETTINGS, ACTOR, NOW)
    second, rest = raise_watch_alerts(estate, rule(WatchKind.DRIFT), SETTINGS, ACTOR, NOW)
    assert (len(first), more, len(second), rest) == (1, True, 1, False)
    assert first[0].id != second[0].id


def plan(**watch: object) -> AlertPlan:
    table = {"target": [{"name": "log", "kind": "log"}], "watch": [{"name": "w", "targets": ["log"], **watch}]}
    return parse_alert_plan(table, "chargepki.toml")


def test_rules_are_read_from_the_table_of_alerts() -> None:
    (found,) = plan(kind="expiry", within=["60d", "24h"], where="country = 'DE'").watches
    assert (found.kind, found.within, found.where) == (WatchKind.EXPIRY, (60 * DAY, DAY), "country = 'DE'")
    (found,) = plan(kind="finding", severity="error", certificates=True).watches
    assert (found.severity, found.certificates) == (Severity.ERROR, True)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"kind": "colour"}, "one of expiry, cliff, drift, finding"),
        ({"kind": "expiry", "within": ["soon"]}, "must be a duration"),
        ({"kind": "drift", "within": ["7d"]}, "unknown setting"),
        ({"kind": "cliff", "where": "contry = 'DE'"}, "did you mean country?"),
        ({"kind": "finding", "severity": "bad"}, "one of error, warning, notice"),
        ({"kind": "drift", "targets": ["nobody"]}, "there is no target"),
    ],
    ids=["kind", "within", "setting", "where", "severity", "target"],
)
def test_rule_that_is_wrong_is_refused_with_its_place(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(**bad)
    assert words in f"{caught.value.what} {caught.value.why} {caught.value.fix}"
    assert "alerts.watch" in caught.value.what
