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
    from chargepki.pki.inventory.exporting import Cell
    from chargepki.pki.inventory.filters import Filter

__all__ = ["Form", "csv_chunks", "export_chunks", "write_chunks"]

_BATCH: Final = 1000
_SCHEMA: Final = b'{"schema":"chargepki/inventory-export","schema_version":1'
_MOST_IN_PKCS12: Final = 10_000
_EMPTY: Final = '""'
_FORMULA: Final = re.compile(f'"[{re.escape("".join(sorted(FORMULA_STARTS)))}]')
"""Where in lines of quoted values one begins that a spreadsheet would run."""


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
    from chargepki.pki.inventory.exporting import exported_columns, stream_certificates, stream_csv

    if form is Form.CSV:
        return csv_chunks(exported_columns(provenance=provenance), stream_csv(inventory, wanted, provenance=provenance))
    if form in (Form.PEM, Form.PKCS12):
        found = (row[-1] for row in stream_certificates(inventory, wanted, with_der=True))
        ders = (der for der in found if isinstance(der, bytes))
        return _pem(ders) if form is Form.PEM else _pkcs12(ders, passphrase)
    rows = stream_certificates(inventory, wanted, provenance=provenance, with_verdict=with_verdict, with_der=with_pem)
    certificates = _objects(exported_columns(provenance=provenance), rows, with_verdict=with_verdict, with_pem=with_pem)
    lists: dict[str, Iterable[dict[str, Any]]] = {"certificate": certificates}
    if everything:
        lists = {"ca": _cas(inventory), **lists, **_others(inventory)}
    elif form is Form.JSON:
        lists = {"ca": (), **lists, "station": ()}
    if form is Form.JSON:
        return _json({f"{kind.replace('-', '_')}s": rows for kind, rows in lists.items()})
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


def _others(inventory: Inventory) -> dict[str, Iterator[dict[str, Any]]]:
    """Return what is no certificate as its command shows it, by kind."""
    from chargepki.cli.firmware_store import release_rows
    from chargepki.cli.station_rows import attempt_rows, event_row, operation_row, station_rows

    operations = map(operation_row, inventory.list_newest_operations())
    return {
        "station": station_rows(inventory),
        "firmware-release": release_rows(inventory, vendor=None, model=None, wanted=None),
        "operation": (_operation(row, attempt_rows(inventory, row["id"])) for row in operations),
        "security-event": map(event_row, inventory.list_all_events()),
    }


def _operation(row: dict[str, Any], attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an operation under names of its own: `kind` says what a line holds."""
    named = {"operation" if name == "kind" else name: value for name, value in row.items()}
    return {**named, "attempts": attempts}


def _objects(
    columns: Sequence[str], rows: Iterable[tuple[Cell, ...]], *, with_verdict: bool, with_pem: bool
) -> Iterator[dict[str, Any]]:
    from chargepki.cli.cert import verdict_rows
    from chargepki.pki.der import to_pem

    for row in rows:
        content: dict[str, Any] = dict(zip(columns, row, strict=False))
        if with_verdict:
            content["verdict"] = verdict_rows(orjson.loads(str(row[len(columns)])))
        if with_pem:
            der = row[-1]
            content["certificate_pem"] = to_pem("CERTIFICATE", der) if isinstance(der, bytes) else None
        yield content


def _encoded(rows: Iterable[dict[str, Any]], *, plain: bool) -> Iterator[bytes]:
    """Write each object as JSON; *plain* ones hold nothing but JSON's own types."""
    return map(orjson.dumps, rows) if plain else (orjson.dumps(jsonable(row)) for row in rows)


def _batches(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(pieces, _BATCH)):
        yield batch


def _lines(kinds: Iterable[tuple[str, Iterable[dict[str, Any]]]]) -> Iterator[bytes]:
    """Yield one object a line, each with its kind in front."""
    for kind, rows in kinds:
        begin = b'{"kind":"' + kind.encode() + b'",'
        for batch in _batches(_encoded(rows, plain=kind == "certificate")):
            yield b"".join([begin + each[1:] + b"\n" for each in batch])


def _json(lists: dict[str, Iterable[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield one object that holds a list of each kind."""
    yield _SCHEMA
    for name, rows in lists.items():
        yield b',"' + name.encode() + b'":['
        before = b"\n"
        for batch in _batches(_encoded(rows, plain=name == "certificates")):
            yield before + b",\n".join(batch)
            before = b",\n"
        yield b"]"
    yield b"}\n"


def csv_chunks(columns: Sequence[str], lines: Iterator[str]) -> Iterator[bytes]:
    """Yield comma-separated values (RFC 4180) in UTF-8; what a spreadsheet would run is quoted with an apostrophe.

    Args:
        lines: each value in quotes, those within doubled; without the end of the line.
    """
    yield f"{','.join(columns)}\r\n".encode()
    quotes = 2 * len(columns)
    while batch := list(islice(lines, _BATCH)):
        text = "\n".join([*batch, ""])
        # Most batches hold nothing of the kind, and looking at each value would cost as much as all the rest.
        is_plain = text.count('"') == quotes * len(batch) and text.count("\n") == len(batch)
        if is_plain and not _FORMULA.search(text):
            yield text.replace(_EMPTY, "").replace("\n", "\r\n").encode()
        else:
            yield _guarded(text)


def _guarded(text: str) -> bytes:
    """Write lines anew, each value looked at."""
    buffer = io.StringIO()
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    csv.writer(buffer).writerows([quoted_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode()


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
