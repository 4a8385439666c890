"""Tests of stored values and row digests."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargepki.pki.errors import InputError
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import decode_time, dump_json, encode_time, load_json, row_digest
from testkit.inventories import (
    ca_record,
    certificate_record,
    crl_record,
    operation_record,
    station_record,
)

TIMES = st.datetimes(
    min_value=datetime(1950, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001  # as above
    # A zone with gaps and repeats stands for all of them; loading every zone would take longer than the test.
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30)), ZoneInfo("Europe/Berlin")]),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(TIMES)
def test_every_instant_survives_storage(at: datetime) -> None:
    stored = encode_time(at)
    assert len(stored) == 27
    assert decode_time(stored) == at.astimezone(UTC)
    assert decode_time(stored).tzinfo is UTC


@given(TIMES, TIMES)
def test_stored_instants_sort_as_time_does(one: datetime, other: datetime) -> None:
    assert (encode_time(one) < encode_time(other)) == (one.astimezone(UTC) < other.astimezone(UTC))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), PLAIN, max_size=4))
def test_every_plain_value_survives_json_which_is_canonical(value: dict[str, object]) -> None:
    text = dump_json(value, "it")
    assert load_json(text) == value
    assert dump_json(dict(reversed(value.items())), "it") == text
    assert json.loads(text) == value


def test_two_instants_that_python_calls_equal_are_stored_apart() -> None:
    early = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    late = early.replace(fold=1)
    assert early == late
    assert encode_time(early) == "2026-10-25T00:30:00.000000Z"
    assert encode_time(late) == "2026-10-25T01:30:00.000000Z"


def test_a_deep_or_foreign_value_is_an_input_error() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, {"a": 2**70}, {"a": float}, {"a": b"bytes"}):
        with pytest.raises(InputError):
            dump_json(value, "it")


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (codec.CA, ca_record()),
        (codec.CERTIFICATE, certificate_record()),
        (codec.CRL, crl_record()),
        (codec.STATION, station_record()),
    ],
)
def test_a_record_survives_its_row(kind: codec.RowKind[object], record: object) -> None:
    values = kind.encode(record)
    assert kind.decode(list(values.values())) == record


def test_a_digest_can_be_repeated_by_hand() -> None:
    values = codec.STATION.encode(station_record())
    array = ["station", {name: values[name] for name in codec.STATION.columns}]
    text = json.dumps(array, separators=(",", ":"))
    assert codec.STATION.digest(values) == hashlib.sha256(text.encode()).hexdigest()
    crl = crl_record()
    row = {**codec.CRL.encode(crl), "der": {"sha256": hashlib.sha256(crl.der).hexdigest()}}
    # Columns that came later count only when they hold something.
    del row["shard"], row["changes"]
    array = ["crl", row]
    text = json.dumps(array, separators=(",", ":"))
    assert codec.CRL.digest(codec.CRL.encode(crl)) == hashlib.sha256(text.encode()).hexdigest()


def test_a_column_that_came_later_counts_once_it_holds_something() -> None:
    before, columns = row_digest("t", ["a"], ["x"]), ["a", "b"]
    assert row_digest("t", columns, ["x", None], added=("b",)) == before
    assert row_digest("t", columns, ["x", 0], added=("b",)) != before
    assert row_digest("t", columns, ["x", None]) != before


VALUES = st.none() | st.text(max_size=5) | st.binary(max_size=5) | st.integers(-9, 9) | st.floats(allow_nan=False)


@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_every_changed_value_changes_the_digest(row: list[object], data: st.DataObject) -> None:
    columns = [f"c{position}" for position in range(len(row))]
    position = data.draw(st.integers(0, len(row) - 1))
    other = data.draw(VALUES.filter(lambda value: type(value) is not type(row[position]) or value != row[position]))
    changed = [*row[:position], other, *row[position + 1 :]]
    unencodable = row_digest("t", columns, row) == "not-encodable"
    assert unencodable or row_digest("t", columns, row) != row_digest("t", columns, changed)
    assert row_digest("t", columns, row) != row_digest("u", columns, row) or unencodable


def test_a_boolean_counts_as_the_number_that_sqlite_returns() -> None:
    assert row_digest("t", ["a"], [True]) == row_digest("t", ["a"], [1])


def test_an_operation_without_lease_columns_is_what_the_row_holds() -> None:
    assert not {"lease_owner", "lease_until", "fence"} & set(codec.OPERATION.columns)
    assert codec.OPERATION.encode(operation_record())["sealed"] == b"sealed"
