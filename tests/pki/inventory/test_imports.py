"""Imported certificates in the tables, on both databases."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest

from chargepki.cli.exporting import csv_chunks
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.exporting import exported_columns, stream_arrays, stream_certificates
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import And
from chargepki.pki.inventory.import_records import ForeignRevocation, FoundCertificate, ImportTally
from chargepki.pki.inventory.records import CaState, CertificateState
from testkit.inventories import NOW, add_ca, do, found_certificate, import_run, issue


def take_in(inventory: Inventory, *found: FoundCertificate, run: str = "run-1") -> ImportTally:
    return do(inventory, lambda tx: tx.import_certificates(found, import_run(run), now=NOW))


def test_certificates_are_imported_once_with_each_place(inventory: Inventory) -> None:
    one, other = found_certificate("1"), found_certificate("2")
    assert take_in(inventory, one, other) == ImportTally(added=2, places=2)
    assert take_in(inventory, one, other, run="run-2") == ImportTally(known=2)
    elsewhere = found_certificate("1", place="/copy/1.pem", role="v2g-root")
    assert take_in(inventory, elsewhere, elsewhere, run="run-3") == ImportTally(known=2, places=1)
    assert [run.id for run in inventory.list_import_runs()] == ["run-1", "run-3"]
    (record, _) = inventory.find_certificates(parse_filter("origin = 'imported'", now=NOW))
    assert (record.origin, record.profile, record.state) == ("imported", "foreign", CertificateState.ISSUED)
    places = inventory.list_provenance(record.id)
    assert [(each.place, each.run, each.role) for each in places] == [
        ("/copy/1.pem", "run-3", "v2g-root"),
        ("/estate/1.pem", "run-1", None),
    ]
    assert inventory.count_matching(parse_filter("origin = 'issued'", now=NOW)) == 0
    columns, batches = exported_columns(provenance=True), stream_certificates(inventory, And(()), provenance=True)
    exported = [json.loads(str(text)) for batch in batches for (text,) in batch]
    assert all(tuple(row) == columns for row in exported)
    lines = csv_chunks(columns, stream_arrays(inventory, And(()), provenance=True))
    table = csv.DictReader(io.StringIO(b"".join(lines).decode(), newline=""), strict=True)
    assert list(table) == [{name: str(value or "") for name, value in row.items()} for row in exported]
    assert [(row["serial"], row["place"], row["role"]) for row in exported] == [
        ("1", "/copy/1.pem", "v2g-root"),
        ("2", "/estate/2.pem", None),
    ], "one row a certificate, with the first of its places"
    assert {row["source"] for row in exported} == {import_run("run-1").source}


def test_issuer_that_gave_a_serial_twice_has_a_second_generation(inventory: Inventory) -> None:
    twins = [found_certificate("1", sha256=f"{number:064x}", der=b"%d" % number) for number in range(3)]
    assert take_in(inventory, *twins[:2]).added == 2
    assert take_in(inventory, *twins).added == 1
    foreign = list(inventory.list_cas(foreign=True))
    assert [(ca.generation, ca.state, ca.subject) for ca in foreign] == [
        (number, CaState.FOREIGN, "CN=Foreign") for number in (1, 2, 3)
    ]
    assert list(inventory.list_cas()) == [], "nobody who asks whom to trust hears of them"


def test_what_was_issued_here_stays_ours(inventory: Inventory) -> None:
    add_ca(inventory)
    ours = issue(inventory, "5f")
    assert ours.sha256 is not None
    seen = found_certificate("5f", sha256=ours.sha256, place="tls://127.0.0.1:443#1")
    assert take_in(inventory, seen) == ImportTally(ours=1, places=1)
    assert [each.place for each in inventory.list_provenance(ours.id)] == ["tls://127.0.0.1:443#1"]
    assert inventory.get_certificate(ours.id) == ours
    with pytest.raises(StateError, match="was issued here"):
        do(inventory, lambda tx: tx.note_foreign_revocation(ours.id, ForeignRevocation("5f", NOW, "keyCompromise")))


def test_foreign_revocation_is_kept_as_a_fact(inventory: Inventory) -> None:
    take_in(inventory, found_certificate("1"), found_certificate("2"))
    (record,) = inventory.find_imported_by_serials(["1"])
    fact = ForeignRevocation("1", NOW, "keyCompromise", NOW - timedelta(days=1))
    assert do(inventory, lambda tx: tx.note_foreign_revocation(record.id, fact))
    assert not do(inventory, lambda tx: tx.note_foreign_revocation(record.id, fact))
    other = ForeignRevocation("1", NOW - timedelta(days=3), "superseded")
    assert not do(inventory, lambda tx: tx.note_foreign_revocation(record.id, other)), "what came first is kept"
    (held,) = inventory.find_imported_by_serials(["2"])
    hold = ForeignRevocation("2", NOW, "certificateHold")
    assert [do(inventory, lambda tx: tx.note_foreign_revocation(held.id, hold)) for _ in range(2)] == [True, False]
    assert do(inventory, lambda tx: tx.note_foreign_revocation(held.id, other))
    told = inventory.get_certificate(record.id)
    assert (told.state, told.revoked_at, told.revocation_reason) == (CertificateState.REVOKED, NOW, "keyCompromise")
    assert inventory.find_compromised(record.spki_sha256) is not None, "nobody certifies this key any more"
