"""Validate a path from a leaf to one of the given anchors (RFC 5280 section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.chain.evidence import CertificateStatus, Revocation, RevocationMode
from chargepki.pki.chain.identity import Identity, check_identity
from chargepki.pki.chain.policy import POLICIES, ChainPolicy, PolicyInputs, Purpose, TrustAnchor, WorkBudget
from chargepki.pki.chain.pool import Pool, SignatureChecker
from chargepki.pki.chain.processing import check_leaf, check_path, path_policies
from chargepki.pki.chain.refusals import PathRefusal, SearchRecord, path_to_json, refuse
from chargepki.pki.chain.search import Search

if TYPE_CHECKING:
    from chargepki.pki.chain.revocation import StatusFinder

__all__ = ["ChainVerifier", "VerifiedChain", "verify_chain"]

_NO_INPUTS = PolicyInputs()
_OFF = Revocation()
_BUDGET = WorkBudget()


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """Evidence of a validation; only `verify_chain` and `ChainVerifier` make it."""

    certificates: tuple[bytes, ...]
    """DER, leaf first, anchor last."""
    purpose: Purpose
    at: datetime
    statuses: tuple[CertificateStatus, ...] = ()
    """One for each certificate below the anchor, leaf first; empty when revocation was not looked at."""
    search: SearchRecord = field(default_factory=SearchRecord, compare=False)
    """What was tried and rejected before this path."""
    inputs: PolicyInputs = _NO_INPUTS

    @property
    def leaf(self) -> bytes:
        """DER of the end entity."""
        return self.certificates[0]

    @property
    def anchor(self) -> bytes:
        """DER of the anchor."""
        return self.certificates[-1]

    @property
    def policies(self) -> frozenset[str]:
        """Certificate policies that hold for the whole path, dotted; ``2.5.29.32.0`` stands for any."""
        path = [PathCertificate(der) for der in self.certificates]
        return path_policies(path, self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return path, statuses, policies and search."""
        path = [PathCertificate(der, is_anchor=der is self.certificates[-1]) for der in self.certificates]
        return {
            "purpose": self.purpose,
            "at": self.at,
            "path": path_to_json(path),
            "revocation": [status.to_json() for status in self.statuses],
            "policies": sorted(self.policies),
            "search": self.search.to_json(),
        }


class ChainVerifier:
    """Anchors and intermediates read once, for many leaves. Immutable; may be shared between threads.

    Nothing is remembered from one call to the next but the decoded certificates and keys: every signature of a path is
    verified every time.
    """

    def __init__(
        self,
        anchors: Iterable[bytes | TrustAnchor],
        intermediates: Iterable[bytes] = (),
        *,
        budget: WorkBudget | None = None,
    ) -> None:
        """Read certificates (DER, any order).

        Raises:
            ChainError: more of them than the budget allows.
        """
        self._budget = budget or _BUDGET
        self._pool = Pool(anchors, intermediates, self._budget)

    def verify(
        self,
        leaf_der: bytes,
        intermediates: Sequence[bytes] = (),
        *,
        purpose: Purpose = Purpose.ANY,
        at: datetime,
        inputs: PolicyInputs = _NO_INPUTS,
        revocation: Revocation = _OFF,
        identity: Identity | None = None,
    ) -> VerifiedChain:
        """Validate one leaf. Arguments and errors are those of `verify_chain`."""
        if at.tzinfo is None:
            raise TypeError("at is a naive datetime; pass an aware one")
        record = SearchRecord()
        checker = SignatureChecker(self._budget)
        try:
            pool = self._pool.extended(intermediates) if intermediates else self._pool
            record.candidates = len(pool)
            record.unusable = tuple(pool.notes)
            return self._verify(leaf_der, pool, checker, record, purpose, at, inputs, revocation, identity)
        except PathRefusal as refusal:
            refusal.search = record
            raise
        finally:
            record.signatures = checker.spent

    def _verify(
        self,
        leaf_der: bytes,
        pool: Pool,
        checker: SignatureChecker,
        record: SearchRecord,
        purpose: Purpose,
        at: datetime,
        inputs: PolicyInputs,
        revocation: Revocation,
        identity: Identity | None,
    ) -> VerifiedChain:
        leaf = pool.leaf(leaf_der)
        if not pool.has_anchor:
            raise PathRefusal(
                f"no anchor to which {leaf.label} could chain",
                rule="no-anchor",
                clause="RFC 5280 6.1.1 (d)",
                why=pool.notes[0] if pool.notes else "no trusted root was given",
                fix="give the root certificate of the issuing hierarchy",
                certificate=leaf.label,
                position=0,
            )
        demands = POLICIES[purpose]
        search = Search(pool, checker, self._budget, record)
        finder: StatusFinder | None = None
        if revocation.mode is not RevocationMode.OFF:
            from chargepki.pki.chain.revocation import StatusFinder

            finder = StatusFinder(pool, checker, self._budget, revocation, at)
            record.unusable += finder.unusable
        hosts_in_cn = identity is not None and identity.uses_common_name(purpose)
        first: PathRefusal | None = None
        for path in search.paths(leaf):
            try:
                check_path(path, at, inputs, common_name_is_host=hosts_in_cn)
                _check_anchor(path, pool, demands)
                check_leaf(path, demands)
                if identity is not None:
                    check_identity(leaf, identity, purpose)
                statuses = finder.check(path) if finder else ()
            except PathRefusal as refusal:
                if refusal.rule == "work-budget":
                    raise
                first = first or refusal
                record.reject(path, refusal)
                continue
            return VerifiedChain(tuple([each.der for each in path]), purpose, at, statuses, record, inputs)
        raise first or search.dead_end(leaf)


def verify_chain(
    leaf_der: bytes,
    intermediates: Sequence[bytes],
    anchors: Sequence[bytes | TrustAnchor],
    *,
    purpose: Purpose = Purpose.ANY,
    at: datetime,
    budget: WorkBudget | None = None,
    inputs: PolicyInputs = _NO_INPUTS,
    revocation: Revocation = _OFF,
    identity: Identity | None = None,
) -> VerifiedChain:
    """Find and validate a path from the leaf to an anchor, by signatures and not by order.

    Args:
        leaf_der: DER.
        intermediates: DER, any order, duplicates and strangers allowed; they need not be trusted.
        anchors: DER, or `TrustAnchor` to say what each is trusted for; trusted, whoever signed them. Their validity,
            pathLen, name and policy constraints count. Bare DER is trusted for *purpose*.
        purpose: demands on leaf and anchor, see `POLICIES`.
        at: aware; both ends of a validity are inclusive.
        inputs: certificate policies that are acceptable or demanded.
        revocation: evidence and mode; not looked at by default.
        identity: who the leaf must belong to.

    Raises:
        PathRefusal: there is no valid path; names the certificate at fault, its position, the clause and the cure, and
            carries the whole search. Of several faulty paths it speaks of the first, in an order that depends on the
            certificates alone. It is a `ChainError`, and for revocation also a `RevocationError`.
        TypeError: *at* is naive.

    Clause: RFC 5280 6.1, RFC 9618 5; ISO 15118-2 [V2G2-875], [V2G2-925].
    """
    verifier = ChainVerifier(anchors, intermediates, budget=budget)
    return verifier.verify(leaf_der, purpose=purpose, at=at, inputs=inputs, revocation=revocation, identity=identity)


def _check_anchor(path: Sequence[PathCertificate], pool: Pool, demands: ChainPolicy) -> None:
    """Refuse the right signature under the wrong root: what an anchor is trusted for is a condition of validity."""
    anchor = path[-1]
    uses = pool.uses.get(anchor.der)
    if uses is None or not demands.anchors or not demands.anchors.isdisjoint(uses):
        return
    raise refuse(
        anchor,
        len(path) - 1,
        f"this root is not one for {demands.purpose}",
        rule="wrong-anchor",
        clause=demands.clause,
        why=f"it is trusted for {', '.join(sorted(uses)) or 'nothing'}, and {demands.purpose} needs a root for "
        f"{' or '.join(sorted(demands.anchors))}",
        fix="use a certificate from the right hierarchy; do not install this root for the other use",
    )
