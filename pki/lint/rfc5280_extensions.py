"""RFC 5280: extensions, their criticality, basic constraints, key usage and key identifiers."""

from __future__ import annotations

from typing import Final

from chargepki.pki import oids
from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.standards import ISO20, has_bits
from chargepki.pki.profiles.base import Extension, KeyUsageBit, Standard

_KNOWN: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.AUTHORITY_INFORMATION_ACCESS,
        oids.SUBJECT_INFORMATION_ACCESS,
        oids.SUBJECT_ALTERNATIVE_NAME,
        oids.CERTIFICATE_POLICIES,
    }
)
_KNOWN_ELSEWHERE: Final = _KNOWN | {
    oids.NAME_CONSTRAINTS,
    oids.POLICY_CONSTRAINTS,
    oids.POLICY_MAPPINGS,
    oids.INHIBIT_ANY_POLICY,
}


@rule(
    "e_duplicate_extension",
    "RFC 5280 4.2",
    "an extension appears once",
    hint="merge the two, or drop one",
    where="tbsCertificate.extensions",
)
def duplicate_extension(context: CertificateContext) -> Verdict:
    """Relying parties disagree about which of two counts."""
    extensions = context.view.extensions
    found = {extension.oid for extension in extensions}
    if len(found) == len(extensions):
        return None
    problems = []
    for extension in extensions:
        if extension.oid in found:
            found.remove(extension.oid)
        else:
            problems.append(Problem(f"{oids.name_of(extension.oid)} appears again", f"offset {extension.offset}"))
    return problems


@rule(
    "e_unknown_critical_ext",
    "RFC 5280 4.2; ISO 15118-2 Annex F",
    "no critical extension outside the profile",
    hint="make it non-critical or leave it out: a relying party must refuse what it does not know",
    where="tbsCertificate.extensions",
)
def unknown_critical_ext(context: CertificateContext) -> Verdict:
    """The ISO 15118 documents use neither name constraints nor policy mapping."""
    standard = context.standard
    known = _KNOWN_ELSEWHERE if standard in (None, Standard.OCPP, Standard.COMMON) else _KNOWN
    return [
        Problem(f"critical extension {oids.name_of(extension.oid)}", f"offset {extension.offset}")
        for extension in context.view.extensions
        if extension.critical and extension.oid not in known
    ]


@rule(
    "e_basic_constraints_ca_not_critical",
    "RFC 5280 4.2.1.9",
    "a CA has critical BasicConstraints with cA TRUE",
    hint="add BasicConstraints, critical, cA TRUE",
    applies=("ca",),
    where="tbsCertificate.extensions.basicConstraints",
)
def basic_constraints_ca_not_critical(context: CertificateContext) -> Verdict:
    """Without it a relying party that checks nothing else takes any leaf for a CA."""
    extension = context.view.extension(oids.BASIC_CONSTRAINTS)
    if extension is None or not context.view.is_ca:
        return "the CA has no BasicConstraints with cA TRUE"
    return None if extension.critical else "BasicConstraints of a CA is not critical"


@rule(
    "e_leaf_is_ca",
    "RFC 5280 4.2.1.9; ISO 15118-2 Annex F; ISO 15118-20 Annex B",
    "an end entity is no CA",
    hint="never copy BasicConstraints from a request; use a CA profile for a CA",
    applies=("leaf",),
    where="tbsCertificate.extensions.basicConstraints",
)
def leaf_is_ca(context: CertificateContext) -> Verdict:
    """With it a charging station could issue certificates for every other one."""
    return "cA is TRUE in a profile of an end entity" if context.view.is_ca else None


@rule(
    "e_pathlen_without_ca",
    "RFC 5280 4.2.1.9",
    "pathLenConstraint only with cA TRUE and keyCertSign, not negative",
    hint="leave pathLenConstraint out of an end entity",
    where="tbsCertificate.extensions.basicConstraints",
)
def pathlen_without_ca(context: CertificateContext) -> Verdict:
    """The number has no meaning anywhere else."""
    constraints = context.view.known.basic_constraints
    if constraints is None or constraints.path_length is None:
        return None
    if constraints.path_length < 0:
        return "pathLenConstraint is negative"
    if not constraints.ca:
        return "pathLenConstraint without cA TRUE"
    if context.view.known.key_usage is not None and not has_bits(context.view, KeyUsageBit.KEY_CERT_SIGN):
        return "pathLenConstraint without keyCertSign"
    return None


@rule(
    "e_ca_default_false_encoded",
    "X.690 11.5",
    "cA FALSE is left out",
    hint="an end entity's BasicConstraints is an empty SEQUENCE",
    where="tbsCertificate.extensions.basicConstraints",
)
def ca_default_false_encoded(context: CertificateContext) -> Verdict:
    """DER leaves DEFAULT values out."""
    constraints = context.view.known.basic_constraints
    return "cA FALSE is encoded" if constraints is not None and constraints.false_encoded else None


@rule(
    "e_ku_empty",
    "RFC 5280 4.2.1.3",
    "KeyUsage has at least one bit",
    hint="set the bits that the key is for, or leave the extension out",
    where="tbsCertificate.extensions.keyUsage",
)
def ku_empty(context: CertificateContext) -> Verdict:
    """An empty one forbids every use."""
    usage = context.view.known.key_usage
    return "KeyUsage has no bit set" if usage is not None and usage.mask == 0 else None


@rule(
    "e_ku_trailing_zero_bits",
    "X.690 11.2.2",
    "KeyUsage is trimmed to its last set bit",
    hint="drop trailing zero bits",
    where="tbsCertificate.extensions.keyUsage",
)
def ku_trailing_zero_bits(context: CertificateContext) -> Verdict:
    """DER of a named bit list."""
    usage = context.view.known.key_usage
    return "KeyUsage ends with zero bits" if usage is not None and usage.trailing_zero_bits else None


@rule(
    "e_ku_certsign_on_leaf",
    "RFC 5280 4.2.1.3, 4.2.1.9",
    "keyCertSign only on a CA",
    hint="clear keyCertSign and cRLSign",
    where="tbsCertificate.extensions.keyUsage",
)
def ku_certsign_on_leaf(context: CertificateContext) -> Verdict:
    """cRLSign alone is legal for an indirect CRL issuer, hence an error in ISO 15118-20 only."""
    view = context.view
    if view.is_ca or view.known.key_usage is None:
        return None
    if has_bits(view, KeyUsageBit.KEY_CERT_SIGN):
        return "keyCertSign without cA TRUE"
    if has_bits(view, KeyUsageBit.CRL_SIGN):
        severity = Severity.ERROR if context.standard in ISO20 else Severity.WARNING
        return [Problem("cRLSign without cA TRUE", severity=severity)]
    return None


@rule(
    "e_ku_ca_certsign",
    "RFC 5280 4.2.1.3",
    "a CA asserts keyCertSign in a KeyUsage extension",
    hint="set keyCertSign and cRLSign",
    applies=("ca",),
    where="tbsCertificate.extensions.keyUsage",
)
def ku_ca_certsign(context: CertificateContext) -> Verdict:
    """What it issues does not verify otherwise."""
    return None if has_bits(context.view, KeyUsageBit.KEY_CERT_SIGN) else "a CA without keyCertSign"


@rule(
    "e_ski_missing_ca",
    "RFC 5280 4.2.1.2",
    "a CA has a SubjectKeyIdentifier",
    hint="add it; any derivation is fine",
    applies=("ca",),
    where="tbsCertificate.extensions",
)
def ski_missing_ca(context: CertificateContext) -> Verdict:
    """Path building finds the issuer by it."""
    return None if context.view.known.subject_key_id else "SubjectKeyIdentifier is missing or empty"


@rule(
    "w_ski_missing_leaf",
    "RFC 5280 4.2.1.2",
    "an end entity has a SubjectKeyIdentifier",
    hint="add it; any derivation is fine",
    applies=("leaf",),
    where="tbsCertificate.extensions",
)
def ski_missing_leaf(context: CertificateContext) -> Verdict:
    """RFC 5280 says SHOULD for end entities."""
    return None if context.view.known.subject_key_id else "SubjectKeyIdentifier is missing or empty"


@rule(
    "e_aki_missing",
    "RFC 5280 4.2.1.1",
    "AuthorityKeyIdentifier with a keyIdentifier",
    hint="copy the issuer's SubjectKeyIdentifier",
    where="tbsCertificate.extensions",
)
def aki_missing(context: CertificateContext) -> Verdict:
    """A self-signed certificate may leave it out."""
    view = context.view
    identifier = view.known.authority_key_id
    if view.is_self_issued or (identifier is not None and identifier.key_id):
        return None
    return "AuthorityKeyIdentifier has no keyIdentifier, or is missing"


@rule(
    "e_aki_ski_mismatch",
    "RFC 5280 4.2.1.1",
    "the AuthorityKeyIdentifier is the issuer's SubjectKeyIdentifier",
    hint="copy the issuer's SubjectKeyIdentifier",
    where="tbsCertificate.extensions.authorityKeyIdentifier",
    needs=Needs(issuer=True),
)
def aki_ski_mismatch(context: CertificateContext) -> Verdict:
    """Path builders that trust the identifiers find no path."""
    identifier = context.view.known.authority_key_id
    if identifier is None or identifier.key_id is None or context.issuer is None:
        return None
    expected = context.issuer.known.subject_key_id
    if expected is None or identifier.key_id == expected:
        return None
    return f"AuthorityKeyIdentifier {identifier.key_id.hex()}, the issuer has {expected.hex()}"


@rule(
    "w_aki_issuer_serial_form",
    "[V2G20-3431]; RFC 5280 4.2.1.1 permits it",
    "AuthorityKeyIdentifier carries the keyIdentifier alone",
    hint="leave authorityCertIssuer and authorityCertSerialNumber out",
    where="tbsCertificate.extensions.authorityKeyIdentifier",
    severity_by_standard={
        Standard.ISO15118_2: Severity.NOTICE,
        Standard.OCPP: Severity.NOTICE,
        Standard.COMMON: Severity.NOTICE,
        Standard.ISO15118_20_A1: Severity.WARNING,
    },
    unverified="the text of Amendment 1, which forbids the form, is known from implementers' comments only",
)
def aki_issuer_serial_form(context: CertificateContext) -> Verdict:
    """Cross-certification breaks the other form."""
    identifier = context.view.known.authority_key_id
    if identifier is None or not identifier.names_issuer:
        return None
    return "AuthorityKeyIdentifier names issuer and serial number"


_NEVER_CRITICAL: Final = {
    oids.SUBJECT_KEY_IDENTIFIER: Extension.SUBJECT_KEY_IDENTIFIER,
    oids.AUTHORITY_KEY_IDENTIFIER: Extension.AUTHORITY_KEY_IDENTIFIER,
    oids.AUTHORITY_INFORMATION_ACCESS: Extension.AUTHORITY_INFORMATION_ACCESS,
    oids.SUBJECT_INFORMATION_ACCESS: Extension.SUBJECT_INFORMATION_ACCESS,
    oids.CRL_DISTRIBUTION_POINTS: Extension.CRL_DISTRIBUTION_POINTS,
}


@rule(
    "e_aki_ski_critical",
    "RFC 5280 4.2.1.1, 4.2.1.2, 4.2.1.13, 4.2.2; [V2G20-3431]",
    "key identifiers and information access are not critical",
    hint="make them non-critical; only ISO 15118-20:2022 wants them critical, and stock OpenSSL refuses that",
    where="tbsCertificate.extensions",
    severity_by_standard={Standard.ISO15118_20: Severity.NOTICE},
)
def aki_ski_critical(context: CertificateContext) -> Verdict:
    """For CRLDistributionPoints RFC 5280 says *should*, hence a warning; under -20:2022 all are a notice."""
    problems = []
    for extension in context.view.extensions:
        if extension.critical and extension.oid in _NEVER_CRITICAL:
            severity = None
            if _takes_after_20(context, _NEVER_CRITICAL[extension.oid]):
                severity = Severity.NOTICE
            elif extension.oid == oids.CRL_DISTRIBUTION_POINTS and context.standard is not Standard.ISO15118_20:
                severity = Severity.WARNING
            problems.append(Problem(f"{oids.name_of(extension.oid)} is critical", severity=severity))
    return problems


def _takes_after_20(context: CertificateContext, extension: Extension) -> bool:
    """Whether the certificate is of no standard of its own, and that of its CA is -20:2022 (Annex B.9).

    A profile that was adapted to its CA says so itself. One that was guessed from the certificate does not; there the
    CA's own certificate tells, and without it the algorithms of -20 leave the question open.
    """
    if context.profile is None or context.standard is not Standard.COMMON:
        return False
    demand = context.profile.extension_rule(extension)
    if demand is not None and demand.critical:
        return True
    if context.issuer is not None:
        return any(each.critical and each.oid in _NEVER_CRITICAL for each in context.issuer.extensions)
    return context.view.signature_algorithm_oid in (oids.ECDSA_WITH_SHA512, oids.ED448)
