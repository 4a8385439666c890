"""The certificates that a path may be made of, read once; who signed whom, within a work budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chargepki.pki import keys
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.chain.policy import AnchorUse, TrustAnchor, WorkBudget
from chargepki.pki.chain.refusals import PathRefusal
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.keys import PublicKey

__all__ = ["Pool", "SignatureChecker", "read_candidate"]


def read_candidate(der: bytes, what: str, *, is_anchor: bool, budget: WorkBudget) -> PathCertificate:
    """Decode one certificate strictly.

    Raises:
        PathRefusal: it is too large, or not DER; *what* says which one it is.
    """
    if len(der) > budget.certificate_bytes:
        raise PathRefusal(
            f"{what} has {len(der)} bytes",
            rule="too-large",
            why=f"at most {budget.certificate_bytes} are read",
            fix="send certificates of an ordinary size",
        )
    try:
        return PathCertificate(der, is_anchor=is_anchor)
    except DerError as error:
        raise PathRefusal(
            f"{what} is not a certificate",
            rule="not-der",
            clause="X.690; RFC 5280 4.1",
            why=error.what,
            fix="send it in DER, unmodified",
        ) from error


class Pool:
    """Anchors and intermediates, usable ones in an order that depends on their content alone.

    A broken certificate in the bag must not stop a path that does not need it: `notes` says what was left out. Anchors
    come first, then those that live longest, so that the path found is the same under any order of the bag.
    """

    def __init__(
        self, anchors: Iterable[bytes | TrustAnchor], intermediates: Iterable[bytes], budget: WorkBudget
    ) -> None:
        self.budget = budget
        self.notes: list[str] = []
        self.uses: dict[bytes, frozenset[AnchorUse] | None] = {}
        for anchor in anchors:
            der, uses = (anchor, None) if isinstance(anchor, bytes) else (anchor.der, anchor.uses)
            known = self.uses.get(der, frozenset())
            self.uses[der] = None if uses is None or known is None else known | uses
        wanted = dict.fromkeys(intermediates, False) | dict.fromkeys(self.uses, True)
        self._check_count(len(wanted))
        self.certificates: list[PathCertificate] = []
        self._by_subject: dict[bytes, list[PathCertificate]] = {}
        self._by_der: dict[bytes, PathCertificate] = {}
        self._add(wanted.items())

    def _check_count(self, count: int) -> None:
        if count > self.budget.certificates:
            raise PathRefusal(
                f"{count} certificates to choose from",
                rule="work-budget",
                why=f"at most {self.budget.certificates} are looked at",
                fix="send the chain of this leaf only",
            )

    def _add(self, items: Iterable[tuple[bytes, bool]]) -> None:
        for der, is_anchor in items:
            what = "an anchor" if is_anchor else "an intermediate"
            try:
                found = read_candidate(der, what, is_anchor=is_anchor, budget=self.budget)
            except PathRefusal as error:
                self.notes.append(str(error))
                continue
            self.certificates.append(found)
            self._by_der[der] = found
            self._by_subject.setdefault(found.subject, []).append(found)
        self.certificates.sort(key=_preference)
        for group in self._by_subject.values():
            if len(group) > 1:
                group.sort(key=_preference)

    def extended(self, intermediates: Sequence[bytes]) -> Pool:
        """Return this pool with more intermediates; what is here already is shared, not read again."""
        fresh = [der for der in dict.fromkeys(intermediates) if der not in self._by_der]
        if not fresh:
            return self
        larger = Pool.__new__(Pool)
        larger.budget, larger.uses, larger.notes = self.budget, self.uses, list(self.notes)
        larger.certificates = list(self.certificates)
        larger._by_der = dict(self._by_der)
        larger._by_subject = {subject: list(group) for subject, group in self._by_subject.items()}
        larger._check_count(len(self._by_der) + len(fresh))
        larger._add([(der, False) for der in fresh])
        return larger

    @property
    def has_anchor(self) -> bool:
        """Whether any anchor could be read."""
        return any(each.is_anchor for each in self.certificates)

    def leaf(self, der: bytes) -> PathCertificate:
        """Return the leaf, decoded. Raises `PathRefusal`."""
        return self._by_der.get(der) or read_candidate(der, "the leaf", is_anchor=False, budget=self.budget)

    def named(self, subject: bytes) -> list[PathCertificate]:
        """Return those whose subject has exactly these octets."""
        return self._by_subject.get(subject, [])

    def spellings(self, subject: bytes) -> list[bytes]:
        """Return the encodings of subjects here that differ from *subject* and are the same name."""
        return [other for other in self._by_subject if other != subject and same_name(other, subject)]


def _preference(candidate: PathCertificate) -> tuple[bool, float, bytes]:
    return not candidate.is_anchor, -candidate.not_after.timestamp(), candidate.der


@dataclass(slots=True)
class SignatureChecker:
    """Verifies signatures, each pair once, and stops when the budget is used up."""

    budget: WorkBudget
    spent: int = 0
    _known: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)

    def issued(self, issuer: PathCertificate, child: PathCertificate) -> bool:
        """Whether *issuer*'s key made the signature on *child*; that the names fit is the caller's to see.

        Raises:
            PathRefusal: the budget is used up.
        """
        pair = issuer.spki, child.der
        known = self._known.get(pair)
        if known is None:
            # The unsigned copy of the algorithm must not decide anything (RFC 5280 4.1.1.2).
            known = child.outer_algorithm == child.algorithm and self.verifies(
                issuer.key, child.signature, child.tbs, child.algorithm
            )
            self._known[pair] = known
        return known

    def verifies(self, key: PublicKey | None, signature: bytes, data: bytes, algorithm: bytes) -> bool:
        """Whether *key* made *signature* over *data*, within the budget."""
        if self.spent >= self.budget.signatures:
            raise PathRefusal(
                f"no path was found within {self.budget.signatures} signature checks",
                rule="work-budget",
                why="the bag holds many certificates with equal names",
                fix="send the chain of this leaf only",
            )
        self.spent += 1
        try:
            return key is not None and keys.verify(key, signature, data, algorithm)
        except InputError:
            return False
