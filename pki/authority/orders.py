"""What is asked of the authority and what it answers, and how an order travels through the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import orjson

from chargepki.pki.errors import InputError
from chargepki.pki.inventory.codec import sha256_hex
from chargepki.pki.inventory.records import CertificateRecord
from chargepki.pki.template import Criticality

__all__ = [
    "IssueOrder",
    "IssuedCertificate",
    "content_digest",
    "content_frame",
    "options_from_json",
    "options_to_json",
    "request_key_of",
]

_MAX_REQUEST_ID_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class IssueOrder:
    """One certificate to issue. Exactly one of `csr` and `spki` is given."""

    ca: str
    """Name of a CA (its newest generation) or the id of one generation; there is no default issuer."""
    profile: str
    """Profile id, for example ``ocpp/charging-station``."""
    csr: bytes | None = None
    """The request as it came: PEM or DER PKCS#10."""
    spki: bytes | None = None
    """DER SubjectPublicKeyInfo of a key that the caller made itself, in place of a request."""
    subject: Sequence[tuple[str, str]] = ()
    """Subject attributes (short name, value) that replace what the request asks for."""
    subject_defaults: Mapping[str, str] = field(default_factory=dict)
    """Attributes that fill what the request leaves out."""
    validity: timedelta | None = None
    """``None`` takes the profile's default, clamped to the issuer's end."""
    dns_names: tuple[str, ...] = ()
    criticality: Criticality = "profile"
    """``rfc5280`` overrides what a profile marks critical against RFC 5280; the override is audited."""
    request_id: str | None = None
    """The caller's idempotency key; ``None`` derives one from the content."""
    again: bool = False
    """Make another certificate even if the same request was answered already."""
    station: str | None = None
    """Station that the certificate belongs to."""
    must_deliver: bool = False
    """True when a CSMS will hand it to the station: the certificate starts as delivery ``pending``."""
    delivery: Mapping[str, Any] = field(default_factory=dict)
    """What a CSMS needs to hand it over after a restart: plain JSON data, kept as ``verdict["delivery"]`` of the
    certificate and with the queue row; no part of the request's identity."""
    requester: str | None = None
    """Who asked, for the record; ``None`` is the authority's own actor."""
    queued_for: str | None = None
    """Id of the generation that the order was made to, where it waited in the queue while the CA was rolled over."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that is durable in the inventory."""

    made: CertificateRecord | Callable[[], CertificateRecord] = field(repr=False, compare=False)
    """The record, or what makes it once somebody asks for it."""
    certificate_der: bytes
    chain: tuple[bytes, ...]
    """DER, leaf first, then each issuing CA, without the root."""
    repeated: bool = False
    """True when the order had been answered before and this is that certificate."""
    clamped: bool = False
    """True when the profile's default validity was cut to the issuer's end."""

    @property
    def record(self) -> CertificateRecord:
        """The certificate as it is stored in the inventory."""
        made = self.made
        if not isinstance(made, CertificateRecord):
            made = made()
            object.__setattr__(self, "made", made)  # the same value in another form
        return made


def content_digest(order: IssueOrder, *, ca_id: str, csr_der: bytes | None) -> str:
    """Return the hex SHA-256 over CA generation, profile, overrides and request (interfaces, ``cert issue``).

    The request enters as DER, so the same CSR in another PEM wrapping is the same request.
    """
    return hashlib.sha256(_content(order, ca_id, None if csr_der is None else sha256_hex(csr_der))).hexdigest()


def _content(order: IssueOrder, ca_id: str, csr_sha256: str | None) -> bytes:
    content = {
        "ca": ca_id,
        "profile": order.profile,
        "subject": [list(pair) for pair in order.subject],
        "defaults": dict(order.subject_defaults),
        "validity": None if order.validity is None else int(order.validity.total_seconds()),
        "dns": list(order.dns_names),
        "criticality": order.criticality,
        "station": order.station,
        "csr": csr_sha256,
        "spki": None if order.spki is None else sha256_hex(order.spki),
    }
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def content_frame(order: IssueOrder, *, ca_id: str) -> tuple[bytes, bytes]:
    """Return what `content_digest` hashes before and after the hex SHA-256 of the request, whatever that is."""
    blank = "0" * 64
    before, _, after = _content(order, ca_id, blank).partition(b'"csr":"' + blank.encode())
    return before + b'"csr":"', after


def request_key_of(order: IssueOrder, digest: str) -> str:
    """Return the key under which a repeat of *order* is recognised.

    Raises:
        InputError: the caller's request id is empty, too long or not printable.
    """
    if order.request_id is None:
        return f"content:{digest}"
    if not order.request_id.isprintable() or not 0 < len(order.request_id) <= _MAX_REQUEST_ID_CHARACTERS:
        raise InputError(
            "the request id is empty, too long or holds control characters",
            why=f"it is stored and shown; at most {_MAX_REQUEST_ID_CHARACTERS} printable characters are taken",
            fix="pass a short printable --request-id, for example a ticket number",
        )
    return f"id:{order.request_id}"


def options_to_json(order: IssueOrder) -> dict[str, Any]:
    """Return what of *order* a queue row keeps beside its own columns; `options_from_json` is the inverse."""
    return {
        "subject": [list(pair) for pair in order.subject],
        "defaults": dict(order.subject_defaults),
        "validity_seconds": None if order.validity is None else int(order.validity.total_seconds()),
        "dns": list(order.dns_names),
        "criticality": order.criticality,
        "request_id": order.request_id,
        "again": order.again,
        "must_deliver": order.must_deliver,
        "delivery": dict(order.delivery),
    }


def options_from_json(base: IssueOrder, options: Mapping[str, Any]) -> IssueOrder:
    """Return *base* completed with the *options* of a queue row."""
    seconds = options.get("validity_seconds")
    return replace(
        base,
        subject=tuple((str(key), str(value)) for key, value in options.get("subject", ())),
        subject_defaults={str(key): str(value) for key, value in dict(options.get("defaults", {})).items()},
        validity=None if seconds is None else timedelta(seconds=int(seconds)),
        dns_names=tuple(str(name) for name in options.get("dns", ())),
        criticality="rfc5280" if options.get("criticality") == "rfc5280" else "profile",
        request_id=None if options.get("request_id") is None else str(options["request_id"]),
        again=bool(options.get("again", False)),
        must_deliver=bool(options.get("must_deliver", False)),
        delivery=dict(options.get("delivery", {})),
    )
