"""`cert list --where`, `cert count`, `query`: filters on the command line, errors with a caret, saved ones."""

from __future__ import annotations

import pytest

from testkit.command_line import CommandLine

STATIONS = "profile = 'ocpp/charging-station'"


def ids(run: CommandLine, *arguments: str) -> list[str]:
    return [row["id"] for row in run("cert", "list", "--json", *arguments).json()["certificates"]]


def test_certificates_are_listed_and_counted_by_a_filter(run: CommandLine) -> None:
    everything = ids(run)
    stations = ids(run, "--where", STATIONS)
    assert 0 < len(stations) < len(everything)
    assert ids(run, "--where", f"not ({STATIONS})") == [each for each in everything if each not in stations]
    live = ids(run, "--where", f"{STATIONS} and state = 'issued' and not_after < now + 2y", "--ca", "t-cso-sub")
    assert len(live) == 1
    assert ids(run, "--where", "ca = 't-cso-sub'") == ids(run, "--ca", "t-cso-sub")
    counted = run("cert", "count", "--where", STATIONS, "--json").json()
    assert counted["certificates"] == len(stations)
    assert run("cert", "count").out == f"{len(everything)}\n"
    by = run("cert", "count", "--by", "state", "--where", STATIONS, "--json").json()["counts"]
    assert {row["value"]: row["certificates"] for row in by} == {"issued": 1, "revoked": 1}
    years = run("cert", "count", "--by", "not_after", "--step", "year", "--json").json()["counts"]
    assert sum(row["certificates"] for row in years) == len(everything)
    assert all(len(row["value"]) == 4 for row in years)


def test_flags_and_filters_must_both_hold_and_now_is_the_clock_of_at(run: CommandLine) -> None:
    assert not ids(run, "--where", STATIONS, "--state", "reserved")
    assert ids(run, "--expires-before", "2100-01-01") == ids(run, "--where", "not_after < 2100-01-01")
    assert not ids(run, "--where", "not_after < now", "--at", "2020-01-01")
    assert ids(run, "--where", "not_after < now", "--at", "2100-01-01") == ids(run)


def test_error_points_at_the_column_with_a_caret(run: CommandLine) -> None:
    done = run.run("cert", "list", "--where", f"{STATIONS} and contry = 'DE'")
    assert done.code == 3
    shown, caret, what, *_ = done.stderr.splitlines()
    assert shown[caret.index("^") :].startswith("contry")
    assert what.startswith("error: the filter is wrong at column 39")
    assert "did you mean country?" in done.stderr
    told = run("cert", "list", "--where", "contry = 'DE'", "--json", code=3)
    assert told.json()["code"] == "filter"
    assert not told.stderr
    run("cert", "count", "--by", "contry", code=2)


def test_query_is_saved_used_replaced_and_deleted(run: CommandLine) -> None:
    run("query", "save", "stations", STATIONS, "--dry-run")
    run("cert", "list", "--query", "stations", code=3).check_one_error(3)
    run("query", "save", "stations", STATIONS)
    assert ids(run, "--query", "stations") == ids(run, "--where", STATIONS)
    run("query", "save", "stations", STATIONS)
    run("query", "save", "stations", "state = 'issued'", code=3).check_one_error(3)
    run("query", "save", "stations", "state = 'issued'", "--replace")
    shown = run("query", "show", "stations", "--json").json()
    assert shown["filter"] == "state = 'issued'"
    assert shown["certificates"] == len(ids(run, "--where", "state = 'issued'"))
    assert [row["name"] for row in run("query", "list", "--json").json()["queries"]] == ["stations"]
    run("query", "delete", "stations")
    assert not run("query", "list", "--json").json()["queries"]
    run("query", "show", "stations", code=3).check_one_error(3)
    run("query", "save", "stations", STATIONS)
    actions = [entry["action"] for entry in run("audit", "show", "--json").json()["entries"]]
    assert [each for each in actions if each.startswith("query.")] == ["query.save"] * 2 + [
        "query.delete",
        "query.save",
    ]
    run("audit", "verify")


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 65], ids=["empty", "option", "blank", "long"])
def test_names_of_queries_are_names(run: CommandLine, name: str) -> None:
    run("query", "save", "--", name, STATIONS, code=2)


def test_filter_that_cannot_be_read_is_not_saved(run: CommandLine) -> None:
    assert run.run("query", "save", "bad", "contry = 'DE'").code == 3
    assert not run("query", "list", "--json").json()["queries"]
