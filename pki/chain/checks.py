"""The rules that a path must keep once its signatures are known to be right (RFC 5280 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from chargepki.pki import oids
from chargepki.pki.chain.candidates import Candidate
from chargepki.pki.chain.policy import ChainPolicy, Purpose
from chargepki.pki.errors import ChainError
from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["check_path"]

# ISO 15118-20:2022 marks key identifiers, AIA, SIA and CRL pointers critical against RFC 5280: known, though critical.
_UNDERSTOOD: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_ALTERNATIVE_NAME,
        oids.CERTIFICATE_POLICIES,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.AUTHORITY_INFORMATION_ACCESS,
        oids.SUBJECT_INFORMATION_ACCESS,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.OCSP_NO_CHECK,
    }
)
_NOT_SUPPORTED: Final = frozenset({oids.NAME_CONSTRAINTS, oids.POLICY_CONSTRAINTS, oids.INHIBIT_ANY_POLICY})
"""Restrictions that this release does not evaluate. Passing over one would accept what its CA excluded, so they refuse
the path even when they are not critical."""


def check_path(path: Sequence[Candidate], policy: ChainPolicy, at: datetime) -> None:
    """Check a path, leaf first and anchor last, whose signatures and names have been verified.

    Raises:
        ChainError: the first rule broken: validity and extensions from the anchor down, then who may sign, then the
            length of the path, then the leaf's purpose.
    """
    for position in range(len(path) - 1, -1, -1):
        _check_validity(path[position], position, at)
        _check_extensions(path[position], position)
    for position in range(len(path) - 1, 0, -1):
        _check_issuer(path[position], position)
    _check_path_lengths(path)
    _check_leaf(path, policy)


def _fail(candidate: Candidate, position: int, *, what: str, why: str, fix: str) -> ChainError:
    place = "leaf" if position == 0 else f"position {position}{', anchor' if candidate.is_anchor else ''}"
    return ChainError(f"{what}: {candidate.label} ({place})", why=why, fix=fix)


def _check_validity(candidate: Candidate, position: int, at: datetime) -> None:
    """Both bounds are inclusive. Anchors are checked too: an expired root is no longer maintained."""
    start, end = candidate.view.not_before.value, candidate.view.not_after.value
    clause = "RFC 5280 6.1.3 (a) (2), 4.1.2.5"
    if start is None or end is None:
        raise _fail(candidate, position, what="unreadable validity", why=clause, fix="replace the certificate")
    if at < start:
        why = f"valid from {start:%Y-%m-%dT%H:%M:%SZ} ({clause})"
        raise _fail(candidate, position, what="not yet valid", why=why, fix="check the clock, or wait")
    if at > end:
        why = f"valid until {end:%Y-%m-%dT%H:%M:%SZ} ({clause})"
        raise _fail(candidate, position, what="expired", why=why, fix="renew it")


def _check_extensions(candidate: Candidate, position: int) -> None:
    view = candidate.view
    seen: set[str] = set()
    for extension in view.extensions:
        name = oids.name_of(extension.oid)
        if extension.oid in seen:
            why = f"{name} (RFC 5280 4.2)"
            raise _fail(candidate, position, what="an extension appears twice", why=why, fix="replace the certificate")
        seen.add(extension.oid)
        if extension.oid in _NOT_SUPPORTED:
            raise _fail(
                candidate,
                position,
                what=f"{name} is not supported",
                why="name and policy constraints are not evaluated (RFC 5280 4.2.1.10, 4.2.1.11, 4.2.1.14)",
                fix="use a CA without this restriction",
            )
        if extension.critical and extension.oid not in _UNDERSTOOD:
            why = f"{name}: a critical extension that is not understood must be refused (RFC 5280 4.2)"
            raise _fail(candidate, position, what="unknown critical extension", why=why, fix="replace the certificate")
    if view.version != 2 and view.extensions:
        why = "extensions need version 3 (RFC 5280 4.1.2.1)"
        raise _fail(candidate, position, what="wrong version", why=why, fix="replace the certificate")


def _check_issuer(candidate: Candidate, position: int) -> None:
    view = candidate.view
    constraints = view.known.basic_constraints
    if view.version != 2 or constraints is None or not constraints.ca:
        why = "it signed the one before it, but BasicConstraints does not say cA TRUE (RFC 5280 6.1.4 (k))"
        raise _fail(candidate, position, what="not a CA", why=why, fix="have the leaf issued by a CA")
    usage = view.known.key_usage
    if usage is not None and not usage.has(KeyUsageBit.KEY_CERT_SIGN.bit):
        why = "KeyUsage lacks keyCertSign (RFC 5280 6.1.4 (n))"
        raise _fail(candidate, position, what="may not sign certificates", why=why, fix="replace the CA certificate")


def _check_path_lengths(path: Sequence[Candidate]) -> None:
    """Count the CAs below each CA; self-issued ones and the leaf do not count."""
    below = 0
    for position in range(1, len(path)):
        candidate = path[position]
        constraints = candidate.view.known.basic_constraints
        limit = None if constraints is None else constraints.path_length
        if limit is not None and below > limit:
            why = f"pathLen {limit}, but {below} CAs follow below it (RFC 5280 6.1.4 (l), (m))"
            raise _fail(candidate, position, what="path too long", why=why, fix="use a CA further up as the issuer")
        if not candidate.view.is_self_issued:
            below += 1


def _check_leaf(path: Sequence[Candidate], policy: ChainPolicy) -> None:
    leaf = path[0]
    view = leaf.view
    if policy.purpose is Purpose.ANY:
        return
    if view.is_ca and not policy.allow_ca:
        why = f"BasicConstraints says cA TRUE ({policy.clause}; RFC 5280 4.2.1.9)"
        raise _fail(
            leaf, 0, what=f"a CA cannot be used as {policy.purpose}", why=why, fix="use an end-entity certificate"
        )
    usage = view.known.key_usage
    absent = [bit.value for bit in sorted(policy.key_usage) if usage is not None and not usage.has(bit.bit)]
    if absent:
        why = f"KeyUsage lacks {', '.join(absent)} ({policy.clause}; RFC 5280 4.2.1.3)"
        raise _fail(leaf, 0, what=f"not usable as {policy.purpose}", why=why, fix="issue it under the right profile")
    usages = view.known.extended_key_usage
    if policy.extended_key_usage and usages is not None:
        allowed = policy.extended_key_usage | {oids.EKU_ANY}
        if allowed.isdisjoint(usages):
            wanted = ", ".join(oids.name_of(oid) for oid in sorted(policy.extended_key_usage))
            why = f"ExtendedKeyUsage lacks {wanted} ({policy.clause}; RFC 5280 4.2.1.12)"
            raise _fail(
                leaf, 0, what=f"not usable as {policy.purpose}", why=why, fix="issue it under the right profile"
            )
    _check_domain_component(path, policy)


def _check_domain_component(path: Sequence[Candidate], policy: ChainPolicy) -> None:
    """Hold a -2 leaf (its key is on P-256) below a sub-CA to its DC.

    A private root signs its leaves directly and is not held to it.
    """
    leaf = path[0]
    if policy.domain_component is None or leaf.view.key.curve != oids.SECP256R1 or len(path) < 3:
        return
    found = leaf.view.subject_values(oids.DOMAIN_COMPONENT)
    if found != [policy.domain_component]:
        raise _fail(
            leaf,
            0,
            what=f"not usable as {policy.purpose}",
            why=f"DC is {', '.join(found)[:80] or 'absent'}, {policy.domain_component} is demanded ({policy.clause})",
            fix=f"issue it with DC={policy.domain_component}",
        )
