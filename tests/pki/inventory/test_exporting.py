"""Streams of an export, on both databases."""

from __future__ import annotations

import csv
import dataclasses
import io

from chargepki.cli.exporting import Form, export_chunks
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.exporting import exported_columns, stream_certificates
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare
from testkit.inventories import add_ca, certificate_record, do, issue

NAMES = ("=cmd()", "+1", "-1", "@x", "\tx", "\rx", "harmless", "a=b")


def test_stream_sees_one_state_by_id_and_no_cell_of_csv_is_a_formula(inventory: Inventory) -> None:
    add_ca(inventory)
    issue(inventory, "40")
    record = certificate_record()

    def reserve(number: int, name: str) -> None:
        serial = f"5{number}"
        hostile = dataclasses.replace(record, id=f"t@1:{serial}", serial=serial, requester=name, subject=name)
        do(inventory, lambda tx: tx.reserve_certificate(hostile))

    for number, name in reversed(list(enumerate(NAMES))):
        reserve(number, name)
    narrowed = Compare(FIELDS["serial"], ">", "40")
    text = b"".join(export_chunks(inventory, Form.CSV, narrowed, everything=False, with_pem=False, passphrase=None))
    found = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert [row["requester"] for row in found] == [f"'{name}" for name in NAMES[:6]] + ["harmless", "a=b"]
    assert [row["subject"] for row in found] == [f"'{name}" for name in NAMES[:6]] + ["harmless", "a=b"]
    assert {row["not_before"] for row in found} == {"2026-03-01T12:00:00Z"} and {row["issuer"] for row in found} == {
        "CN=t"
    }

    stream = stream_certificates(inventory, And(()), with_der=True)
    first = dict(zip(exported_columns(), row := next(stream), strict=False))
    assert (first["id"], row[-1]) == ("t@1:40", b"der40")
    reserve(9, "while it was being read")
    assert len(list(stream)) == len(NAMES)
