"""What rules about several certificates look at: the members, and the path from the leaf upwards."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Final

from chargepki.pki import keys, names
from chargepki.pki.certificate_view import CertificateView
from chargepki.pki.errors import InputError
from chargepki.pki.profiles.base import Profile, RoleKind, Standard

__all__ = ["Authorities", "Collection", "Issuers", "Kind", "Member", "is_cross_certificate"]


class Kind(StrEnum):
    """What several certificates are together; it decides which rules apply."""

    BUNDLE = "bundle"
    """What a peer is sent: leaf first, then its CAs."""
    STORE = "store"
    """Trust anchors."""
    SET = "set"
    """Certificates that merely lie side by side."""
    CONTAINER = "container"
    """What a PKCS#7 or PKCS#12 file carries: a bundle whose order says nothing and which may bring its root."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One certificate of several."""

    name: str
    """How reports call it, for example ``chain.pem#2``."""
    view: CertificateView
    profile: Profile | None = None

    @property
    def is_self_issued(self) -> bool:
        """Whether it may be a root."""
        return self.view.is_self_issued


class Issuers:
    """Finds the issuer of a certificate among others."""

    def __init__(self, candidates: Iterable[Member]) -> None:
        self._by_subject: dict[bytes, list[Member]] = defaultdict(list)
        for candidate in candidates:
            if candidate.view.is_ca:
                self._by_subject[candidate.view.subject].append(candidate)

    def of(self, member: Member) -> Member | None:
        """Return the certificate that issued *member*; ``None`` when there is none, or it is its own issuer.

        Several CAs may share a name (V2G2-878): key identifiers choose among them, and where those are silent or
        equal, the signature does.
        """
        view = member.view
        if view.is_self_issued:
            return None
        named = [each for each in self._named(view.issuer) if each is not member]
        if len(named) > 1:
            wanted = view.known.authority_key_id
            if wanted is not None and wanted.key_id:
                named = [each for each in named if each.view.known.subject_key_id == wanted.key_id] or named
        if len({each.view.key.der for each in named}) > 1:
            named = [each for each in named[:_MOST_NAMESAKES] if _signed(view, each.view)] or named
        return named[0] if named else None

    def _named(self, issuer: bytes) -> list[Member]:
        if found := self._by_subject.get(issuer):
            return found
        # The same name in another encoding (RFC 5280 7.1) is costly to find and rare: not searched in large sets.
        if len(self._by_subject) > _MOST_NAMES:
            return []
        return [each for subject, members in self._by_subject.items() if _same(issuer, subject) for each in members]


_MOST_NAMES: Final = 64
_MOST_NAMESAKES: Final = 64
"""CAs of one name whose keys are tried: as many as there are would let a folder cost the square of its size."""


class Authorities:
    """Finds the CA that signs a revocation list or an OCSP response among many certificates."""

    def __init__(self, candidates: Iterable[Member]) -> None:
        self._cas = [each for each in candidates if each.view.is_ca]

    @cached_property
    def _by_name(self) -> dict[bytes, Member]:
        return {each.view.subject: each for each in reversed(self._cas)}

    @cached_property
    def _by_name_and_key(self) -> dict[tuple[bytes, bytes | None], Member]:
        return {(each.view.subject, each.view.known.subject_key_id): each for each in reversed(self._cas)}

    @cached_property
    def _by_key_hash(self) -> dict[bytes, Member]:
        algorithms = ("sha1", "sha256", "sha384", "sha512")
        return {
            hashlib.new(name, each.view.key.bits, usedforsecurity=False).digest(): each
            for each in reversed(self._cas)
            for name in algorithms
        }

    def of_list(self, issuer: bytes, key_id: bytes | None) -> Member | None:
        """Return the first CA with that name (DER) and key identifier; failing that, the first with the name."""
        return self._by_name_and_key.get((issuer, key_id)) or self._by_name.get(issuer)

    def with_key_hash(self, key_hash: bytes) -> Member | None:
        """Return the first CA whose key has that hash, as an OCSP response names it (RFC 6960 4.1.1)."""
        return self._by_key_hash.get(key_hash)


def _same(one: bytes, other: bytes) -> bool:
    try:
        return names.same(one, other)
    except InputError:
        return False


def _signed(view: CertificateView, issuer: CertificateView) -> bool:
    try:
        key = keys.load_public_key(issuer.key.der)
        return keys.verify(key, view.signature or b"", view.tbs, view.signature_algorithm)
    except InputError:
        return False


@dataclass(frozen=True, eq=False)
class Collection:
    """Certificates that are judged together. Nothing here has been verified."""

    members: tuple[Member, ...]
    """In the order of the file."""
    kind: Kind
    now: datetime | None = None
    path: tuple[Member, ...] = field(init=False)
    """Of a bundle or container: from the leaf upwards, as far as the members go; a root at its end is part of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", tuple(self._build_path()))

    def _build_path(self) -> list[Member]:
        if self.kind not in (Kind.BUNDLE, Kind.CONTAINER):
            return []
        issuers = Issuers(self.members)
        path: dict[int, Member] = {}
        current = self._leaf(issuers)
        while current is not None and id(current) not in path:
            path[id(current)] = current
            current = issuers.of(current)
        return list(path.values())

    def _leaf(self, finder: Issuers) -> Member | None:
        """The first end entity; in a chain of CAs alone the one that issued none of the others."""
        for member in self.members:
            if not member.view.is_ca:
                return member
        issuers = {id(finder.of(member)) for member in self.members}
        return next((member for member in self.members if id(member) not in issuers), None)

    @property
    def leaf(self) -> Member | None:
        """Where `path` begins."""
        return self.path[0] if self.path else None

    @property
    def profile(self) -> Profile | None:
        """What the leaf is."""
        return None if self.leaf is None else self.leaf.profile

    @property
    def standard(self) -> Standard | None:
        """The document that the leaf follows."""
        return None if self.profile is None else self.profile.standard

    @property
    def role(self) -> str:
        """Role of the leaf's profile, or the empty string."""
        return "" if self.profile is None else self.profile.role

    @cached_property
    def anchor(self) -> Member | None:
        """The root at the end of `path`, if it is there."""
        return self.path[-1] if self.path and self.path[-1].is_self_issued and self.path[-1].view.is_ca else None

    @property
    def below_root(self) -> tuple[Member, ...]:
        """`path` without the root."""
        return self.path[:-1] if self.anchor is not None else self.path

    @property
    def tokens(self) -> frozenset[str]:
        """What `Rule.applies` is compared with."""
        tokens = {"set", self.kind.value}
        if self.kind in (Kind.BUNDLE, Kind.CONTAINER) and len(self.path) > 1:
            tokens.add("chain")
        return frozenset(tokens)

    @property
    def has_cross_certificate(self) -> bool:
        """Whether a CA of the path was certified by another family: not self-issued, and without a sub-CA's pathLen."""
        return any(is_cross_certificate(member) for member in self.below_root[1:])


def is_cross_certificate(member: Member) -> bool:
    """Whether *member* has the form of a root that another root certified ([V2G20-1853])."""
    if member.profile is not None and member.profile.kind is RoleKind.CROSS:
        return True
    constraints = member.view.known.basic_constraints
    length = None if constraints is None else constraints.path_length
    return member.view.is_ca and not member.is_self_issued and length not in (0, 1)
