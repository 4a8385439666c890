"""Build, assemble and read certificate revocation lists (RFC 5280 section 5); pure functions over DER."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki import der, oids
from chargepki.pki.certificate_view import TimeView
from chargepki.pki.crl_entry import ReasonCode, RevokedEntry, encode_entry
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
    signature_algorithm_der: bytes,
    entries: Iterable[RevokedEntry] = (),
    encoded_entries: bytes = b"",
    distribution_point_url: str | None = None,
    delta_base: int | None = None,
    freshest_url: str | None = None,
) -> bytes:
    """Build the DER of a TBSCertList (v2), complete or delta.

    Args:
        issuer_name_der: the CA's subject, byte for byte as in its certificate.
        authority_key_id: content of the CA's subjectKeyIdentifier.
        number: CRL number, 0 to 2^159 - 1; must grow from list to list.
        this_update: aware; whole seconds, fractions are cut off.
        next_update: aware; later than *this_update*.
        entries: each serial once; their order is kept.
        encoded_entries: DER of further entries, as `crl_entry.encode_entry` gives them, taken over unread; they come
            first.
        distribution_point_url: write an IssuingDistributionPoint (critical) that names this list; for shards.
        delta_base: makes it a delta to the complete list of this number (critical deltaCRLIndicator).
        freshest_url: where relying parties find the delta to this list; in complete lists only.

    Raises:
        InputError: a serial that is not positive or appears twice, removeFromCRL in a full list, a number or a window
            that RFC 5280 does not allow.
        TypeError: a naive datetime.

    Clause: RFC 5280 5.1.2, 5.2.1, 5.2.3 to 5.2.6, 5.3.1.
    """
    times = der.time(this_update) + der.time(next_update)
    _check_numbers(number, delta_base)
    _check_window(this_update, next_update)
    if delta_base is not None and freshest_url is not None:
        raise InputError("a delta names no delta", why="freshestCRL belongs into complete lists (RFC 5280 5.2.6)")
    revoked = encoded_entries + _encode_entries(entries, in_delta=delta_base is not None)
    extensions = [
        _extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, authority_key_id, constructed=False))),
        _extension(oids.CRL_NUMBER, der.integer(number)),
        *_scope_extensions(distribution_point_url, delta_base, freshest_url),
    ]
    return der.sequence(
        der.integer(1),
        signature_algorithm_der,
        issuer_name_der,
        times,
        # An empty list must be absent (RFC 5280 5.1.2.6).
        der.tlv(der.SEQUENCE, revoked) if revoked else b"",
        der.explicit(0, der.sequence(*extensions)),
    )


def _check_numbers(number: int, delta_base: int | None) -> None:
    if not 0 <= number < 1 << 159:
        raise InputError(f"CRL number {number} is out of range", why="0 to 2^159 - 1 (RFC 5280 5.2.3)")
    if delta_base is not None and not 0 <= delta_base <= number:
        raise InputError(f"the base {delta_base} is newer than the delta {number}", why="RFC 5280 5.2.4")


def _check_window(this_update: datetime, next_update: datetime) -> None:
    if next_update <= this_update:
        raise InputError(
            f"nextUpdate {next_update} is not after thisUpdate {this_update}",
            why="the list would be stale from the start",
        )


def _scope_extensions(point_url: str | None, delta_base: int | None, freshest_url: str | None) -> Iterator[bytes]:
    """Yield what says of which certificates and changes the list tells, and where more is to be had."""
    if delta_base is not None:
        yield _extension(oids.DELTA_CRL_INDICATOR, der.integer(delta_base), critical=True)
    if point_url is not None:
        point = der.sequence(der.implicit(0, _full_name(point_url), constructed=True))
        # Critical, as RFC 5280 5.2.5 demands.
        yield _extension(oids.ISSUING_DISTRIBUTION_POINT, point, critical=True)
    if freshest_url is not None:
        points = der.sequence(der.sequence(der.implicit(0, _full_name(freshest_url), constructed=True)))
        yield _extension(oids.FRESHEST_CRL, points)


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), der.boolean(True) if critical else b"", der.octet_string(value))


def _full_name(url: str) -> bytes:
    """Encode DistributionPointName with one fullName."""
    uri = der.implicit(6, der.ia5_string(url)[_header_size(len(url)) :], constructed=False)
    return der.implicit(0, uri, constructed=True)


def _header_size(content: int) -> int:
    return 2 if content < 0x80 else 3 if content < 0x100 else 4


def _encode_entries(entries: Iterable[RevokedEntry], *, in_delta: bool) -> bytes:
    """Return the content of revokedCertificates, each serial once."""
    encoded: list[bytes] = []
    seen: set[int] = set()
    for entry in entries:
        if entry.serial in seen:
            raise InputError(
                f"serial {entry.serial:x} cannot be listed",
                why="serials are positive and listed once (RFC 5280 5.1.2.6)",
            )
        seen.add(entry.serial)
        encoded.append(encode_entry(entry, in_delta=in_delta))
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
    for what, number in (("number", content.number), ("base number", content.delta_base)):
        if number is not None and number.bit_length() >= 160:
            octets = number.bit_length() // 8 + 1
            raise InputError(f"the {what} of the CRL has {octets} octets", why="at most 20 (RFC 5280 5.2.3)")
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
    **{reason.number: reason for reason in ReasonCode},
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
