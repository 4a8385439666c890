"""Read a revocation list's bytes once, tolerantly and entry by entry, so that rules judge and not exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki import oids
from chargepki.pki.certificate_view import TimeView, parse_time
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import DerProblem, Node, decode_integer, decode_oid, read_tree
from chargepki.pki.extension_view import ExtensionView, read_extensions

__all__ = ["MAX_CRL_BYTES", "CrlContent", "EntryContent", "contains_serial", "read_crl"]

MAX_CRL_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EntryContent:
    """One entry of revokedCertificates as it stands in the bytes."""

    offset: int
    serial: int
    serial_octets: int
    revoked_at: TimeView
    reason: int | None
    invalidity_date: datetime | None
    unknown_critical: str
    """OID of a critical entry extension that we do not know, or the empty string."""


@dataclass(frozen=True, slots=True)
class CrlContent:
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


def read_crl(data: bytes) -> CrlContent:
    """Read a CertificateList or a TBSCertList (DER).

    Raises:
        DerError: the structure is not that of a CRL; smaller faults are in `CrlContent.problems`.
    """
    if len(data) > MAX_CRL_BYTES:
        raise DerError("too-large", 0, f"{len(data)} bytes are too many for a CRL")
    problems: list[DerProblem] = []
    root = read_tree(data, 0, len(data), problems)
    if [kid.tag for kid in root.kids] == [0x30, 0x30, 0x03]:
        tbs, algorithm, signature = root.kids
        outer = data[algorithm.start : algorithm.end], data[signature.content + 1 : signature.end]
        return _read(data, tbs, problems, *outer)
    return _read(data, root, problems, None, None)


def _read(
    data: bytes, tbs: Node, problems: list[DerProblem], outer_algorithm: bytes | None, signature: bytes | None
) -> CrlContent:
    kids = list(tbs.kids)
    version = 0
    if kids and kids[0].tag == 0x02:
        node = kids.pop(0)
        version = decode_integer(data[node.content : node.end])
    if [kid.tag for kid in kids[:2]] != [0x30, 0x30] or len(kids) < 3 or kids[2].tag not in (0x17, 0x18):
        raise DerError("not-a-crl", tbs.start, "not a CertificateList: its first fields have other tags")
    algorithm, issuer, this_update = kids[:3]
    rest = kids[3:]
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
        signature_algorithm=data[algorithm.start : algorithm.end],
        outer_algorithm=outer_algorithm,
        signature=signature,
        issuer=data[issuer.start : issuer.end],
        this_update=_time(data, this_update),
        next_update=next_update,
        entries=tuple(_entries(data, revoked, problems)) if revoked is not None else (),
        has_empty_list=revoked is not None and not revoked.kids,
        extensions=extensions,
        number=_as_integer(values.get(oids.CRL_NUMBER)),
        delta_base=_as_integer(values.get(oids.DELTA_CRL_INDICATOR)),
        authority_key_id=_key_id(values.get(oids.AUTHORITY_KEY_IDENTIFIER)),
        distribution_point=_point_url(values.get(oids.ISSUING_DISTRIBUTION_POINT)),
        problems=tuple(problems),
    )


def _time(data: bytes, node: Node) -> TimeView:
    text = data[node.content : node.end]
    return TimeView(node.tag, text, parse_time(node.tag, text))


def _entries(data: bytes, revoked: Node, problems: list[DerProblem]) -> Iterator[EntryContent]:
    for node in revoked.kids:
        kids = node.kids
        if (
            node.tag != 0x30
            or not 2 <= len(kids) <= 3
            or kids[0].tag != 0x02
            or kids[1].tag not in (0x17, 0x18)
            or (len(kids) == 3 and kids[2].tag != 0x30)
        ):
            raise DerError("not-a-crl", node.start, "not an entry of revokedCertificates")
        reason, invalidity, unknown = None, None, ""
        if len(kids) == 3:
            reason, invalidity, unknown = _entry_extensions(data, kids[2], problems)
        serial = kids[0]
        yield EntryContent(
            offset=node.start,
            serial=decode_integer(data[serial.content : serial.end]),
            serial_octets=serial.end - serial.content,
            revoked_at=_time(data, kids[1]),
            reason=reason,
            invalidity_date=invalidity,
            unknown_critical=unknown,
        )


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

    An entry holds the INTEGER's encoding literally, so a list without those bytes is answered without decoding it.
    """
    size = ((serial + (serial < 0)).bit_length() + 8) // 8
    if serial.to_bytes(size, "big", signed=True) not in data:
        return False
    return any(entry.serial == serial for entry in read_crl(data).entries)
