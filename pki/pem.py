"""Unwrap PEM as the field sends it (RFC 7468, tolerantly) and write it strictly."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki.der_reader import DerError, parse
from chargepki.pki.errors import InputError, printable

__all__ = ["PemBlock", "decode_der_or_pem", "pem_blocks", "pem_characters", "to_pem"]

_BEGIN: Final = "-----BEGIN "
_END: Final = "-----END "
_DASHES: Final = "-----"
_LINE: Final = 64
_CERTIFICATE_LINES: Final = len("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
_LABEL: Final = re.compile(r"[!-,.-~]+(?:[ -][!-,.-~]+)*\Z")
_HEADER: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,63}): ?(.*)\Z")
# Nothing here can match in two ways: a text that is none must not cost the square of its length.
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]+(?:=\s*){0,2}\Z")


@dataclass(frozen=True, slots=True)
class PemBlock:
    """One block: its label (``CERTIFICATE``), the decoded octets, and RFC 1421 headers such as ``Proc-Type``."""

    label: str
    der: bytes = field(repr=False)  # may be a private key
    headers: tuple[tuple[str, str], ...] = ()


def to_pem(label: str, der: bytes) -> str:
    r"""Return *der* as one PEM block: LF, 64 columns, final newline (RFC 7468 2).

    >>> to_pem("X", b"abc")
    '-----BEGIN X-----\nYWJj\n-----END X-----\n'
    """
    text = base64.b64encode(der).decode("ascii")
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"{_BEGIN}{label}{_DASHES}", *lines, f"{_END}{label}{_DASHES}", ""])


def pem_blocks(data: bytes, *, max_bytes: int) -> list[PemBlock]:
    r"""Return every PEM block in *data*, in order; an empty list when there is none.

    Accepted as found in the field: CRLF or CR, a byte order mark, indentation, any column width, explanatory text
    between blocks, no final newline, and line ends written as the two characters ``\n`` (JSON escaped twice).

    Args:
        max_bytes: largest *data* that is looked at.

    Raises:
        InputError: too large, a block without its end line, or broken base64; says which block.
    """
    if len(data) > max_bytes:
        raise InputError(f"{len(data)} bytes of PEM, at most {max_bytes} are read", fix="send only the needed blocks")
    # Latin-1 never fails and keeps explanatory text in any encoding from mattering; base64 itself is ASCII.
    text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    if "\\n" in text:
        text = text.replace("\\r", "").replace("\\n", "\n")
    blocks: list[PemBlock] = []
    position = 0
    while (start := text.find(_BEGIN, position)) >= 0:
        nth = len(blocks) + 1
        label_end = text.find(_DASHES, start + len(_BEGIN), start + len(_BEGIN) + 80)
        label = text[start + len(_BEGIN) : label_end].strip() if label_end >= 0 else ""
        if not _LABEL.match(label):
            raise InputError(f"PEM block {nth} has no proper BEGIN line", fix="expected -----BEGIN CERTIFICATE-----")
        end_line = f"{_END}{label}{_DASHES}"
        body_start = label_end + len(_DASHES)
        body_end = text.find(_END, body_start)
        if body_end < 0 or not text.startswith(end_line, body_end) or text.find(_BEGIN, body_start, body_end) >= 0:
            raise InputError(
                f"PEM block {nth} ({printable(label)}) has no matching END line",
                why="the text is cut off or two blocks run into each other",
                fix=f"expected {end_line} after it",
            )
        headers, body = _split_headers(text[body_start:body_end])
        blocks.append(PemBlock(label, _decode_base64(body, f"PEM block {nth} ({label})"), headers))
        position = body_end + len(end_line)
    return blocks


def _split_headers(body: str) -> tuple[tuple[tuple[str, str], ...], str]:
    lines = body.strip().splitlines()
    headers: list[tuple[str, list[str]]] = []
    body_at = len(lines)
    for count, line in enumerate(lines):
        match = _HEADER.match(line.strip())
        if match:
            headers.append((match[1], [match[2]]))
        elif headers and line[:1].isspace() and line.strip():
            headers[-1][1].append(line.strip())  # RFC 1421 4.6: folded header
        else:
            body_at = count
            break
    return tuple((name, "".join(parts)) for name, parts in headers), "".join(lines[body_at:])


def _decode_base64(text: str, what: str) -> bytes:
    compact = "".join(text.split())
    try:
        der = base64.b64decode(compact.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as exc:
        raise InputError(f"{what} is not base64", why=str(exc) if isinstance(exc, binascii.Error) else "") from exc
    if not der:
        raise InputError(f"{what} is empty")
    return der


def decode_der_or_pem(data: bytes, labels: tuple[str, ...], what: str, max_bytes: int) -> bytes:
    """Return the DER of the one object in *data*: DER, PEM, bare base64, or PEM wrapped in base64 once more.

    Args:
        labels: PEM labels that name such an object; blocks with other labels are passed over.
        what: the object in words for errors, such as ``certificate request``.
        max_bytes: largest *data* that is looked at.

    Raises:
        InputError: nothing of the kind, more than one, or bytes that do not form one complete DER element.
    """
    if len(data) > max_bytes:
        raise InputError(f"{what} has {len(data)} bytes, at most {max_bytes} are read")
    if not data.strip():
        raise InputError(f"{what} is empty", fix=f"expected PEM ({labels[0]}) or DER")
    marker = _BEGIN.encode()
    if data[0] == 0x30 and (marker not in data or _is_one_element(data)):
        return _one_element(data, what)
    if marker in data:
        return _one_element(_only_block(data, labels, what, max_bytes), what)
    if _BASE64.match(data.replace(b"\\n", b"\n").replace(b"\\r", b"")):
        inner = _decode_base64(data.decode("ascii").replace("\\r", "").replace("\\n", "\n"), what)
        if marker in inner:
            inner = _only_block(inner, labels, what, max_bytes)
        return _one_element(inner, what)
    raise InputError(f"{what} is neither PEM nor DER", fix=f"expected -----BEGIN {labels[0]}----- or DER")


def _is_one_element(data: bytes) -> bool:
    try:
        parse(data)
    except DerError:
        return False
    return True


def _one_element(der: bytes, what: str) -> bytes:
    if not der or der[0] != 0x30:
        raise InputError(f"{what} is not a DER SEQUENCE", fix="send the original object, PEM or DER")
    parse(der)
    return der


def _only_block(data: bytes, labels: tuple[str, ...], what: str, max_bytes: int) -> bytes:
    blocks = pem_blocks(data, max_bytes=max_bytes)
    wanted = [block for block in blocks if block.label in labels]
    if len(wanted) == 1:
        return wanted[0].der
    if wanted:
        raise InputError(f"{len(wanted)} PEM blocks where one {what} is expected", fix="send one at a time")
    found = ", ".join(dict.fromkeys(block.label for block in blocks)) or "nothing"
    raise InputError(f"no {what} in the PEM text: found {found}", fix=f"expected -----BEGIN {labels[0]}-----")


def pem_characters(der_bytes: int) -> int:
    """Return how long `to_pem` makes a certificate of *der_bytes*.

    >>> pem_characters(100) == len(to_pem("CERTIFICATE", bytes(100)))
    True
    """
    base64_characters = -(-der_bytes // 3) * 4
    return _CERTIFICATE_LINES + base64_characters + -(-base64_characters // _LINE)
