"""`inventory timeline|census|keys|orphans|revocations|drift|impact`: what they print, in words and in JSON."""

from __future__ import annotations

from testkit.command_line import CommandLine


def test_questions_are_answered_for_people_and_machines(run: CommandLine) -> None:
    every = run("cert", "list", "--where", "state = 'issued'", "--json").json()["certificates"]
    timeline = run("inventory", "timeline", "--by", "week", "--json").json()
    assert timeline["valid"] == len(every) == sum(each["certificates"] for each in timeline["buckets"])
    assert timeline["cliffs"] == []
    strict = ("--cliff-minimum", "1", "--cliff-share", "100", "--cliff-window", "1d")
    cliffs = run("inventory", "timeline", "--json", *strict).json()["cliffs"]
    assert {each["profile"] for each in cliffs} == {row["profile"] for row in every}
    shown = run("inventory", "timeline", "--where", "profile = 'ocpp/charging-station'", *strict)
    assert "█" in shown.out
    assert "cliff: 1 of ocpp/charging-station expire on" in shown.out
    assert run("inventory", "timeline", "--at", "2100-01-01", "--json").json()["valid"] == 0

    census = run("inventory", "census", "--by", "profile", "--all", "--json").json()
    assert census["total"] == sum(row["certificates"] for row in census["rows"]) > len(every)
    assert run("inventory", "census", "--by", "key", "--json").json()["rows"] == [
        {"value": "secp256r1", "certificates": len(every)}
    ]
    (reuse,) = run("inventory", "keys", "--all", "--json").json()["keys"]
    assert (reuse["kind"], reuse["certificates"]) == ("renewed", 2)
    assert "renewed" in run("inventory", "keys", "--all").out
    assert run("inventory", "orphans", "--json").json()["orphans"] == []
    assert run("inventory", "drift", "--json").json() == {
        "schema": "chargepki/drift",
        "schema_version": 1,
        "counts": {},
        "drift": [],
    }


def test_revocations_tell_when_lists_told_them(run: CommandLine) -> None:
    found = run("inventory", "revocations", "--json").json()
    assert (found["revoked"], found["unpublished"]) == (1, 0)
    (row,) = found["revocations"]
    assert row["publication"] == "published"
    assert row["latency_seconds"] >= 0
    before = run("inventory", "revocations", "--at", "2020-01-01", "--ca", "t-cso-sub", "--json").json()
    assert (before["revoked"], before["revocations"]) == (0, [])
    assert run("inventory", "revocations", "--unpublished", "--json").json()["revocations"] == []
    run("inventory", "revocations", "--ca", "nobody", code=3).check_one_error(3)


def test_impact_names_who_is_cut_off(run: CommandLine) -> None:
    found = run("inventory", "impact", "t-cso-root", "--json").json()
    assert found["dependent"] == ["t-cso-sub@1"]
    assert found["total_certificates"] == sum(each["certificates"] for each in found["certificates"]) == 3
    assert "ocpp/charging-station" in run("inventory", "impact", "t-cso-root").out
    assert run("inventory", "impact", "t-cso-root", "--at", "2100-01-01", "--json").json()["total_certificates"] == 0
    run("inventory", "impact", "t-cso-sub", code=3).check_one_error(3)


def test_wrong_options_are_usage_errors(run: CommandLine) -> None:
    for bad in (
        ("timeline", "--cliff-window", "12h"),
        ("timeline", "--cliff-share", "0"),
        ("census", "--by", "colour"),
        ("keys", "--limit", "0"),
    ):
        run("inventory", *bad, code=2)
    run("inventory", "timeline", "--where", "contry = 'DE'", code=3)
