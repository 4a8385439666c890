"""Put a bag of certificates into the order in which protocols send them."""

from __future__ import annotations

from collections.abc import Sequence

from chargepki.pki.chain.policy import WorkBudget
from chargepki.pki.chain.pool import Pool, SignatureChecker, read_candidate
from chargepki.pki.chain.refusals import SearchRecord
from chargepki.pki.chain.search import Search

__all__ = ["order_chain"]


def order_chain(leaf_der: bytes, bag: Sequence[bytes], *, budget: WorkBudget | None = None) -> list[bytes]:
    """Return the leaf and its issuers out of *bag*, leaf first, without the self-signed root.

    Each certificate is signed by the one after it; strangers and duplicates are left out. Nothing but signatures is
    checked, and a bag that lacks an issuer gives a shorter list: `verify_chain` is the judge.

    Raises:
        ChainError: the leaf cannot be decoded, or the work budget is used up.
    """
    limits = budget or WorkBudget()
    current = read_candidate(leaf_der, "the leaf", is_anchor=False, budget=limits)
    checker = SignatureChecker(limits)
    search = Search(Pool((), bag, limits), checker, limits, SearchRecord())
    chain = [current]
    seen = {current.identity}
    while len(chain) <= limits.depth:
        issuer = next(
            (
                candidate
                for candidate in search.issuers(current)
                if candidate.identity not in seen
                and not (candidate.is_self_issued and checker.issued(candidate, candidate))
                and checker.issued(candidate, current)
            ),
            None,
        )
        if issuer is None:
            break
        chain.append(issuer)
        seen.add(issuer.identity)
        current = issuer
    return [candidate.der for candidate in chain]
