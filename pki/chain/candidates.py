"""The certificates that a path may be made of, read once; who signed whom, within a work budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from chargepki.pki import keys, names
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.chain.policy import WorkBudget
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChainError, InputError
from chargepki.pki.keys import PublicKey

__all__ = ["Candidate", "SignatureChecker", "read_candidate", "read_candidates"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One certificate of the pool."""

    der: bytes
    view: CertificateView
    is_anchor: bool

    @property
    def label(self) -> str:
        """Subject and serial number, for messages."""
        return label(self.view)

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Name and key: the same pair twice in a path is a loop, also across re-issued or cross-certificates."""
        return self.view.subject, self.view.key.der


def label(view: CertificateView) -> str:
    """Return how messages name a certificate."""
    try:
        subject = names.text(view.subject)
    except InputError:
        subject = "(unreadable subject)"
    return f"{subject or '(empty subject)'}, serial {view.serial:x}"


def read_candidate(der: bytes, what: str, *, is_anchor: bool, budget: WorkBudget) -> Candidate:
    """Decode one certificate strictly.

    Raises:
        ChainError: it is too large, or not DER; *what* says which one it is.
    """
    if len(der) > budget.certificate_bytes:
        raise ChainError(f"{what} has {len(der)} bytes", why=f"at most {budget.certificate_bytes} are read")
    try:
        view = view_certificate(der)
    except DerError as error:
        raise ChainError(f"{what} is not a certificate", why=error.what, fix="send it in DER, unmodified") from error
    if view.problems:
        problem = view.problems[0]
        raise ChainError(
            f"{what} ({label(view)}) is not DER",
            why=f"{problem.what} at offset {problem.offset} (X.690; RFC 5280 4.1)",
            fix="ask its issuer for a correctly encoded certificate",
        )
    return Candidate(der, view, is_anchor)


def read_candidates(
    anchors: Iterable[bytes], intermediates: Iterable[bytes], budget: WorkBudget
) -> tuple[list[Candidate], list[str]]:
    """Return the usable ones in an order that depends on their content alone, and a note on each unusable one.

    A broken certificate in the bag must not stop a path that does not need it. Anchors come first, then those that live
    longest, so that the path found is the same under any order of the bag.
    """
    pool = dict.fromkeys(intermediates, False) | dict.fromkeys(anchors, True)
    if len(pool) > budget.certificates:
        raise ChainError(
            f"{len(pool)} certificates to choose from",
            why=f"at most {budget.certificates} are looked at",
            fix="send the chain of this leaf only",
        )
    usable: list[Candidate] = []
    notes: list[str] = []
    for der, is_anchor in sorted(pool.items()):
        try:
            usable.append(
                read_candidate(der, "an anchor" if is_anchor else "an intermediate", is_anchor=is_anchor, budget=budget)
            )
        except ChainError as error:
            notes.append(str(error))
    usable.sort(key=_preference)
    return usable, notes


def _preference(candidate: Candidate) -> tuple[bool, float, bytes]:
    end = candidate.view.not_after.value
    return not candidate.is_anchor, -(end.timestamp() if end else 0.0), candidate.der


@dataclass(slots=True)
class SignatureChecker:
    """Verifies signatures, each pair once, and stops when the budget is used up."""

    budget: WorkBudget
    _spent: int = 0
    _known: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)
    _same: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)
    _keys: dict[bytes, PublicKey | None] = field(default_factory=dict)

    def issued(self, issuer: Candidate, child: Candidate) -> bool:
        """Whether *issuer* has the name and made the signature that *child* shows.

        Raises:
            ChainError: the budget is used up.
        """
        view = child.view
        if view.issuer != issuer.view.subject and not self._named(view.issuer, issuer.view.subject):
            return False
        pair = issuer.view.key.der, child.der
        if pair not in self._known:
            if self._spent >= self.budget.signatures:
                raise ChainError(
                    f"no path was found within {self.budget.signatures} signature checks",
                    why="the bag holds many certificates with equal names",
                    fix="send the chain of this leaf only",
                )
            self._spent += 1
            self._known[pair] = self._verify(issuer, view)
        return self._known[pair]

    def _named(self, issuer_name: bytes, subject: bytes) -> bool:
        """Whether the two are the same name in another encoding; each pair is compared once."""
        pair = issuer_name, subject
        if pair not in self._same:
            try:
                self._same[pair] = names.same(issuer_name, subject)
            except InputError:
                self._same[pair] = False
        return self._same[pair]

    def _verify(self, issuer: Candidate, view: CertificateView) -> bool:
        spki = issuer.view.key.der
        if spki not in self._keys:
            try:
                self._keys[spki] = keys.load_public_key(spki)
            except InputError:
                self._keys[spki] = None
        key = self._keys[spki]
        # The unsigned copy of the algorithm must not decide anything (RFC 5280 4.1.1.2).
        if key is None or view.signature is None or view.outer_algorithm != view.signature_algorithm:
            return False
        try:
            return keys.verify(key, view.signature, view.tbs, view.signature_algorithm)
        except InputError:
            return False
