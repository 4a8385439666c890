"""Build, assemble and read certificate revocation lists (RFC 5280 section 5); pure functions over DER."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from chargepki.pki import der, oids
from chargepki.pki.certificate_view import TimeView
from chargepki.pki.crl_view import MAX_CRL_BYTES, EntryContent, contains_serial, read_crl
from chargepki.pki.errors import InputError

__all__ = [
    "CrlView",
    "ReasonCode",
    "RevokedEntry",
    "assemble_crl",
    "build_crl_tbs",
    "crl_contains",
    "parse_crl",
]


class ReasonCode(StrEnum):
    """CRLReason of RFC 5280 5.3.1, by its name there; `number` is the ENUMERATED value."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def number(self) -> int:
        """The ENUMERATED value; 7 is not assigned."""
        return _NUMBERS[self]

    @classmethod
    def of_number(cls, number: int) -> ReasonCode:
        """Return the reason with *number*.

        Raises:
            InputError: no reason has this number.
        """
        for reason, value in _NUMBERS.items():
            if value == number:
                return reason
        raise InputError(
            f"{number} is no CRL reason code", why="RFC 5280 5.3.1 assigns 0 to 6 and 8 to 10", fix="use one of those"
        )


_NUMBERS: Final = dict(zip(ReasonCode, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10), strict=True))


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One revoked certificate."""

    serial: int
    revoked_at: datetime
    reason: ReasonCode | None = None
    """``None`` and `ReasonCode.UNSPECIFIED` are both encoded as absence (RFC 5280 5.3.1)."""
    invalidity_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class CrlView:
    """A decoded revocation list; nothing here has been verified."""

    der: bytes
    tbs: bytes
    signature_algorithm_der: bytes
    signature: bytes
    issuer_der: bytes
    this_update: datetime
    next_update: datetime | None
    number: int | None
    authority_key_id: bytes | None
    entries: tuple[RevokedEntry, ...]
    distribution_point_url: str | None = None
    delta_base_number: int | None = None

    def find(self, serial: int) -> RevokedEntry | None:
        """Return the entry of *serial*, or ``None``."""
        return next((entry for entry in self.entries if entry.serial == serial), None)


def build_crl_tbs(
    *,
    issuer_name_der: bytes,
    authority_key_id: bytes,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[RevokedEntry],
    signature_algorithm_der: bytes,
    distribution_point_url: str | None = None,
) -> bytes:
    """Build the DER of a full TBSCertList (v2).

    Args:
        issuer_name_der: the CA's subject, byte for byte as in its certificate.
        authority_key_id: content of the CA's subjectKeyIdentifier.
        number: CRL number, 0 to 2^159 - 1; must grow from list to list.
        this_update: aware; whole seconds, fractions are cut off.
        next_update: aware; later than *this_update*.
        entries: each serial once; their order is kept.
        distribution_point_url: write an IssuingDistributionPoint (critical) that names this list; for shards.

    Raises:
        InputError: a serial that is not positive or appears twice, removeFromCRL in a full list, a number or a window
            that RFC 5280 does not allow.
        TypeError: a naive datetime.

    Clause: RFC 5280 5.1.2, 5.2.1, 5.2.3, 5.2.5, 5.3.1.
    """
    if not 0 <= number < 1 << 159:
        raise InputError(f"CRL number {number} is out of range", why="0 to 2^159 - 1 (RFC 5280 5.2.3)")
    times = der.time(this_update) + der.time(next_update)
    if next_update <= this_update:
        raise InputError(
            f"nextUpdate {next_update} is not after thisUpdate {this_update}",
            why="the list would be stale from the start",
        )
    revoked = _encode_entries(entries)
    extensions = [
        _extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, authority_key_id, constructed=False))),
        _extension(oids.CRL_NUMBER, der.integer(number)),
    ]
    if distribution_point_url is not None:
        extensions.append(_issuing_distribution_point(distribution_point_url))
    return der.sequence(
        der.integer(1),
        signature_algorithm_der,
        issuer_name_der,
        times,
        # An empty list must be absent (RFC 5280 5.1.2.6).
        der.tlv(der.SEQUENCE, revoked) if revoked else b"",
        der.explicit(0, der.sequence(*extensions)),
    )


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), der.boolean(True) if critical else b"", der.octet_string(value))


def _issuing_distribution_point(url: str) -> bytes:
    """Encode IssuingDistributionPoint with one fullName; critical, as RFC 5280 5.2.5 demands."""
    uri = der.implicit(6, der.ia5_string(url)[_header_size(len(url)) :], constructed=False)
    full_name = der.implicit(0, uri, constructed=True)
    point = der.sequence(der.implicit(0, full_name, constructed=True))
    return _extension(oids.ISSUING_DISTRIBUTION_POINT, point, critical=True)


def _header_size(content: int) -> int:
    return 2 if content < 0x80 else 3 if content < 0x100 else 4


_REASON_EXTENSIONS: Final[dict[ReasonCode, bytes]] = {
    reason: _extension(oids.REASON_CODE, der.enumerated(reason.number))
    for reason in ReasonCode
    if reason is not ReasonCode.UNSPECIFIED
}


def _encode_entries(entries: Iterable[RevokedEntry]) -> bytes:
    """Return the content of revokedCertificates. Written flat: a list may have a hundred thousand entries."""
    encoded: list[bytes] = []
    seen: set[int] = set()
    reasons: dict[ReasonCode | None, bytes] = {
        reason: der.sequence(extension) for reason, extension in _REASON_EXTENSIONS.items()
    }
    reasons[None] = reasons[ReasonCode.UNSPECIFIED] = b""
    integer, tlv = der.integer, der.tlv
    dates: dict[datetime, bytes] = {}
    for entry in entries:
        if entry.serial <= 0 or entry.serial in seen:
            raise InputError(
                f"serial {entry.serial:x} cannot be listed",
                why="serials are positive and listed once (RFC 5280 5.1.2.6)",
            )
        seen.add(entry.serial)
        if entry.reason is ReasonCode.REMOVE_FROM_CRL:
            raise InputError(
                f"serial {entry.serial:x} has reason removeFromCRL",
                why="it belongs in a delta CRL only (RFC 5280 5.3.1)",
                fix="leave the certificate out of the full list",
            )
        date = dates.get(entry.revoked_at)
        if date is None:
            date = dates[entry.revoked_at] = der.time(entry.revoked_at)
        extensions = reasons[entry.reason]
        if entry.invalidity_date is not None:
            invalidity = _extension(oids.INVALIDITY_DATE, der.generalized_time(entry.invalidity_date))
            extensions = der.sequence(_REASON_EXTENSIONS.get(entry.reason or ReasonCode.UNSPECIFIED, b""), invalidity)
        encoded.append(tlv(0x30, integer(entry.serial) + date + extensions))
    return b"".join(encoded)


def assemble_crl(tbs: bytes, signature_algorithm_der: bytes, signature: bytes) -> bytes:
    """Join to-be-signed bytes and signature to a CertificateList (DER)."""
    return der.sequence(tbs, signature_algorithm_der, der.bit_string(signature))


def parse_crl(data: bytes, *, max_bytes: int = MAX_CRL_BYTES) -> CrlView:
    """Decode a CRL, DER or PEM (``X509 CRL``). The signature is not verified.

    Raises:
        InputError: not a CRL, not DER, a time or reason code that does not exist, or larger than *max_bytes*.
    """
    content = read_crl(der.decode_der_or_pem(data, ("X509 CRL",), "CRL", max_bytes))
    if content.outer_algorithm is None or content.signature is None:
        raise InputError("the CRL is not signed", why="only its to-be-signed part is there")
    if content.problems:
        problem = content.problems[0]
        raise der.DerError(problem.rule, problem.offset, problem.what)
    if content.extension(oids.DELTA_CRL_INDICATOR) is not None and content.delta_base is None:
        raise InputError("the delta CRL indicator holds no number", why="RFC 5280 5.2.4")
    return CrlView(
        der=content.der,
        tbs=content.tbs,
        signature_algorithm_der=content.outer_algorithm,
        signature=content.signature,
        issuer_der=content.issuer,
        this_update=_instant(content.this_update, "thisUpdate"),
        next_update=None if content.next_update is None else _instant(content.next_update, "nextUpdate"),
        number=content.number,
        authority_key_id=content.authority_key_id,
        entries=tuple([_entry(entry) for entry in content.entries]),
        distribution_point_url=content.distribution_point,
        delta_base_number=content.delta_base,
    )


_REASON_OF_NUMBER: Final[dict[int | None, ReasonCode | None]] = {
    None: None,
    **{number: reason for reason, number in _NUMBERS.items()},
}


def _entry(entry: EntryContent) -> RevokedEntry:
    if entry.reason not in _REASON_OF_NUMBER:
        raise InputError(
            f"serial {entry.serial:x} has reason code {entry.reason}", why="RFC 5280 5.3.1 does not assign it"
        )
    revoked_at = _instant(entry.revoked_at, "revocationDate")
    return RevokedEntry(entry.serial, revoked_at, _REASON_OF_NUMBER[entry.reason], entry.invalidity_date)


def _instant(time: TimeView, name: str) -> datetime:
    if time.value is None:
        raise InputError(f"{name} {time.text.decode('latin-1')!r} is not a time of RFC 5280", why="RFC 5280 5.1.2.4")
    return time.value


def crl_contains(data: bytes, serial: int) -> bool:
    """Say whether the CRL (DER) lists *serial*; quick on large lists. Nothing is verified.

    Raises:
        InputError: the list has to be decoded and is no CRL.
    """
    return contains_serial(data, serial)
