"""What do the two acts of one certificate cost in the inventory: reserve, record, and the audit entry of each?

The reference writes the same rows to tables of the same shape by hand, with sqlite3 and as many commits. On our side
come the checks, the digests of the rows, the hash chain and the signed head.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import Case, Comparison, compare, main
from benchmarks.issuance import orders_of
from benchmarks.material import ACTOR, make_authority, make_request
from chargepki.pki.authority import IssuedCertificate
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CertificateRecord, CertificateState

CERTIFICATES = 256
BATCH = 64


class Serials:
    """Fresh serials, so that every round inserts and none repeats; in no order, as random ones are."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self) -> str:
        self._number += 1
        return f"{self._number * 0x9E3779B97F4A7C15 % (1 << 64) + (1 << 140):x}"


def through_inventory(inventory: Inventory, record: CertificateRecord, serials: Serials) -> Callable[[], None]:
    """Return what reserves and records certificates, *BATCH* to a commit."""
    assert record.der is not None and record.sha256 is not None
    der, sha256, now = record.der, record.sha256, datetime.now(UTC)
    blank = dataclasses.replace(record, state=CertificateState.RESERVED, der=None, sha256=None, issued_at=None)

    def reserve(tx: Transaction, batch: Sequence[CertificateRecord]) -> None:
        for each in batch:
            tx.reserve_certificate(each)
            tx.audit(ACTOR, "certificate.reserve", each.id, now=now, artefact_sha256=sha256)

    def finish(tx: Transaction, batch: Sequence[CertificateRecord]) -> None:
        for each in batch:
            tx.record_certificate(each.id, der, sha256, now)
            tx.audit(ACTOR, "certificate.issue", each.id, now=now, artefact_sha256=sha256)

    def run() -> None:
        for _ in range(CERTIFICATES // BATCH):
            names = [serials() for _ in range(BATCH)]
            batch = [dataclasses.replace(blank, id=f"{blank.ca}:{name}", serial=name) for name in names]
            inventory.write(lambda tx, batch=batch: reserve(tx, batch))  # type: ignore[misc]  # binds the loop's value
            inventory.write(lambda tx, batch=batch: finish(tx, batch))  # type: ignore[misc]  # the same

    return run


def by_hand(source: Path, target: Path, serials: Serials) -> Callable[[], None]:
    """Return what writes the same rows with sqlite3 into a copy of the tables."""
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    with sqlite3.connect(source) as original:
        for (sql,) in original.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name IN ('ca', 'certificate', 'audit_entry') AND sql IS NOT NULL"
        ):
            connection.execute(sql)
        columns = [row[1] for row in original.execute("PRAGMA table_info(certificate)")]
        row = original.execute("SELECT * FROM certificate ORDER BY reserved_at DESC LIMIT 1").fetchone()
        entry = original.execute("SELECT * FROM audit_entry ORDER BY seq DESC LIMIT 1").fetchone()
    at = {name: columns.index(name) for name in ("id", "serial", "state", "der", "sha256", "issued_at")}
    insert = f"INSERT INTO certificate VALUES ({', '.join('?' * len(row))})"  # question marks alone
    audit = f"INSERT INTO audit_entry VALUES ({', '.join('?' * len(entry))})"  # the same
    update = "UPDATE certificate SET state = 'issued', der = ?, sha256 = ?, issued_at = ? WHERE id = ?"
    sequence = 0

    def entries() -> list[tuple[object, ...]]:
        nonlocal sequence
        first, sequence = sequence, sequence + BATCH
        return [(first + number, *entry[1:]) for number in range(BATCH)]

    def run() -> None:
        for _ in range(CERTIFICATES // BATCH):
            batch = []
            for _ in range(BATCH):
                values = list(row)
                values[at["serial"]] = serials()
                values[at["id"]] = f"sub@1:{values[at['serial']]}"
                values[at["state"]] = "reserved"
                values[at["der"]] = values[at["sha256"]] = values[at["issued_at"]] = None
                batch.append(values)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, batch)
            connection.executemany(audit, entries())
            connection.execute("COMMIT")
            made = (row[at["der"]], row[at["sha256"]], row[at["issued_at"]])
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(update, [(*made, values[at["id"]]) for values in batch])
            connection.executemany(audit, entries())
            connection.execute("COMMIT")

    return run


def measure() -> Sequence[Comparison]:
    """Compare the write path with the same bytes written by hand."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = make_authority(folder)
        try:
            (made,) = authority.issue_many(orders_of([make_request("STATION-0001")], again=True))
            assert isinstance(made, IssuedCertificate), made
            ours = through_inventory(authority.inventory, made.record, Serials())
            return [
                compare(
                    f"reserve, record and two audit entries, {BATCH} certificates to a commit",
                    subject=Case("Inventory.write", ours, CERTIFICATES),
                    reference=Case(
                        "the same rows by sqlite3",
                        by_hand(folder / "inventory.db", folder / "reference.db", Serials()),
                        CERTIFICATES,
                    ),
                )
            ]
        finally:
            authority.inventory.close()


if __name__ == "__main__":
    raise SystemExit(main("write_path", measure))
