"""What each kind of relying party will object to in a chain: EVs, stations, CSMS, openssl and Java.

What is said of openssl and Java is held against both by ``tests/interop/test_doctor_foreign.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from chargepki.pki import oids
from chargepki.pki.chain import AnchorUse, ChainVerifier, PathRefusal, Purpose, TrustAnchor
from chargepki.pki.doctor.graph import Chain, Gap, Node
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.oids import name_of

__all__ = ["Opinion", "Party", "opinions_of"]


class Party(StrEnum):
    """Who looks at a chain."""

    EV_2 = "EV (ISO 15118-2)"
    EV_20 = "EV (ISO 15118-20)"
    STATION = "station"
    CSMS = "CSMS"
    PROVISIONING = "provisioning service"
    OPENSSL = "openssl"
    JAVA = "Java"
    RFC5280 = "any relying party"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one party makes of a chain."""

    party: Party
    purpose: Purpose
    objections: tuple[Finding, ...]
    trusts: str
    """What the party must trust for its answer: the root, or what is missing."""

    @property
    def accepts(self) -> bool:
        """Whether nothing is objected to, given that trust."""
        return not self.objections


_EV: Final = (Party.EV_2, Party.EV_20)
_ROLES: Final[Mapping[str, tuple[Purpose, tuple[Party, ...]]]] = {
    "secc": (Purpose.SECC, _EV),
    "cps": (Purpose.CPS, _EV),
    "contract": (Purpose.CONTRACT, (Party.STATION, Party.CSMS)),
    "oem-provisioning": (Purpose.OEM_PROVISIONING, (Party.PROVISIONING,)),
    "vehicle": (Purpose.VEHICLE, (Party.STATION,)),
    "charging-station": (Purpose.CHARGING_STATION, (Party.CSMS,)),
    "csms": (Purpose.CSMS, (Party.STATION,)),
    "firmware-signing": (Purpose.FIRMWARE_SIGNING, (Party.STATION,)),
}
_ROOT_USES: Final = {
    "v2g-root": AnchorUse.V2G,
    "mo-root": AnchorUse.MO,
    "emsp-root": AnchorUse.MO,
    "oem-root": AnchorUse.OEM,
    "private-root": AnchorUse.PRIVATE,
}
_TLS: Final[Mapping[Purpose, str]] = {
    Purpose.SECC: oids.EKU_SERVER_AUTH,
    Purpose.CSMS: oids.EKU_SERVER_AUTH,
    Purpose.CHARGING_STATION: oids.EKU_CLIENT_AUTH,
    Purpose.VEHICLE: oids.EKU_CLIENT_AUTH,
}
# Critical extensions that each handles; any other ends its validation (measured, see the module's docstring).
_HANDLED: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_ALTERNATIVE_NAME,
        oids.NAME_CONSTRAINTS,
        oids.CERTIFICATE_POLICIES,
        oids.POLICY_MAPPINGS,
        oids.POLICY_CONSTRAINTS,
        oids.INHIBIT_ANY_POLICY,
    }
)
_DNS_NAME: Final = 2
_CURVES_20: Final = frozenset({oids.SECP521R1})


def opinions_of(chain: Chain, at: datetime) -> tuple[Opinion, ...]:
    """Return what the parties that meet *chain* make of it at the instant *at*.

    A chain without its root is judged as far as it goes, as if its last certificate were trusted.
    """
    leaf = chain.leaf
    role = "" if leaf.profile is None else leaf.profile.role.removeprefix("private-")
    purpose, parties = _ROLES.get(role, (Purpose.ANY, (Party.RFC5280,)))
    if leaf.view.is_ca:
        purpose, parties = Purpose.ANY, (Party.RFC5280,)
    return tuple(
        [Opinion(party, purpose, _objections(party, purpose, chain, at), _trust(chain)) for party in parties]
        + [
            Opinion(Party.OPENSSL, purpose, _openssl(purpose, chain, at), _trust(chain)),
            Opinion(Party.JAVA, purpose, _java(purpose, chain, at), _trust(chain)),
        ]
    )


def _trust(chain: Chain) -> str:
    if chain.root is not None:
        return f"the root {chain.root.subject}"
    return "" if chain.gap is None else f"{chain.gap.issuer}, which is not here"


def _objections(party: Party, purpose: Purpose, chain: Chain, at: datetime) -> tuple[Finding, ...]:
    found = list(_path(purpose, chain, at))
    if party in _EV:
        found += _curves(party, chain)
    if purpose is Purpose.CSMS:
        found += _wildcards(chain.leaf)
    return tuple(found)


def _path(purpose: Purpose, chain: Chain, at: datetime) -> Iterator[Finding]:
    """Judge the path as RFC 5280 and the purpose demand."""
    if len(chain.path) == 1 and not chain.leaf.is_root:
        yield _lacking(chain)
        return
    refusal = _refusal(chain, purpose, at)
    if refusal is not None:
        yield _finding(refusal)


def _refusal(chain: Chain, purpose: Purpose, at: datetime) -> PathRefusal | None:
    top = chain.path[-1]
    try:
        verifier = ChainVerifier([TrustAnchor(top.der, _uses(top))], [node.der for node in chain.path[1:-1]])
        verifier.verify(chain.leaf.der, purpose=purpose, at=at)
    except PathRefusal as refusal:
        return refusal
    return None


def _uses(top: Node) -> frozenset[AnchorUse] | None:
    """Return what a root is for when its own fields say so; otherwise the relying party has chosen it."""
    use = None if top.profile is None else _ROOT_USES.get(top.profile.role)
    return None if use is None or not top.is_root else frozenset({use})


def _finding(refusal: PathRefusal) -> Finding:
    where = refusal.certificate if refusal.position else ""
    why = refusal.why.removesuffix(f" ({refusal.clause})") if refusal.clause else refusal.why
    message = f"{refusal.what}: {why}" if why and why != refusal.clause else refusal.what
    return Finding(refusal.rule, Severity.ERROR, message, refusal.clause or "RFC 5280 6.1", refusal.fix, where)


def _lacking(chain: Chain) -> Finding:
    issuer = "" if chain.gap is None else chain.gap.issuer
    if chain.gap is not None and (chain.gap.no_ca or chain.gap.unverifiable):
        return Finding(
            "no-issuer",
            Severity.ERROR,
            f"no CA that it accepts as issuer has signed it: {issuer}",
            "RFC 5280 6.1.3, 6.1.4",
            "have it issued anew by a CA, signed with SHA-256 or better",
        )
    return Finding(
        "no-issuer",
        Severity.ERROR,
        f"its issuer {issuer} is not here",
        "RFC 5280 6.1",
        "put the certificate of its issuer beside it",
    )


def _curves(party: Party, chain: Chain) -> Iterator[Finding]:
    """ISO 15118-2 knows secp256r1 alone, -20 knows secp521r1 and Ed448 (TLS 1.3 signature schemes)."""
    wanted: frozenset[str]
    if party is Party.EV_2:
        wanted, words, clause = frozenset({oids.SECP256R1}), "secp256r1", "ISO 15118-2 [V2G2-006], [V2G2-007]"
    else:
        wanted, words, clause = _CURVES_20, "secp521r1 or Ed448", "ISO 15118-20 Table 8, [V2G20-2674], [V2G20-2319]"
    for node in chain.to_send:
        key = node.view.key
        if key.curve in wanted or (party is Party.EV_20 and key.algorithm == oids.ED448):
            continue
        yield Finding(
            "ev-curve",
            Severity.ERROR,
            f"{node.label} has a key that such an EV does not take: it takes {words}",
            clause,
            "a station that serves both editions holds a chain of each, issued under a hierarchy of each",
            node.name,
        )
        return


def _wildcards(leaf: Node) -> Iterator[Finding]:
    """A station refuses wildcards unless its operator allowed them, which only later editions know."""
    hosts = [each.text for each in leaf.view.known.subject_names or () if each.tag == _DNS_NAME]
    wild = [name for name in [*leaf.view.subject_values(oids.COMMON_NAME), *hosts] if name.startswith("*")]
    if wild:
        yield Finding(
            "wildcard-host",
            Severity.ERROR,
            f"the name {wild[0][:80]} is a wildcard, which stations refuse unless AllowCSMSTLSWildcards is set",
            "OCPP 2.0.1 A00; SecurityCtrlr.AllowCSMSTLSWildcards (errata 2025-02)",
            "have it issued for the full host name of the CSMS",
            leaf.name,
        )


def _openssl(purpose: Purpose, chain: Chain, at: datetime) -> tuple[Finding, ...]:
    found: list[Finding] = []
    if chain.gap is not None and (chain.gap.no_ca or chain.gap.unverifiable):
        found.append(_openssl_issuer(chain, chain.gap))
    elif chain.root is None:
        found.append(
            Finding(
                "openssl-no-root",
                Severity.ERROR,
                f"without the root it ends with 'unable to get issuer certificate' at {chain.path[-1].label}; "
                "a sub-CA among the trusted certificates does not help it, unless -partial_chain is given",
                "openssl-verification-options(1)",
                "trust the root, and send the sub-CAs",
            )
        )
    found += _plain(chain, at, anchor_counts=True)
    found += _critical("openssl", chain)
    usage = _TLS.get(purpose)
    if usage is not None:
        # It holds CAs and roots to it too, and anyExtendedKeyUsage is no substitute.
        found += [_wrong_usage("openssl", node, usage) for node in chain.path if _forbids(node, {usage})]
    return tuple(found)


def _openssl_issuer(chain: Chain, gap: Gap) -> Finding:
    top = chain.path[-1].label
    if gap.no_ca:
        what, cure = f"it ends with 'invalid CA certificate' at {gap.no_ca[0].label}", "have it issued anew by a CA"
    else:
        what = (
            f"its TLS, at security level 1 and above, refuses SHA-1 ('CA signature digest algorithm too weak') at {top}"
        )
        cure = "have it issued anew, signed with SHA-256 or better"
    return Finding("openssl-issuer", Severity.ERROR, what, "openssl-verify(1)", cure)


def _java(purpose: Purpose, chain: Chain, at: datetime) -> tuple[Finding, ...]:
    found = list(_plain(chain, at, anchor_counts=False))
    found += _critical("Java", chain)
    usage = _TLS.get(purpose)
    if usage is not None and _forbids(chain.leaf, {usage, oids.EKU_ANY}):
        found.append(_wrong_usage("Java", chain.leaf, usage))
    return tuple(found)


def _plain(chain: Chain, at: datetime, *, anchor_counts: bool) -> Iterator[Finding]:
    """Judge by RFC 5280 alone; Java reads no more of a trusted root than its name and key."""
    if len(chain.path) == 1 and not chain.leaf.is_root:
        if not anchor_counts:
            yield _lacking(chain)
        return
    refusal = _refusal(chain, Purpose.ANY, at)
    if refusal is None or (not anchor_counts and refusal.position == len(chain.path) - 1):
        return
    yield _finding(refusal)


def _critical(tool: str, chain: Chain) -> Sequence[Finding]:
    """Return what ends the validation of a tool that does not know an extension marked critical (RFC 5280 4.2)."""
    handled = _HANDLED | {oids.CRL_DISTRIBUTION_POINTS} if tool == "openssl" else _HANDLED
    below = chain.path[:-1] if chain.root is not None and len(chain.path) > 1 else chain.path
    marked = {
        node: [each.oid for each in node.view.extensions if each.critical and each.oid not in handled] for node in below
    }
    found = [node for node in below if marked[node]]
    if not found:
        return ()
    which = ", ".join(dict.fromkeys(name_of(oid) for node in found for oid in marked[node][:8]))
    who = ", ".join(node.label for node in found)
    return (
        Finding(
            "critical-extension",
            Severity.ERROR,
            f"{which} marked critical, which {tool} does not handle, in {who}",
            "RFC 5280 4.2; ISO 15118-20:2022 demands it of AKI, SKI, AIA and CRLDP, Amendment 1 takes it back",
            "issue under iso15118-20-a1, or with --extension-criticality rfc5280",
            found[0].name,
        ),
    )


def _forbids(node: Node, wanted: Set[str]) -> bool:
    usages = node.view.known.extended_key_usage
    return usages is not None and wanted.isdisjoint(usages)


def _wrong_usage(tool: str, node: Node, usage: str) -> Finding:
    allowed = ", ".join(name_of(each) for each in (node.view.known.extended_key_usage or ())[:4])
    return Finding(
        "extended-key-usage",
        Severity.ERROR,
        f"{node.label} restricts its use to {allowed}; {tool} refuses it for {name_of(usage)}",
        "RFC 5280 4.2.1.12",
        "have that certificate issued without ExtendedKeyUsage, or with the purpose in it",
        node.name,
    )
