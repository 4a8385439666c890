"""Rules about certificates together: chains, the bundles that peers are sent, trust stores, and plain sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Final, TypeVar

from chargepki.pki import oids
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Severity
from chargepki.pki.identifiers import Pcid
from chargepki.pki.lint.collection import Collection, Member, is_cross_certificate
from chargepki.pki.lint.engine import Needs, NotEvaluated, Problem, Registry, Verdict
from chargepki.pki.lint.standards import ISO2, ISO20, V2G, has_bits
from chargepki.pki.pem import to_pem
from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["COLLECTIONS"]

COLLECTIONS: Final[Registry[Collection]] = Registry("collection")

T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)


def _groups(pairs: Iterable[tuple[KeyT, T]]) -> list[tuple[KeyT, list[T]]]:
    """Return what shares a key, where more than one does."""
    found: dict[KeyT, list[T]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return [(key, values) for key, values in found.items() if len(values) > 1]


def _names(members: Iterable[Member]) -> str:
    listed = [member.name for member in members]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


@COLLECTIONS.rule(
    "e_serial_duplicate_issuer",
    "RFC 5280 4.1.2.2",
    "an issuer uses a serial number once",
    hint="draw serial numbers at random and record them before signing",
    applies=("set",),
    where="tbsCertificate.serialNumber",
)
def serial_duplicate_issuer(context: Collection) -> Verdict:
    """Copies of one certificate do not count."""
    pairs = (((member.view.issuer, member.view.serial), member) for member in context.members)
    return [
        Problem(f"{_names(members)} have one issuer and the serial number {serial:x}")
        for (_, serial), members in _groups(pairs)
        if len({member.view.tbs for member in members}) > 1
    ]


@COLLECTIONS.rule(
    "n_serial_equal_across_issuers",
    "field reports (RISE-V2G)",
    "issuers do not share serial numbers",
    hint="legal, but it trips caches that are keyed by the serial number alone",
    applies=("set",),
    where="tbsCertificate.serialNumber",
)
def serial_equal_across_issuers(context: Collection) -> Verdict:
    """A script with a constant serial number shows so."""
    return [
        Problem(f"{_names(members)} of different issuers have the serial number {serial:x}")
        for serial, members in _groups((member.view.serial, member) for member in context.members)
        if len({member.view.issuer for member in members}) > 1
    ]


@COLLECTIONS.rule(
    "e_duplicate_public_key",
    "OCPP A00 (a key per station); key separation",
    "subjects do not share a key",
    hint="make a key for each; whoever holds the one speaks for all",
    applies=("set",),
    where="tbsCertificate.subjectPublicKeyInfo",
)
def duplicate_public_key(context: Collection) -> Verdict:
    """Renewals and cross-certificates keep the subject; one station's OCPP and V2G certificates are a warning.

    A leaf with the key of the CA that issued it is ``e_leaf_key_equals_ca_key``'s.
    """
    problems = []
    for _, members in _groups((member.view.key.der, member) for member in context.members):
        subjects = {member.view.subject for member in members}
        if len(subjects) < 2 or _issued_among(members):
            continue
        dual = len(subjects) == 2 and sum(_is_secc(member) for member in members) == len(members) - 1
        dual = dual and not any(member.view.is_ca for member in members)
        problems.append(Problem(f"{_names(members)} have the same key", severity=Severity.WARNING if dual else None))
    return problems


def _issued_among(members: list[Member]) -> bool:
    return any(
        one.view.issuer == other.view.subject and one.view.subject != other.view.subject
        for one in members
        for other in members
    )


def _is_secc(member: Member) -> bool:
    return bool({"CPO", "CSO"} & set(member.view.subject_values(oids.DOMAIN_COMPONENT)))


@COLLECTIONS.rule(
    "e_v2g2_path_len",
    "ISO 15118-2 [V2G2-009]",
    "at most three certificates below the root",
    hint="leave out a level of sub-CAs",
    standards=ISO2,
    applies=("chain",),
)
def path_len(context: Collection) -> Verdict:
    """Sub-CA 1, sub-CA 2, leaf."""
    count = len(context.below_root)
    return f"{count} certificates below the root" if count > 3 else None


@COLLECTIONS.rule(
    "e_v2g20_path",
    "[V2G20-1003], [V2G20-1005]",
    "at most three certificates below the root, four with a cross-certificate",
    hint="leave out a level of sub-CAs",
    standards=ISO20,
    applies=("chain",),
)
def path_20(context: Collection) -> Verdict:
    """The cross-certificate takes a place of its own."""
    count, limit = len(context.below_root), 4 if context.has_cross_certificate else 3
    return f"{count} certificates below the root, at most {limit}" if count > limit else None


_ANCHOR_BY_DC: Final = {"V2G": "v2g", "MO": "mo", "OEM": "oem"}
_ANCHORS: Final = {
    "secc": ("v2g",),
    "private-secc": ("private",),
    "cps": ("v2g",),
    "contract": ("mo", "v2g"),
    "oem-provisioning": ("oem", "v2g"),
    "vehicle": ("oem", "v2g"),
}


def _anchor_type(anchor: Member) -> str:
    """Return ``v2g``, ``mo``, ``oem``, ``private``, or the empty string when the root does not say."""
    if anchor.profile is not None:
        name = anchor.profile.role.removesuffix("-root")
        return "mo" if name == "emsp" else name
    values = anchor.view.subject_values(oids.DOMAIN_COMPONENT)
    return _ANCHOR_BY_DC.get(values[0], "") if len(values) == 1 else ""


@COLLECTIONS.rule(
    "e_wrong_anchor",
    "ISO 15118-2 [V2G2-925]; [V2G20-2329] to [V2G20-2333]",
    "the chain ends in a root that is meant for its purpose",
    hint="issue the leaf under the right family: the right root for the wrong purpose is as bad as a wrong root",
    standards=V2G,
    applies=("chain",),
    where="the root",
)
def wrong_anchor(context: Collection) -> Verdict:
    """The root's type is told by its profile or its domainComponent; a vehicle under an MO root has its own rule."""
    allowed = _ANCHORS.get(context.role)
    if allowed is None:
        return NotEvaluated("the leaf's purpose is not known")
    if context.anchor is None:
        return NotEvaluated("the chain does not reach a root")
    found = _anchor_type(context.anchor)
    if not found:
        return NotEvaluated("the root does not say which kind of root it is")
    if found in allowed or (context.role == "vehicle" and found == "mo"):
        return None
    return f"a {context.role} chain ends in a root of kind {found}, expected {' or '.join(allowed)}"


@COLLECTIONS.rule(
    "e_vehicle_mo_anchor",
    "[V2G20-2331]",
    "a vehicle chain does not end in an MO root",
    hint="issue vehicle certificates under an OEM or V2G root",
    standards=ISO20,
    applies=("chain",),
    where="the root",
)
def vehicle_mo_anchor(context: Collection) -> Verdict:
    """A contract would pass for a vehicle otherwise."""
    if context.role != "vehicle":
        return None
    if context.anchor is None:
        return NotEvaluated("the chain does not reach a root")
    return "the vehicle chain ends in an MO root" if _anchor_type(context.anchor) == "mo" else None


@COLLECTIONS.rule(
    "e_oem_as_tls_client",
    "[V2G20-2339], [V2G20-2342]",
    "an OEM provisioning certificate is no TLS client certificate",
    hint="issue a vehicle certificate for TLS (CN is the EVCCID)",
    standards=ISO20,
    applies=("chain",),
    where="the leaf",
)
def oem_as_tls_client(context: Collection) -> Verdict:
    """Recognised by keyAgreement and a PCID in the CN, where a vehicle certificate is expected."""
    leaf = context.leaf
    if leaf is None or context.role != "vehicle":
        return None
    try:
        Pcid.parse(leaf.view.common_name)
    except InputError:
        return None
    agreeing = has_bits(leaf.view, KeyUsageBit.KEY_AGREEMENT)
    oem = "OEM" in leaf.view.subject_values(oids.DOMAIN_COMPONENT)
    return "the bundle for the TLS client holds an OEM provisioning certificate" if agreeing or oem else None


@COLLECTIONS.rule(
    "e_chain_order",
    "ISO 15118-2 [V2G2-871], [V2G2-872]; OPCP; RFC 5246 7.4.2",
    "leaf, sub-CA 2, sub-CA 1, each once",
    hint="write the leaf first and each issuer after what it issued (chargepki cert issue --chain-out does)",
    applies=("bundle",),
)
def chain_order(context: Collection) -> Verdict:
    """Cross-certificates may follow. A root is ``e_root_in_handshake_chain``'s in ISO 15118, elsewhere a notice."""
    members = list(context.members)
    if len({member.view.tbs for member in members}) < len(members):
        return "a certificate is in the bundle twice"
    wanted = [*context.path]
    known = {id(member) for member in wanted}
    rest = [member for member in members if id(member) not in known]
    strangers = [member for member in rest if not is_cross_certificate(member)]
    if strangers:
        below, top = _names(wanted[:1]) or "a leaf", wanted[-1] if wanted else None
        ends = "" if top is None or top.is_self_issued else f" (it ends at {top.name}: the issuer is not in the bundle)"
        return f"{_names(strangers)}: not on the path upwards from {below}{ends}"
    if [id(member) for member in members if id(member) in known] != [id(member) for member in wanted]:
        return f"the order is {_names(members)}; expected {_names(wanted)}"
    if members[: len(wanted)] != wanted:
        return "a cross-certificate stands before the end of the chain"
    if context.anchor is not None and context.standard not in V2G and len(members) > 1:
        return [Problem("the root is part of the bundle; peers have it already", severity=Severity.NOTICE)]
    return None


@COLLECTIONS.rule(
    "e_root_in_handshake_chain",
    "ISO 15118-2 [V2G2-871], [V2G2-872]",
    "a public chain is sent without its root",
    hint="leave the root out; only a private environment sends it",
    standards=V2G,
    applies=("bundle",),
)
def root_in_handshake_chain(context: Collection) -> Verdict:
    """There the EV knows no other way to see the root."""
    if context.anchor is None or context.role == "private-secc" or len(context.members) == 1:
        return None
    if context.leaf is not None and context.leaf.view.is_ca:
        # CAs alone, as ``ca chain`` writes them, are for installing and not for a handshake.
        return [
            Problem(
                f"{context.anchor.name} is the root; leave it out of what a handshake sends", severity=Severity.NOTICE
            )
        ]
    return f"{context.anchor.name} is the root"


@COLLECTIONS.rule(
    "e_cross_cert_validity",
    "[V2G20-1853]",
    "a cross-certificate is not valid beyond the CA that it certifies",
    hint="shorten --validity",
    standards=ISO20,
    applies=("set",),
    where="tbsCertificate.validity",
)
def cross_cert_validity(context: Collection) -> Verdict:
    """The certified CA is the self-signed certificate with its name and key; the issuer's end is judged elsewhere."""
    ends = {
        (member.view.subject, member.view.key.der): member.view.not_after.value
        for member in context.members
        if member.is_self_issued
    }
    problems = []
    for member in context.members:
        end, limit = member.view.not_after.value, ends.get((member.view.subject, member.view.key.der))
        if is_cross_certificate(member) and end and limit and end > limit:
            problems.append(Problem(f"{member.name} is valid until {end}, the CA that it certifies until {limit}"))
    return problems


_MAX_CHAIN: Final = 10000
_MAX_ROOT: Final = 5500


@COLLECTIONS.rule(
    "e_ocpp_field_size",
    "OCPP CertificateSigned.certificateChain, InstallCertificate.certificate (schemas)",
    "the PEM fits OCPP's fields",
    hint="use EC keys and short names; explanatory text between the blocks counts as well",
    applies=("bundle", "store"),
)
def field_size(context: Collection) -> Verdict:
    """10000 characters for a chain; 5500 for a root up to 2.0.1, 10000 in 2.1."""
    sizes = [len(to_pem("CERTIFICATE", member.view.der or b"")) for member in context.members]
    if context.kind == "bundle":
        total = sum(sizes)
        return f"the chain has {total} characters of PEM, the field holds {_MAX_CHAIN}" if total > _MAX_CHAIN else None
    return [
        Problem(
            f"{member.name} has {size} characters of PEM, the field holds {_MAX_ROOT} (OCPP 2.1: {_MAX_CHAIN})",
            severity=None if size > _MAX_CHAIN else Severity.WARNING,
        )
        for member, size in zip(context.members, sizes, strict=True)
        if size > _MAX_ROOT
    ]


@COLLECTIONS.rule(
    "w_same_dn_anchor",
    "ISO 15118-2 [V2G2-878]",
    "anchors with one name have one key",
    hint="legal, but select the anchor by verifying the signature, never by its name",
    applies=("store",),
    where="tbsCertificate.subject",
)
def same_dn_anchor(context: Collection) -> Verdict:
    """An evil twin looks exactly so."""
    return [
        Problem(f"{_names(members)} have the same subject and different keys")
        for _, members in _groups((member.view.subject, member) for member in context.members)
        if len({member.view.key.der for member in members}) > 1
    ]


@COLLECTIONS.rule(
    "n_root_count",
    "ISO 15118-2 [V2G2-878]",
    "an operator has at most ten roots at a time",
    hint="retire old roots",
    standards=ISO2,
    applies=("store",),
    needs=Needs(now=True),
)
def root_count(context: Collection) -> Verdict:
    """Operators are told apart by O; only roots that are valid count."""
    problems = []
    pairs = (
        (operator, member)
        for member in context.members
        for operator in member.view.subject_values(oids.ORGANIZATION_NAME)
    )
    for operator, members in _groups(pairs):
        count = sum(_is_current(member, context) for member in members)
        if count > 10:
            problems.append(Problem(f"{operator[:80]!r} has {count} roots"))
    return problems


def _is_current(member: Member, context: Collection) -> bool:
    start, end = member.view.not_before.value, member.view.not_after.value
    return bool(context.now and start and end and start <= context.now <= end)
