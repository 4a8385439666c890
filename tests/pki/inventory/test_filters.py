"""The filter language: both databases and plain Python agree; errors point at the column; nothing can be injected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chargepki.pki import names
from chargepki.pki.inventory import Inventory, placing, query_reads
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.codec import CERTIFICATE, IMPORT_RUN, PROVENANCE
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.filter_fields import FIELDS, Field, Kind, Step, Value, attribute_of
from chargepki.pki.inventory.filter_parser import FilterError, parse_filter
from chargepki.pki.inventory.filters import And, Compare, Filter, Like, Missing, Not, OneOf, Or, like, matches
from chargepki.pki.inventory.import_records import ImportRunRecord, ProvenanceRecord
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery
from chargepki.pki.inventory.traits import with_traits
from testkit.authorities import open_inventory
from testkit.databases import fresh_database
from testkit.effort import examples
from testkit.inventories import NOW, add_station, ca_record, do
from testkit.layout import ROOT

SECOND = timedelta(seconds=1)
SUBJECTS = (
    "CN=CS-0001,O=Acme Charging,C=DE",
    "C=de,O=acme CHARGING,CN=cs-0001",
    "DC=V2G,C=FR,O=Ünïted_50%,CN=DE*ACM*E0001",
    "CN=x\\,C=DE,O=Smith\\, Sons \\+ Co",
    "CN=back\\\\,C=IT",
    "CN=a+serialNumber=7,C=DE+O=Two",
    'CN=\' OR 1=1 --,O=\\"quoted\\"',
    "(unreadable name)",
    "",
)
PROFILES = ("ocpp/charging-station", "ocpp/csms", "iso15118-2/secc")


RUNS = tuple(
    ImportRunRecord(f"run-{number}", source, "inventory import", by, NOW - timedelta(days=number))
    for number, (source, by) in enumerate(
        (("old-pki", "alice"), ("tls://127.0.0.1:8443", "Bob"), ("backup.zip", "Bob"))
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(CertificateRecord):
    """A certificate, and what is known of each place where an import found it."""

    places: tuple[ProvenanceRecord, ...]
    place: tuple[str, ...]
    role: tuple[str, ...]
    source: tuple[str, ...]
    imported_by: tuple[str, ...]
    started_at: tuple[datetime, ...]


def placed(number: int, name: str) -> dict[str, Any]:
    """Return the places of a certificate: of some none, of some several, found by imports of their own."""
    found = tuple(
        ProvenanceRecord(name, f"{folder}/{number % 4}.pem", RUNS[(number + nth) % 3].id, "0" * 64, role)
        for nth, (folder, role) in enumerate((("a_b", "v2g-root"), ("Z's", None), ("x%", "secc"))[: number % 4])
    )
    runs = [RUNS[(number + nth) % 3] for nth in range(len(found))]
    return {
        "places": found,
        "place": tuple(each.place for each in found),
        "role": tuple(each.role for each in found if each.role is not None),
        "source": tuple(run.source for run in runs),
        "imported_by": tuple(run.imported_by for run in runs),
        "started_at": tuple(run.started_at for run in runs),
    }


def values_of(field: Field, row: Row) -> list[Any]:
    """Return what a certificate has of a field: one value, none, or one of each place."""
    value = field.of(row)
    return list(value) if field.of_places else [] if value is None else [value]


def grouped(field: Field, row: Row) -> Any:
    """Return what a certificate is counted by: of several places the first."""
    return min(field.of(row), default=None) if field.of_places else field.of(row)


def rows() -> list[Row]:
    """Certificates that differ in everything that a filter may ask for, with and without what is optional."""
    found = []
    for number in range(36):
        ca = ("t@1", "t@2", "t-sub@1")[number % 3]
        gone = number % 4 == 0
        start = NOW - timedelta(days=number * 11)
        found.append(
            Row(
                **placed(number, f"{ca}:{number:x}"),
                id=f"{ca}:{number:x}",
                ca=ca,
                serial=f"{number:x}",
                profile=PROFILES[number % 2 + number // 30],
                state=CertificateState.REVOKED if gone else tuple(CertificateState)[number % 3],
                subject=SUBJECTS[number % len(SUBJECTS)],
                subject_der=b"n",
                spki_sha256=f"{number % 7:064x}",
                not_before=start,
                not_after=start + timedelta(days=30 * number),
                request_key=f"id:{number}",
                requester=("alice", "Bob", "b_b", "100%")[number % 4],
                reserved_at=start - SECOND,
                sha256=None if number % 3 == 0 else f"{number:064x}",
                station=("CS-1", "cs-1", None)[number % 3],
                issued_at=None if number % 3 == 0 else start + timedelta(microseconds=number),
                revoked_at=NOW - timedelta(hours=number) if gone else None,
                revocation_reason=("keyCompromise", "superseded")[number % 2] if gone else None,
                delivery=(None, *Delivery)[number % (len(Delivery) + 1)],
                shard=None if number % 2 else number // 2,
            )
        )
    return found


ROWS = rows()


def _filled(url: str, folder: Path) -> Inventory:
    inventory = open_inventory(url, folder)
    for ca in ("t@1", "t@2", "t-sub@1"):
        name, _, generation = ca.partition("@")
        do(inventory, lambda tx, name=name, nth=int(generation): tx.reserve_ca(ca_record(name, nth)))  # type: ignore[misc]  # bound per turn
    for station in ("CS-1", "cs-1"):
        add_station(inventory, station)
    database = Database(DatabaseAddress.parse(url))
    with database.session() as session:
        for number, row in enumerate(ROWS):
            values = with_traits(CERTIFICATE.encode(row))
            # Some are without traits, as those with very long names are.
            session.run("certificate_insert", values if number % 5 else {**values, "traits": None})
        for run in RUNS:
            session.run("import_run_insert", IMPORT_RUN.encode(run))
        for each in (each for row in ROWS for each in row.places):
            session.run("provenance_insert", PROVENANCE.encode(each))
    database.close()
    return inventory


@pytest.fixture(scope="module")
def both(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inventory, Inventory]]:
    """The same certificates in SQLite and in PostgreSQL."""
    folder = tmp_path_factory.mktemp("filters")
    with (
        fresh_database(postgresql_server) as url,
        closing(_filled(f"sqlite:///{folder / 'i.db'}", folder)) as one,
        closing(_filled(url, folder)) as other,
    ):
        yield one, other


def written(found: Filter) -> str:
    """Return a filter as text, so that the parser is part of what is compared."""
    if isinstance(found, And | Or):
        word = " and " if isinstance(found, And) else " OR "
        return "(" + word.join(written(part) for part in found.parts) + ")"
    if isinstance(found, Not):
        return f"not ({written(found.part)})"
    name = found.field.name
    if isinstance(found, Missing):
        return f"{name} is null"
    if isinstance(found, Like):
        return f"{name} like {quoted(found.pattern)}"
    if isinstance(found, OneOf):
        return f"{name} in ({', '.join(map(quoted, found.values))})"
    return f"{name} {found.op} {quoted(found.value)}"


def quoted(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    text = value.isoformat() if isinstance(value, datetime) else value
    return "'" + text.replace("'", "''") + "'"


def _values(field: Field) -> st.SearchStrategy[Value]:
    if field.kind is Kind.NUMBER:
        return st.integers(0, 20)
    known = sorted({value for row in ROWS for value in values_of(field, row)})
    if field.kind is Kind.TIME:
        near = st.sampled_from(known or [NOW])
        return st.builds(lambda at, by: at + by * timedelta(microseconds=1), near, st.sampled_from([-1, 0, 1, 10**9]))
    if field.known:
        return st.sampled_from(field.known)
    free = st.text(st.sampled_from("aAbBcCsS01%_\\',+= -Ü@:"), max_size=6)
    names_of_cas = st.sampled_from(["t", "t-sub", "t@1", "t@9", "T"]) if field.name == "ca" else st.nothing()
    return names_of_cas | st.sampled_from(known).map(str) | free.map(field.normalise)


@st.composite
def terms(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(tuple(FIELDS.values())))
    kind = draw(st.sampled_from(["compare", "compare", "in", "like", "missing"]))
    if kind == "missing":
        return Missing(field)
    if kind == "like" and field.kind is Kind.TEXT:
        pattern = draw(st.text(st.sampled_from("aAsScC01%%__\\- '"), max_size=6))
        odd = (len(pattern) - len(pattern.rstrip("\\"))) & 1
        return Like(field, pattern + "\\" * odd)
    if kind == "in":
        return OneOf(field, tuple(draw(st.lists(_values(field), min_size=1, max_size=3))))
    ops = ["="] if field.known else ["=", "<", "<=", ">", ">="]
    return Compare(field, draw(st.sampled_from(ops)), draw(_values(field)))


FILTERS = st.recursive(
    terms(),
    lambda inner: (
        st.builds(Not, inner)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found=FILTERS, few=st.sampled_from([0, 2, placing.FEW]))
@example(found=Not(Compare(FIELDS["station"], "=", "CS-1")), few=0)
@example(found=Compare(FIELDS["country"], "=", "DE"), few=0)
@example(found=Like(FIELDS["subject"], "%ACME%"), few=0)
@example(found=Compare(FIELDS["ca"], "=", "t"), few=0)
@example(found=And((Compare(FIELDS["source"], "=", "old-pki"), Not(Compare(FIELDS["imported_by"], "=", "Bob")))), few=9)
def test_both_databases_and_plain_python_agree(both: tuple[Inventory, Inventory], found: Filter, few: int) -> None:
    parsed = parse_filter(written(found), now=NOW)
    expected = sorted(row.id for row in ROWS if matches(found, row))
    assert sorted(row.id for row in ROWS if matches(parsed, row)) == expected
    for inventory in both:
        with patch.object(placing, "FEW", few):
            assert [row.id for row in inventory.find_certificates(parsed)] == expected
            assert inventory.count_matching(parsed) == len(expected)


@pytest.mark.parametrize("field", FIELDS.values(), ids=list(FIELDS))
def test_each_comparison_of_each_field_agrees_on_its_boundary(both: tuple[Inventory, Inventory], field: Field) -> None:
    known = sorted({value for row in ROWS for value in values_of(field, row)})
    # One that is there, with others on either side of it where there are any; drawn filters seldom hit one.
    value = known[len(known) // 2] if known else NOW
    ops = ["="] if field.known else ["=", "<", "<=", ">", ">="]
    asked: list[Filter] = [Compare(field, op, value) for op in ops]
    asked += [OneOf(field, (value, known[0] if known else value)), Missing(field)]
    if field.kind is Kind.TEXT:
        asked += [Like(field, f"%{str(value)[1:4].swapcase().replace('%', '')}%"), Like(field, f"_{str(value)[1:3]}%")]
    for found in (*asked, Not(asked[0])):
        expected = [row.id for row in sorted(ROWS, key=lambda row: row.id) if matches(found, row)]
        for inventory, few in product(both, (0, placing.FEW) if field.of_places else (0,)):
            with patch.object(placing, "FEW", few):
                assert [row.id for row in inventory.find_certificates(found)] == expected, found


def test_few_places_are_looked_up_and_many_are_not(both: tuple[Inventory, Inventory]) -> None:
    few, many = Compare(FIELDS["place"], "=", "Z's/2.pem"), Like(FIELDS["source"], "%")
    expected = tuple(sorted(row.id for row in ROWS if matches(few, row)))
    assert 0 < len(expected) <= 9 < sum(matches(many, row) for row in ROWS)
    for inventory in both:
        with patch.object(placing, "FEW", 9):
            assert placing.settle_places(inventory._ask, And((Not(few), many))) == And(
                (Not(OneOf(FIELDS["id"], expected)), many)
            )
            again = placing.settle_places(inventory._ask, Or((few,) * 5))
        with patch.object(query_reads, "settle_places", side_effect=placing.settle_places) as settled:
            assert [row.id for row in inventory.find_certificates(few)] == list(expected)
            assert inventory.count_matching(few) == len(expected)
            assert sum(number for _, number in inventory.count_by(few, FIELDS["state"])) == len(expected)
        assert settled.call_count == 3, "each way of asking looks places up"
        # What many terms bind together would not fit into one statement.
        assert again == Or((OneOf(FIELDS["id"], expected),) * 4 + (few,))


@pytest.mark.parametrize("field", FIELDS)
def test_counts_by_a_field_agree(both: tuple[Inventory, Inventory], field: str) -> None:
    values = [grouped(FIELDS[field], row) for row in ROWS]
    for step in Step if FIELDS[field].kind is Kind.TIME else (None,):
        if step is not None:
            instants = [grouped(FIELDS[field], row) for row in ROWS]
            values = [None if at is None else at.isoformat()[: step.characters] for at in instants]
        expected = {value: values.count(value) for value in values}
        for inventory in both:
            counted = inventory.count_by(And(()), FIELDS[field], step=step)
            assert dict(counted) == expected
            if step is not None:
                times = [value for value, _ in counted if value is not None]
                assert times == sorted(times, key=str)


def test_pages_follow_one_another(both: tuple[Inventory, Inventory]) -> None:
    wanted = parse_filter("state != 'voided'", now=NOW)
    expected = sorted(row.id for row in ROWS if matches(wanted, row))
    for inventory in both:
        first = [row.id for row in inventory.find_certificates(wanted, limit=5)]
        rest = [row.id for row in inventory.find_certificates(wanted, after=first[-1])]
        assert first + rest == expected
        assert all(row.der is None for row in inventory.find_certificates(wanted))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not_after < now + 30d", NOW + timedelta(days=30)),
        ("not_after < now+1w-36h", NOW + timedelta(days=7, hours=-36)),
        ("not_after < now - 1y + 5m + 90s", NOW - timedelta(days=365) + timedelta(minutes=6, seconds=30)),
        ("not_after < 2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("not_after < 2027-01-01T02:00:00+02:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("not_after < '2027-01-01 00:00:00Z' + 1d", datetime(2027, 1, 2, tzinfo=UTC)),
    ],
)
def test_times_and_spans_are_read(text: str, expected: datetime) -> None:
    assert parse_filter(text, now=NOW) == Compare(FIELDS["not_after"], "<", expected)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("contry = 'DE'", 1, "did you mean country?"),
        ("profile = 'ocpp/csms' and not_afer < now", 27, "did you mean not_after?"),
        ("profile = 'ocpp/charging-statoin'", 11, "did you mean 'ocpp/charging-station'?"),
        ("state = 'isued'", 9, "did you mean 'issued'?"),
        ("not_after < 30", 13, "is a time"),
        ("not_after < now + 30", 19, "is no span"),
        ("not_after < now + 30x", 19, "is no span"),
        ("not_after < now + 999999999y", 19, "outside the years"),
        ("not_after < 2026-13-01", 13, "is no time"),
        ("not_after < 2026-01-01T00:00:00", 13, "without its zone"),
        ("country = DE", 11, "write 'DE'"),
        ("country = NULL", 11, "write country is null"),
        ('country = "DE"', 11, "single quotes"),
        ("country = 'DE", 11, "closing quote"),
        ("country", 8, "the end"),
        ("country = 'DE' country = 'FR'", 16, "expected and, or"),
        ("(country = 'DE'", 16, "expected )"),
        ("country in ('DE' 'FR')", 18, "expected )"),
        ("country is 'DE'", 12, "expected null"),
        ("crl_shard = 'x'", 13, "is a number"),
        ("crl_shard = 99999999999999999999", 13, "is a number"),
        ("not_after like '2026%'", 11, "compares texts"),
        ("subject like 'a\\'", 14, "lone backslash"),
        ("state < 'issued'", 7, "has no order"),
        ("country = 'DE'; DROP TABLE certificate", 15, "has no meaning"),
        ("country = 'a\nb'", 11, "cannot be printed"),
        ("", 1, "expected a field"),
        ("not", 4, "expected a field"),
        ("(" * 50 + "country = 'DE'" + ")" * 50, 42, "nest deeper"),
        (" or ".join(["country = 'DE'"] * 221), 3601, "more than 200"),
        ("country in (" + "'DE'," * 300 + "'DE')", 9, "more than 200"),
        (f"subject contains '{'a' * 501}'", 18, "at most 500"),
        ("x" * 4001, 4000, "at most 4000"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, now=NOW, profiles=PROFILES)
    error = caught.value
    assert error.column == column
    assert words in f"{error.what} {error.why} {error.fix}"
    shown, caret = error.pointer()
    assert len(shown) <= 100
    assert caret.strip() == "^"
    assert len(caret) - 1 <= len(shown)


def test_what_is_missing_is_found_by_the_negation() -> None:
    bare = next(row for row in ROWS if row.station is None)
    for text, answer in (("station = 'CS-1'", False), ("station != 'CS-1'", True), ("station is null", True)):
        assert matches(parse_filter(text, now=NOW), bare) is answer


def test_attributes_are_taken_from_names_as_they_are_written() -> None:
    name = names.parse_rdns("CN=x\\,C=DE,O=Smith\\, Sons \\+ Co\\\\,C=FR")
    text = names.text(name)
    assert attribute_of(text, "C") == "FR"
    assert attribute_of(text, "O") == "Smith, Sons + Co\\"
    assert attribute_of(text, "CN") == "x,C=DE"


def test_patterns_cost_no_more_than_their_product() -> None:
    assert not like("a" * 2000, "%a" * 200 + "b")


@settings(max_examples=examples(40), deadline=None)
@given(text=st.text(max_size=60) | st.text(st.sampled_from("not_after<=>()'and or in like now+-0129dy, "), max_size=60))
def test_any_text_is_a_filter_or_one_error(text: str) -> None:
    try:
        parse_filter(text, now=NOW)
    except FilterError as error:
        assert 1 <= error.column <= len(text) + 1


def test_the_guide_lists_the_fields() -> None:
    page = (ROOT / "docs" / "guides" / "ask-the-inventory.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in page.partition("## The fields")[2].splitlines() if line.startswith("| `")]
    assert listed == list(FIELDS)
