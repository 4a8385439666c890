"""Read a certificate of the usual shape in five strides: patterns hold what stands at fixed places to what it must be.

Validation is measured against its bare signature checks, and reading a certificate element by element takes a seventh
of one. What does not match is not refused here: `PathCertificate` then reads it with care, and finds the same or an
error.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from chargepki.pki import der, keys, oids
from chargepki.pki.chain.reading import USUAL_CONSTRAINTS, USUAL_USAGES, read_header, with_century
from chargepki.pki.chain.strength import STRONG_KEYS
from chargepki.pki.chain.understood import RESTRICTIONS, content_of_oid

__all__ = ["UsualFields", "read_usual"]


UsualFields: TypeAlias = tuple[
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    dict[bytes, bytes | None],
    tuple[bool, int | None],
    int | None,
    int,
]
"""What path processing reads of a v3 certificate: `tbs`, the octets of its serial number, `algorithm`, `issuer`,
`valid_from`, `valid_until`, `subject`, `spki`, `signature`, the extensions (``None`` for some that are absent), `is_ca`
with `path_length`, `key_usage` and `restricts`. The attributes of `PathCertificate` say what each means."""


# ---------------------------------------------------------------- patterns

# Version 3, and a serial number of at most 20 octets without a superfluous one.
_HEAD: Final = re.compile(
    rb"\x30\x82[^\x00].\x30\x82[^\x00].\xa0\x03\x02\x01\x02\x02[\x01-\x14](?!\x00[\x00-\x7f]|\xff[\x80-\xff])",
    re.DOTALL,
).match
_SERIAL: Final = 15
"""Where the content of the serial number begins."""

# A pattern that a name follows takes the name's header too: the length there says where the next pattern begins.
_NAME: Final = rb"\x30[\x00-\x7f]"
_ALGORITHMS: Final = dict.fromkeys(
    (
        *(keys.signature_algorithm(each).der for each in keys.KeyAlgorithm),
        *(der.sequence(der.oid(oid), der.null()) for oid in (oids.SHA256_WITH_RSA, oids.SHA384_WITH_RSA)),
    )
)
_SIGNED: Final = re.compile(b"(" + b"|".join(map(re.escape, _ALGORITHMS)) + b")" + _NAME).match

# Instants that the calendar has. The 29th of February is left to those who know which years have one.
_IN_YEAR: Final = (
    rb"(?:(?:0[1-9]|1[0-2])(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])(?:29|30)|(?:0[13578]|1[02])31)"
    rb"(?:[01]\d|2[0-3])[0-5]\d[0-5]\d"
)
_UTC: Final = rb"\x17\x0d(\d\d" + _IN_YEAR + b")Z"
# From 2050 on it is a GeneralizedTime (RFC 5280 4.1.2.5), and many a root lives that long.
_GENERALIZED: Final = rb"\x18\x0f([1-9]\d{3}" + _IN_YEAR + b")Z"
_VALIDITY: Final = re.compile(rb"\x30(?:\x1e" + _UTC + _UTC + rb"|\x20" + _UTC + _GENERALIZED + b")" + _NAME).match


def _key(start: bytes) -> bytes:
    length = read_header(start, 0, 1 << 16)[2]
    return re.escape(start) + b".{%d}" % (length - len(start))


def _extension(dotted: str, values: dict[int, bytes]) -> bytes:
    """Return the pattern of an Extension, critical or not; *values*: patterns of the content of extnValue, by length.

    The group is that content. The octet before it ties it to the length that the headers were made for.
    """
    name = der.oid(dotted)
    # DER leaves the DEFAULT out, but FALSE is written so often that refusing it would help nobody.
    flags = {b"": 0, rb"\x01\x01[\x00\xff]": 3}
    heads = [
        re.escape(bytes((0x30, len(name) + octets + 2 + length)) + name) + flag + re.escape(bytes((0x04, length)))
        for length in values
        for flag, octets in flags.items()
    ]
    tied = [b"(?<=" + re.escape(bytes((length,))) + b")" + value for length, value in values.items()]
    return b"(?:" + b"|".join(heads) + b")(" + b"|".join(tied) + b")"


_FIXED: Final = {
    oids.BASIC_CONSTRAINTS: {
        2: rb"\x30\x00",
        5: rb"\x30\x03\x01\x01\xff",
        8: rb"\x30\x06\x01\x01\xff\x02\x01[\x00-\x7f]",
    },
    oids.KEY_USAGE: {4: rb"\x03\x02[\x00-\x07]."},
    oids.SUBJECT_KEY_IDENTIFIER: {22: rb"\x04\x14.{20}", 10: rb"\x04\x08.{8}"},
    oids.AUTHORITY_KEY_IDENTIFIER: {24: rb"\x30\x16\x80\x14.{20}", 12: rb"\x30\x0a\x80\x08.{8}"},
}
"""Extensions of few lengths. The others have as many as the texts in them, and no pattern follows a length."""
_BASIC_CONSTRAINTS, _KEY_USAGE, _SUBJECT_ID, _AUTHORITY_ID = map(content_of_oid, _FIXED)

_AUTHORITY: Final[dict[bytes | None, tuple[bool, int | None]]] = {None: (False, None)} | USUAL_CONSTRAINTS
_USAGES: Final[dict[bytes | None, int | None]] = {None: None} | USUAL_USAGES

# A key of an algorithm whose keys are all strong, the headers of the list of extensions, and those with which most
# lists begin. They are in this order nearly everywhere; what is not is found with the others.
_KEY_AND_FIRST: Final = re.compile(
    b"(" + b"|".join(map(_key, STRONG_KEYS)) + b")"
    rb"\xa3(?:[\x00-\x7f]\x30[\x00-\x7f]|\x81[\x80-\xff]\x30\x81[\x80-\xff]|\x82[\x01-\xff].\x30\x82[\x01-\xff].)"
    + b"".join(b"(?:%s|)" % _extension(dotted, values) for dotted, values in _FIXED.items()),
    re.DOTALL,
).match

# The octets of an Extension from its third on -> the content octets of its identifier, what it restricts, whether it
# says `critical`, and where the content of extnValue begins, counted from the start. Identifiers have three octets, or
# eight like that of AuthorityInfoAccess.
_STARTS: Final = {
    der.tlv(0x06, name) + bytes((tag,)): (name, restricts, tag == 0x01, len(name) + offset)
    for name, restricts in RESTRICTIONS.items()
    if len(name) in (3, 8)
    for tag, offset in ((0x04, 6), (0x01, 9))
}
_FLAGS: Final = frozenset({b"\x01\x01\xff\x04", b"\x01\x01\x00\x04"})


# ---------------------------------------------------------------- reading


def read_usual(data: bytes) -> UsualFields | None:
    """Return what `PathCertificate` reads of *data* (DER); ``None`` when that has to be read with care.

    Nothing is wrong with what this answers: it has neither an unknown extension, nor one twice, nor a weak key.

    Raises:
        IndexError: to be read with care: it is cut off.
        KeyError: to be read with care: BasicConstraints or KeyUsage is unusual.
    """
    end = len(data)
    if _HEAD(data) is None or 4 + (data[2] << 8 | data[3]) != end:
        return None
    tbs_end = 8 + (data[6] << 8 | data[7])
    at = _SERIAL + data[_SERIAL - 1]
    serial = data[_SERIAL:at]
    signed = _SIGNED(data, at, tbs_end)
    if signed is None:
        return None
    algorithm, at = signed[1], signed.end()
    stop = at + data[at - 1]
    issuer = data[at - 2 : stop]
    validity = _VALIDITY(data, stop, tbs_end)
    if validity is None:
        return None
    begins, ends, begins_early, ends_late = validity.groups()
    at = validity.end()
    stop = at + data[at - 1]
    subject = data[at - 2 : stop]
    found = _KEY_AND_FIRST(data, stop, tbs_end)
    if found is None or not _fill(data, found.end(1), tbs_end):
        return None
    spki, constraints, usage, subject_id, authority_id = found.groups()
    extensions: dict[bytes, bytes | None] = {
        _BASIC_CONSTRAINTS: constraints,
        _KEY_USAGE: usage,
        _SUBJECT_ID: subject_id,
        _AUTHORITY_ID: authority_id,
    }
    restricts = _read_others(data, found.end(), tbs_end, extensions)
    bits = _find_bits(data, tbs_end, end, algorithm)
    if restricts is None or bits is None:
        return None
    return (
        data[4:tbs_end],
        serial,
        algorithm,
        issuer,
        with_century(begins or begins_early),
        ends_late or with_century(ends),
        # Roots say their name twice: one object, so that comparing is free.
        issuer if subject == issuer else subject,
        spki,
        data[bits:],
        extensions,
        # Either may have come later than the pattern could see.
        _AUTHORITY[constraints or extensions[_BASIC_CONSTRAINTS]],
        _USAGES[usage or extensions[_KEY_USAGE]],
        restricts,
    )


def _fill(data: bytes, at: int, end: int) -> bool:
    """Whether the list of extensions and what holds it, with lengths of equally many octets, both end at *end*."""
    first = data[at + 1]
    if first == 0x81:
        return at + 3 + data[at + 2] == end == at + 6 + data[at + 5]
    if first == 0x82:
        return at + 4 + (data[at + 2] << 8 | data[at + 3]) == end == at + 8 + (data[at + 6] << 8 | data[at + 7])
    return at + 2 + first == end == at + 4 + data[at + 3]


def _read_others(data: bytes, at: int, end: int, extensions: dict[bytes, bytes | None]) -> int | None:
    """Add the extensions from *at* on; return what they restrict, ``None`` when one is unknown, there twice or long."""
    restricts = 0
    start_of = _STARTS.get
    while at < end:
        start = start_of(data[at + 2 : at + 8]) or start_of(data[at + 2 : at + 13])
        if start is None:
            return None
        name, mask, is_flagged, offset = start
        content, stop = at + offset, at + 2 + data[at + 1]
        if (
            data[at] != 0x30
            or data[at + 1] > 0x7F
            or content + data[content - 1] != stop
            or (is_flagged and data[content - 5 : content - 1] not in _FLAGS)
            or extensions.get(name) is not None
        ):
            return None
        extensions[name] = data[content:stop]
        restricts |= mask
        at = stop
    return restricts if at == end else None


def _find_bits(data: bytes, at: int, end: int, algorithm: bytes) -> int | None:
    """Return where the bits of the signature begin, which follows *algorithm* and ends at *end*; ``None``: not so."""
    if not data.startswith(algorithm, at):
        return None
    at += len(algorithm)
    length, first = end - at - 2, data[at + 1]
    if first == length < 0x80:
        bits = at + 3
    elif first == 0x81 and 0x7F < data[at + 2] == length - 1:
        bits = at + 4
    elif first == 0x82 and 0xFF < (data[at + 2] << 8 | data[at + 3]) == length - 2:
        bits = at + 5
    else:
        return None
    return bits if data[at] == 0x03 and data[bits - 1] == 0 else None
