"""The certificates that take a relying party from one of our CAs to a root that it holds, over cross-certificates too.

A root that was rolled over has two generations with one name, and two roots may have certified each other: which chain
is right depends on who is to believe it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import PathRefusal, verify_chain
from chargepki.pki.questions.authorities import AuthorityCertificate, Signers

__all__ = ["PathFinder", "TrustPath"]

_MOST_CERTIFICATES: Final = 6
"""Below a root; ISO 15118-20 allows four, one of them a cross-certificate (V2G20-1003, V2G20-1005), of which the leaf
is one."""
_MOST_STEPS: Final = 2_000
_Entity = tuple[bytes, bytes]
"""Subject and public key: what signs, under however many certificates."""


@dataclass(frozen=True, slots=True)
class TrustPath:
    """One way from a CA to a root."""

    certificates: tuple[bytes, ...]
    """DER, the CA first, without the root; empty where the root is the CA."""
    labels: tuple[str, ...]
    """What they are called in the inventory."""
    anchor: bytes
    """DER of the root."""
    not_after: datetime
    """Last second at which all of them are valid, the root included."""
    is_crossed: bool
    """Whether a cross-certificate is among them."""


class PathFinder:
    """Finds paths among the certificates of CAs that the inventory holds. Immutable but for what it remembers.

    Args:
        authorities: of `list_authorities`, which leaves out what was revoked or withdrawn.
    """

    def __init__(self, authorities: Sequence[AuthorityCertificate]) -> None:
        self._authorities = tuple(authorities)
        self._signers = Signers(authorities)
        self._issuers: dict[str, tuple[AuthorityCertificate, ...]] = {}

    def paths(self, ca_id: str, anchors: Sequence[bytes], at: datetime) -> list[TrustPath]:
        """Return the valid paths from the generation *ca_id* to any of *anchors*, the best first.

        The shortest is the best, since fields of protocols are short; of two as long the one that lasts longer.

        Args:
            anchors: DER; those that are not valid at *at* count for nothing.
        """
        own = next((each for each in self._authorities if each.ca == ca_id), None)
        return [] if own is None else self.paths_above(own.der, anchors, at)

    def paths_above(self, ca: bytes, anchors: Sequence[bytes], at: datetime) -> list[TrustPath]:
        """Return the same for the CA whose certificate (DER) is *ca*; another one of its key may do as well."""
        trusted: dict[_Entity, bytes] = {}
        ends: dict[bytes, datetime] = {}
        for der in dict.fromkeys(anchors):
            view = view_certificate(der)
            begin, end = view.not_before.value, view.not_after.value
            if begin is not None and end is not None and begin <= at <= end:
                trusted.setdefault((view.subject, view.key.der), der)
                ends[der] = end
        found = []
        below = view_certificate(ca)
        for certificates, anchor in self._search((below.subject, below.key.der), trusted, at):
            if _is_valid(certificates, anchor, at):
                found.append(_path(certificates, anchor, ends[anchor]))
        found.sort(key=lambda path: (len(path.certificates), -path.not_after.timestamp(), path.labels))
        return found

    def _search(
        self, entity: _Entity, trusted: dict[_Entity, bytes], at: datetime
    ) -> Iterator[tuple[tuple[AuthorityCertificate, ...], bytes]]:
        """Yield every chain of signatures from *entity* to a trusted one, none with an entity twice."""
        waiting: list[tuple[_Entity, tuple[AuthorityCertificate, ...]]] = [(entity, ())]
        # What was imported may be a web of any size: a search that has not ended by then ends.
        for _ in range(_MOST_STEPS):
            if not waiting:
                return
            current, above = waiting.pop(0)
            anchor = trusted.get(current)
            if anchor is not None:
                yield above, anchor
                continue
            if len(above) >= _MOST_CERTIFICATES:
                continue
            seen = {entity, *(_entity(each) for each in above)}
            for certificate in self._authorities:
                if _entity(certificate) != current or not _is_in_date(certificate, at) or certificate.is_root:
                    continue
                signers = [_entity(issuer) for issuer in self._issuers_of(certificate)]
                waiting += [(signer, (*above, certificate)) for signer in signers if signer not in seen]

    def _issuers_of(self, certificate: AuthorityCertificate) -> tuple[AuthorityCertificate, ...]:
        """Return one certificate of each entity whose key signed *certificate*."""
        known = self._issuers.get(certificate.sha256)
        if known is None:
            signers: dict[_Entity, AuthorityCertificate] = {}
            for each in self._signers.of(certificate.view):
                signers.setdefault(_entity(each), each)
            known = self._issuers[certificate.sha256] = tuple(signers.values())
        return known


def _entity(certificate: AuthorityCertificate) -> _Entity:
    return certificate.view.subject, certificate.view.key.der


def _is_in_date(certificate: AuthorityCertificate, at: datetime) -> bool:
    begin, end = certificate.not_before, certificate.not_after
    return begin is not None and end is not None and begin <= at <= end


def _is_valid(certificates: Sequence[AuthorityCertificate], anchor: bytes, at: datetime) -> bool:
    """Whether the whole path holds, path lengths and name constraints included."""
    if not certificates:
        return True
    try:
        verify_chain(certificates[0].der, [each.der for each in certificates[1:]], [anchor], at=at)
    except PathRefusal:
        return False
    return True


def _path(certificates: Sequence[AuthorityCertificate], anchor: bytes, anchor_end: datetime) -> TrustPath:
    ends = [each.not_after for each in certificates if each.not_after is not None]
    return TrustPath(
        certificates=tuple(each.der for each in certificates),
        labels=tuple(each.label for each in certificates),
        anchor=anchor,
        not_after=min([*ends, anchor_end]),
        is_crossed=any(each.view.is_self_issued or each.ca is None for each in certificates),
    )
