"""Read the tables of fixtures/conformance: each case, point and requirement with the tests that show it, or the why."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["REASONS", "TABLES", "Row", "ids_shown_by", "load_rows", "missing_tests", "page"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "fixtures" / "conformance"
REASONS = {
    "not ours": "outside what a CSMS or a station of ours does",
    "not built": "the product does not do it",
    "not shown": "no test of ours shows it",
    "not applicable": "there is nothing to do",
}
"""How the reason of a row without tests (or with tests of a part) begins."""
TABLES = {
    "octt": "Cases of the OCTT",
    "connections": "Requirements about connections, passwords, the boot and logs",
    "requirements": "Requirements of the certificate blocks",
    "checklists": "Checklists",
    "ambiguities": "Where the texts are unclear",
    "promises": "Promises of the CA",
    "failures": "Failures of others",
}
_ROLES = {"csms": "CSMS", "station": "station", "both": "both"}
_ABOUT = {
    "octt": "The role is the one under test: the CSMS, or the simulated station of `chargepki station simulate`.",
    "connections": "The blocks A00, A01 and N01, and B01 to B03 where they are about security.",
    "requirements": "An id that begins with `1.6/` is one of the security white paper; the same id often means another"
    " rule in 2.x.",
    "checklists": "What a CSMS and a charging station have to do about security, point by point.",
    "ambiguities": "Texts that contradict themselves, one another or the field, and what we do about them.",
    "promises": "What incidents of other CAs have taught, from weak serial numbers to unknown certificates.",
    "failures": "How stations and central systems of others have failed (T, the ones that cost most; C, connections;"
    " S, passwords and keys; I, identities; E, events; F, certificate flows; K, chains), and the tests that would fail"
    " if we did the same.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One case, point or requirement for one role."""

    id: str
    role: str
    """``csms``, ``station``, or ``both``."""
    title: str
    shown_by: tuple[str, ...] = ()
    """Tests as pytest names them, without parameters: ``tests/…/test_x.py::test_y``."""
    missing: str = ""
    """Why nothing shows it, or what the tests leave out; begins with one of `REASONS`."""


def load_rows(table: str) -> tuple[Row, ...]:
    """Return the rows of one table in its order.

    Raises:
        TypeError: a row has a member that there is not, or lacks one.
    """
    document = tomllib.loads((FOLDER / f"{table}.toml").read_text(encoding="utf-8"))
    return tuple(Row(**{**row, "shown_by": tuple(row.get("shown_by", ()))}) for row in document["row"])


@cache
def _tests_of(path: str) -> frozenset[str]:
    """Return the names of the test functions of a file, as pytest collects them."""
    file = ROOT / path
    if not (file.is_file() and file.name.startswith("test_") and path.startswith("tests/")):
        return frozenset()
    body = ast.parse(file.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in body if isinstance(node, kinds) and node.name.startswith("test_"))


def missing_tests(rows: Iterable[Row]) -> list[str]:
    """Return the tests that rows name and that pytest would not collect."""
    named = sorted({test for row in rows for test in row.shown_by})
    return [test for test in named if test.partition("::")[2] not in _tests_of(test.partition("::")[0])]


@cache
def _ids() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for table in TABLES:
        for row in load_rows(table):
            for test in row.shown_by:
                # Numbers alone, as checklists and ambiguities have them, would name half of all tests.
                found.setdefault(test, set()).add(row.id if not row.id.isdecimal() else f"{table}-{row.id}")
    return {test: frozenset(ids) for test, ids in found.items()}


def ids_shown_by(test: str) -> frozenset[str]:
    """Return the ids of all rows that name a test, as pytest names it, with or without parameters.

    >>> "A02.FR.17" in ids_shown_by(
    ...     "tests/ocpp_security/test_sign_certificate_station.py"
    ...     "::test_a02_fr_17_to_fr_19_n_doublings_make_n_plus_1_resends_counted_in_seconds"
    ... )
    True
    """
    return _ids().get(test.partition("[")[0], frozenset())


def page() -> str:
    """Return the reference page."""
    parts = [
        "# Conformance\n",
        "What shows that a CSMS on these modules, and the simulated station, do what the security parts of OCPP 1.6,"
        " 2.0.1 and 2.1 ask for: each case of the OCTT, each requirement of the certificate blocks, each point of the"
        " checklists, each place where the texts are unclear, each promise of the CA and each failure of others that is"
        " not to be ours, with the tests that show it. A row that says *not built*, *not shown* or *not ours* is not"
        " covered; with tests beside it, a part is. Passing our tests is no"
        " certificate: the tool of the certification body has the last word.\n",
        "Every test is known by the ids that it shows, too: `.venv/bin/python -m pytest -k 1.6/A00.FR.318` runs what"
        " the row of that id names (`ambiguities-32` and `checklists-3` for rows that are numbers). The tables are"
        " `fixtures/conformance/*.toml`; a test fails when a row or a test of a row is missing.\n",
        _counts(),
    ]
    for table, title in TABLES.items():
        parts += [f"## {title}\n", f"{_ABOUT[table]}\n", _table(load_rows(table))]
    return "\n".join(parts)


def _state(row: Row) -> str:
    return "in part" if row.shown_by and row.missing else "shown" if row.shown_by else "not covered"


def _counts() -> str:
    lines = ["| | Role | Shown | In part | Not covered |", "|---|---|---|---|---|"]
    for table, title in TABLES.items():
        rows = load_rows(table)
        for role in (role for role in _ROLES if any(row.role == role for row in rows)):
            found = Counter(_state(row) for row in rows if row.role == role)
            numbers = " | ".join(str(found[state]) for state in ("shown", "in part", "not covered"))
            lines.append(f"| {title} | {_ROLES[role]} | {numbers} |")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = ["| Id | Title | Role | Shown by | Not covered, and why |", "|---|---|---|---|---|"]
    for row in rows:
        shown = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in row.shown_by)
        cells = (row.id, row.title, _ROLES[row.role], shown, row.missing)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
