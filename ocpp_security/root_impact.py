"""Who is cut off on a day if a root goes: certificates that chain to nothing else, stations that trust nothing else.

A root goes when it expires, when it is taken out of trust stores, or when its key is lost to somebody else. The search
is over every path: a cross certificate, a sub-CA that was signed twice or a second root may carry on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from chargepki.ocpp_security.estate import Recogniser, list_station_trust
from chargepki.pki.chain import ChainVerifier, PathRefusal, WorkBudget
from chargepki.pki.errors import Conflict, NotFound
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, Missing, Not
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions.authorities import AuthorityCertificate, has_signed, issuers_of_imported
from chargepki.pki.questions.timeline import valid_at

__all__ = ["CutCertificates", "CutReason", "CutStation", "RootImpact", "find_root", "root_impact"]

# Which roles the certificates have that a station verifies under the roots of each use (OCPP 2.0.1 M01-M05,
# InstallCertificateUseEnumType; ISO 15118-2 [V2G2-875], ISO 15118-20 7.3).
_VERIFIED_UNDER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "csms": frozenset({"csms"}),
        "manufacturer": frozenset({"firmware-signing"}),
        "v2g": frozenset({"contract", "oem-provisioning", "vehicle", "cps"}),
        "mo": frozenset({"contract"}),
        "oem": frozenset({"oem-provisioning", "vehicle"}),
    }
)
_Entity = tuple[bytes, bytes]
"""Subject and public key: what signs, under however many certificates."""


class CutReason(StrEnum):
    """Why a station cannot go on."""

    NO_ROOT_LEFT = "no-root-left"
    """It has no other root of that use that is valid then."""
    NOT_COVERED = "not-covered"
    """It has others, but certificates that it has to verify chain to none of them."""
    UNKNOWN = "unknown"
    """It lists others that nobody recognises: they may do, or not."""


@dataclass(frozen=True, slots=True)
class CutCertificates:
    """Certificates of one CA and profile that chain to nothing any more."""

    ca: str
    profile: str
    certificates: int
    stations: int
    """How many stations have one of them."""


@dataclass(frozen=True, slots=True)
class CutStation:
    """One station that cannot verify what it must."""

    station: str
    use: str
    reason: CutReason
    lost: tuple[str, ...]
    """CAs whose certificates it cannot verify any more."""


@dataclass(frozen=True, slots=True)
class RootImpact:
    """Who is cut off."""

    root: str
    sha256: str
    at: datetime
    root_not_after: datetime | None
    dependent: tuple[str, ...]
    """Certificates of CAs that chain to the root now, by label."""
    rescued: tuple[str, ...]
    """Those of them that have another path on that day."""
    certificates: tuple[CutCertificates, ...]
    stations: tuple[CutStation, ...]
    """By identity; at most as many as were asked for."""
    station_counts: Mapping[str, int]
    """``USE REASON`` to the number of stations, all of them."""

    @property
    def total_certificates(self) -> int:
        """How many certificates, of ours and imported, chain to nothing any more."""
        return sum(each.certificates for each in self.certificates)

    @property
    def total_stations(self) -> int:
        """How many stations cannot verify something, each counted for each use."""
        return sum(self.station_counts.values())


def find_root(authorities: Sequence[AuthorityCertificate], name: str) -> AuthorityCertificate:
    """Return the root that *name* means: id or name of a CA, label, or the begin of the SHA-256 of its DER (8 digits).

    Of a CA's name the newest generation is meant.

    Raises:
        NotFound: there is no such root.
        Conflict: the digits fit several.
    """
    roots = [each for each in authorities if each.is_root]
    named = [each for each in roots if name in (each.ca, each.label)]
    named = named or [each for each in roots if each.ca is not None and each.ca.rpartition("@")[0] == name]
    if named:
        return max(named, key=lambda each: int((each.ca or "@0").rpartition("@")[2]))
    digits = name.replace(":", "").lower()
    fitting = [each for each in roots if len(digits) >= 8 and each.sha256.startswith(digits)]
    if len(fitting) > 1:
        raise Conflict(f"{len(fitting)} roots have a digest that begins with {digits}", fix="give more digits")
    if not fitting:
        known = ", ".join(each.label for each in roots[:10]) or "none"
        raise NotFound(f"there is no root {name[:100]}", why=f"roots are: {known}", fix="name one of them")
    return fitting[0]


def root_impact(
    reads: Reads,
    authorities: Sequence[AuthorityCertificate],
    root: AuthorityCertificate,
    at: datetime,
    *,
    limit: int = 1000,
) -> RootImpact:
    """Say who is cut off at *at* when *root* is gone.

    Args:
        authorities: of `list_authorities`.
        limit: at most so many stations are named; all are counted.
    """
    web = _Web(authorities, at)
    dependent = [each for each in web.dependents(root) if each is not root]
    cut = {web.entity(each) for each in (root, *dependent)}
    cut = {entity for entity in cut if not web.is_alive(entity, without=root)}
    rescued = [each for each in dependent if web.entity(each) not in cut]
    certificates = tuple(_certificates(reads, authorities, cut, web, at))
    stations, counts = _stations(reads, web, root, at, limit)
    return RootImpact(
        *(root.label, root.sha256, at, root.not_after),
        dependent=tuple(sorted(each.label for each in dependent)),
        rescued=tuple(sorted(each.label for each in rescued)),
        certificates=certificates,
        stations=stations,
        station_counts=counts,
    )


class _Web:
    """Who signed whom among the certificates of CAs, and what is still alive at one instant."""

    def __init__(self, authorities: Sequence[AuthorityCertificate], at: datetime) -> None:
        self._at = at
        self.authorities = authorities
        self.by_sha256 = {each.sha256: each for each in authorities}
        self.roots = [each for each in authorities if each.is_root]
        self._bag = [each.der for each in authorities]
        self._certificates: dict[_Entity, list[AuthorityCertificate]] = {}
        for each in authorities:
            self._certificates.setdefault(self.entity(each), []).append(each)
        self._anchored: dict[tuple[_Entity, frozenset[str]], bool] = {}

    @staticmethod
    def entity(certificate: AuthorityCertificate) -> _Entity:
        """Return whose certificate it is."""
        return certificate.view.subject, certificate.view.key.der

    def dependents(self, root: AuthorityCertificate) -> list[AuthorityCertificate]:
        """Return every certificate that was signed by *root*, or by one that was, and so on; validity aside."""
        reached = {self.entity(root)}
        found = [root]
        left = [each for each in self.authorities if each is not root and not each.is_root]
        while True:
            issuers = [self._certificates[entity][0] for entity in reached]
            news = [each for each in left if any(has_signed(issuer.view, each.view) for issuer in issuers)]
            if not news:
                return found
            found += news
            left = [each for each in left if each not in news]
            reached = {self.entity(each) for each in news} - reached
            if not reached:
                return found

    def is_alive(self, entity: _Entity, *, without: AuthorityCertificate) -> bool:
        """Return whether any certificate of *entity* has a valid path to a root other than *without*."""
        return self.is_anchored(entity, frozenset(each.sha256 for each in self.roots if each is not without))

    def is_anchored(self, entity: _Entity, roots: frozenset[str]) -> bool:
        """Return whether any certificate of *entity* has a path, valid at the instant, to one of *roots* (digests)."""
        key = entity, roots
        if key not in self._anchored:
            anchors = [self.by_sha256[each] for each in roots if each in self.by_sha256]
            self._anchored[key] = self._search(entity, [each for each in anchors if self.is_valid(each)])
        return self._anchored[key]

    def is_valid(self, certificate: AuthorityCertificate) -> bool:
        """Return whether the instant is within the validity, both ends inclusive (RFC 5280 4.1.2.5)."""
        begin, end = certificate.not_before, certificate.not_after
        return begin is not None and end is not None and begin <= self._at <= end

    def _search(self, entity: _Entity, anchors: Sequence[AuthorityCertificate]) -> bool:
        if not anchors:
            return False
        # The inventory's own certificates, each once: nobody else decides how many there are.
        budget = WorkBudget(certificates=len(self._bag))
        verifier = ChainVerifier([each.der for each in anchors], self._bag, budget=budget)
        digests = {each.sha256 for each in anchors}
        for certificate in self._certificates.get(entity, ()):
            if certificate.sha256 in digests:
                return True
            try:
                verifier.verify(certificate.der, at=self._at)
            except PathRefusal:
                continue
            return True
        return False


def _certificates(
    reads: Reads,
    authorities: Sequence[AuthorityCertificate],
    cut: set[_Entity],
    web: _Web,
    at: datetime,
) -> list[CutCertificates]:
    found = []
    names = {each.ca for each in authorities if each.ca is not None and web.entity(each) in cut}
    for foreign, issuer in issuers_of_imported(reads, authorities):
        if issuer is not None and web.entity(issuer) in cut:
            names.add(foreign.id)
    for ca in sorted(names):
        wanted = valid_at(at, Compare(FIELDS["ca"], "=", ca))
        owned = And((wanted, Not(Missing(FIELDS["station"]))))
        stations = Counter(str(profile) for (profile, _), _ in reads.count_groups(owned, _OF_STATIONS))
        for (profile,), number in reads.count_groups(wanted, (FIELDS["profile"],)):
            found.append(CutCertificates(ca, str(profile), number, stations[str(profile)]))
    return found


_OF_STATIONS: Final = (FIELDS["profile"], FIELDS["station"])


def _stations(
    reads: Reads, web: _Web, root: AuthorityCertificate, at: datetime, limit: int
) -> tuple[tuple[CutStation, ...], Mapping[str, int]]:
    """Return the stations that cannot verify something, and how many there are by use and reason."""
    recogniser = Recogniser(reads)
    served = _served(reads, web, at)
    judged: dict[tuple[str, frozenset[str], bool], tuple[CutReason, tuple[str, ...]] | None] = {}
    counts: Counter[str] = Counter()
    found: list[CutStation] = []
    for trust in list_station_trust(reads):
        for use, (roots, unknown) in sorted(trust.uses(recogniser).items()):
            if root.sha256 not in roots or use not in _VERIFIED_UNDER:
                continue
            case = use, roots, unknown > 0
            if case not in judged:
                judged[case] = _judge(web, root, roots, served[use], has_unknown=unknown > 0)
            verdict = judged[case]
            if verdict is None:
                continue
            counts[f"{use} {verdict[0]}"] += 1
            if len(found) < limit:
                found.append(CutStation(trust.station, use, *verdict))
    return tuple(found), dict(sorted(counts.items()))


def _served(reads: Reads, web: _Web, at: datetime) -> dict[str, dict[str, _Entity]]:
    """Return for each use the CAs that have issued what stations verify under it and what is valid then."""
    entities = {each.ca: web.entity(each) for each in web.authorities if each.ca is not None}
    found: dict[str, dict[str, _Entity]] = {use: {} for use in _VERIFIED_UNDER}
    for (ca, profile), _ in reads.count_groups(valid_at(at), (FIELDS["ca"], FIELDS["profile"])):
        role = str(profile).partition("/")[2]
        for use, roles in _VERIFIED_UNDER.items():
            if role in roles and str(ca) in entities:
                found[use][str(ca)] = entities[str(ca)]
    return found


def _judge(
    web: _Web, root: AuthorityCertificate, roots: frozenset[str], served: Mapping[str, _Entity], *, has_unknown: bool
) -> tuple[CutReason, tuple[str, ...]] | None:
    """Return why stations with *roots* are cut off without *root*, and from which CAs; ``None`` when they are not."""
    rest = roots - {root.sha256}
    below = {web.entity(each) for each in web.dependents(root)}
    lost = tuple(sorted(ca for ca, entity in served.items() if entity in below and not web.is_anchored(entity, rest)))
    left = any(web.is_valid(web.by_sha256[each]) for each in rest if each in web.by_sha256)
    if left and not lost:
        return None
    if has_unknown:
        return CutReason.UNKNOWN, lost
    return (CutReason.NOT_COVERED if left else CutReason.NO_ROOT_LEFT), lost
