"""What a filter may ask of a certificate: the fields, their types, and how each is read from a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery

__all__ = ["FIELDS", "Field", "Kind", "Step", "Value", "attribute_of"]


class Kind(StrEnum):
    """What a field holds."""

    TEXT = "text"
    TIME = "time"
    NUMBER = "number"


class Step(StrEnum):
    """How finely times are counted."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"

    @property
    def characters(self) -> int:
        """How much of an instant's text names it: ``2026-03-01``, ``2026-03`` or ``2026``."""
        return {"day": 10, "month": 7, "year": 4}[self.value]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a certificate."""

    name: str
    kind: Kind
    what: str
    """For the documentation."""
    column: str
    """Of the table."""
    is_optional: bool = False
    """Whether a certificate may lack it."""
    attribute: str = ""
    """Short name of the subject attribute that it is, for what no column holds."""
    known: tuple[str, ...] = ()
    """The only values there are, when they are few."""
    normalise: Callable[[str], str] = str
    """Turns what was typed into the stored form."""
    trait: int | None = None
    """Its place among the `Traits` of a certificate, where it is one of them."""
    of_places: bool = False
    """Whether each place where an import found a certificate has one: a comparison holds when it does for any."""

    def of(self, record: CertificateRecord | Mapping[str, Any]) -> Any:
        """Return the value as the database compares it, ``None`` when there is none; `of_places`, a tuple of them."""
        value = getattr(record, self.column)
        return attribute_of(value, self.attribute) if self.attribute else value


_ESCAPES: Final = (("\\\\", "\x01"), ("\\,", "\x02"), ("\\+", "\x03"))


def attribute_of(subject: str, short: str) -> str | None:
    r"""Return the first attribute *short* of a subject as `names.text` writes it, or ``None``.

    Escaped commas belong to the value. Octets that cannot be printed stay in hex.

    >>> attribute_of("CN=Acme\\, Inc.,C=DE", "C"), attribute_of("CN=Acme\\,C=FR", "C")
    ('DE', None)
    """
    # The same steps as `filter_sql` has the databases take: a test compares them.
    text = subject
    # Most names hold neither a backslash nor a sign that a mark below could be taken for.
    is_escaped = "\\" in subject or not subject.isprintable()
    if is_escaped:
        for escaped, mark in _ESCAPES:
            text = text.replace(escaped, mark)
    text = f",{text.replace('+', ',')},"
    at = text.find(f",{short}=")
    if at < 0:
        return None
    start = at + len(short) + 2
    value = text[start : text.index(",", start)]
    if not is_escaped:
        return value
    value = value.replace("\\", "")
    for escaped, mark in _ESCAPES:
        value = value.replace(mark, escaped[1:])
    return value


def _lower(typed: str) -> str:
    return typed.lower()


def _serial(typed: str) -> str:
    return typed.replace(":", "").lower().removeprefix("0x").lstrip("0") or "0"


_REASONS: Final = (
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

_ALL: Final = (
    Field("id", Kind.TEXT, "`CA@N:SERIAL`", "id"),
    Field("ca", Kind.TEXT, "issuing CA: `NAME` for all its generations, or `NAME@N`", "ca"),
    Field("serial", Kind.TEXT, "hex, with or without colons and leading zeros", "serial", normalise=_serial),
    Field("profile", Kind.TEXT, "as `profile list` names it", "profile"),
    Field(
        "origin",
        Kind.TEXT,
        "whether it was issued here or imported",
        "origin",
        known=("issued", "imported"),
    ),
    Field("state", Kind.TEXT, "", "state", known=tuple(each.value for each in CertificateState)),
    Field("subject", Kind.TEXT, "the whole name, as `cert list` shows it", "subject"),
    Field("common_name", Kind.TEXT, "the first CN of the subject", "subject", True, "CN"),
    Field("organization", Kind.TEXT, "the first O of the subject", "subject", True, "O", trait=1),
    Field("country", Kind.TEXT, "the first C of the subject", "subject", True, "C", trait=0),
    Field("domain_component", Kind.TEXT, "the first DC of the subject", "subject", True, "DC"),
    Field("station", Kind.TEXT, "identity of the station that it belongs to", "station", True),
    Field("delivery", Kind.TEXT, "", "delivery", True, known=tuple(each.value for each in Delivery)),
    Field("requester", Kind.TEXT, "who asked for it", "requester"),
    Field("request_key", Kind.TEXT, "`id:…` or the digest of the request", "request_key"),
    Field("sha256", Kind.TEXT, "fingerprint of the certificate, hex", "sha256", True, normalise=_lower),
    Field("key_sha256", Kind.TEXT, "fingerprint of its public key, hex", "spki_sha256", normalise=_lower),
    Field("not_before", Kind.TIME, "first valid second", "not_before"),
    Field("not_after", Kind.TIME, "last valid second", "not_after"),
    Field("reserved_at", Kind.TIME, "when its serial number was reserved", "reserved_at"),
    Field("issued_at", Kind.TIME, "when it was signed", "issued_at", True),
    Field("revoked_at", Kind.TIME, "since when it is revoked", "revoked_at", True),
    Field("invalidity_date", Kind.TIME, "since when its key may have been compromised", "invalidity_date", True),
    Field("revocation_reason", Kind.TEXT, "RFC 5280's name", "revocation_reason", True, known=_REASONS),
    Field("crl_shard", Kind.NUMBER, "which shard of the CA's lists would name it", "shard", True),
    Field(
        "source", Kind.TEXT, "what an import named: a folder, a file, `tls://HOST:PORT`", "source", True, of_places=True
    ),
    Field(
        "place",
        Kind.TEXT,
        "where an import found it: the file, and the path inside of it",
        "place",
        True,
        of_places=True,
    ),
    Field("role", Kind.TEXT, "what the layout of that folder says it is for", "role", True, of_places=True),
    Field("imported_at", Kind.TIME, "when an import found it", "started_at", True, of_places=True),
    Field("imported_by", Kind.TEXT, "who ran that import", "imported_by", True, of_places=True),
)

FIELDS: Final[Mapping[str, Field]] = MappingProxyType({field.name: field for field in _ALL})
"""The fields by name, as ``cert list --json`` calls them."""

Value = str | int | datetime
"""What a field is compared with; times are aware."""
