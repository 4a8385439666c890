"""The tables of conformance are complete, name tests that exist, and give a reason wherever there is none."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace

import pytest

from tools.conformance import REASONS, TABLES, Row, load_rows, missing_tests

# What each table has to hold, from the standards' own lists: ids that end in a range stand for all of it, and no role
# for whichever of them a requirement binds.
EXPECTED = {
    ("octt", "station"): """
        TC_073-074 TC_075_1-2 TC_076-081 TC_083-087
        TC_A_01 TC_A_04-07 TC_A_09-15 TC_A_19-23
        TC_B_43 TC_B_45-47 TC_B_49-50 TC_B_100 TC_B_105 TC_B_107-113
        TC_C_50-55
        TC_L_01-03 TC_L_05-08 TC_L_10-16 TC_L_18
        TC_M_01-04 TC_M_07 TC_M_09 TC_M_12-20 TC_M_22-31 TC_M_100-101
        TC_N_25-26 TC_N_34-36 TC_N_100-103
    """,
    ("octt", "csms"): """
        TC_073-074 TC_075_1-2 TC_076-081 TC_083 TC_085-088
        TC_A_01-04 TC_A_06-14 TC_A_19
        TC_B_42 TC_B_44 TC_B_58 TC_B_100
        TC_C_50-52
        TC_L_01-11 TC_L_13 TC_L_17 TC_L_19-24
        TC_M_01-05 TC_M_12-21 TC_M_24 TC_M_26 TC_M_28 TC_M_100-101
        TC_N_25 TC_N_34-36 TC_N_100-103
    """,
    ("checklists", "csms"): "1-10",
    ("checklists", "station"): "1-9",
    ("ambiguities", "both"): "1-73",
    ("promises", "both"): "P1-12",
    ("failures", "both"): "T1-22 C1-13 S1-5 I1-2 E1-2 F1-16 K1-10",
    ("connections", ""): """
        1.6/A00.FR.001-006 1.6/A00.FR.201-206 1.6/A00.FR.301-324 1.6/A00.FR.401-429 1.6/A00.FR.501-512
        1.6/A00.FR.601-603 1.6/A00.FR.701-704 1.6/A00.FR.706 1.6/A00.FR.801-806
        1.6/A01.FR.01-12 1.6/N01.FR.01-05 1.6/N01.FR.07-12
        A00.FR.001-006 A00.FR.201-207 A00.FR.301-304 A00.FR.306-324 A00.FR.401-430 A00.FR.501-514
        A00.FR.601-604 A00.FR.701-705 A00.FR.707 A00.FR.801-807
        A01.FR.01-12 B01.FR.10-12 B02.FR.01 B02.FR.06 B02.FR.09 B03.FR.03-04 B03.FR.07-08
        N01.FR.01-05 N01.FR.07-10 N01.FR.12-23
    """,
    ("requirements", ""): """
        1.6/A02.FR.01-13 1.6/A03.FR.01-02 1.6/A04.FR.01-04 1.6/A05.FR.01-09
        1.6/M03.FR.01-04 1.6/M04.FR.01-07 1.6/M05.FR.01-04 1.6/M05.FR.06 1.6/M05.FR.08-13
        A02.FR.01-29 A03.FR.01-25 A04.FR.01-04 A05.FR.02-10
        B09.FR.01-14 B09.FR.16 B09.FR.18 B09.FR.20-35 B10.FR.01-10
        C07.FR.01-02 C07.FR.04-17 C08.FR.01-02
        M01.FR.01-07 M02.FR.01 M03.FR.01-05 M04.FR.01-04 M04.FR.06-08
        M05.FR.01-03 M05.FR.06-07 M05.FR.09-17 M06.FR.01-04 M06.FR.06-10 M07.FR.01-11
    """,
}


def expanded(text: str) -> list[str]:
    """Return every id of a list.

    >>> expanded("A02.FR.09-11 TC_075_1-2")
    ['A02.FR.09', 'A02.FR.10', 'A02.FR.11', 'TC_075_1', 'TC_075_2']
    """
    found = []
    for item in text.split():
        match = re.fullmatch(r"(.*?)(\d+)-(\d+)", item)
        if match is None:
            found.append(item)
            continue
        head, first, last = match.groups()
        found += [f"{head}{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return found


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[Row, ...]]:
    return {table: load_rows(table) for table in TABLES}


@pytest.mark.parametrize(("table", "role"), EXPECTED)
def test_every_id_of_the_list_is_in_the_table_once(rows: dict[str, tuple[Row, ...]], table: str, role: str) -> None:
    found = Counter(row.id for row in rows[table] if role in ("", row.role))
    assert dict(found) == dict.fromkeys(expanded(EXPECTED[table, role]), 1)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_no_other_rows(rows: dict[str, tuple[Row, ...]], table: str) -> None:
    roles = {role for name, role in EXPECTED if name == table}
    assert {row.role for row in rows[table]} == (roles if "" not in roles else {"csms", "station"})


@pytest.mark.parametrize("table", TABLES)
def test_every_test_that_a_row_names_is_collected(rows: dict[str, tuple[Row, ...]], table: str) -> None:
    assert missing_tests(rows[table]) == []


@pytest.mark.parametrize("table", TABLES)
def test_a_row_without_tests_says_why(rows: dict[str, tuple[Row, ...]], table: str) -> None:
    for row in rows[table]:
        assert row.title, row.id
        assert row.shown_by or row.missing, row.id
        assert not row.missing or row.missing.partition(": ")[0] in REASONS, row.id
        assert len(set(row.shown_by)) == len(row.shown_by), row.id


@pytest.mark.parametrize("table", TABLES)
def test_every_id_names_its_tests_to_pytest(
    rows: dict[str, tuple[Row, ...]], table: str, request: pytest.FixtureRequest
) -> None:
    """``pytest -k A00.FR.318`` runs what shows it."""

    def names(test: str, keyword: str) -> set[str]:
        option = SimpleNamespace(keyword=keyword)
        found: set[str] = set()
        item = SimpleNamespace(nodeid=test, config=SimpleNamespace(option=option), extra_keyword_matches=found)
        request.config.hook.pytest_itemcollected(item=item)
        return found

    for row in rows[table]:
        wanted = f"{table}-{row.id}" if row.id.isdecimal() else row.id
        assert [test for test in row.shown_by if wanted not in names(f"{test}[a parameter]", wanted)] == []
    assert names("tests/test_conformance.py::test_nothing", "A00.FR.318") == set()


def test_a_test_that_does_not_exist_is_noticed() -> None:
    here = "tests/test_conformance.py"
    named = (
        f"{here}::test_a_row_without_tests_says_why",
        f"{here}::test_nothing",
        f"{here}::expanded",
        "tests/x.py::y",
    )
    assert missing_tests([Row("X", "csms", "", named)]) == sorted(named[1:])
