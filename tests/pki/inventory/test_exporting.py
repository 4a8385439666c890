"""Streams of an export, on both databases."""

from __future__ import annotations

import csv
import dataclasses
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.cli.exporting import Form, csv_chunks, export_chunks
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.exporting import Cell, exported_columns, stream_certificates
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, Filter
from testkit.inventories import add_ca, certificate_record, do, issue

NAMES = (
    "=cmd()",
    "+1",
    "-1",
    "@x",
    "\tx",
    "\rx",
    "harmless",
    "a=b",
    'say "=1", they',
    "two\r\nlines,\n",
    '""',
    "Ähre ⚡",
    "",
)


def parsed(inventory: Inventory, wanted: Filter) -> list[dict[str, str]]:
    """Export as CSV and read it with the standard library."""
    text = b"".join(export_chunks(inventory, Form.CSV, wanted, everything=False, with_pem=False, passphrase=None))
    return list(csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True))


def expected(value: Cell) -> str:
    """Return what CSV should hold of a value."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(tuple("=+-@\t\r")) else text


@settings(max_examples=50)
@given(st.lists(st.lists(st.text('"=+-@\t\r\n,a;é', max_size=4), min_size=3, max_size=3), max_size=4))
def test_every_text_survives_csv_as_the_standard_library_reads_it(rows: list[list[str]]) -> None:
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    text = b"".join(csv_chunks(("a", "b", "c"), iter(lines))).decode()
    assert text.endswith("\r\n")
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert found == [["a", "b", "c"], *([expected(cell) for cell in row] for row in rows)]


def test_stream_sees_one_state_by_id_and_no_cell_of_csv_is_a_formula(inventory: Inventory) -> None:
    add_ca(inventory)
    issue(inventory, "40")
    record = certificate_record()

    def reserve(number: int, name: str) -> None:
        serial = f"{0x50 + number:x}"
        hostile = dataclasses.replace(record, id=f"t@1:{serial}", serial=serial, requester=name, subject=name)
        do(inventory, lambda tx: tx.reserve_certificate(hostile))

    for number, name in reversed(list(enumerate(NAMES))):
        reserve(number, name)
    narrowed = Compare(FIELDS["serial"], ">", "40")
    found = parsed(inventory, narrowed)
    shown = [f"'{name}" for name in NAMES[:6]] + list(NAMES[6:])
    assert [row["requester"] for row in found] == [row["subject"] for row in found] == shown
    plain = Compare(FIELDS["serial"], "=", "40")
    for wanted in (And(()), narrowed, plain):
        rows = stream_certificates(inventory, wanted)
        assert [list(row.values()) for row in parsed(inventory, wanted)] == [list(map(expected, row)) for row in rows]
    assert {row["not_before"] for row in found} == {"2026-03-01T12:00:00Z"} and {row["issuer"] for row in found} == {
        "CN=t"
    }

    stream = stream_certificates(inventory, And(()), with_der=True)
    first = dict(zip(exported_columns(), row := next(stream), strict=False))
    assert (first["id"], row[-1]) == ("t@1:40", b"der40")
    reserve(90, "while it was being read")
    assert len(list(stream)) == len(NAMES)
