"""The rules that a path must keep once its signatures are known to be right (RFC 5280 6.1.3 to 6.1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from chargepki.pki import oids
from chargepki.pki.chain.certificate import RESTRICTS_NAMES, RESTRICTS_POLICIES, PathCertificate
from chargepki.pki.chain.policy import ChainPolicy, PolicyInputs, Purpose
from chargepki.pki.chain.reading import instant
from chargepki.pki.chain.refusals import PathRefusal, refuse
from chargepki.pki.chain.strength import weakness
from chargepki.pki.der import DerError
from chargepki.pki.key_usage import KeyUsageBit

if TYPE_CHECKING:
    from chargepki.pki.chain.policy_graph import PolicyGraph

__all__ = ["check_leaf", "check_path", "path_policies"]

_KEY_CERT_SIGN: Final = KeyUsageBit.KEY_CERT_SIGN.bit
_REPLACE: Final = "replace the certificate"


def check_path(
    path: Sequence[PathCertificate], at: datetime, inputs: PolicyInputs, *, common_name_is_host: bool = False
) -> None:
    """Check a path, leaf first and anchor last, whose signatures and names have been verified.

    The anchor's validity, path length, name and policy constraints count as those of any CA (RFC 5937 3.2 allows it,
    and a root that restricts itself means it); its own list of policies does not.

    Raises:
        PathRefusal: the first rule broken: validity and extensions from the anchor down, then who may sign, the length
            of the path, names, and policies.
    """
    # A leaf's constraints on names are without meaning (RFC 5280 4.2.1.10).
    sound, restricts, now = True, path[0].restricts & ~RESTRICTS_NAMES, instant(at)
    for position, each in enumerate(path):
        # What nearly every path has nothing of is asked in one pass; which rule is broken, and by whom, is said below.
        if each.is_faulty or now < each.valid_from or now > each.valid_until:
            sound = False
        if position:
            limit = each.path_length
            if not each.is_issuer or (limit is not None and position - 1 > limit):
                sound = False
            restricts |= each.restricts
    if not sound:
        _check_soundness(path, at)
    if restricts or inputs.explicit_policy:
        try:
            if restricts & RESTRICTS_NAMES:
                _check_names(path, common_name_is_host=common_name_is_host)
            if restricts & RESTRICTS_POLICIES or inputs.explicit_policy:
                _check_policies(path, inputs)
        except DerError as error:
            raise _undecodable(path, error) from error


def _check_soundness(path: Sequence[PathCertificate], at: datetime) -> None:
    last = len(path) - 1
    for position in range(last, -1, -1):
        _check_one(path[position], position, at)
    for position in range(last, 0, -1):
        _check_issuer(path[position], position)
    _check_path_lengths(path)


def _undecodable(path: Sequence[PathCertificate], error: DerError) -> PathRefusal:
    """Find the certificate whose constraints cannot be decoded; each is decoded anew, for the message only."""
    for position in range(len(path) - 1, -1, -1):
        certificate = path[position]
        try:
            _ = (
                certificate.name_constraints,
                certificate.subject_names,
                certificate.policies,
                certificate.policy_mappings,
                certificate.policy_constraints,
                certificate.inhibit_any_policy,
            )
        except DerError:
            break
    return refuse(
        certificate,
        position,
        "an extension cannot be decoded",
        rule="undecodable-extension",
        clause="RFC 5280 4.2",
        why=error.what,
        fix=_REPLACE,
    )


def _check_one(certificate: PathCertificate, position: int, at: datetime) -> None:
    if at < certificate.not_before:
        raise refuse(
            certificate,
            position,
            "not yet valid",
            rule="not-yet-valid",
            clause="RFC 5280 6.1.3 (a) (2)",
            why=f"valid from {certificate.not_before:%Y-%m-%d %H:%M:%S}Z, judged at {at:%Y-%m-%d %H:%M:%S}Z",
            fix="check the clock, or wait",
        )
    if at > certificate.not_after:
        raise refuse(
            certificate,
            position,
            "expired",
            rule="expired",
            clause="RFC 5280 6.1.3 (a) (2)",
            why=f"valid until {certificate.not_after:%Y-%m-%d %H:%M:%S}Z, judged at {at:%Y-%m-%d %H:%M:%S}Z",
            fix="renew the certificate",
        )
    _check_form(certificate, position)


def _check_form(certificate: PathCertificate, position: int) -> None:
    if certificate.unknown_critical:
        name = oids.name_of(certificate.unknown_critical)
        raise refuse(
            certificate,
            position,
            "unknown critical extension",
            rule="unknown-critical-extension",
            clause="RFC 5280 4.2, 6.1.4 (o), 6.1.5 (f)",
            why=f"extension {name} is critical and not understood",
            fix="have it issued without that extension, or with the extension not critical",
        )
    if certificate.duplicate:
        raise refuse(
            certificate,
            position,
            f"extension {oids.name_of(certificate.duplicate)} appears twice",
            rule="repeated-extension",
            clause="RFC 5280 4.2",
            why="which one counts cannot be told",
            fix=_REPLACE,
        )
    if certificate.version != 2 and certificate.extensions:
        raise refuse(
            certificate,
            position,
            "wrong version",
            rule="wrong-version",
            clause="RFC 5280 4.1.2.1",
            why="extensions need version 3",
            fix=_REPLACE,
        )
    weak = weakness(certificate.spki)
    if weak:
        raise refuse(
            certificate,
            position,
            "key too weak",
            rule="weak-key",
            clause="OCPP 2.0.1 A00.FR.501-503",
            why=weak,
            fix="make a new key and have it certified",
        )


def _check_issuer(certificate: PathCertificate, position: int) -> None:
    if certificate.version != 2 or not certificate.is_ca:
        raise refuse(
            certificate,
            position,
            "not a CA",
            rule="not-a-ca",
            clause="RFC 5280 6.1.4 (k)",
            why="it signed the one before it, but BasicConstraints does not say cA TRUE",
            fix="have the leaf issued by a CA",
        )
    if not certificate.may(_KEY_CERT_SIGN):
        raise refuse(
            certificate,
            position,
            "may not sign certificates",
            rule="no-key-cert-sign",
            clause="RFC 5280 6.1.4 (n)",
            why="KeyUsage lacks keyCertSign",
            fix="replace the CA certificate",
        )


def _check_path_lengths(path: Sequence[PathCertificate]) -> None:
    """Count the CAs below each CA; self-issued ones and the leaf do not count."""
    for position in range(len(path) - 1, 0, -1):
        limit = path[position].path_length
        # Whether one is self-issued takes longer to say than that it does not matter.
        if limit is None or position - 1 <= limit:
            continue
        below = sum(1 for each in path[1:position] if not each.is_self_issued)
        if below > limit:
            raise refuse(
                path[position],
                position,
                "path too long",
                rule="path-length",
                clause="RFC 5280 6.1.4 (l), (m)",
                why=f"pathLen {limit}, but {below} CAs follow below it",
                fix="use a CA further up as the issuer",
            )


def _check_names(path: Sequence[PathCertificate], *, common_name_is_host: bool) -> None:
    from chargepki.pki.chain.name_constraints import NameSpace  # few paths constrain names

    space = NameSpace()
    for position in range(len(path) - 1, -1, -1):
        certificate = path[position]
        # Self-issued CAs renew a key under a name that was judged already; a leaf is always judged.
        if position == 0 or not certificate.is_self_issued:
            found = space.violation(certificate, common_name_is_host=common_name_is_host and position == 0)
            if found is not None:
                raise refuse(
                    certificate,
                    position,
                    "name not allowed",
                    rule="name-constraints",
                    clause="RFC 5280 4.2.1.10, 6.1.3 (b), (c)",
                    why=found,
                    fix="use a CA that may issue for this name, or another name",
                )
        constraints = certificate.name_constraints if position else None
        if constraints is not None:
            space.narrow(constraints)


@dataclass(slots=True)
class _Counters:
    """How many more certificates may pass before each rule holds; 0 is now (RFC 5280 6.1.2 (d) to (f))."""

    explicit_policy: int
    inhibit_any_policy: int
    policy_mapping: int

    def step(self) -> None:
        """Pass one certificate that is not self-issued (6.1.4 (h))."""
        self.explicit_policy = max(self.explicit_policy - 1, 0)
        self.inhibit_any_policy = max(self.inhibit_any_policy - 1, 0)
        self.policy_mapping = max(self.policy_mapping - 1, 0)

    def restrict(self, certificate: PathCertificate) -> None:
        """Apply the constraints of a CA (6.1.4 (i), (j))."""
        constraints = certificate.policy_constraints
        if constraints is not None:
            if constraints.require_explicit is not None:
                self.explicit_policy = min(self.explicit_policy, constraints.require_explicit)
            if constraints.inhibit_mapping is not None:
                self.policy_mapping = min(self.policy_mapping, constraints.inhibit_mapping)
        skip = certificate.inhibit_any_policy
        if skip is not None:
            self.inhibit_any_policy = min(self.inhibit_any_policy, skip)


def path_policies(path: Sequence[PathCertificate], inputs: PolicyInputs) -> frozenset[str]:
    """Return the user-constrained-policy-set of a valid path (RFC 9618 5.4); ``2.5.29.32.0`` stands for any.

    Raises:
        PathRefusal: a policy is demanded and none is left.
    """
    graph = _walk(path, inputs)
    return frozenset() if graph.is_null else graph.constrained(inputs.acceptable)


def _check_policies(path: Sequence[PathCertificate], inputs: PolicyInputs) -> None:
    _walk(path, inputs)


def _walk(path: Sequence[PathCertificate], inputs: PolicyInputs) -> PolicyGraph:
    length = len(path) - 1
    counters = _Counters(
        0 if inputs.explicit_policy else length + 1,
        0 if inputs.inhibit_any_policy else length + 1,
        0 if inputs.inhibit_mapping else length + 1,
    )
    counters.restrict(path[length])
    from chargepki.pki.chain.policy_graph import PolicyGraph  # few paths demand policies

    graph = PolicyGraph()
    for position in range(length - 1, -1, -1):
        certificate = path[position]
        any_allowed = counters.inhibit_any_policy > 0 or (position > 0 and certificate.is_self_issued)
        graph.add(certificate.policies, any_allowed=any_allowed)
        if counters.explicit_policy == 0 and graph.is_null:
            raise _no_policy(certificate, position, "no certificate policy is valid for the path down to it")
        if position == 0:
            break
        mappings = certificate.policy_mappings
        if mappings is not None:
            if oids.ANY_POLICY in mappings or any(oids.ANY_POLICY in subjects for subjects in mappings.values()):
                raise refuse(
                    certificate,
                    position,
                    "policy mapping to or from anyPolicy",
                    rule="policy-mapping",
                    clause="RFC 5280 6.1.4 (a)",
                    why="anyPolicy cannot be mapped",
                    fix="replace the CA certificate",
                )
            graph.map(mappings, allowed=counters.policy_mapping > 0)
        if not certificate.is_self_issued:
            counters.step()
        counters.restrict(certificate)
    _wrap_up(path, counters, graph, inputs)
    return graph


def _wrap_up(path: Sequence[PathCertificate], counters: _Counters, graph: PolicyGraph, inputs: PolicyInputs) -> None:
    leaf = path[0]
    explicit = max(counters.explicit_policy - 1, 0)
    constraints = leaf.policy_constraints
    if constraints is not None and constraints.require_explicit == 0:
        explicit = 0
    if explicit > 0:
        return
    if graph.is_null:
        raise _no_policy(leaf, 0, "a policy is required, and none is valid for the whole path")
    if not graph.constrained(inputs.acceptable):
        found = ", ".join(sorted(graph.constrained(frozenset({oids.ANY_POLICY}))))
        raise _no_policy(leaf, 0, f"valid for the path is {found}, but none of the acceptable policies")


def _no_policy(certificate: PathCertificate, position: int, why: str) -> PathRefusal:
    return refuse(
        certificate,
        position,
        "no acceptable certificate policy",
        rule="policy",
        clause="RFC 5280 6.1.3 (f), 6.1.5 (g); RFC 9618 5",
        why=why,
        fix="accept a policy of this hierarchy, or use a certificate issued under the policy that you demand",
    )


# ---------------------------------------------------------------- purposes


def check_leaf(path: Sequence[PathCertificate], policy: ChainPolicy) -> None:
    """Check what the purpose demands of leaf and path.

    Raises:
        PathRefusal: the first demand that is not met.
    """
    leaf = path[0]
    if policy.purpose is Purpose.ANY:
        return
    if leaf.is_ca and not policy.allow_ca:
        raise refuse(
            leaf,
            0,
            f"a CA cannot be used as {policy.purpose}",
            rule="leaf-is-ca",
            clause=f"{policy.clause}; RFC 5280 4.2.1.9",
            why="BasicConstraints says cA TRUE",
            fix="use an end-entity certificate",
        )
    if leaf.key_usage is not None and policy.key_usage_mask & ~leaf.key_usage:
        absent = [bit.value for bit in sorted(policy.key_usage) if not leaf.may(bit.bit)]
        why, clause = f"KeyUsage lacks {', '.join(absent)}", f"{policy.clause}; RFC 5280 4.2.1.3"
        raise _unusable(leaf, policy, "key-usage", why, clause, "issue it under the right profile")
    try:
        usages = leaf.extended_key_usage if policy.extended_key_usage else None
    except DerError as error:
        raise _undecodable(path, error) from error
    if usages is not None and (policy.extended_key_usage | {oids.EKU_ANY}).isdisjoint(usages):
        wanted = ", ".join(oids.name_of(oid) for oid in sorted(policy.extended_key_usage))
        why, clause = f"ExtendedKeyUsage lacks {wanted}", f"{policy.clause}; RFC 5280 4.2.1.12"
        raise _unusable(leaf, policy, "extended-key-usage", why, clause, "issue it under the right profile")
    _check_domain_component(path, policy)
    _check_depth(path, policy)


def _unusable(leaf: PathCertificate, policy: ChainPolicy, rule: str, why: str, clause: str, fix: str) -> PathRefusal:
    return refuse(leaf, 0, f"not usable as {policy.purpose}", rule=rule, clause=clause, why=why, fix=fix)


def _check_domain_component(path: Sequence[PathCertificate], policy: ChainPolicy) -> None:
    """Hold a -2 leaf (its key is on P-256) below a sub-CA to its DC.

    A private root signs its leaves directly and is not held to it.
    """
    leaf = path[0]
    if policy.domain_component is None or len(path) < 3 or not leaf.is_on_p256:
        return
    found = leaf.subject_values(oids.DOMAIN_COMPONENT)
    if found != [policy.domain_component]:
        why = f"DC is {', '.join(found)[:80] or 'absent'}, {policy.domain_component} is demanded"
        raise _unusable(
            leaf, policy, "domain-component", why, policy.clause, f"issue it with DC={policy.domain_component}"
        )


def _check_depth(path: Sequence[PathCertificate], policy: ChainPolicy) -> None:
    """ISO 15118 allows three certificates below the root, and in -20 a fourth when one is a cross-certificate."""
    below = len(path) - 1
    if policy.max_below_anchor is None:
        return
    limit = policy.max_below_anchor + (0 if path[0].is_on_p256 else 1)
    if below > limit:
        raise refuse(
            path[-1],
            below,
            "path too long",
            rule="chain-length",
            clause="ISO 15118-2 [V2G2-009]; ISO 15118-20 [V2G20-1003], [V2G20-1005]",
            why=f"{below} certificates stand below the root, {limit} are allowed",
            fix="issue the leaf closer to the root",
        )
