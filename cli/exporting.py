"""The forms of ``inventory export``: JSON, JSON lines, CSV, PEM and PKCS#12, each written piece by piece."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import jsonable
from chargepki.pki.errors import InputError
from chargepki.pki.spreadsheets import FORMULA_STARTS, quoted_cell

if TYPE_CHECKING:
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.exporting import ExportRow
    from chargepki.pki.inventory.filters import Filter

__all__ = ["Form", "csv_chunks", "export_chunks", "write_chunks"]

_BATCH: Final = 1000
_SCHEMA: Final = b'{"schema":"chargepki/inventory-export","schema_version":1'
_MOST_IN_PKCS12: Final = 10_000
_EMPTY: Final = '""'
_FORMULA: Final = re.compile(f'"[{re.escape("".join(sorted(each for each in FORMULA_STARTS if each.isprintable())))}]')
"""Where in JSON a text begins that a spreadsheet would run; the others that it would begin with an escape."""


class Form(StrEnum):
    """How an export is written."""

    JSON_LINES = "json-lines"
    JSON = "json"
    CSV = "csv"
    PEM = "pem"
    PKCS12 = "pkcs12"


def export_chunks(
    inventory: Inventory,
    form: Form,
    wanted: Filter,
    *,
    everything: bool,
    with_pem: bool,
    passphrase: bytes | None,
    with_verdict: bool = False,
    provenance: bool = False,
) -> Iterator[bytes]:
    """Yield an export in pieces.

    Args:
        everything: CAs and stations as well, in the forms that have room for them.
        with_pem: JSON holds each certificate as PEM too.
        with_verdict: JSON holds what each rule said of the request too.
        provenance: JSON and CSV tell where an import found each certificate too.
        passphrase: protects a PKCS#12 file; without one it is open.

    Raises:
        InputError: more certificates than a PKCS#12 file should hold.
    """
    from chargepki.pki.inventory.exporting import exported_columns, stream_arrays, stream_certificates, stream_ders

    if form is Form.CSV:
        arrays = stream_arrays(inventory, wanted, provenance=provenance)
        return csv_chunks(exported_columns(provenance=provenance), arrays)
    if form in (Form.PEM, Form.PKCS12):
        ders = stream_ders(inventory, wanted)
        return _pem(ders) if form is Form.PEM else _pkcs12(ders, passphrase)
    batches = stream_certificates(
        inventory, wanted, provenance=provenance, with_verdict=with_verdict, with_der=with_pem
    )
    certificates = _certificates(batches, with_verdict=with_verdict, with_pem=with_pem)
    lists: dict[str, Iterable[list[str]]] = {"certificate": certificates}
    if everything:
        lists = {"ca": _encoded(_cas(inventory)), **lists, **_others(inventory)}
    elif form is Form.JSON:
        lists = {"ca": (), **lists, "station": ()}
    if form is Form.JSON:
        return _json({f"{kind.replace('-', '_')}s": batches for kind, batches in lists.items()})
    return _lines(lists.items())


def write_chunks(state: GlobalState, chunks: Iterable[bytes], out: str | None, *, is_binary: bool) -> None:
    """Write an export to the file *out*, whole or not at all, or to stdout.

    Raises:
        InputError: binary data would go to a terminal.
    """
    from chargepki.pki import files

    if out is not None and out != "-":
        files.write_stream(out, chunks)
        state.output.say(f"wrote {Path(out)}")
        return
    if out is None and is_binary and sys.stdout.isatty():
        raise InputError("that does not belong on a terminal", fix="pass --out FILE, or -o - to print it all the same")
    sys.stdout.flush()
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _cas(inventory: Inventory) -> Iterator[dict[str, Any]]:
    from chargepki.cli.ca import ca_row

    return map(ca_row, inventory.list_cas(foreign=True))


def _others(inventory: Inventory) -> dict[str, Iterator[list[str]]]:
    """Return what is no certificate as its command shows it, by kind."""
    from chargepki.cli.firmware_store import release_rows
    from chargepki.cli.station_rows import attempt_rows, event_row, operation_row, station_rows

    operations = map(operation_row, inventory.list_newest_operations())
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "station": station_rows(inventory),
        "firmware-release": release_rows(inventory, vendor=None, model=None, wanted=None),
        "operation": (_operation(row, attempt_rows(inventory, row["id"])) for row in operations),
        "security-event": map(event_row, inventory.list_all_events()),
    }
    return {kind: _encoded(each) for kind, each in rows.items()}


def _operation(row: dict[str, Any], attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an operation under names of its own: `kind` says what a line holds."""
    named = {"operation" if name == "kind" else name: value for name, value in row.items()}
    return {**named, "attempts": attempts}


def _certificates(batches: Iterable[list[ExportRow]], *, with_verdict: bool, with_pem: bool) -> Iterator[list[str]]:
    """Yield the JSON objects of certificates in batches."""
    for rows in batches:
        if with_verdict or with_pem:
            yield [_extended(row, with_verdict=with_verdict, with_pem=with_pem) for row in rows]
        else:
            yield [row[0] for row in rows]  # type: ignore[misc]  # the first value is the text of the object


def _extended(row: ExportRow, *, with_verdict: bool, with_pem: bool) -> str:
    """Return the JSON object of a certificate with what the database does not write: verdict and PEM."""
    from chargepki.cli.cert import verdict_rows
    from chargepki.pki.der import to_pem

    more: dict[str, Any] = {}
    if with_verdict:
        more["verdict"] = verdict_rows(orjson.loads(str(row[1])))
    if with_pem:
        der = row[-1]
        more["certificate_pem"] = to_pem("CERTIFICATE", der) if isinstance(der, bytes) else None
    return f"{str(row[0])[:-1]},{orjson.dumps(more).decode()[1:]}"


def _encoded(rows: Iterable[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield rows as JSON objects in batches."""
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        yield [orjson.dumps(jsonable(row)).decode() for row in batch]


def _lines(kinds: Iterable[tuple[str, Iterable[list[str]]]]) -> Iterator[bytes]:
    """Yield one object a line, each with its kind in front."""
    for kind, batches in kinds:
        begin = f'{{"kind":"{kind}",'
        for batch in batches:
            # No object has a line break within, so that each of them begins a line.
            yield "\n".join([*batch, ""]).replace("\n{", f"\n{begin}").replace("{", begin, 1).encode()


def _json(lists: dict[str, Iterable[list[str]]]) -> Iterator[bytes]:
    """Yield one object that holds a list of each kind."""
    yield _SCHEMA
    for name, batches in lists.items():
        yield f',"{name}":['.encode()
        before = "\n"
        for batch in batches:
            yield (before + ",\n".join(batch)).encode()
            before = ",\n"
        yield b"]"
    yield b"}\n"


def csv_chunks(columns: Sequence[str], batches: Iterable[list[str]]) -> Iterator[bytes]:
    """Yield comma-separated values (RFC 4180) in UTF-8; what a spreadsheet would run is quoted with an apostrophe.

    Args:
        batches: of JSON arrays of texts, without blanks between them.
    """
    yield f"{','.join(columns)}\r\n".encode()
    for batch in batches:
        text = "".join([f"{line[1:-1]}\r\n" for line in batch])
        # Without an escape the one is written as the other. Most batches hold nothing of the kind, and looking at
        # each value would cost as much as all the rest.
        if "\\" in text or _FORMULA.search(text) is not None:
            yield "".join(map(_row_of, batch)).encode()
        else:
            yield text.replace(_EMPTY, "").encode()


def _row_of(line: str) -> str:
    """Return a JSON array of texts as a row of CSV."""
    if "\\" not in line and _FORMULA.search(line) is None:
        return f"{line[1:-1].replace(_EMPTY, '')}\r\n"
    buffer = io.StringIO()
    csv.writer(buffer).writerow(map(quoted_cell, orjson.loads(line)))
    return buffer.getvalue()


def _pem(ders: Iterable[bytes]) -> Iterator[bytes]:
    from chargepki.pki.der import to_pem

    source = iter(ders)
    while batch := list(islice(source, _BATCH)):
        yield "".join([to_pem("CERTIFICATE", der) for der in batch]).encode()


def _pkcs12(ders: Iterable[bytes], passphrase: bytes | None) -> Iterator[bytes]:
    """Yield a PKCS#12 file of certificates alone, each named by its fingerprint, which Java takes for a trust store."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        KeySerializationEncryption,
        NoEncryption,
        pkcs12,
    )

    found: list[pkcs12.PKCS12Certificate] = []
    for der in ders:
        if len(found) == _MOST_IN_PKCS12:
            raise InputError(
                f"more than {_MOST_IN_PKCS12} certificates are too many for a PKCS#12 file",
                why="it is sealed as a whole, and so is every reader's memory",
                fix="narrow it with --where, or choose --format pem",
            )
        name = hashlib.sha256(der).hexdigest().encode()
        found.append(pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(der), name))
    if not found:
        raise InputError("there is no certificate to export", fix="a PKCS#12 file needs one; widen --where")
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    yield pkcs12.serialize_java_truststore(found, how)
