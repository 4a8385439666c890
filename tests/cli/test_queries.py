"""`cert list --where`, `cert count`, `query`: filters on the command line, errors with a caret, saved ones."""

from __future__ import annotations

import pytest

from testkit.command_line import CommandLine
from testkit.databases import copy_rows, postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]

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


def test_list_tells_what_the_rules_said_when_asked(run: CommandLine) -> None:
    plain = run("cert", "list", "--json").json()["certificates"]
    told = [run("cert", "show", row["id"], "--json").json()["verdict"] for row in plain]
    for words in ((), ("--where", "not subject contains '%'")):
        full = run("cert", "list", "--with-verdict", "--json", *words).json()["certificates"]
        assert ([row.pop("verdict") for row in full], full) == (told, plain)
    lines = run("cert", "list", "--with-verdict", "--json-lines", "--ca", "t-cso-sub").json_lines()
    assert all(rule["outcome"] for line in lines for rule in line["verdict"]) and lines[0]["verdict"]
    run("cert", "list", "--with-verdict", code=2)


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


HOSTILE = (
    *("../../etc/passwd", "a/b", "a'b\"c", "x'; DROP TABLE certificate; --", "%s %(id)s :id ?", "\\", " ", "", "*"),
    *("ｓｏｏｎ", "\u202egnp", "\U0001f4a5", "a\nb", "\x1b[2J", "\udcff", "(" * 50_000, "a" * 100_000, "not " * 30_000),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(run: CommandLine, request: pytest.FixtureRequest) -> CommandLine:
    """Runs commands on either database, with the same rows."""
    if request.param == "sqlite":
        return run
    url: str = request.getfixturevalue("postgresql_url")
    copy_rows(run.home / "inventory.db", url)
    return CommandLine(run.home, {**run.variables, "CHARGEPKI_DATABASE": url})


def test_hostile_texts_are_one_error_or_found_nowhere(either: CommandLine) -> None:
    before = either("cert", "list", "--json").json()["certificates"]
    for number, text in enumerate(HOSTILE):
        names = (
            ("cert", "list", "--query", text),
            ("query", "show", "--", text),
            ("query", "save", "--", text, "id = 'x'"),
        )
        filters = (("station", "operations", "--where", text), ("query", "save", "fine", "--", text))
        for words in (*names[number % 2 :], *(filters if len(text) > 999 else ())):
            refused = either.run(*words)
            assert refused.code in (2, 3) and not refused.out, (words, text[:20], refused)
            assert refused.stderr.count("error: ") == 1 and len(refused.stderr) < 2000, refused.stderr[:3000]
            assert "\x1b" not in refused.stderr and "\u202e" not in refused.stderr
        listed = ("cert", "list") if number % 2 else ("station", "operations")
        assert either.run(*listed, "--after", text).code in (0, 2, 3), (listed, text[:20])
    assert not either("query", "list", "--json").json()["queries"]
    assert either("cert", "list", "--json").json()["certificates"] == before


def test_hostile_values_are_values(either: CommandLine) -> None:
    for text in (each for each in HOSTILE if each.isprintable() and 2 < len(each) < 100):
        quoted = text.replace("'", "''")
        either("query", "save", "values", f"subject = '{quoted}' or station in ('{quoted}')", "--replace")
        assert not ids(either, "--query", "values")
        assert ids(either, "--where", f"id = '{quoted}' or not subject contains '{quoted}' or subject contains '='")
    # Each % may be any text: what is tried has to stay small.
    pattern = "%a" * 240 + "%\u00df"
    assert not ids(either, "--where", f"subject like '{pattern}' or requester like '{pattern}'")
