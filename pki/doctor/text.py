"""Mend the text around certificates as people and programs mangle it, and tell what was wrong with it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from chargepki.pki.errors import InputError, printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.pem import PemBlock, pem_blocks

__all__ = ["Mended", "mend"]

_BEGIN: Final = "-----BEGIN "
_MARKER: Final = _BEGIN.encode()
_CLAUSE: Final = "RFC 7468 2"
_UTF16: Final = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]+(?:=\s*){0,2}\Z")
_EDGE: Final = re.compile(r"-----(BEGIN|END) ([!-,.-~]{1,40}(?:[ -][!-,.-~]{1,40}){0,8})-----")
_WINDOW: Final = 80
"""Characters beside an edge that are looked at: enough to see what shares its line."""
_MOST_DEFECTS: Final = 100
_PLAIN_LABELS: Final = {
    "X509 CERTIFICATE": "CERTIFICATE",
    "TRUSTED CERTIFICATE": "CERTIFICATE",
    "NEW CERTIFICATE REQUEST": "CERTIFICATE REQUEST",
}
_MOST_WRAPPINGS: Final = 2
_REWRITE: Final = "write it anew: chargepki doctor PATH --write FILE"


@dataclass(frozen=True, slots=True)
class Mended:
    """What a file says once its text is put right."""

    blocks: tuple[PemBlock, ...]
    """The PEM blocks that can be read, in order; empty when the file is binary."""
    binary: bytes | None
    """DER, PKCS#12 or a key store, when the file is no text."""
    defects: tuple[Finding, ...]
    """What was wrong; each says which programs do not read the file as it is."""


def mend(data: bytes) -> Mended:
    r"""Return the PEM blocks of *data*, or the binary object that it is, and what had to be put right.

    >>> [defect.rule for defect in mend(b"\xef\xbb\xbf-----BEGIN X-----\nYWJj\n-----END X-----\n").defects]
    ['text-byte-order-mark']
    """
    defects: list[Finding] = []
    for _ in range(_MOST_WRAPPINGS):
        data = _decoded(data, defects)
        if _MARKER in data or not (inner := _unwrapped(data)):
            break
        if _MARKER in inner:
            defects.append(_wrapped())
        else:
            defects.append(_bare())
        data = inner
    if _MARKER not in data or (data[:1] == b"\x30" and _is_binary(data)):
        return Mended((), data, tuple(defects))
    blocks = _blocks(_normal_text(data, defects), defects)
    return Mended(tuple(blocks), None, tuple(defects))


def _finding(rule: str, severity: Severity, message: str, hint: str = _REWRITE, where: str = "") -> Finding:
    return Finding(rule, severity, message, _CLAUSE, hint, where)


def _wrapped() -> Finding:
    return _finding(
        "text-wrapped-base64",
        Severity.ERROR,
        "the PEM text is wrapped in base64 once more; neither openssl nor Java reads it",
        "decode it once: base64 -d; stations of some makers send requests so",
    )


def _bare() -> Finding:
    return _finding(
        "text-bare-base64",
        Severity.ERROR,
        "base64 without BEGIN and END lines; neither openssl nor Java reads it",
    )


def _is_binary(data: bytes) -> bool:
    """Text may begin with the digit 0, which is DER's SEQUENCE; control characters tell the two apart."""
    return any(octet < 9 or 13 < octet < 32 for octet in data[:64])


def _decoded(data: bytes, defects: list[Finding]) -> bytes:
    for mark, codec in _UTF16:
        if data.startswith(mark):
            try:
                text = data[2:].decode(codec)
            except UnicodeDecodeError:
                return data
            message = "the file is UTF-16, as PowerShell's > writes it; neither openssl nor Java reads it"
            defects.append(_finding("text-utf16", Severity.ERROR, message))
            return text.encode("utf-8", "replace")
    if data.startswith(b"\xef\xbb\xbf"):
        message = "the file begins with a byte order mark; Java does not read it"
        defects.append(_finding("text-byte-order-mark", Severity.WARNING, message))
        return data[3:]
    return data


def _unwrapped(data: bytes) -> bytes:
    """Return what base64 without PEM lines holds, or nothing when it is none or holds neither PEM nor DER."""
    compact = data.replace(b"\\r", b"").replace(b"\\n", b"\n").strip().strip(b'"')
    if len(compact) < 16 or not _BASE64.match(compact):
        return b""
    try:
        inner = base64.b64decode(b"".join(compact.split()), validate=True)
    except binascii.Error:
        return b""
    return inner if _MARKER in inner or inner[:1] == b"\x30" else b""


def _normal_text(data: bytes, defects: list[Finding]) -> str:
    """Return the text with LF, without indentation, one line for each edge of a block."""
    text = data.decode("latin-1")
    if "\\n" in text:
        message = "line ends are written as the two characters \\n, as JSON does; neither openssl nor Java reads it"
        defects.append(_finding("text-escaped-newlines", Severity.ERROR, message))
        text = text.replace("\\r", "").replace("\\n", "\n")
    if "\r\n" in text:
        message = "lines end with CR LF: openssl and Java read it, but each line counts one more in OCPP's fields"
        defects.append(_finding("text-crlf", Severity.WARNING, message))
        text = text.replace("\r\n", "\n")
    if "\r" in text:
        message = "lines end with CR alone; openssl does not read it"
        defects.append(_finding("text-cr", Severity.ERROR, message))
        text = text.replace("\r", "\n")
    if any(line[:1] in " \t" and line.lstrip().startswith(("-----BEGIN", "-----END")) for line in text.split("\n")):
        message = "blocks are indented; neither openssl nor Java reads them"
        defects.append(_finding("text-indented", Severity.ERROR, message))
    _check_edges(text, defects)
    if text and not text.endswith("\n"):
        message = "no line end after the last block: a file appended to it runs into its END line"
        defects.append(_finding("text-no-final-newline", Severity.NOTICE, message))
    return text


def _check_edges(text: str, defects: list[Finding]) -> None:
    """Note edges that share their line with something else; two blocks run together is what `cat` makes."""
    glued = squeezed = False
    for edge in _EDGE.finditer(text):
        before = text[max(0, edge.start() - _WINDOW) : edge.start()].rpartition("\n")[2].strip(" \t\"'")
        after = text[edge.end() : edge.end() + _WINDOW].partition("\n")[0].strip(" \t\"',")
        if (edge[1] == "BEGIN" and before.endswith("-----")) or after.startswith("-----BEGIN "):
            glued = True
        elif (edge[1] == "BEGIN" and after) or (edge[1] == "END" and before):
            squeezed = True
    if glued:
        message = "two blocks run into each other (END and BEGIN on one line); neither openssl nor Java reads them"
        defects.append(_finding("text-glued-blocks", Severity.ERROR, message))
    if squeezed:
        message = "a BEGIN or END line shares its line with base64; neither openssl nor Java reads it"
        defects.append(_finding("text-one-line", Severity.ERROR, message))


def _blocks(text: str, defects: list[Finding]) -> list[PemBlock]:
    blocks: list[PemBlock] = []
    outside: list[str] = []
    position = 0
    edges = list(_EDGE.finditer(text))
    for number, edge in enumerate(edges):
        if edge[1] != "BEGIN" or len(defects) > _MOST_DEFECTS:
            continue
        outside.append(text[position : edge.start()])
        following = edges[number + 1] if number + 1 < len(edges) else None
        whole = following is not None and following[1] == "END" and following[2] == edge[2]
        # What follows a BEGIN line up to the next edge belongs to the block, also to one that is cut off.
        position = len(text) if following is None else following.end() if whole else following.start()
        if not whole:
            where = _line(text, edge.start())
            message = f"the block {printable(edge[2])} has no END line of its own: it is cut off"
            defects.append(_finding("text-cut-off", Severity.ERROR, message, "fetch the file again, whole", where))
            continue
        try:
            blocks += pem_blocks(text[edge.start() : position].encode("latin-1"), max_bytes=len(text))
        except InputError as error:
            hint, where = "restore the file from its source", _line(text, edge.start())
            defects.append(_finding("text-damaged", Severity.ERROR, error.what, hint, where))
            continue
        if edge[2] in _PLAIN_LABELS:
            message = f"labelled {edge[2]} instead of {_PLAIN_LABELS[edge[2]]}; embedded readers know one label"
            defects.append(_finding("text-label", Severity.WARNING, message, where=_line(text, edge.start())))
    outside.append(text[position:])
    _note_outside(outside, defects)
    return blocks


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"


def _note_outside(outside: list[str], defects: list[Finding]) -> None:
    said = [line.strip(" \t\"',") for part in outside for line in part.split("\n")]
    said = [line for line in said if line and not line.startswith("-----")]
    if not said:
        return
    shown = printable(said[0][:60])
    if outside[0].startswith("0"):
        message = f"the file begins with the digit 0 (text {shown!r}): Java takes it for DER and does not read it"
        defects.append(_finding("text-begins-with-0", Severity.WARNING, message))
    else:
        message = f"text outside of the blocks ({shown!r}): it counts in OCPP's fields, and stations refuse it"
        defects.append(_finding("text-outside", Severity.WARNING, message))
