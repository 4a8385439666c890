"""Read a revocation list's bytes once, tolerantly and entry by entry, so that rules judge and not exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from chargepki.pki import der, oids
from chargepki.pki.certificate_view import TimeView, parse_time
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import DerProblem, Node, decode_integer, decode_oid, read_element, read_level, read_tree
from chargepki.pki.extension_view import ExtensionView, read_extensions

__all__ = ["MAX_CRL_BYTES", "CrlContent", "EntryContent", "contains_serial", "read_crl"]

MAX_CRL_BYTES: Final = 64 * 1024 * 1024
_MAX_PART_BYTES: Final = 256 * 1024
"""Of any field but the list of entries, and of one entry: only the list itself may be long."""
_MOST_TAILS: Final = 4096
"""Distinct endings of entries (reason, invalidity date) that are remembered while one list is read."""


class EntryContent(NamedTuple):
    """One entry of revokedCertificates as it stands in the bytes. A named tuple, since there may be very many."""

    offset: int
    serial: int
    serial_octets: int
    revoked_at: TimeView
    reason: int | None
    invalidity_date: datetime | None
    unknown_critical: str
    """OID of a critical entry extension that we do not know, or the empty string."""


class CrlContent(NamedTuple):
    """A CertificateList, or only its to-be-signed part (`outer_algorithm` is ``None`` then)."""

    der: bytes
    tbs: bytes
    version: int
    signature_algorithm: bytes
    outer_algorithm: bytes | None
    signature: bytes | None
    issuer: bytes
    this_update: TimeView
    next_update: TimeView | None
    entries: tuple[EntryContent, ...]
    has_empty_list: bool
    """revokedCertificates is present without entries, which RFC 5280 5.1.2.6 forbids."""
    extensions: tuple[ExtensionView, ...]
    number: int | None
    delta_base: int | None
    authority_key_id: bytes | None
    distribution_point: str | None
    problems: tuple[DerProblem, ...]

    def extension(self, oid: str) -> ExtensionView | None:
        """Return the extension with *oid*, or ``None``."""
        return next((extension for extension in self.extensions if extension.oid == oid), None)


def read_crl(data: bytes, *, skip_entries: bool = False) -> CrlContent:
    """Read a CertificateList or a TBSCertList (DER).

    Args:
        skip_entries: leave revokedCertificates unread, which may be a hundred thousand entries; `entries` is empty.

    Raises:
        DerError: the structure is not that of a CRL; smaller faults are in `CrlContent.problems`.
    """
    problems: list[DerProblem] = []
    tbs, fields, algorithm, signature = _open(data, problems)
    outer_algorithm = None if algorithm is None else data[algorithm.start : algorithm.end]
    version = 0
    if fields and fields[0].tag == 0x02:
        node = fields.pop(0)
        version = decode_integer(data[node.content : node.end])
    if [node.tag for node in fields[:2]] != [0x30, 0x30] or len(fields) < 3 or fields[2].tag not in (0x17, 0x18):
        raise DerError("not-a-crl", tbs.start, "not a CertificateList: its first fields have other tags")
    inner_algorithm, issuer, this_update = fields[:3]
    rest = fields[3:]
    next_update = _time(data, rest.pop(0)) if rest and rest[0].tag in (0x17, 0x18) else None
    revoked = rest.pop(0) if rest and rest[0].tag == 0x30 else None
    extensions = read_extensions(data, rest.pop(0), problems) if rest and rest[0].tag == 0xA0 else ()
    if rest:
        raise DerError("unexpected-tag", rest[0].start, "an unexpected field in the CertificateList")
    values = _extension_values(extensions, problems)
    return CrlContent(
        der=data,
        tbs=data[tbs.start : tbs.end],
        version=version,
        signature_algorithm=data[inner_algorithm.start : inner_algorithm.end],
        outer_algorithm=outer_algorithm,
        signature=None if signature is None else _whole_octets(data, signature, problems),
        issuer=data[issuer.start : issuer.end],
        this_update=_time(data, this_update),
        next_update=next_update,
        entries=()
        if revoked is None or skip_entries
        else tuple(_entries(data, revoked.content, revoked.end, problems)),
        has_empty_list=revoked is not None and revoked.content == revoked.end,
        extensions=extensions,
        number=_as_integer(values.get(oids.CRL_NUMBER)),
        delta_base=_as_integer(values.get(oids.DELTA_CRL_INDICATOR)),
        authority_key_id=_key_id(values.get(oids.AUTHORITY_KEY_IDENTIFIER)),
        distribution_point=_point_url(values.get(oids.ISSUING_DISTRIBUTION_POINT)),
        problems=tuple(problems),
    )


def _whole_octets(data: bytes, node: Node, problems: list[DerProblem]) -> bytes:
    """Return the value of a signature; no octets, which never verify, where it has unused bits."""
    if data[node.content : node.content + 1] == b"\0":
        return data[node.content + 1 : node.end]
    problems.append(DerProblem(node.start, "bad-bit-string", "a signature is whole octets"))
    return b""


_Opened: TypeAlias = tuple[Node, list[Node], Node | None, Node | None]


def _open(data: bytes, problems: list[DerProblem]) -> _Opened:
    """Return the to-be-signed part, its fields, and the signature's two fields if they are there.

    revokedCertificates, which may be most of a megabyte, and the extensions are returned without their kids.
    """
    if len(data) > MAX_CRL_BYTES:
        raise DerError("too-large", 0, f"{len(data)} bytes are too many for a CRL")
    outermost = read_element(data, 0, len(data), problems)
    if outermost.tag != 0x30:
        raise DerError("not-a-crl", 0, "the object is not a SEQUENCE")
    if outermost.end < len(data):
        end = outermost.end
        problems.append(DerProblem(end, "trailing-bytes", f"{len(data) - end} bytes follow the object"))
    parts = read_level(data, outermost.content, outermost.end, problems)
    tbs, algorithm, signature = outermost, None, None
    if [part.tag for part in parts] == [0x30, 0x30, 0x03]:
        tbs = parts[0]
        if parts[2].end - parts[1].start > _MAX_PART_BYTES:
            raise DerError("too-large", parts[1].start, f"a signature of {parts[2].end - parts[1].start} bytes")
        algorithm, signature = (read_tree(data, part.start, part.end, problems) for part in parts[1:])
        parts = read_level(data, tbs.content, tbs.end, problems)
    fields: list[Node] = []
    for part in parts:
        # Only revokedCertificates is a SEQUENCE after a time.
        revoked = part.tag == 0x30 and bool(fields) and fields[-1].tag in (0x17, 0x18)
        if not revoked and part.end - part.start > _MAX_PART_BYTES:
            raise DerError("too-large", part.start, f"a field of {part.end - part.start} bytes")
        fields.append(part if revoked or part.tag == 0xA0 else read_tree(data, part.start, part.end, problems))
    return tbs, fields, algorithm, signature


def _time(data: bytes, node: Node) -> TimeView:
    text = data[node.content : node.end]
    return TimeView(node.tag, text, parse_time(node.tag, text))


_Tail: TypeAlias = tuple[int | None, datetime | None, str]


def _entries(data: bytes, pos: int, end: int, problems: list[DerProblem]) -> Iterator[EntryContent]:
    """Read revokedCertificates. The usual form of an entry is taken apart by hand: a list may hold a million."""
    tails: dict[bytes, _Tail] = {b"": (None, None, "")}
    dates: dict[bytes, TimeView] = {}
    while pos < end:
        # SEQUENCE { INTEGER, UTCTime, … } with one-octet lengths; anything else goes the general way.
        stop = pos + 2 + data[pos + 1] if pos + 20 <= end else pos
        date_at = pos + 4 + data[pos + 3] if pos < stop <= end else stop
        usual = (
            date_at + 15 <= stop < pos + 0x82
            and data[pos] == 0x30
            and data[pos + 2] == 0x02
            and date_at > pos + 4
            and (0 < data[pos + 4] < 0x80 or (data[pos + 4] == 0 and data[pos + 5] >= 0x80 and date_at > pos + 5))
            and data[date_at] == 0x17
            and data[date_at + 1] == 13
        )
        if usual and (tail := tails.get(data[date_at + 15 : stop])) is not None:
            text = data[date_at + 2 : date_at + 15]
            time = dates.get(text)
            if time is None:
                time = dates[text] = TimeView(0x17, text, parse_time(0x17, text))
            serial = int.from_bytes(data[pos + 4 : date_at], "big")
            yield EntryContent(pos, serial, date_at - pos - 4, time, *tail)
            pos = stop
            continue
        header = read_element(data, pos, end, problems)
        if header.end - pos > _MAX_PART_BYTES:
            raise DerError("too-large", pos, f"an entry of {header.end - pos} bytes")
        before = len(problems)
        entry = _entry(data, read_tree(data, pos, header.end, problems), problems)
        if usual and len(problems) == before and len(tails) < _MOST_TAILS:
            tails[data[date_at + 15 : stop]] = entry.reason, entry.invalidity_date, entry.unknown_critical
        yield entry
        pos = header.end


def _entry(data: bytes, node: Node, problems: list[DerProblem]) -> EntryContent:
    kids = node.kids
    if (
        node.tag != 0x30
        or not 2 <= len(kids) <= 3
        or kids[0].tag != 0x02
        or kids[1].tag not in (0x17, 0x18)
        or (len(kids) == 3 and kids[2].tag != 0x30)
    ):
        raise DerError("not-a-crl", node.start, "not an entry of revokedCertificates")
    tail: _Tail = _entry_extensions(data, kids[2], problems) if len(kids) == 3 else (None, None, "")
    serial = kids[0]
    value = decode_integer(data[serial.content : serial.end])
    return EntryContent(node.start, value, serial.end - serial.content, _time(data, kids[1]), *tail)


def _entry_extensions(data: bytes, node: Node, problems: list[DerProblem]) -> tuple[int | None, datetime | None, str]:
    reason, invalidity, unknown = None, None, ""
    for extension in node.kids:
        tags = [kid.tag for kid in extension.kids]
        if extension.tag != 0x30 or tags not in ([0x06, 0x04], [0x06, 0x01, 0x04]):
            raise DerError("unexpected-tag", extension.start, "not an entry extension")
        oid = decode_oid(data[extension.kids[0].content : extension.kids[0].end])
        value = data[extension.kids[-1].content : extension.kids[-1].end]
        if oid == oids.REASON_CODE and value[:1] == b"\x0a" and len(value) == 3 and value[1] == 1:
            reason = value[2]
        elif oid == oids.REASON_CODE:
            problems.append(DerProblem(extension.start, "bad-reason", "the reason code is not a one-octet ENUMERATED"))
        elif oid == oids.INVALIDITY_DATE and value[:2] == b"\x18\x0f":
            invalidity = parse_time(0x18, value[2:])
        elif len(extension.kids) == 3:
            unknown = oid
    return reason, invalidity, unknown


def _extension_values(
    extensions: tuple[ExtensionView, ...], problems: list[DerProblem]
) -> dict[str, tuple[bytes, Node]]:
    """Decode each extension value; the offsets in the nodes count from the start of the value."""
    values: dict[str, tuple[bytes, Node]] = {}
    for extension in extensions:
        inner: list[DerProblem] = []
        try:
            values.setdefault(
                extension.oid, (extension.value, read_tree(extension.value, 0, len(extension.value), inner))
            )
        except DerError as error:
            inner.append(DerProblem(error.offset, error.rule, error.what))
        problems += [DerProblem(extension.value_offset + p.offset, p.rule, p.what) for p in inner]
    return values


def _as_integer(value: tuple[bytes, Node] | None) -> int | None:
    if value is None or value[1].tag != 0x02:
        return None
    return decode_integer(value[0][value[1].content : value[1].end])


def _key_id(value: tuple[bytes, Node] | None) -> bytes | None:
    if value is None:
        return None
    data, node = value
    return next((data[kid.content : kid.end] for kid in node.kids if kid.tag == 0x80), None)


def _point_url(value: tuple[bytes, Node] | None) -> str | None:
    """Return the first URI of IssuingDistributionPoint's fullName."""
    if value is None:
        return None
    data, node = value
    for part in (kid for kid in node.kids if kid.tag == 0xA0):
        for choice in (kid for kid in part.kids if kid.tag == 0xA0):
            for name in choice.kids:
                if name.tag == 0x86:
                    return data[name.content : name.end].decode("ascii", "backslashreplace")
    return None


def contains_serial(data: bytes, serial: int) -> bool:
    """Say whether a CRL lists *serial*; fast on large lists.

    An entry begins with the serial number, so its encoding is looked for there, entry by entry, and nothing else is
    decoded; a list without those octets anywhere is not even walked through.

    Raises:
        DerError: it is no CRL, or its list cannot be followed.
    """
    wanted = der.integer(serial)
    problems: list[DerProblem] = []
    _, fields, _, _ = _open(data, problems)
    times = [index for index, field in enumerate(fields) if field.tag in (0x17, 0x18)]
    if not times:
        raise DerError("not-a-crl", 0, "not a CertificateList: it has no thisUpdate")
    after = fields[times[-1] + 1 :]
    if not after or after[0].tag != 0x30 or wanted not in data:
        return False
    pos, end = after[0].content, after[0].end
    while pos < end:
        size = data[pos + 1] if pos + 1 < end else 0x80
        if size < 0x80:
            content, stop = pos + 2, pos + 2 + size
        else:
            element = read_element(data, pos, end, problems)
            content, stop = element.content, element.end
        if data.startswith(wanted, content, stop):
            return True
        pos = stop
    return False
