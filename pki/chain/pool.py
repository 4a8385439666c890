"""The certificates that a path may be made of, read once; who signed whom, within a work budget."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cryptography.exceptions import InvalidSignature

from chargepki.pki import keys, names
from chargepki.pki.chain.certificate import PathCertificate
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
            if isinstance(anchor, bytes):
                self.uses[anchor] = None
            else:
                known = self.uses.get(anchor.der, frozenset())
                both = None if anchor.uses is None or known is None else known | anchor.uses
                self.uses[anchor.der] = both
        wanted = dict.fromkeys(intermediates, False)
        for der in self.uses:
            wanted[der] = True
        self._check_count(len(wanted))
        self.has_anchor = False
        """Whether any anchor could be read."""
        self._sorted: tuple[PathCertificate, ...] | None = None
        self._by_subject: dict[bytes, list[PathCertificate]] = {}
        self._by_der: dict[bytes, PathCertificate] = {}
        self._spelled: dict[Hashable, list[bytes]] | None = None
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
        by_subject = self._by_subject
        crowded: dict[bytes, list[PathCertificate]] = {}
        for der, is_anchor in items:
            try:
                found = read_candidate(
                    der, "an anchor" if is_anchor else "an intermediate", is_anchor=is_anchor, budget=self.budget
                )
            except PathRefusal as error:
                self.notes.append(str(error))
                continue
            self._by_der[der] = found
            if is_anchor:
                self.has_anchor = True
            namesakes = by_subject.get(found.subject)
            if namesakes is None:
                by_subject[found.subject] = [found]
            else:
                namesakes.append(found)
                crowded[found.subject] = namesakes
        self._sorted = None
        for group in crowded.values():
            group.sort(key=_preference)

    def __len__(self) -> int:
        return len(self._by_der)

    @property
    def certificates(self) -> tuple[PathCertificate, ...]:
        """All of them, in the order of the pool."""
        # Few ask, so nobody else waits for it. A copy, because other threads may be looking at the list.
        found = self._sorted
        if found is None:
            found = self._sorted = tuple(sorted(self._by_der.values(), key=_preference))
        return found

    def extended(self, intermediates: Sequence[bytes]) -> Pool:
        """Return this pool with more intermediates; what is here already is shared, not read again."""
        fresh = [der for der in dict.fromkeys(intermediates) if der not in self._by_der]
        if not fresh:
            return self
        larger = Pool.__new__(Pool)
        larger.budget, larger.uses, larger.notes = self.budget, self.uses, list(self.notes)
        larger.has_anchor = self.has_anchor
        larger._by_der = dict(self._by_der)
        larger._spelled = None
        larger._by_subject = {subject: list(group) for subject, group in self._by_subject.items()}
        larger._check_count(len(self._by_der) + len(fresh))
        larger._add([(der, False) for der in fresh])
        return larger

    def leaf(self, der: bytes) -> PathCertificate:
        """Return the leaf, decoded. Raises `PathRefusal`."""
        return self._by_der.get(der) or read_candidate(der, "the leaf", is_anchor=False, budget=self.budget)

    def named(self, subject: bytes) -> list[PathCertificate]:
        """Return those whose subject has exactly these octets."""
        return self._by_subject.get(subject, [])

    def spellings(self, subject: bytes) -> list[bytes]:
        """Return the encodings of subjects here that differ from *subject* and are the same name."""
        spelled = self._spelled
        if spelled is None:
            # Few ask. Made as a whole before it is seen, because other threads may be looking.
            spelled = {}
            for each in self._by_subject:
                spelled.setdefault(names.folded_or_itself(each), []).append(each)
            self._spelled = spelled
        return [other for other in spelled.get(names.folded_or_itself(subject), ()) if other != subject]


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
                issuer.load_key(), child.signature, child.tbs, child.algorithm
            )
            self._known[pair] = known
        return known

    def all_issued(self, path: Sequence[PathCertificate]) -> bool:
        """Whether each certificate of *path* was signed with the key of the next; ``False`` also when in doubt.

        All keys are made ready before the first check, and nothing happens between two of them: going to and fro
        between our code and the arithmetic costs a tenth of a check, because each drives the other out of the
        processor's caches. What this leaves open, an unknown algorithm or too small a budget, `issued` decides.
        """
        work = []
        child = path[0]
        for issuer in path[1:]:
            try:
                check = issuer.verification(child.algorithm)
            except InputError:
                return False
            if check is None or child.outer_algorithm != child.algorithm:
                return False
            work.append((check, child.signature, child.tbs))
            child = issuer
        if self.spent + len(work) > self.budget.signatures:
            return False
        done = 0
        try:
            for check, signature, tbs in work:
                done += 1
                check(signature, tbs)
        except InvalidSignature:
            self.remember(path[:done])
            self._known[path[done].spki, path[done - 1].der] = False
            return False
        finally:
            self.spent += done
        return True

    def remember(self, path: Sequence[PathCertificate]) -> None:
        """Note that each certificate of *path* was signed with the key of the next."""
        for child, issuer in pairwise(path):
            self._known[issuer.spki, child.der] = True

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
