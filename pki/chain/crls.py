"""What a revocation list says about one certificate: scope, freshness, entries, deltas (RFC 5280 6.3.3)."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, NamedTuple

from chargepki.pki import der, names, oids
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.chain.extensions import (
    DistributionPoint,
    GeneralName,
    IssuingPoint,
    read_general_names,
    read_issuing_point,
)
from chargepki.pki.crl_view import CrlContent, EntryContent, read_crl
from chargepki.pki.der import DerError
from chargepki.pki.errors import printable_number

__all__ = ["ALL_REASONS", "Listed", "RevocationList", "Scope", "implied_point", "not_current"]

ALL_REASONS: Final = frozenset(range(1, 9))
"""Bits of ReasonFlags, without 0, which is unused."""
_DIRECTORY: Final = 4
_REMOVE_FROM_CRL: Final = 8
_UNDERSTOOD: Final = frozenset(
    {
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.CRL_NUMBER,
        oids.DELTA_CRL_INDICATOR,
        oids.ISSUING_DISTRIBUTION_POINT,
        oids.FRESHEST_CRL,
        oids.AUTHORITY_INFORMATION_ACCESS,
    }
)


class Listed(NamedTuple):
    """An entry for the certificate asked about."""

    revoked_at: datetime | None
    reason: int
    """0 where the entry gives none."""

    @property
    def is_removal(self) -> bool:
        """Whether a delta takes a hold back."""
        return self.reason == _REMOVE_FROM_CRL


class Scope(NamedTuple):
    """What a list covers of what a distribution point asks for."""

    reasons: frozenset[int]
    """Empty: nothing, for the reason in `why_not`."""
    why_not: str = ""


def implied_point(certificate: PathCertificate) -> DistributionPoint:
    """Return the point that RFC 5280 6.3.3 adds to every certificate: its issuer's own list, for all reasons."""
    return DistributionPoint((GeneralName(_DIRECTORY, certificate.issuer),), None, None, ())


class RevocationList:
    """One CRL, decoded; not verified."""

    def __init__(self, data: bytes) -> None:
        """Read *data* (DER).

        Raises:
            DerError: it is no CRL, or its scope cannot be decoded.
        """
        self.content: Final[CrlContent] = read_crl(data)
        if self.content.signature is None or self.content.outer_algorithm != self.content.signature_algorithm:
            raise DerError("not-a-crl", 0, "it has no signature, or two different signature algorithms")
        point = self.content.extension(oids.ISSUING_DISTRIBUTION_POINT)
        self._point_der: Final = b"" if point is None else point.value
        self.point: Final[IssuingPoint | None] = None if point is None else read_issuing_point(point.value)
        self.is_delta: Final = self.content.extension(oids.DELTA_CRL_INDICATOR) is not None

    @property
    def label(self) -> str:
        """How messages name it."""
        kind = "delta CRL" if self.is_delta else "CRL"
        number = "" if self.content.number is None else f" {printable_number(self.content.number)}"
        return f"{kind}{number} of {names.text(self.content.issuer)}"

    @property
    def unknown_critical(self) -> str:
        """Dotted identifier of a critical extension of list or entry that we do not know, or the empty string."""
        for extension in self.content.extensions:
            if extension.critical and extension.oid not in _UNDERSTOOD:
                return extension.oid
        known = "" if self.point is None or not self.point.indirect else oids.CERTIFICATE_ISSUER
        return next((e.unknown_critical for e in self.content.entries if e.unknown_critical not in ("", known)), "")

    def why_not_current(self, at: datetime, max_age: timedelta | None, skew: timedelta) -> str:
        """Return why the list says nothing about *at*, or the empty string."""
        since = self.content.this_update.value
        until = self.content.next_update.value if self.content.next_update else None
        return not_current(since, until, at, max_age, skew)

    def scope(self, target: PathCertificate, point: DistributionPoint, *, allow_indirect: bool) -> Scope:
        """Return for which reasons this list answers for *target* at *point* (6.3.3 (b), (d))."""
        own = self.point
        if own is not None and own.indirect and not allow_indirect:
            return Scope(frozenset(), "indirect CRLs are not configured")
        if point.crl_issuers:
            named = [name.value for name in point.crl_issuers if name.tag == _DIRECTORY]
            if not any(same_name(self.content.issuer, name) for name in named):
                return Scope(frozenset(), "another CRL issuer is named by the certificate")
            if own is None or not own.indirect:
                return Scope(frozenset(), "the certificate names a CRL issuer, and the list is not indirect")
        elif not same_name(self.content.issuer, target.issuer):
            return Scope(frozenset(), "another issuer")
        if own is None:
            return Scope(point.reasons or ALL_REASONS)
        if not self._names_fit(own, target, point):
            return Scope(frozenset(), "another distribution point")
        if own.only_attributes or (own.only_users and target.is_ca) or (own.only_cas and not target.is_ca):
            return Scope(frozenset(), "another kind of certificate")
        reasons = (point.reasons or ALL_REASONS) & (own.reasons or ALL_REASONS) & ALL_REASONS
        return Scope(reasons, "" if reasons else "other reasons")

    def _names_fit(self, own: IssuingPoint, target: PathCertificate, point: DistributionPoint) -> bool:
        ours = _full_names(own.names, own.relative, self.content.issuer)
        if not ours:
            return True
        base = next((name.value for name in point.crl_issuers if name.tag == _DIRECTORY), target.issuer)
        theirs = _full_names(point.names, point.relative, base) or list(point.crl_issuers)
        return any(_same_general_name(a, b) for a in ours for b in theirs)

    def is_delta_of(self, base: RevocationList) -> bool:
        """Whether this delta brings *base* up to date (6.3.3 (c); 5.2.4)."""
        mine, its = self.content, base.content
        return (
            self.is_delta
            and mine.delta_base is not None
            and mine.number is not None
            and its.number is not None
            and mine.delta_base <= its.number < mine.number
            and same_name(mine.issuer, its.issuer)
            and self._point_der == base._point_der
            and mine.authority_key_id == its.authority_key_id
        )

    def find(self, target: PathCertificate) -> Listed | None:
        """Return the entry for *target*, or ``None``."""
        if self.point is not None and self.point.indirect:
            return self._find_indirect(target)
        entry = self._by_serial.get(target.serial)
        if entry is None or not same_name(self.content.issuer, target.issuer):
            return None
        return Listed(entry.revoked_at.value, entry.reason or 0)

    @cached_property
    def _by_serial(self) -> dict[int, EntryContent]:
        # The first of several entries counts; a list should have one.
        return {entry.serial: entry for entry in reversed(self.content.entries)}

    def _find_indirect(self, target: PathCertificate) -> Listed | None:
        """Walk the entries: each names its issuer, or has that of the entry before it (RFC 5280 5.3.3)."""
        issuer = self.content.issuer
        for entry in self.content.entries:
            if entry.unknown_critical:
                issuer = self._certificate_issuer(entry) or issuer
            if entry.serial == target.serial and same_name(issuer, target.issuer):
                return Listed(entry.revoked_at.value, entry.reason or 0)
        return None

    def _certificate_issuer(self, entry: EntryContent) -> bytes | None:
        parts = der.parse(self.content.der, offset=entry.offset, strict_end=False).children()
        for extension in parts[2].children() if len(parts) == 3 else ():
            kids = extension.children()
            if kids[0].as_oid() == oids.CERTIFICATE_ISSUER:
                for name in read_general_names(kids[-1].as_octets()):
                    if name.tag == _DIRECTORY:
                        return name.value
        return None


def not_current(
    since: datetime | None, until: datetime | None, at: datetime, max_age: timedelta | None, skew: timedelta
) -> str:
    """Return why evidence of that period says nothing about *at*, or the empty string; both ends are inclusive."""
    if since is None or since > at + skew:
        return f"thisUpdate {since:%Y-%m-%d %H:%M:%S}Z lies in the future" if since else "thisUpdate is no time"
    if max_age is not None and at - since > max_age:
        return f"it is from {since:%Y-%m-%d %H:%M:%S}Z, older than {max_age} allows"
    if until is None and max_age is None:
        return "it has no nextUpdate, and no greatest age is configured"
    if until is not None and at > until:
        return f"its nextUpdate was {until:%Y-%m-%d %H:%M:%S}Z"
    return ""


def _full_names(names: tuple[GeneralName, ...], relative: bytes | None, base: bytes) -> list[GeneralName]:
    if relative is None:
        return list(names)
    rdns = [rdn.raw for rdn in der.parse(base).children(der.SEQUENCE)]
    return [GeneralName(_DIRECTORY, der.sequence(*rdns, relative))]


def _same_general_name(a: GeneralName, b: GeneralName) -> bool:
    return a.tag == b.tag and (same_name(a.value, b.value) if a.tag == _DIRECTORY else a.value == b.value)
