"""Who signed whom: CAs as nodes, each with counts of what it issued instead of the certificates themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chargepki.pki import names
from chargepki.pki.algorithms import algorithms_of
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.inventory.records import CaState as RecordState
from chargepki.pki.profiles import list_profiles
from chargepki.pki.questions import AuthorityCertificate, Provenance, list_authorities, valid_at
from chargepki.pki.questions.authorities import has_signed, issuers_of_imported
from chargepki.pki.reporting.model import MOST_CAS, CaNode, CaState, Hierarchy
from chargepki.pki.reporting.scope import Scope

__all__ = ["read_hierarchy"]

_MOST_LEAVES: Final = 3
_DEEPEST: Final = 7
_MOST_CANDIDATES: Final = 50
"""So many CAs of one name are tried as the issuer of a certificate."""
_OURS: Final = (Provenance.CA, Provenance.ISSUED)
_PLACES: Final = {"file": "file", "pkcs11": "token", "est": "elsewhere", "none": "elsewhere"}


@dataclass(slots=True, eq=False)
class _Entity:
    """A CA under construction."""

    label: str
    subject: str
    certificates: list[AuthorityCertificate]
    ca: CaRecord | None = None
    leaves: dict[str, int] = field(default_factory=dict)
    parents: list[_Entity] = field(default_factory=list)
    children: list[_Entity] = field(default_factory=list)
    weight: int = 0
    """Valid certificates in its branch."""

    @property
    def best(self) -> AuthorityCertificate | None:
        """The certificate that stands for it."""
        return self.certificates[0] if self.certificates else None


def read_hierarchy(reads: Reads, scope: Scope, wanted: Filter) -> Hierarchy:
    """Return the CAs of an inventory; at most `MOST_CAS` of them, those of the fullest branches first."""
    authorities = list_authorities(reads, revoked=True)
    cas = {ca.id: ca for ca in reads.list_cas()}
    entities = _entities(authorities, cas)
    _count_leaves(reads, entities, authorities, valid_at(scope.at, wanted))
    _find_parents(entities)
    roots = _forest(entities)
    nodes = _shown(roots, scope.at)
    commands = ("chargepki ca list", scope.command("inventory census --by ca"))
    return Hierarchy(tuple(nodes), len(entities) - len(nodes), commands)


def _entities(authorities: Sequence[AuthorityCertificate], cas: Mapping[str, CaRecord]) -> list[_Entity]:
    order = list(Provenance)
    grouped: dict[Hashable, list[AuthorityCertificate]] = {}
    for each in authorities:
        grouped.setdefault((names.folded_or_itself(each.view.subject), each.view.key.der), []).append(each)
    found = []
    for certificates in grouped.values():
        # Ours before others', sound ones before revoked ones, then the one that lasts longest.
        certificates.sort(
            key=lambda each: (order.index(each.provenance), each.is_revoked, -_seconds(each.not_after), each.label)
        )
        best = certificates[0]
        ca = cas.get(best.ca or "")
        found.append(_Entity(best.label, names.text(best.view.subject), certificates, ca))
    return found


def _count_leaves(
    reads: Reads, entities: list[_Entity], authorities: Sequence[AuthorityCertificate], chosen: Filter
) -> None:
    """Count what each CA issued; an issuer of imported certificates that is not here becomes an entity of its own."""
    by_certificate = {each.sha256: entity for entity in entities for each in entity.certificates}
    by_ca = {each.ca: entity for entity in entities for each in entity.certificates if each.ca is not None}
    profiles = frozenset(profile.id for profile in list_profiles() if profile.is_ca)
    strangers: dict[str, dict[str, int]] = {}
    for (ca, profile), number in reads.count_groups(chosen, (FIELDS["ca"], FIELDS["profile"])):
        if profile not in profiles:
            entity = by_ca.get(str(ca))
            leaves = strangers.setdefault(str(ca), {}) if entity is None else entity.leaves
            leaves[str(profile)] = leaves.get(str(profile), 0) + number
    fullest = sorted(strangers, key=lambda ca: (-sum(strangers[ca].values()), ca))[:MOST_CAS]
    known: Callable[[str], bool] = frozenset(fullest).__contains__
    for record, issuer in issuers_of_imported(reads, authorities, only=known):
        if issuer is None:
            entities.append(_Entity(record.subject, record.subject, [], leaves=strangers[record.id]))
            continue
        entity = by_certificate[issuer.sha256]
        for profile, number in strangers[record.id].items():
            entity.leaves[profile] = entity.leaves.get(profile, 0) + number


def _find_parents(entities: Sequence[_Entity]) -> None:
    by_subject: dict[Hashable, list[_Entity]] = {}
    for entity in entities:
        if entity.best is not None:
            by_subject.setdefault(names.folded_or_itself(entity.best.view.subject), []).append(entity)
    for entity in entities:
        for certificate in entity.certificates:
            candidates = by_subject.get(names.folded_or_itself(certificate.view.issuer), [])[:_MOST_CANDIDATES]
            signers = (
                each
                for each in candidates
                if each.best is not None and (each is entity or has_signed(each.best.view, certificate.view))
            )
            signer = next(signers, None)
            if signer is not None and signer is not entity and signer not in entity.parents:
                entity.parents.append(signer)


def _forest(entities: Sequence[_Entity]) -> list[_Entity]:
    """Hang each entity below its first parent, and return the roots; cross certificates may form circles."""
    placed: set[int] = set()
    roots: list[_Entity] = []
    below: dict[int, list[_Entity]] = {}
    for entity in entities:
        for parent in entity.parents:
            below.setdefault(id(parent), []).append(entity)
    # Whatever is left after the roots is reached from a circle, which begins anywhere.
    for start in sorted(entities, key=lambda each: (bool(each.parents), each.label)):
        if id(start) in placed:
            continue
        placed.add(id(start))
        roots.append(start)
        waiting = [start]
        for entity in waiting:
            for child in below.get(id(entity), ()):
                if id(child) not in placed:
                    placed.add(id(child))
                    entity.children.append(child)
                    waiting.append(child)
        for entity in reversed(waiting):
            entity.weight = sum(entity.leaves.values()) + sum(each.weight for each in entity.children)
    return roots


def _shown(roots: Sequence[_Entity], at: datetime) -> list[CaNode]:
    def order(entity: _Entity) -> tuple[bool, int, str]:
        is_ours = entity.best is not None and entity.best.provenance in _OURS
        return (not is_ours, -entity.weight, entity.label)

    chosen: list[tuple[_Entity, int, _Entity | None]] = []
    waiting: list[tuple[_Entity, int, _Entity | None]] = [
        (each, 0, None) for each in sorted(roots, key=order, reverse=True)
    ]
    while waiting and len(chosen) < MOST_CAS:
        entity, depth, above = waiting.pop()
        chosen.append((entity, depth, above))
        if depth < _DEEPEST:
            children = sorted(entity.children, key=order, reverse=True)
            waiting += [(each, depth + 1, entity) for each in children]
    numbers = {id(entity): number for number, (entity, _, _) in enumerate(chosen)}
    return [_node(number, entity, depth, above, numbers, at) for number, (entity, depth, above) in enumerate(chosen)]


def _node(
    number: int, entity: _Entity, depth: int, above: _Entity | None, numbers: Mapping[int, int], at: datetime
) -> CaNode:
    ordered = sorted(entity.leaves.items(), key=lambda each: (-each[1], each[0]))
    parents = [above] if above is not None else []
    parents += [each for each in entity.parents if each is not above and id(each) in numbers]
    best = entity.best
    return CaNode(
        number=number,
        label=entity.label,
        subject=entity.subject,
        provenance=None if best is None else best.provenance,
        state=_state(entity, at),
        profile=entity.ca.profile if entity.ca is not None else "",
        key=algorithms_of(best.der).key if best is not None else "",
        key_place=_PLACES.get(entity.ca.key_uri.partition(":")[0], "file") if entity.ca is not None else "",
        not_after=None if best is None else best.not_after,
        parents=tuple([numbers[id(each)] for each in parents]),
        depth=depth,
        leaves=tuple(ordered[:_MOST_LEAVES]),
        more_leaves=sum(count for _, count in ordered[_MOST_LEAVES:]),
    )


def _state(entity: _Entity, at: datetime) -> CaState:
    best = entity.best
    if best is None:
        return CaState.UNKNOWN
    if best.is_revoked or (entity.ca is not None and entity.ca.state is RecordState.REVOKED):
        return CaState.REVOKED
    if best.not_after is not None and best.not_after < at:
        return CaState.EXPIRED
    if entity.ca is None:
        return CaState.FOREIGN
    return CaState.RETIRED if entity.ca.state is RecordState.RETIRED else CaState.ACTIVE


def _seconds(instant: datetime | None) -> float:
    return instant.timestamp() if instant is not None else 0.0
