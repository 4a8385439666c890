"""Streams of an export, on both databases."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.cli.exporting import Form, csv_chunks, export_chunks
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.exporting import exported_columns, stream_certificates, stream_ders
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
    "Volt\\, AG",
    "\x01\x1f\x7f\b\f",
    "{x}",
    "Ähre ⚡",
    "",
)


def parsed(inventory: Inventory, wanted: Filter) -> list[dict[str, str]]:
    """Export as CSV and read it with the standard library."""
    text = b"".join(export_chunks(inventory, Form.CSV, wanted, everything=False, with_pem=False, passphrase=None))
    return list(csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True))


def expected(value: object) -> str:
    """Return what CSV should hold of a value."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(tuple("=+-@\t\r")) else text


def reserve(inventory: Inventory, number: int, name: str) -> None:
    """Reserve a certificate whose subject and requester are *name*."""
    serial = f"{0x50 + number:x}"
    hostile = dataclasses.replace(certificate_record(), id=f"t@1:{serial}", serial=serial, requester=name, subject=name)
    do(inventory, lambda tx: tx.reserve_certificate(hostile))


@settings(max_examples=50)
@given(st.lists(st.lists(st.text('"=+-@\t\r\n,a;é\\', max_size=4), min_size=3, max_size=3), max_size=4))
def test_every_text_survives_csv_as_the_standard_library_reads_it(rows: list[list[str]]) -> None:
    lines = [json.dumps(row, separators=(",", ":")) for row in rows]
    text = b"".join(csv_chunks(("a", "b", "c"), (lines[:2], lines[2:]))).decode()
    assert text.endswith("\r\n")
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert found == [["a", "b", "c"], *([expected(cell) for cell in row] for row in rows)]


def test_what_json_escapes_alone_makes_a_row_of_csv_be_written_anew() -> None:
    for text in ("Volt\\, AG", 'say "this"', "two\nlines", ",null", ""):
        lines = [json.dumps(["a", text], separators=(",", ":"))]
        written = b"".join(csv_chunks(("x", "y"), [lines])).decode()
        assert list(csv.reader(io.StringIO(written, newline=""), strict=True)) == [["x", "y"], ["a", text]]


def test_stream_sees_one_state_by_id_and_no_cell_of_csv_is_a_formula(inventory: Inventory) -> None:
    add_ca(inventory)
    issue(inventory, "40")
    for number, name in reversed(list(enumerate(NAMES))):
        reserve(inventory, number, name)
    narrowed = Compare(FIELDS["serial"], ">", "40")
    found = parsed(inventory, narrowed)
    shown = [f"'{name}" for name in NAMES[:6]] + list(NAMES[6:])
    assert [row["requester"] for row in found] == [row["subject"] for row in found] == shown
    plain = Compare(FIELDS["serial"], "=", "40")
    for wanted in (And(()), narrowed, plain):
        texts = [str(text) for batch in stream_certificates(inventory, wanted) for (text,) in batch]
        rows = [json.loads(text) for text in texts]
        assert all(tuple(row) == exported_columns() for row in rows)
        assert texts == [json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows], "no blanks"
        assert [list(row.values()) for row in parsed(inventory, wanted)] == [
            list(map(expected, row.values())) for row in rows
        ]
        assert [row["subject"] for row in rows if row["serial"] != "40"] == ([] if wanted is plain else list(NAMES))
    assert {row["not_before"] for row in found} == {"2026-03-01T12:00:00Z"} and {row["issuer"] for row in found} == {
        "CN=t"
    }

    stream = chain.from_iterable(stream_certificates(inventory, And(()), with_verdict=True, with_der=True))
    text, verdict, der = next(stream)
    assert (json.loads(str(text))["id"], json.loads(str(verdict)), der) == ("t@1:40", {"accepted": True}, b"der40")
    assert list(stream_ders(inventory, And(()))) == [b"der40"], "what was not signed has none"
    reserve(inventory, 90, "while it was being read")
    assert len(list(stream)) == len(NAMES)


def test_json_of_hostile_names_is_read_back_with_and_without_what_goes_with_it(inventory: Inventory) -> None:
    add_ca(inventory)
    for number, name in enumerate(NAMES):
        reserve(inventory, number, name)

    def export(form: Form, *, with_more: bool) -> bytes:
        more = {"with_pem": with_more, "with_verdict": with_more}
        return b"".join(export_chunks(inventory, form, And(()), everything=False, passphrase=None, **more))

    for with_more in (False, True):
        rows = json.loads(export(Form.JSON, with_more=with_more))["certificates"]
        lines = [json.loads(line) for line in export(Form.JSON_LINES, with_more=with_more).split(b"\n")[:-1]]
        assert lines == [{"kind": "certificate", **row} for row in rows]
        assert [row["subject"] for row in rows] == list(NAMES)
        assert ["certificate_pem" in row and "verdict" in row for row in rows] == [with_more] * len(NAMES)
