"""Who issued whom in a heap: distinct certificates, their issuers by name and signature, and the chains they form."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from chargepki.pki import keys, names
from chargepki.pki.certificate_view import CertificateView
from chargepki.pki.errors import InputError
from chargepki.pki.profiles.base import Profile

__all__ = ["Chain", "Gap", "Graph", "Node"]

_MOST_CHECKS: Final = 20_000
"""Signatures that one heap may cost."""
_MOST_NAMESAKES: Final = 16
_MOST_SPELLINGS: Final = 256
_DEPTH: Final = 10
_CA_ISSUERS: Final = "1.3.6.1.5.5.7.48.2"
_URI: Final = 6


@dataclass(slots=True, eq=False)
class Node:
    """One certificate, however often it lies in the heap."""

    names: list[str]
    """Where it was found, for example ``chain.pem#2``."""
    view: CertificateView
    profile: Profile | None
    reason: str
    """Why it is taken for that profile, or why for none."""
    issuer: Node | None = None
    """Verified by signature; itself for a root."""

    @property
    def name(self) -> str:
        """How reports call it: where it was found first."""
        return self.names[0]

    @property
    def der(self) -> bytes:
        """The whole certificate."""
        return self.view.der or b""

    @property
    def sha256(self) -> str:
        """Fingerprint, lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def subject(self) -> str:
        """For people."""
        return _name(self.view.subject)

    @property
    def is_root(self) -> bool:
        """Whether it signed itself."""
        return self.issuer is self

    @property
    def label(self) -> str:
        """Subject and where it lies."""
        return f"{self.subject or '(empty subject)'} ({self.name})"

    @property
    def aia(self) -> tuple[str, ...]:
        """Where it says that its issuer's certificate can be had; never fetched."""
        found = self.view.known.authority_info or ()
        return tuple([each.location.text for each in found if each.method == _CA_ISSUERS and each.location.tag == _URI])

    @property
    def looks_like_root(self) -> bool:
        """Whether subject and issuer are the same name; nothing is verified."""
        return self.view.is_self_issued


@dataclass(frozen=True, slots=True)
class Gap:
    """What a chain lacks above its last certificate."""

    issuer: str
    """Subject of the certificate that is missing."""
    key_id: str | None
    """Its SubjectKeyIdentifier (hex), where the certificate below says so."""
    aia: tuple[str, ...]
    impostors: tuple[Node, ...]
    """Certificates of that name in the heap whose key did not sign: another generation, or another hierarchy."""
    respelled: tuple[Node, ...]
    """Certificates whose key did sign, but whose name is encoded otherwise."""
    no_ca: tuple[Node, ...] = ()
    """Certificates whose key did sign, but which are none of a CA."""
    unverifiable: tuple[Node, ...] = ()
    """CAs whose key is named as the one that signed, with an algorithm that nothing here verifies."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """From a certificate that issued nothing here upwards, as far as the heap goes."""

    path: tuple[Node, ...]
    """Leaf first; a root at the end is part of it."""
    gap: Gap | None
    """``None`` when the path reaches a root."""

    @property
    def leaf(self) -> Node:
        """Where it begins."""
        return self.path[0]

    @property
    def root(self) -> Node | None:
        """The root, if it is here."""
        return self.path[-1] if self.gap is None else None

    @property
    def to_send(self) -> tuple[Node, ...]:
        """What a handshake or ``certificateChain`` carries: leaf first, no root."""
        return self.path if self.gap is not None or len(self.path) == 1 else self.path[:-1]


class Graph:
    """The certificates of a heap and their issuers."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self._by_subject: dict[bytes, list[Node]] = defaultdict(list)
        for node in nodes:
            self._by_subject[node.view.subject].append(node)
        self._checks = 0
        self._gaps: dict[int, Gap] = {}
        for node in nodes:
            self._link(node)

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """One for each leaf, and for each CA that issued nothing here."""
        issuing = {id(node.issuer) for node in self.nodes if node.issuer is not None and not node.is_root}
        tops = [node for node in self.nodes if id(node) not in issuing or not node.view.is_ca]
        return tuple([self._chain(node) for node in tops])

    @cached_property
    def chain_of(self) -> dict[int, Chain]:
        """The chains by the `id` of their leaf."""
        return {id(chain.leaf): chain for chain in self.chains}

    def _chain(self, leaf: Node) -> Chain:
        path, seen = [leaf], {id(leaf)}
        while (issuer := path[-1].issuer) is not None and id(issuer) not in seen and len(path) <= _DEPTH:
            path.append(issuer)
            seen.add(id(issuer))
        top = path[-1]
        return Chain(tuple(path), None if top.is_root else self._gaps.get(id(top), _unknown(top)))

    def _link(self, node: Node) -> None:
        """Find the issuer by name and signature; what has the name alone is remembered as an impostor."""
        view = node.view
        if view.is_self_issued and self._signed(node, node):
            node.issuer = node
            return
        named = [each for each in self._by_subject.get(view.issuer, []) if each is not node]
        found = [
            each for each in _hinted(named, view)[:_MOST_NAMESAKES] if each.view.is_ca and self._signed(each, node)
        ]
        if found:
            # A root before a cross-certificate, and of renewed CAs the one that lives longest.
            node.issuer = max(found, key=_worth)
            return
        respelled = [each for each in self._respelled(view.issuer) if each is not node and self._signed(each, node)]
        identifier = view.known.authority_key_id
        key_id = identifier.key_id.hex() if identifier is not None and identifier.key_id else None
        namesakes = named[:_MOST_NAMESAKES]
        no_ca = tuple([each for each in namesakes if not each.view.is_ca and self._signed(each, node)])
        unverifiable = tuple([each for each in namesakes if each.view.is_ca and self._is_named_alone(each, node)])
        impostors = tuple([each for each in namesakes if each not in no_ca and each not in unverifiable])
        gap = Gap(_name(view.issuer), key_id, node.aia, impostors, tuple(respelled), no_ca, unverifiable)
        self._gaps[id(node)] = gap

    def _respelled(self, issuer: bytes) -> Iterable[Node]:
        """Return CAs of the same name in another encoding (RFC 5280 7.1); dear, so not in large heaps."""
        if len(self._by_subject) > _MOST_SPELLINGS:
            return []
        return [
            node
            for subject, nodes in self._by_subject.items()
            if subject != issuer and _same(subject, issuer)
            for node in nodes[:_MOST_NAMESAKES]
        ]

    def _is_named_alone(self, issuer: Node, subject: Node) -> bool:
        """Whether *subject* names the key of *issuer*, and its algorithm (SHA-1, say) does not let us see if it did."""
        named, own = subject.view.known.authority_key_id, issuer.view.known.subject_key_id
        if named is None or not named.key_id or named.key_id != own:
            return False
        return self._verdict(issuer, subject) is None

    def _signed(self, issuer: Node, subject: Node) -> bool:
        return self._verdict(issuer, subject) is True

    def _verdict(self, issuer: Node, subject: Node) -> bool | None:
        """Return whether the key of *issuer* made the signature of *subject*; ``None``: nothing here verifies such."""
        self._checks += 1
        if self._checks > _MOST_CHECKS:
            raise InputError(
                f"the heap needs more than {_MOST_CHECKS} signature checks",
                why="many certificates in it have equal names",
                fix="point the doctor at a part of it",
            )
        try:
            key = keys.load_public_key(issuer.view.key.der)
            view = subject.view
            return keys.verify(key, view.signature or b"", view.tbs, view.signature_algorithm)
        except InputError:
            return None


def _worth(node: Node) -> tuple[bool, datetime]:
    return node.view.is_self_issued, node.view.not_after.value or datetime.min.replace(tzinfo=UTC)


def _hinted(named: list[Node], view: CertificateView) -> list[Node]:
    """Put those whose key identifier fits first."""
    wanted = view.known.authority_key_id
    if wanted is None or not wanted.key_id:
        return named
    return sorted(named, key=lambda each: each.view.known.subject_key_id != wanted.key_id)


def _unknown(top: Node) -> Gap:
    return Gap(_name(top.view.issuer), None, top.aia, (), ())


def _name(encoded: bytes) -> str:
    try:
        return names.text(encoded)
    except InputError:
        return "(a name that cannot be read)"


def _same(one: bytes, other: bytes) -> bool:
    try:
        return names.same(one, other)
    except InputError:
        return False
