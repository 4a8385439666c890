"""ISO 15118-2:2014: size, algorithms and the shape of CAs; rules that -20 shares name both standards."""

from __future__ import annotations

from typing import Final

from chargepki.pki import oids
from chargepki.pki.errors import printable_number
from chargepki.pki.lint.engine import CertificateContext, Needs, Verdict, rule
from chargepki.pki.lint.sizes import expected_size
from chargepki.pki.lint.standards import ISO2, V2G, missing_bits
from chargepki.pki.profiles.base import KeyUsageBit, Standard

_KEY_USAGE: Final = "tbsCertificate.extensions.keyUsage"
_BASIC: Final = "tbsCertificate.extensions.basicConstraints"


@rule(
    "e_v2g2_size_800",
    "ISO 15118-2 [V2G2-010]",
    "at most 800 bytes of DER",
    hint="shorten the pointer URLs or names, or leave a pointer out",
    standards=ISO2,
)
def size_800(context: CertificateContext) -> Verdict:
    """`certificateType` of the message schema has maxLength 800."""
    size = expected_size(context.view)
    return f"{size} bytes" if size > 800 else None


@rule(
    "n_v2g2_size_near_limit",
    "ISO 15118-2 [V2G2-010]",
    "not close to the limit of 800 bytes",
    hint="the next renewal may not fit: names and serial numbers vary",
    standards=ISO2,
)
def size_near_limit(context: CertificateContext) -> Verdict:
    """An ECDSA signature alone varies by three bytes."""
    size = expected_size(context.view)
    return f"{size} bytes of 800" if 750 < size <= 800 else None


@rule(
    "e_v2g2_curve",
    "ISO 15118-2 [V2G2-007]",
    "the key is on secp256r1",
    hint="make a P-256 key",
    standards=ISO2,
    where="tbsCertificate.subjectPublicKeyInfo",
)
def curve(context: CertificateContext) -> Verdict:
    """EVs of this generation know no other curve."""
    key = context.view.key
    if key.algorithm == oids.EC_PUBLIC_KEY and key.curve == oids.SECP256R1:
        return None
    return f"the key is {oids.name_of(key.curve or key.algorithm)}"


@rule(
    "e_v2g2_sigalg",
    "ISO 15118-2 [V2G2-006]",
    "signed with ecdsa-with-SHA256",
    hint="sign with a P-256 CA key",
    standards=ISO2,
    where="tbsCertificate.signature",
)
def sigalg(context: CertificateContext) -> Verdict:
    """Everywhere in the chain."""
    algorithm = context.view.signature_algorithm_oid
    return None if algorithm == oids.ECDSA_WITH_SHA256 else f"signed with {oids.name_of(algorithm)}"


@rule(
    "e_mixed_curves",
    "ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "one algorithm set in the whole chain",
    hint="issue it from a CA with a key of the same kind",
    standards=V2G,
    where="tbsCertificate.subjectPublicKeyInfo",
    needs=Needs(issuer=True),
)
def mixed_curves(context: CertificateContext) -> Verdict:
    """A peer that switched algorithms must be able to follow the chain to its root."""
    if context.issuer is None:
        return None
    own, issuers = context.view.key, context.issuer.key
    if (own.algorithm, own.curve) == (issuers.algorithm, issuers.curve):
        return None
    names = [oids.name_of(key.curve or key.algorithm) for key in (own, issuers)]
    return f"the key is {names[0]}, the issuer's {names[1]}"


@rule(
    "e_v2g2_pathlen_sub1",
    "ISO 15118-2 Tables F.2 to F.5; ISO 15118-20 Annex B",
    "sub-CA 1 has pathLen 1",
    hint="set pathLenConstraint to 1",
    standards=V2G,
    applies=("sub1",),
    where=_BASIC,
)
def pathlen_sub1(context: CertificateContext) -> Verdict:
    """One more CA below, then leaves."""
    return _path_length(context, 1)


@rule(
    "e_v2g2_pathlen_sub2",
    "ISO 15118-2 Annex F; [V2G20-911]",
    "sub-CA 2 has pathLen 0",
    hint="set pathLenConstraint to 0, also for a single sub-CA level",
    standards=V2G,
    applies=("sub2",),
    where=_BASIC,
)
def pathlen_sub2(context: CertificateContext) -> Verdict:
    """Leaves only."""
    return _path_length(context, 0)


def _path_length(context: CertificateContext, wanted: int) -> str | None:
    constraints = context.view.known.basic_constraints
    found = None if constraints is None else constraints.path_length
    return (
        None
        if found == wanted
        else f"pathLen is {'absent' if found is None else printable_number(found)}, expected {wanted}"
    )


@rule(
    "w_v2g2_pathlen_root",
    "ISO 15118-2 Table F.1",
    "a root has no pathLen",
    hint="leave pathLenConstraint out of a root",
    standards=ISO2,
    applies=("root",),
    where=_BASIC,
)
def pathlen_root(context: CertificateContext) -> Verdict:
    """Anchors are not constrained by themselves."""
    constraints = context.view.known.basic_constraints
    return "the root has a pathLen" if constraints is not None and constraints.path_length is not None else None


@rule(
    "e_v2g2_root_issues_leaf",
    "ISO 15118-2 [V2G2-867], [V2G2-868]",
    "a V2G root issues no leaf",
    hint="put a sub-CA 2 between root and leaf; only a private-environment root signs leaves",
    standards=ISO2,
    applies=("secc", "cps", "contract", "oem-provisioning"),
    where="tbsCertificate.issuer",
    needs=Needs(issuer=True),
)
def root_issues_leaf(context: CertificateContext) -> Verdict:
    """Recognised by its domainComponent, which Table F.1 demands."""
    issuer = context.issuer
    if issuer is None or not issuer.is_self_issued or "V2G" not in issuer.subject_values(oids.DOMAIN_COMPONENT):
        return None
    return "issued by a V2G root directly"


@rule(
    "e_v2g2_ku_noncritical",
    "ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "KeyUsage is present and critical",
    hint="mark KeyUsage critical",
    standards=V2G,
    where=_KEY_USAGE,
)
def ku_noncritical(context: CertificateContext) -> Verdict:
    """In every profile."""
    extension = context.view.extension(oids.KEY_USAGE)
    if extension is None:
        return "KeyUsage is missing"
    return None if extension.critical else "KeyUsage is not critical"


@rule(
    "e_v2g2_bc_noncritical",
    "ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "BasicConstraints is present and critical, also in leaves",
    hint="add BasicConstraints, critical; empty in a leaf",
    standards=V2G,
    where=_BASIC,
)
def bc_noncritical(context: CertificateContext) -> Verdict:
    """In every profile."""
    extension = context.view.extension(oids.BASIC_CONSTRAINTS)
    if extension is None:
        return "BasicConstraints is missing"
    return None if extension.critical else "BasicConstraints is not critical"


@rule(
    "e_v2g2_ku_ca",
    "ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "a CA asserts keyCertSign and cRLSign",
    hint="set both bits",
    standards=V2G,
    applies=("ca",),
    where=_KEY_USAGE,
)
def ku_ca(context: CertificateContext) -> Verdict:
    """One implementation of Amendment 1 rejects cRLSign on vehicle sub-CAs, so it is not demanded there."""
    bits: tuple[KeyUsageBit, ...] = (KeyUsageBit.KEY_CERT_SIGN, KeyUsageBit.CRL_SIGN)
    if context.standard is Standard.ISO15118_20_A1 and context.role.startswith("vehicle-sub"):
        bits = bits[:1]
    return missing_bits(context.view, *bits)


@rule(
    "w_v2g2_ku_mo_sub2",
    "ISO 15118-2 Table F.4",
    "MO sub-CA 2 can sign sales tariffs",
    hint="set digitalSignature and nonRepudiation",
    standards=ISO2,
    applies=("mo-sub2",),
    where=_KEY_USAGE,
)
def ku_mo_sub2(context: CertificateContext) -> Verdict:
    """Its key signs SalesTariff besides certificates."""
    return missing_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.NON_REPUDIATION)
