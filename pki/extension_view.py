"""Read the extensions of a certificate or CRL, and the values of those that this package understands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from chargepki.pki import oids
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import DerProblem, Node, decode_integer, decode_oid, read_level, read_part, read_tree

__all__ = [
    "AccessDescription",
    "AuthorityKeyIdentifier",
    "BasicConstraintsView",
    "ExtensionView",
    "GeneralName",
    "KeyUsageView",
    "KnownExtensions",
    "read_extension",
    "read_extension_value",
    "read_extensions",
]

T = TypeVar("T")


# Named tuples and not dataclasses: dozens are made for each certificate, and they are defined in a sixth of the time,
# which every command pays.


class ExtensionView(NamedTuple):
    """One extension as it stands in the bytes."""

    oid: str
    critical: bool
    value: bytes
    """Content of extnValue."""
    offset: int
    value_offset: int


class BasicConstraintsView(NamedTuple):
    """RFC 5280 4.2.1.9."""

    ca: bool
    path_length: int | None
    false_encoded: bool
    """cA FALSE stands in the bytes although it is the DEFAULT."""


class KeyUsageView(NamedTuple):
    """RFC 5280 4.2.1.3; bit n of `mask` is KeyUsage bit n (1 is digitalSignature)."""

    mask: int
    trailing_zero_bits: bool
    """The named bit list is not trimmed (X.690 11.2.2)."""

    def has(self, bit: int) -> bool:
        """Whether KeyUsage bit number *bit* is set."""
        return bool(self.mask >> bit & 1)


class AuthorityKeyIdentifier(NamedTuple):
    """RFC 5280 4.2.1.1."""

    key_id: bytes | None
    names_issuer: bool
    """authorityCertIssuer or authorityCertSerialNumber is there too."""


class GeneralName(NamedTuple):
    """One GeneralName; `tag` is its context number (2 dNSName, 4 directoryName, 6 URI, 7 iPAddress)."""

    tag: int
    content: bytes

    @property
    def text(self) -> str:
        """The value of a string form; anything else comes out as escaped octets."""
        return self.content.decode("ascii", "backslashreplace")


class AccessDescription(NamedTuple):
    """One entry of AuthorityInfoAccess or SubjectInfoAccess."""

    method: str
    location: GeneralName


class KnownExtensions(NamedTuple):
    """Decoded values; ``None`` means absent or undecodable (the latter is a `DerProblem` of the certificate)."""

    basic_constraints: BasicConstraintsView | None
    key_usage: KeyUsageView | None
    extended_key_usage: tuple[str, ...] | None
    subject_key_id: bytes | None
    authority_key_id: AuthorityKeyIdentifier | None
    authority_info: tuple[AccessDescription, ...] | None
    subject_info: tuple[AccessDescription, ...] | None
    crl_points: tuple[GeneralName, ...] | None
    subject_names: tuple[GeneralName, ...] | None
    policies: tuple[str, ...] | None

    @classmethod
    def read(cls, data: bytes, extensions: Sequence[ExtensionView], problems: list[DerProblem]) -> KnownExtensions:
        """Decode the first of each known extension; *data* is the buffer that the offsets refer to."""
        by_oid = {extension.oid: extension for extension in reversed(extensions)}

        def get(oid: str, reader: Callable[[bytes, Node], T]) -> T | None:
            extension = by_oid.get(oid)
            return None if extension is None else read_extension_value(data, extension, reader, problems)

        return cls(
            basic_constraints=get(oids.BASIC_CONSTRAINTS, _basic_constraints),
            key_usage=get(oids.KEY_USAGE, _key_usage),
            extended_key_usage=get(oids.EXTENDED_KEY_USAGE, _oid_list),
            subject_key_id=get(oids.SUBJECT_KEY_IDENTIFIER, _octets),
            authority_key_id=get(oids.AUTHORITY_KEY_IDENTIFIER, _authority_key_id),
            authority_info=get(oids.AUTHORITY_INFORMATION_ACCESS, _access_descriptions),
            subject_info=get(oids.SUBJECT_INFORMATION_ACCESS, _access_descriptions),
            crl_points=get(oids.CRL_DISTRIBUTION_POINTS, _distribution_points),
            subject_names=get(oids.SUBJECT_ALTERNATIVE_NAME, _general_names),
            policies=get(oids.CERTIFICATE_POLICIES, _policies),
        )


class _Unexpected(DerError):
    """The value is DER, but not of the type that the extension demands."""

    def __init__(self, node: Node) -> None:
        super().__init__("unexpected-tag", node.start, "not of the ASN.1 type of the extension")


def read_extension_value(
    data: bytes, extension: ExtensionView, reader: Callable[[bytes, Node], T], problems: list[DerProblem]
) -> T | None:
    """Decode one value in place, so that offsets count from the start of the object; faults go to *problems*."""
    start = extension.value_offset
    try:
        return read_part(data, start, start + len(extension.value), reader, problems)
    except _Unexpected as error:
        problems.append(
            DerProblem(
                error.offset, error.rule, f"extension {oids.name_of(extension.oid)} does not have its ASN.1 type"
            )
        )
    except DerError as error:
        problems.append(
            DerProblem(error.offset, error.rule, f"in extension {oids.name_of(extension.oid)}: {error.what}")
        )
    return None


_MAX_REMEMBERED_BYTES: Final = 512


@lru_cache(maxsize=512)
def _faultless(raw: bytes) -> ExtensionView | None:
    """Read one extension that stands alone; ``None`` when there is any fault."""
    problems: list[DerProblem] = []
    try:
        found = read_extension(raw, read_tree(raw, 0, len(raw), problems), problems)
    except DerError:
        return None
    return None if problems else found


def read_extensions(data: bytes, holder: Node, problems: list[DerProblem]) -> tuple[ExtensionView, ...]:
    """Read ``[n] EXPLICIT Extensions``; of *holder* only the position counts, it needs no kids.

    Raises:
        DerError: it is not a list of extensions.
    """
    lists = read_level(data, holder.content, holder.end, problems)
    if len(lists) != 1 or lists[0].tag != 0x30:
        raise DerError("unexpected-tag", holder.start, "extensions are a SEQUENCE")
    nodes = read_level(data, lists[0].content, lists[0].end, problems)
    if not nodes:
        problems.append(DerProblem(holder.start, "empty-extensions", "an empty list of extensions is encoded"))
    return tuple([_read_placed(data, node, problems) for node in nodes])


def _read_placed(data: bytes, node: Node, problems: list[DerProblem]) -> ExtensionView:
    """Read the extension at *node*, or put a remembered one (see `read_part`) in that place."""
    start, end = node.start, node.end
    if end - start <= _MAX_REMEMBERED_BYTES and (found := _faultless(data[start:end])) is not None:
        return ExtensionView(found.oid, found.critical, found.value, start, start + found.value_offset)
    return read_extension(data, read_tree(data, start, end, problems), problems)


def read_extension(data: bytes, node: Node, problems: list[DerProblem]) -> ExtensionView:
    """Read one Extension. Raises `DerError` when it is none."""
    kids = node.kids
    tags = [kid.tag for kid in kids]
    if node.tag != 0x30 or tags not in ([0x06, 0x04], [0x06, 0x01, 0x04]):
        raise DerError("unexpected-tag", node.start, "not an Extension")
    critical = False
    if len(kids) == 3:
        critical = data[kids[1].content : kids[1].end] not in (b"", b"\x00")
        if not critical:
            problems.append(DerProblem(kids[1].start, "default-encoded", "the DEFAULT critical FALSE is encoded"))
    value = kids[-1]
    return ExtensionView(
        oid=decode_oid(data[kids[0].content : kids[0].end]),
        critical=critical,
        value=data[value.content : value.end],
        offset=node.start,
        value_offset=value.content,
    )


def _expect(node: Node, tag: int) -> Node:
    if node.tag != tag:
        raise _Unexpected(node)
    return node


def _basic_constraints(data: bytes, node: Node) -> BasicConstraintsView:
    kids = list(_expect(node, 0x30).kids)
    ca = false_encoded = False
    if kids and kids[0].tag == 0x01:
        flag = kids.pop(0)
        ca = data[flag.content : flag.end] not in (b"", b"\x00")
        false_encoded = not ca
    path_length = None
    if kids and kids[0].tag == 0x02:
        number = kids.pop(0)
        path_length = decode_integer(data[number.content : number.end])
    if kids:
        raise _Unexpected(kids[0])
    return BasicConstraintsView(ca, path_length, false_encoded)


_REVERSED_BITS: Final = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


def _key_usage(data: bytes, node: Node) -> KeyUsageView:
    _expect(node, 0x03)
    content = data[node.content : node.end]
    if not content:
        raise _Unexpected(node)
    unused, bits = content[0], content[1:]
    mask = int.from_bytes(bits.translate(_REVERSED_BITS), "little")
    # DER trims a named bit list to its last set bit (X.690 11.2.2), so the last encoded bit is a one.
    trailing = bool(bits) and unused < 8 and not bits[-1] >> unused & 1
    return KeyUsageView(mask, trailing)


def _oid_list(data: bytes, node: Node) -> tuple[str, ...]:
    kids = _expect(node, 0x30).kids
    if not kids:
        raise _Unexpected(node)
    return tuple(decode_oid(data[_expect(kid, 0x06).content : kid.end]) for kid in kids)


def _octets(data: bytes, node: Node) -> bytes:
    _expect(node, 0x04)
    return data[node.content : node.end]


def _authority_key_id(data: bytes, node: Node) -> AuthorityKeyIdentifier:
    key_id = None
    names_issuer = False
    for kid in _expect(node, 0x30).kids:
        if kid.tag == 0x80:
            key_id = data[kid.content : kid.end]
        elif kid.tag in (0xA1, 0x82):
            names_issuer = True
        else:
            raise _Unexpected(kid)
    return AuthorityKeyIdentifier(key_id, names_issuer)


def _general_name(data: bytes, node: Node) -> GeneralName:
    if node.tag & 0xC0 != 0x80:
        raise _Unexpected(node)
    return GeneralName(node.tag & 0x1F, data[node.content : node.end])


def _general_names(data: bytes, node: Node) -> tuple[GeneralName, ...]:
    kids = _expect(node, 0x30).kids
    if not kids:
        raise _Unexpected(node)
    return tuple(_general_name(data, kid) for kid in kids)


def _access_descriptions(data: bytes, node: Node) -> tuple[AccessDescription, ...]:
    found: list[AccessDescription] = []
    for kid in _expect(node, 0x30).kids:
        if kid.tag != 0x30 or len(kid.kids) != 2:
            raise _Unexpected(kid)
        method = _expect(kid.kids[0], 0x06)
        oid = decode_oid(data[method.content : method.end])
        found.append(AccessDescription(oid, _general_name(data, kid.kids[1])))
    if not found:
        raise _Unexpected(node)
    return tuple(found)


def _distribution_points(data: bytes, node: Node) -> tuple[GeneralName, ...]:
    """Return the names of every fullName; other fields are accepted and passed over."""
    found: list[GeneralName] = []
    for point in _expect(node, 0x30).kids:
        for part in _expect(point, 0x30).kids:
            if part.tag == 0xA0:
                for choice in part.kids:
                    if choice.tag == 0xA0:
                        found.extend(_general_name(data, name) for name in choice.kids)
            elif part.tag not in (0x81, 0xA2):
                raise _Unexpected(part)
    if not node.kids:
        raise _Unexpected(node)
    return tuple(found)


def _policies(data: bytes, node: Node) -> tuple[str, ...]:
    found: list[str] = []
    for kid in _expect(node, 0x30).kids:
        if kid.tag != 0x30 or not kid.kids:
            raise _Unexpected(kid)
        policy = _expect(kid.kids[0], 0x06)
        found.append(decode_oid(data[policy.content : policy.end]))
    if not found:
        raise _Unexpected(node)
    return tuple(found)
