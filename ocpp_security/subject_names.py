"""The names of a certificate's subject where they have the usual shape, without an object for each of them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["COMMON_NAME", "ORGANIZATION", "usual_names"]

COMMON_NAME: Final = b"\x55\x04\x03"
ORGANIZATION: Final = b"\x55\x04\x0a"
"""Content octets of the object identifiers (X.520)."""
_USUAL_TEXT: Final = re.compile(rb"\x0c.[\x20-\x7e]{1,64}+|\x13.[A-Za-z0-9 '()+,\-./:=?]{1,64}+", re.DOTALL)
"""A UTF8String of ASCII or a PrintableString, with its tag and its one octet of length."""


def usual_names(certificate_der: bytes) -> dict[bytes, str] | None:
    """Return the attributes of the subject by their identifier, or ``None`` where anything about them is unusual.

    Usual are ASCII texts, one in each relative name, and no attribute twice: a fourth of what `cryptography` takes to
    make them objects. The caller has parsed the certificate, so that its structure is known to be whole.
    """
    at, _ = _contents(certificate_der, 0)
    at, _ = _contents(certificate_der, at)
    if certificate_der[at] == 0xA0:
        _, at = _contents(certificate_der, at)
    for _field in ("serialNumber", "signature", "issuer", "validity"):
        _, at = _contents(certificate_der, at)
    at, end = _contents(certificate_der, at)
    names: dict[bytes, str] = {}
    while at < end:
        pair, at = _contents(certificate_der, at)
        inside, pair_end = _contents(certificate_der, pair)
        start, value = _contents(certificate_der, inside)
        _, text_end = _contents(certificate_der, value)
        identifier = certificate_der[start:value]
        is_usual = pair_end == at == text_end and identifier not in names
        if not is_usual or _USUAL_TEXT.fullmatch(certificate_der, value, text_end) is None:
            return None
        names[identifier] = certificate_der[value + 2 : text_end].decode("ascii")
    return names


def _contents(der: bytes, at: int) -> tuple[int, int]:
    """Return where the contents of the element at *at* begin and end."""
    length = der[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    start = at + 2 + (length & 0x7F)
    return start, start + int.from_bytes(der[at + 2 : start])
