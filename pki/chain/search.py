"""Find candidate paths, by names and signatures and not by order, depth first."""

from __future__ import annotations

from collections.abc import Iterator

from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.chain.policy import WorkBudget
from chargepki.pki.chain.pool import Pool, SignatureChecker
from chargepki.pki.chain.refusals import PathRefusal, SearchRecord, place
from chargepki.pki.der import DerError

__all__ = ["Search"]


class Search:
    """Depth-first search over who signed whom; dead ends go into the record."""

    def __init__(self, pool: Pool, checker: SignatureChecker, budget: WorkBudget, record: SearchRecord) -> None:
        self.pool = pool
        self.checker = checker
        self._budget = budget
        self._record = record
        self._spellings: dict[bytes, list[bytes]] = {}
        self._furthest: tuple[PathCertificate, ...] = ()
        self._furthest_end: PathRefusal | None = None
        self._too_deep = False

    def paths(self, leaf: PathCertificate) -> Iterator[tuple[PathCertificate, ...]]:
        """Yield every path from *leaf* to an anchor; signatures and names are verified, nothing else.

        Raises:
            PathRefusal: the work budget is used up.
        """
        if leaf.is_anchor:
            yield (leaf,)
            return
        straight = self._straight(leaf)
        if straight:
            self._record.steps = len(straight) - 1
            yield straight
            # The search counts from the start, and finds this path first.
            self._record.steps = 0
            self.checker.remember(straight)
        for path in self._extend((leaf,), {leaf.identity}):
            if path != straight:
                yield path

    def _straight(self, leaf: PathCertificate) -> tuple[PathCertificate, ...]:
        """Return the path to an anchor on which each issuer is the only one of its name; empty if there is none.

        That is what nearly every chain is. It is also the first path that the search would yield, found without its
        bookkeeping; where anything is in doubt, the search decides.
        """
        named = self.pool.named
        path = [leaf]
        child = leaf
        longest = min(self._budget.depth + 2, self._budget.steps + 1)
        while not child.is_anchor:
            candidates = named(child.issuer)
            if len(candidates) != 1 or len(path) == longest:
                return ()
            child = candidates[0]
            if child.spki == leaf.spki and child.subject == leaf.subject:
                return ()  # a loop; nothing else comes twice, since it has its name to itself
            path.append(child)
        return tuple(path) if self.checker.all_issued(path) else ()

    def _extend(
        self, path: tuple[PathCertificate, ...], seen: set[tuple[bytes, bytes]]
    ) -> Iterator[tuple[PathCertificate, ...]]:
        if len(path) > self._budget.depth + 1:
            self._too_deep = True
            return
        child = path[-1]
        found = looked_at = False
        for issuer in self.issuers(child):
            looked_at = True
            if issuer.identity in seen or not self.checker.issued(issuer, child):
                continue
            found = True
            longer = (*path, issuer)
            if issuer.is_anchor:
                yield longer
            else:
                yield from self._extend(longer, seen | {issuer.identity})
        if not found:
            self._note_end(path, has_namesake=looked_at)

    def issuers(self, child: PathCertificate) -> Iterator[PathCertificate]:
        """Yield what has the issuer's name; of several, those whose key identifier fits come first."""
        yield from self._counted(_hinted(self.pool.named(child.issuer), child))
        if child.issuer not in self._spellings:
            self._spellings[child.issuer] = self.pool.spellings(child.issuer)
        for spelling in self._spellings[child.issuer]:
            yield from self._counted(self.pool.named(spelling))

    def _counted(self, candidates: list[PathCertificate]) -> Iterator[PathCertificate]:
        for candidate in candidates:
            self._record.steps += 1
            if self._record.steps > self._budget.steps:
                raise PathRefusal(
                    f"no path was found within {self._budget.steps} steps",
                    rule="work-budget",
                    why="the bag holds many CAs that certified each other",
                    fix="send the chain of this leaf only",
                )
            yield candidate

    def _note_end(self, path: tuple[PathCertificate, ...], *, has_namesake: bool) -> None:
        refusal = _dead_end(path, has_namesake=has_namesake)
        self._record.reject(path, refusal)
        if len(path) > len(self._furthest):
            self._furthest, self._furthest_end = path, refusal

    def dead_end(self, leaf: PathCertificate) -> PathRefusal:
        """Return the error for a search that reached no anchor."""
        if self._too_deep or self._furthest_end is None:
            return PathRefusal(
                f"more than {self._budget.depth} CAs between leaf and anchor, for {leaf.label}",
                rule="work-budget",
                why="the work budget allows no more",
                fix="send the chain of this leaf only",
                certificate=leaf.label,
                position=0,
            )
        return self._furthest_end


def _hinted(candidates: list[PathCertificate], child: PathCertificate) -> list[PathCertificate]:
    if len(candidates) < 2:
        return candidates
    try:
        wanted = child.authority_key_id
        return candidates if wanted is None else sorted(candidates, key=lambda each: each.subject_key_id != wanted)
    except DerError:
        return candidates  # identifiers are hints only (RFC 5280 4.2.1.1)


def _dead_end(path: tuple[PathCertificate, ...], *, has_namesake: bool) -> PathRefusal:
    stuck = path[-1]
    position = len(path) - 1
    if stuck.is_self_issued and has_namesake:
        clause = "RFC 5280 6.1.1 (d)"
        why = "it is self-signed and not among the anchors"
        fix = "install it as an anchor if you trust it, by a way that you trust"
    elif stuck.is_self_issued:
        clause, why = "RFC 5280 6.1.1 (d)", "it is self-issued and not among the anchors"
        fix = "install it as an anchor if you trust it, by a way that you trust"
    elif has_namesake:
        clause = "RFC 5280 6.1.3 (a) (1)"
        why = "certificates with its issuer's name are there, but the key of none verifies its signature"
        fix = "look for the CA's other key or generation; the issuer's SubjectKeyIdentifier tells them apart"
    else:
        clause = "RFC 5280 6.1.3 (a)"
        why = "no given certificate has its issuer's name"
        fix = "send every sub-CA between leaf and root, and check that the root is the right one"
    return PathRefusal(
        f"no issuer found for {stuck.label} ({place(stuck, position)})",
        rule="no-issuer",
        clause=clause,
        why=why,
        fix=fix,
        certificate=stuck.label,
        position=position,
    )
