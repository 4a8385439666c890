"""Take the certificates and lists out of a PKCS#7 (CMS) bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chargepki.pki.ber import to_definite
from chargepki.pki.der import DerError, Tlv, parse
from chargepki.pki.der_tree import DerProblem

__all__ = ["Pkcs7View", "read_container", "view_pkcs7"]

_MAX_BYTES: Final = 8 << 20
_MOST_MEMBERS: Final = 10_000
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_NAMES: Final = {
    "1.2.840.113549.1.7.1": "data",
    "1.2.840.113549.1.7.3": "enveloped data",
    "1.2.840.113549.1.7.5": "digested data",
    "1.2.840.113549.1.7.6": "encrypted data",
}


@dataclass(frozen=True, slots=True)
class Pkcs7View:
    """A SignedData (RFC 5652 5.1) as a carrier of certificates. No signature in it is looked at."""

    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    is_ber: bool
    problems: tuple[DerProblem, ...]


def view_pkcs7(data: bytes) -> Pkcs7View:
    """Read a ContentInfo with a SignedData in it.

    Raises:
        DerError: it is none; says where.
    """
    root, is_ber, problems = read_container(data)
    kind, content = _info(root)
    if kind != _SIGNED_DATA:
        raise DerError("not-signed-data", root.offset, f"PKCS#7 {_NAMES.get(kind, kind)} carries no certificates")
    if content is None:
        raise root.fail("wrong-count", "a SignedData is missing")
    certificates: list[bytes] = []
    crls: list[bytes] = []
    fields = content.children(0x30)
    if len(fields) < 4 or [field.tag for field in fields[:3]] != [0x02, 0x31, 0x30]:
        raise content.fail("unexpected-tag", "not a SignedData: its fields have other tags")
    for field in fields[3:]:
        if field.tag == 0xA0:
            certificates += [each.raw for each in field.iterate() if each.tag == 0x30]
        elif field.tag == 0xA1:
            crls += [each.raw for each in field.iterate() if each.tag == 0x30]
    if len(certificates) + len(crls) > _MOST_MEMBERS:
        raise content.fail("too-many", f"more than {_MOST_MEMBERS} certificates and lists")
    return Pkcs7View(tuple(certificates), tuple(crls), is_ber, problems)


def read_container(data: bytes) -> tuple[Tlv, bool, tuple[DerProblem, ...]]:
    """Return the outermost element, rewritten as DER where it is BER, whether it was, and what follows it.

    Raises:
        DerError: the structure cannot be followed.
    """
    if len(data) > _MAX_BYTES:
        raise DerError("too-large", 0, f"{len(data)} bytes are too many for a bundle")
    definite, end = to_definite(data)
    rest = len(data) - end
    problems = (DerProblem(end, "trailing-bytes", f"{rest} bytes follow the object"),) if rest else ()
    return parse(definite), definite != data[:end], problems


def _info(root: Tlv) -> tuple[str, Tlv | None]:
    """Return contentType and content of a ContentInfo."""
    parts = root.children(0x30)
    if not parts or len(parts) > 2:
        raise root.fail("wrong-count", f"a ContentInfo has two parts, this has {len(parts)}")
    kind = parts[0].as_oid()
    return kind, parts[1].expect(0xA0, "content").child() if len(parts) == 2 else None
