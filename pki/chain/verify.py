"""Validate a path from a leaf to one of the given anchors (RFC 5280 section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from chargepki.pki.chain.candidates import Candidate, SignatureChecker, read_candidate, read_candidates
from chargepki.pki.chain.checks import check_path
from chargepki.pki.chain.policy import POLICIES, Purpose, WorkBudget
from chargepki.pki.errors import ChainError

__all__ = ["VerifiedChain", "verify_chain"]


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """Evidence of a validation; only `verify_chain` makes it."""

    certificates: tuple[bytes, ...]
    """DER, leaf first, anchor last."""
    purpose: Purpose
    at: datetime

    @property
    def leaf(self) -> bytes:
        """DER of the end entity."""
        return self.certificates[0]

    @property
    def anchor(self) -> bytes:
        """DER of the anchor."""
        return self.certificates[-1]


def verify_chain(
    leaf_der: bytes,
    intermediates: Sequence[bytes],
    anchors: Sequence[bytes],
    *,
    purpose: Purpose = Purpose.ANY,
    at: datetime,
    budget: WorkBudget | None = None,
) -> VerifiedChain:
    """Find and validate a path from the leaf to an anchor, by signatures and not by order.

    Revocation is not looked at. That an anchor belongs to the purpose (a V2G root for an SECC, never an MO root for a
    vehicle) is decided by the caller's choice of *anchors*. Name and policy constraints are not evaluated in this
    release: a certificate that carries them refuses its path.

    Args:
        leaf_der: DER.
        intermediates: DER, any order, duplicates and strangers allowed; they need not be trusted.
        anchors: DER; trusted, whoever signed them. Their validity and pathLen count.
        purpose: demands on the leaf, see `POLICIES`.
        at: aware; both ends of a validity are inclusive.

    Raises:
        ChainError: there is no valid path; names the certificate at fault, its position, the clause and the cure. Of
            several faulty paths it speaks of the first, in the order that `read_candidates` gives.
        TypeError: *at* is naive.

    Clause: RFC 5280 6.1; ISO 15118-2 [V2G2-875], [V2G2-925].
    """
    if at.tzinfo is None:
        raise TypeError("at is a naive datetime; pass an aware one")
    limits = budget or WorkBudget()
    leaf = read_candidate(leaf_der, "the leaf", is_anchor=leaf_der in anchors, budget=limits)
    pool, notes = read_candidates(anchors, intermediates, limits)
    if not any(candidate.is_anchor for candidate in pool):
        raise ChainError(
            f"no anchor to which {leaf.label} could chain",
            why=notes[0] if notes else "no trusted root was given",
            fix="give the root certificate of the issuing hierarchy",
        )
    search = _Search(pool, SignatureChecker(limits), limits)
    first: ChainError | None = None
    for path in search.paths(leaf):
        try:
            check_path(path, POLICIES[purpose], at)
        except ChainError as error:
            first = first or error
            continue
        return VerifiedChain(tuple(candidate.der for candidate in path), purpose, at)
    raise first or search.dead_end(leaf, notes)


class _Search:
    """Depth-first search over who signed whom; remembers how far it came, for the error message."""

    def __init__(self, pool: Sequence[Candidate], checker: SignatureChecker, budget: WorkBudget) -> None:
        self._pool = pool
        self._checker = checker
        self._budget = budget
        self._furthest: tuple[Candidate, ...] = ()
        self._too_deep = False
        self._steps = 0

    def paths(self, leaf: Candidate) -> Iterator[tuple[Candidate, ...]]:
        """Yield every path from *leaf* to an anchor; signatures and names are verified, nothing else."""
        if leaf.is_anchor:
            yield (leaf,)
            return
        yield from self._extend((leaf,), {leaf.identity})

    def _extend(self, path: tuple[Candidate, ...], seen: set[tuple[bytes, bytes]]) -> Iterator[tuple[Candidate, ...]]:
        if len(path) > len(self._furthest):
            self._furthest = path
        if len(path) > self._budget.depth + 1:
            self._too_deep = True
            return
        for issuer in self._pool:
            self._steps += 1
            if self._steps > self._budget.steps:
                raise ChainError(
                    f"no path was found within {self._budget.steps} steps",
                    why="the bag holds many CAs that certified each other",
                    fix="send the chain of this leaf only",
                )
            if issuer.identity in seen or not self._checker.issued(issuer, path[-1]):
                continue
            longer = (*path, issuer)
            if issuer.is_anchor:
                yield longer
            else:
                yield from self._extend(longer, seen | {issuer.identity})

    def dead_end(self, leaf: Candidate, notes: Sequence[str]) -> ChainError:
        """Return the error for a search that reached no anchor."""
        stuck = self._furthest[-1] if self._furthest else leaf
        position = max(len(self._furthest) - 1, 0)
        place = "leaf" if position == 0 else f"position {position}"
        if self._too_deep:
            return ChainError(
                f"more than {self._budget.depth} CAs between leaf and anchor, for {leaf.label}",
                why="the work budget allows no more",
                fix="send the chain of this leaf only",
            )
        if stuck.view.is_self_issued:
            why = "it is self-signed and not among the anchors (RFC 5280 6.1.1 (d))"
            fix = "install it as an anchor if you trust it, by a way that you trust"
        else:
            why = (
                "no given certificate has its issuer's name and a key that verifies its signature (RFC 5280 6.1.3 (a))"
            )
            fix = "send every sub-CA between leaf and root, and check that the root is the right one"
        if notes:
            why += f"; {len(notes)} certificates were unusable: {notes[0]}"
        return ChainError(f"no issuer found for {stuck.label} ({place})", why=why, fix=fix)
