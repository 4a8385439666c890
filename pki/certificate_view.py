"""Read a certificate's bytes once into slices and values, tolerantly, so that rules judge and not exceptions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from chargepki.pki import oids
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import (
    DerProblem,
    Node,
    decode_integer,
    decode_oid,
    read_element,
    read_level,
    read_part,
    read_tree,
)
from chargepki.pki.extension_view import ExtensionView, KnownExtensions, read_extensions

__all__ = [
    "MAX_BYTES",
    "AttributeView",
    "CertificateView",
    "KeyView",
    "TimeView",
    "parse_time",
    "read_key",
    "read_name",
    "read_validity",
    "view_certificate",
    "view_name",
    "view_tbs",
]

MAX_BYTES: Final = 256 * 1024
"""Larger certificates are not read: nothing in this domain comes near."""

_MAX_WHOLE_NAME: Final = 512
"""Longer ones are read attribute by attribute, which bounds how many there may be."""

T = TypeVar("T")

_STRING_CODECS: Final = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}


class TimeView(NamedTuple):
    """A Time as it stands in the bytes."""

    tag: int
    """0x17 UTCTime, 0x18 GeneralizedTime."""
    text: bytes
    value: datetime | None
    """``None`` when the text is not in the form that RFC 5280 4.1.2.5 demands."""


class AttributeView(NamedTuple):
    """One attribute of a distinguished name."""

    oid: str
    tag: int
    content: bytes

    @property
    def text(self) -> str:
        """The value as text; undecodable octets become replacement characters."""
        return self.content.decode(_STRING_CODECS.get(self.tag, "latin-1"), "replace")


class KeyView(NamedTuple):
    """SubjectPublicKeyInfo."""

    der: bytes
    algorithm: str
    parameters: bytes | None
    """DER of the parameters; ``None`` when absent."""
    curve: str
    """Dotted OID of a named curve, or the empty string."""
    bits: bytes
    """Value of the BIT STRING without its count of unused bits."""


class CertificateView(NamedTuple):
    """A certificate, or only its to-be-signed part (`der` is ``None`` then). Nothing here has been verified."""

    der: bytes | None
    tbs: bytes
    version: int
    """As encoded: 2 is v3; 0 when the field is absent."""
    serial: int
    serial_content: bytes
    signature_algorithm: bytes
    """DER of tbsCertificate.signature."""
    signature_algorithm_oid: str
    signature_parameters: bytes | None
    outer_algorithm: bytes | None
    signature: bytes | None
    issuer: bytes
    subject: bytes
    issuer_attributes: tuple[AttributeView, ...]
    subject_attributes: tuple[AttributeView, ...]
    not_before: TimeView
    not_after: TimeView
    key: KeyView
    has_unique_ids: bool
    extensions: tuple[ExtensionView, ...]
    known: KnownExtensions
    """Decoded values of the extensions that this package understands."""
    problems: tuple[DerProblem, ...]

    @property
    def is_ca(self) -> bool:
        """Whether BasicConstraints says cA TRUE."""
        constraints = self.known.basic_constraints
        return constraints is not None and constraints.ca

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer have the same encoding."""
        return self.subject == self.issuer

    def extension(self, oid: str) -> ExtensionView | None:
        """Return the first extension with *oid*, or ``None``."""
        for extension in self.extensions:
            if extension.oid == oid:
                return extension
        return None

    def subject_values(self, oid: str) -> list[str]:
        """Return the values of one subject attribute type, in order."""
        return [attribute.text for attribute in self.subject_attributes if attribute.oid == oid]

    @property
    def common_name(self) -> str:
        """The only CN of the subject; the empty string when there is none or more than one."""
        values = self.subject_values(oids.COMMON_NAME)
        return values[0] if len(values) == 1 else ""


def view_certificate(der: bytes) -> CertificateView:
    """Read a whole certificate (DER).

    Raises:
        DerError: the structure is not that of a certificate; smaller faults are in `CertificateView.problems`.
    """
    problems: list[DerProblem] = []
    root = _read_root(der, problems)
    parts = read_level(der, root.content, root.end, problems)
    if [part.tag for part in parts] != [0x30, 0x30, 0x03]:
        raise DerError(
            "not-a-certificate", root.start, "not a Certificate: expected SEQUENCE { SEQUENCE, SEQUENCE, BIT STRING }"
        )
    tbs = parts[0]
    _, algorithm, signature = parts
    outer_algorithm = read_part(der, algorithm.start, algorithm.end, _read_element, problems)
    read_tree(der, signature.start, signature.end, problems)
    return _view(
        der,
        tbs,
        problems,
        outer_algorithm=outer_algorithm,
        signature=der[signature.content + 1 : signature.end],
    )


def view_tbs(tbs: bytes) -> CertificateView:
    """Read a TBSCertificate (DER). Raises like `view_certificate`."""
    problems: list[DerProblem] = []
    return _view(tbs, _read_root(tbs, problems), problems, outer_algorithm=None, signature=None)


def _read_root(data: bytes, problems: list[DerProblem]) -> Node:
    if len(data) > MAX_BYTES:
        raise DerError("too-large", 0, f"{len(data)} bytes are too many for a certificate")
    """Read the header of the outermost SEQUENCE."""
    root = read_element(data, 0, len(data), problems)
    if root.end < len(data):
        problems.append(DerProblem(root.end, "trailing-bytes", f"{len(data) - root.end} bytes follow the object"))
    if root.tag != 0x30:
        raise DerError("unexpected-tag", root.start, "the object is not a SEQUENCE")
    return root


def _view(
    data: bytes, tbs: Node, problems: list[DerProblem], *, outer_algorithm: bytes | None, signature: bytes | None
) -> CertificateView:
    def read(part: Node, reader: Callable[[bytes, Node], T]) -> T:
        return read_part(data, part.start, part.end, reader, problems)

    kids = read_level(data, tbs.content, tbs.end, problems)
    version = 0
    if kids and kids[0].tag == 0xA0:
        holder = kids.pop(0)
        version = read(holder, _read_version)
        if version == 0:
            problems.append(DerProblem(holder.start, "default-encoded", "the DEFAULT version v1 is encoded"))
    if [kid.tag for kid in kids[:6]] != [0x02, 0x30, 0x30, 0x30, 0x30, 0x30]:
        raise DerError("not-a-certificate", tbs.start, "not a TBSCertificate: its first fields have other tags")
    serial, algorithm, issuer, validity, subject, spki = kids[:6]
    algorithm_oid, parameters = read(algorithm, _read_algorithm)
    not_before, not_after = read(validity, read_validity)
    # No two certificates of a CA have these two alike, so nothing of them is remembered.
    serial_content = _read_content(data, read_tree(data, serial.start, serial.end, problems))
    key = read_key(data, read_tree(data, spki.start, spki.end, problems))
    has_unique_ids, extensions = _read_tail(data, kids[6:], problems)
    known = KnownExtensions.read(data, extensions, problems)
    issuer_der, subject_der = data[issuer.start : issuer.end], data[subject.start : subject.end]
    # All certificates of a CA have its name whole; of their subjects they have some attributes.
    is_short = issuer.end - issuer.start <= _MAX_WHOLE_NAME
    issuer_attributes = read(issuer, _read_whole_name) if is_short else read_name(data, issuer, problems)
    return CertificateView(
        der=data if outer_algorithm is not None else None,
        tbs=data[tbs.start : tbs.end],
        version=version,
        serial=decode_integer(serial_content),
        serial_content=serial_content,
        signature_algorithm=data[algorithm.start : algorithm.end],
        signature_algorithm_oid=algorithm_oid,
        signature_parameters=parameters,
        outer_algorithm=outer_algorithm,
        signature=signature,
        issuer=issuer_der,
        subject=subject_der,
        issuer_attributes=issuer_attributes,
        subject_attributes=issuer_attributes if subject_der == issuer_der else read_name(data, subject, problems),
        not_before=not_before,
        not_after=not_after,
        key=key,
        has_unique_ids=has_unique_ids,
        extensions=extensions,
        known=known,
        problems=tuple(problems),
    )


def _read_tail(data: bytes, kids: list[Node], problems: list[DerProblem]) -> tuple[bool, tuple[ExtensionView, ...]]:
    """Read what may follow the key: unique ids, extensions."""
    has_unique_ids = False
    extensions: tuple[ExtensionView, ...] = ()
    last = 0
    for kid in kids:
        number = kid.tag & 0x1F
        if kid.tag not in (0x81, 0x82, 0xA1, 0xA2, 0xA3) or number <= last:
            raise DerError("unexpected-tag", kid.start, "an unexpected field follows the public key")
        last = number
        if number == 3:
            extensions = read_extensions(data, kid, problems)
        else:
            read_tree(data, kid.start, kid.end, problems)
            has_unique_ids = True
    return has_unique_ids, extensions


def _read_algorithm(data: bytes, node: Node) -> tuple[str, bytes | None]:
    """Return the OID and the DER of the parameters of an AlgorithmIdentifier."""
    kids = node.kids
    if not 1 <= len(kids) <= 2 or kids[0].tag != 0x06:
        raise DerError("unexpected-tag", node.start, "not an AlgorithmIdentifier")
    parameters = data[kids[1].start : kids[1].end] if len(kids) == 2 else None
    return decode_oid(data[kids[0].content : kids[0].end]), parameters


def read_key(data: bytes, node: Node) -> KeyView:
    """Read a SubjectPublicKeyInfo. Raises `DerError` when it is none."""
    if len(node.kids) != 2 or node.kids[0].tag != 0x30 or node.kids[1].tag != 0x03:
        raise DerError("unexpected-tag", node.start, "not a SubjectPublicKeyInfo")
    algorithm, parameters = _read_algorithm(data, node.kids[0])
    curve = ""
    if parameters is not None and parameters[:1] == b"\x06":
        holder = node.kids[0].kids[1]
        curve = decode_oid(data[holder.content : holder.end])
    bits = data[node.kids[1].content + 1 : node.kids[1].end]
    return KeyView(data[node.start : node.end], algorithm, parameters, curve, bits)


def read_name(data: bytes, name: Node, problems: list[DerProblem]) -> tuple[AttributeView, ...]:
    """Flatten an RDNSequence into its attributes, in encoded order; of *name* only the position counts."""
    attributes: tuple[AttributeView, ...] = ()
    for rdn in read_level(data, name.content, name.end, problems):
        attributes += read_part(data, rdn.start, rdn.end, _read_rdn, problems)
    return attributes


def _read_whole_name(data: bytes, name: Node) -> tuple[AttributeView, ...]:
    attributes: tuple[AttributeView, ...] = ()
    for rdn in name.kids:
        attributes += _read_rdn(data, rdn)
    return attributes


def _read_rdn(data: bytes, rdn: Node) -> tuple[AttributeView, ...]:
    if rdn.tag != 0x31 or not rdn.kids:
        raise DerError("unexpected-tag", rdn.start, "a name is a SEQUENCE of non-empty SETs")
    attributes: list[AttributeView] = []
    for pair in rdn.kids:
        if pair.tag != 0x30 or len(pair.kids) != 2 or pair.kids[0].tag != 0x06:
            raise DerError("unexpected-tag", pair.start, "not an AttributeTypeAndValue")
        kind, value = pair.kids
        oid = decode_oid(data[kind.content : kind.end])
        attributes.append(AttributeView(oid, value.tag, data[value.content : value.end]))
    return tuple(attributes)


def view_name(name_der: bytes) -> tuple[AttributeView, ...]:
    """Return the attributes of an encoded Name. Raises `DerError` when it is none."""
    problems: list[DerProblem] = []
    return read_name(name_der, read_element(name_der, 0, len(name_der), problems), problems)


def _read_version(data: bytes, holder: Node) -> int:
    if len(holder.kids) != 1 or holder.kids[0].tag != 0x02:
        raise DerError("unexpected-tag", holder.start, "version is not an INTEGER")
    return decode_integer(data[holder.kids[0].content : holder.kids[0].end])


def _read_content(data: bytes, node: Node) -> bytes:
    return data[node.content : node.end]


def _read_element(data: bytes, node: Node) -> bytes:
    return data[node.start : node.end]


def read_validity(data: bytes, validity: Node) -> tuple[TimeView, TimeView]:
    """Read a Validity. Raises `DerError` when it is none."""
    if len(validity.kids) != 2:
        raise DerError("not-a-certificate", validity.start, "validity does not hold two times")
    return _read_time(data, validity.kids[0]), _read_time(data, validity.kids[1])


def _read_time(data: bytes, node: Node) -> TimeView:
    if node.tag not in (0x17, 0x18):
        raise DerError("unexpected-tag", node.start, "not a Time")
    text = data[node.content : node.end]
    return TimeView(node.tag, text, parse_time(node.tag, text))


@lru_cache(maxsize=256)
def parse_time(tag: int, text: bytes) -> datetime | None:
    """Return the instant of ``YYMMDDHHMMSSZ`` (0x17) or ``YYYYMMDDHHMMSSZ`` (0x18); ``None`` for any other form."""
    if tag == 0x17:
        text = (b"20" if text < b"5" else b"19") + text
    # Some versions of Python take hour 24 for the next midnight.
    if len(text) != 15 or text[14] != 0x5A or not text[:14].isdigit() or text[8:10] > b"23":
        return None
    written = text.decode("ascii")
    try:
        return datetime.fromisoformat(f"{written[:8]}T{written[8:]}")
    except ValueError:
        return None
