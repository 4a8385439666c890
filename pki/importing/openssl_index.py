"""The text database of ``openssl ca`` and of easy-rsa: ``index.txt``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chargepki.pki.errors import InputError
from chargepki.pki.inventory.import_records import ForeignRevocation

__all__ = ["IndexRow", "is_index", "parse_index"]

_LINE: Final = re.compile(rb"[VRE]\t[0-9]{10,14}Z\t[^\t]*\t(?:[0-9A-Fa-f]+|00)\t")
_TIME: Final = re.compile(r"[0-9]{12}(?:[0-9]{2})?Z\Z")
_REASONS: Final = {
    each.lower(): each
    for each in (
        "unspecified",
        "keyCompromise",
        "cACompromise",
        "affiliationChanged",
        "superseded",
        "cessationOfOperation",
        "certificateHold",
        "privilegeWithdrawn",
        "aACompromise",
    )
} | {
    # What `openssl ca` writes for -crl_hold, -crl_compromise and -crl_CA_compromise; a third field holds the details.
    "holdinstruction": "certificateHold",
    "keytime": "keyCompromise",
    "cakeytime": "cACompromise",
}


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One line: a certificate, and whether it was revoked."""

    line: int
    serial: str
    """Lower-case hex without leading zeros."""
    not_after: datetime
    revocation: ForeignRevocation | None


def is_index(data: bytes) -> bool:
    """Whether *data* begins like an ``index.txt``."""
    return _LINE.match(data) is not None


def parse_index(data: bytes, *, within: str) -> Iterator[IndexRow | InputError]:
    """Yield a row for each line, or what is wrong with it.

    Args:
        within: beginning of the places of the certificates that it speaks of.
    """
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
        if not text.strip():
            continue
        try:
            yield _row(number, text.split("\t"), within)
        except (ValueError, IndexError) as error:
            yield InputError(f"line {number} is none of an index.txt", why=str(error)[:100])


def _row(number: int, fields: list[str], within: str) -> IndexRow:
    status, expiry, revoked, serial = fields[:4]
    if status not in ("V", "R", "E") or len(fields) != 6:
        raise ValueError("a line has six fields: V, R or E, expiry, revocation, serial, file, subject")
    hexed = f"{int(serial, 16):x}"
    not_after = _time(expiry)
    if status != "R":
        return IndexRow(number, hexed, not_after, None)
    at, _, rest = revoked.partition(",")
    reason, _, detail = rest.partition(",")
    named = _REASONS.get(reason.lower(), "unspecified")
    since = _time(detail) if reason.lower() in ("keytime", "cakeytime") and _TIME.match(detail) else None
    return IndexRow(
        number,
        hexed,
        not_after,
        ForeignRevocation(hexed, _time(at), named, since, not_after=not_after, within=within),
    )


def _time(text: str) -> datetime:
    """Return the instant of ASN.1 text: two digits of the year up to 2049, four otherwise."""
    if _TIME.match(text) is None:
        raise ValueError(f"{text[:20]!r} is no time")
    if len(text) == 13:
        century = "20" if text[:2] < "50" else "19"
        text = century + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
