"""Distinguished names: build them, and compare them in their encoded form, never as text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chargepki.pki import der, oids
from chargepki.pki.errors import InputError, printable

if TYPE_CHECKING:
    # Imported where a name is built: half of the time of a command that only reads certificates would go there.
    from cryptography import x509

__all__ = [
    "SHORT_NAMES",
    "attributes",
    "build_name",
    "folded",
    "folded_or_itself",
    "get",
    "name_der",
    "name_from_der",
    "parse_rdns",
    "same",
    "text",
]

SHORT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CN": oids.COMMON_NAME,
        "O": oids.ORGANIZATION_NAME,
        "OU": oids.ORGANIZATIONAL_UNIT_NAME,
        "C": oids.COUNTRY_NAME,
        "DC": oids.DOMAIN_COMPONENT,
        "L": oids.LOCALITY_NAME,
        "ST": oids.STATE_OR_PROVINCE_NAME,
        "STREET": oids.STREET_ADDRESS,
        "serialNumber": oids.SERIAL_NUMBER,
        "SN": oids.SURNAME,
        "GN": oids.GIVEN_NAME,
        "title": oids.TITLE,
        "dnQualifier": oids.DN_QUALIFIER,
        "UID": oids.USER_ID,
        "emailAddress": oids.EMAIL_ADDRESS,
        "organizationIdentifier": oids.ORGANIZATION_IDENTIFIER,
    }
)
"""Short name as we write it to the object identifier; reading ignores case."""

_BY_OID: Final = {oid: short for short, oid in SHORT_NAMES.items()}
_BY_FOLDED: Final = {short.casefold(): oid for short, oid in SHORT_NAMES.items()}
_DOTTED: Final = re.compile(r"[0-2](?:\.[0-9]+)+\Z", re.ASCII)
_NEEDS_ESCAPE: Final = re.compile(r'["+,;<>\\]')
_SPACES: Final = re.compile(" +")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_SPECIAL: Final = frozenset(' "#+,;<=>\\')
_MAX_TEXT: Final = 8192

# Upper bounds of X.520 Annex C and RFC 5280 A.1, in characters; a domain component is one DNS label (RFC 4519 2.4).
_LENGTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        oids.COMMON_NAME: 64,
        oids.SERIAL_NUMBER: 64,
        oids.LOCALITY_NAME: 128,
        oids.STATE_OR_PROVINCE_NAME: 128,
        oids.STREET_ADDRESS: 128,
        oids.ORGANIZATION_NAME: 64,
        oids.ORGANIZATIONAL_UNIT_NAME: 64,
        oids.TITLE: 64,
        oids.SURNAME: 64,
        oids.GIVEN_NAME: 64,
        oids.DN_QUALIFIER: 64,
        oids.EMAIL_ADDRESS: 255,
        oids.DOMAIN_COMPONENT: 63,
        oids.USER_ID: 256,
        oids.ORGANIZATION_IDENTIFIER: 256,
    }
)
_PRINTABLE_TYPES: Final = frozenset({oids.COUNTRY_NAME, oids.SERIAL_NUMBER, oids.DN_QUALIFIER})
_IA5_TYPES: Final = frozenset({oids.DOMAIN_COMPONENT, oids.EMAIL_ADDRESS})
_STRING_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        der.UTF8_STRING: "UTF8String",
        der.NUMERIC_STRING: "NumericString",
        der.PRINTABLE_STRING: "PrintableString",
        der.TELETEX_STRING: "T61String",
        der.IA5_STRING: "IA5String",
        der.VISIBLE_STRING: "VisibleString",
        der.UNIVERSAL_STRING: "UniversalString",
        der.BMP_STRING: "BMPString",
    }
)


# ---------------------------------------------------------------- build


def build_name(pairs: Iterable[tuple[str, str]]) -> x509.Name:
    """Return a name with one attribute for each RDN, in the order given.

    C, serialNumber and dnQualifier become PrintableString, DC and emailAddress IA5String, all others UTF8String.

    Args:
        pairs: (short name in any case, or dotted identifier; value).

    Raises:
        InputError: unknown attribute, empty or too long value, or characters that its string type does not have.

    >>> text(build_name([("CN", "CS-1"), ("O", "Example CSO")]))
    'CN=CS-1,O=Example CSO'
    """
    from cryptography import x509

    return x509.Name([_attribute(key, value) for key, value in pairs])


def _attribute(key: str, value: str) -> x509.NameAttribute[str]:
    from cryptography import x509

    oid = _BY_FOLDED.get(key.casefold()) or (key if _DOTTED.match(key) else None)
    if oid is None:
        raise InputError(f"{key!r} is not an attribute of a name", fix=f"use one of {', '.join(SHORT_NAMES)}")
    der.oid(oid)  # refuses arcs that no encoder writes
    label = _BY_OID.get(oid, oid)
    if not value:
        raise InputError(f"{label} is empty", fix=f"give {label} a value or leave it out")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        raise InputError(f"{label} holds a control character", why=f"the value is {value!r}", fix="remove it")
    limit = _LENGTHS.get(oid, 256)
    if len(value) > limit:
        raise InputError(f"{label} has {len(value)} characters, at most {limit} fit", why="X.520, RFC 5280 A.1")
    if oid == oids.COUNTRY_NAME and not (len(value) == 2 and value.isascii() and value.isalpha()):
        raise InputError(f"C is {value!r}", why="a country is two letters (ISO 3166-1 alpha-2)", fix="write C=DE")
    if oid in _PRINTABLE_TYPES:
        der.printable_string(value)
    elif oid in _IA5_TYPES:
        der.ia5_string(value)
    try:
        return x509.NameAttribute(x509.ObjectIdentifier(oid), value)
    except ValueError as exc:  # the library counts octets of UTF-8 where X.520 counts characters
        raise InputError(f"{label} is too long: {len(value.encode())} octets in UTF-8", why=str(exc)) from exc


def parse_rdns(typed: str) -> x509.Name:
    r"""Return the name typed as ``CN=CS-1,O=Example CSO,C=DE,DC=CPO``; the order of typing is the order of encoding.

    Escapes are those of RFC 4514: ``\,`` and the like, and ``\C3\A4`` for octets of UTF-8; a value may stand in double
    quotes. Spaces around the separators do not count. A RDN has one attribute: a plus sign must be escaped.

    Raises:
        InputError: not of that form, or a value that `build_name` refuses.

    >>> text(parse_rdns(r"O = Example\, Inc , CN=a\+b"))
    'O=Example\\, Inc,CN=a\\+b'
    """
    if len(typed) > _MAX_TEXT:
        raise InputError(f"a name of {len(typed)} characters", why=f"at most {_MAX_TEXT} are read")
    if typed.startswith("/"):
        raise InputError(
            "names are separated by commas here", fix="write CN=CS-1,O=Example CSO instead of /CN=.../O=..."
        )
    pairs: list[tuple[str, str]] = []
    position = 0
    while True:
        key, equals, _ = typed[position:].partition("=")
        if not equals or not key.strip():
            rest = typed[position:].strip()
            raise InputError(
                f"no attribute at {rest!r}" if rest else "an attribute is missing", fix="write CN=CS-1,O=..."
            )
        value, position = _read_value(typed, position + len(key) + 1, key.strip())
        pairs.append((key.strip(), value))
        if position >= len(typed):
            return build_name(pairs)
        position += 1


def _read_value(typed: str, position: int, key: str) -> tuple[str, int]:
    """Return the value that begins at *position* and where its separator (or the end) is."""
    out = bytearray()
    kept = 0  # octets that trailing-space removal must not touch
    quoted = False
    while position < len(typed) and typed[position] == " ":
        position += 1
    if position < len(typed) and typed[position] in '"#':
        quoted = typed[position] == '"'
        if not quoted:
            raise InputError(
                f"{key}: values in #hex are not read", fix=r"type the text itself, or \# for a number sign"
            )
        position += 1
    while position < len(typed):
        char = typed[position]
        if char == "\\":
            octets, position = _read_escape(typed, position, key)
            out += octets
            kept = len(out)
            continue
        if quoted and char == '"':
            return _decode(bytes(out), key), _after_quote(typed, position + 1, key)
        if not quoted:
            if char in ",;":
                break
            if char in '+"<>':
                raise InputError(f"{key}: {char} must be escaped", fix=f"write \\{char}")
        out += char.encode("utf-8", "surrogatepass")
        if char != " " or quoted:
            kept = len(out)
        position += 1
    else:
        if quoted:
            raise InputError(f"{key}: the closing quote is missing")
    return _decode(bytes(out[:kept]), key), position


def _read_escape(typed: str, position: int, key: str) -> tuple[bytes, int]:
    following = typed[position + 1 : position + 3]
    if len(following) == 2 and following[0] in _HEX and following[1] in _HEX:
        return bytes.fromhex(following), position + 3
    if following and following[0] in _SPECIAL:
        return following[0].encode("ascii"), position + 2
    raise InputError(f"{key}: a backslash escapes nothing here", fix=r"write \\ for a backslash, \C3\A4 for octets")


def _after_quote(typed: str, position: int, key: str) -> int:
    while position < len(typed) and typed[position] == " ":
        position += 1
    if position < len(typed) and typed[position] not in ",;":
        raise InputError(f"{key}: text after the closing quote", fix="separate attributes with a comma")
    return position


def _decode(octets: bytes, key: str) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as exc:
        raise InputError(f"{key}: the value is not UTF-8") from exc


# ---------------------------------------------------------------- encoded form


def name_der(name: x509.Name) -> bytes:
    """Return the DER of *name*, tag and length included."""
    return name.public_bytes()


def name_from_der(encoded: bytes) -> x509.Name:
    """Return the name in *encoded*, string types and RDNs kept, so that `name_der` gives the same octets.

    Raises:
        InputError: not a Name, or one that cannot be represented (the functions that take octets read more).
    """
    from cryptography import x509

    rdns = _rdns(encoded)
    try:
        name = x509.Name(
            [x509.RelativeDistinguishedName([_as_found(oid, value) for oid, value in rdn]) for rdn in rdns]
        )
        faithful = name.public_bytes() == encoded
    except ValueError as exc:
        raise InputError("the name cannot be represented", why=str(exc)) from exc
    if not faithful:
        # The library writes a TeletexString's characters as UTF-8, and sorts a SET that was not sorted.
        raise InputError("the name cannot be represented", why="its octets would change", fix="keep it as octets")
    return name


def _as_found(oid: str, value: der.Tlv) -> x509.NameAttribute[str]:
    from cryptography import x509
    from cryptography.x509.name import _ASN1Type  # the library has no public way to keep the string type of a name

    kind = _STRING_TYPES.get(value.tag)
    if kind is None:
        raise value.fail("unexpected-tag", "a value in a name is not a character string")
    return x509.NameAttribute(x509.ObjectIdentifier(oid), value.as_text(), _ASN1Type[kind])


def _rdns(encoded: bytes) -> list[list[tuple[str, der.Tlv]]]:
    """Return the attributes of each RDN; every violation is a DerError."""
    out: list[list[tuple[str, der.Tlv]]] = []
    for rdn in der.parse(encoded).children(der.SEQUENCE):
        pairs: list[tuple[str, der.Tlv]] = []
        for attribute in rdn.children(der.SET):
            parts = attribute.children(der.SEQUENCE)
            if len(parts) != 2:
                raise attribute.fail("wrong-count", "an attribute of a name is a type and a value")
            pairs.append((parts[0].as_oid(), parts[1]))
        if not pairs:
            raise rdn.fail("wrong-count", "an RDN without attributes")
        out.append(pairs)
    return out


def _value_text(value: der.Tlv) -> str:
    return value.as_text() if value.tag in _STRING_TYPES else "#" + value.raw.hex()


def attributes(name: x509.Name | bytes, *, text_only: bool = False) -> list[tuple[str, str]]:
    """Return (short name or dotted identifier, value) of every attribute in order of encoding; RDNs are flattened.

    Values that are not character strings are shown as ``#`` and the hex of their DER (RFC 4514 2.4).

    Args:
        text_only: refuse such a value in an attribute of `SHORT_NAMES`, for callers that take the text further.

    Raises:
        InputError: *name* is octets and not a Name, or see *text_only*.
    """
    encoded = name if isinstance(name, bytes) else name.public_bytes()
    pairs = [pair for rdn in _rdns(encoded) for pair in rdn]
    for oid, value in pairs if text_only else ():
        if value.tag not in _STRING_TYPES and oid in _BY_OID:
            raise value.fail("unexpected-tag", f"the value of {_BY_OID[oid]} is not a character string")
    return [(_BY_OID.get(oid, oid), _value_text(value)) for oid, value in pairs]


def get(name: x509.Name | bytes, short: str) -> str | None:
    """Return the value of the attribute *short* (any case, or dotted), or None when the name has none.

    Raises:
        InputError: the name holds it more than once: which one counts is not ours to guess.
    """
    return get_each(name, short)[0]


def get_each(name: x509.Name | bytes, *shorts: str) -> tuple[str | None, ...]:
    """Return what `get` returns for each of *shorts*, and decode *name* once.

    Raises:
        InputError: as `get`.
    """
    pairs = attributes(name)
    return tuple(_only_one(pairs, short) for short in shorts)


def _only_one(pairs: Sequence[tuple[str, str]], short: str) -> str | None:
    oid = _BY_FOLDED.get(short.casefold(), short)
    wanted = _BY_OID.get(oid, oid)
    found = [value for key, value in pairs if key == wanted]
    if len(found) > 1:
        raise InputError(f"the name holds {wanted} {len(found)} times", fix=f"use a name with one {wanted}")
    return found[0] if found else None


def text(name: x509.Name | bytes) -> str:
    """Return *name* for a reader: RFC 4514 escapes, but in order of encoding; control characters are escaped too.

    For display only; two different names may look alike. Octets that are no Name give ``(unreadable name)``.
    """
    encoded = name if isinstance(name, bytes) else name.public_bytes()
    return (_remembered_text if len(encoded) <= _MAX_REMEMBERED_BYTES else _text)(encoded)


def _text(encoded: bytes) -> str:
    try:
        rdns = _rdns(encoded)
        return ",".join("+".join(f"{_BY_OID.get(oid, oid)}={_escape(value)}" for oid, value in rdn) for rdn in rdns)
    except der.DerError:
        return "(unreadable name)"


# One certificate's subject is shown in its record, its verdict and its audit entry. Only short names are remembered, so
# that hostile ones cannot fill the memory.
_MAX_REMEMBERED_BYTES: Final = 512
_remembered_text = lru_cache(maxsize=512)(_text)


def _escape(value: der.Tlv) -> str:
    if value.tag not in _STRING_TYPES:
        return "#" + value.raw.hex()
    shown = value.as_text()
    out = shown
    if _NEEDS_ESCAPE.search(shown) or not shown.isprintable():
        out = "".join(
            f"\\{char}" if char in '"+,;<>\\' else char if char.isprintable() else _octets(char) for char in shown
        )
    if out.startswith((" ", "#")):
        out = "\\" + out
    if shown.endswith(" ") and len(shown) > 1:
        out = out[:-1] + "\\ "
    return printable(out)


def _octets(char: str) -> str:
    return "".join(f"\\{octet:02X}" for octet in char.encode("utf-8", "surrogatepass"))


# ---------------------------------------------------------------- comparison


def same(a: bytes, b: bytes) -> bool:
    """Return whether two encoded names match: same RDNs in the same order, strings compared by meaning, not by octets.

    Strings of any type match when they agree after compatibility composition, case folding and folding of spaces;
    anything else must agree octet by octet. Characters are never dropped (RFC 4518 would drop controls and soft
    hyphens): a name that differs only in invisible characters is another name to us.

    Raises:
        InputError: one of them is not a Name.

    Clause: RFC 5280 7.1; RFC 4518.
    """
    return a == b or folded(a) == folded(b)


def folded(name: bytes) -> tuple[tuple[tuple[str, int, str], ...], ...]:
    """Return a value that is equal for names that match as `same` says, to find one of many by.

    Raises:
        InputError: it is not a Name.
    """
    return tuple([tuple(sorted(map(_prepared, rdn))) for rdn in _rdns(name)])


def folded_or_itself(name: bytes) -> Hashable:
    """Return the same, and for octets that are no Name themselves: they match nothing else."""
    try:
        return folded(name)
    except InputError:
        return name


def _prepared(attribute: tuple[str, der.Tlv]) -> tuple[str, int, str]:
    oid, value = attribute
    if value.tag not in _STRING_TYPES:
        return oid, value.tag, value.raw.hex()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value.as_text()).casefold())
    return oid, 0, _SPACES.sub(" ", folded.strip(" "))
