"""ISO 15118-20:2022, Annex B, and its Amendment 1."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from chargepki.pki import oids
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Severity
from chargepki.pki.identifiers import EvccId
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.sizes import expected_size
from chargepki.pki.lint.standards import ISO20, has_bits
from chargepki.pki.profiles.base import KeyUsageBit, RoleKind, Standard

_SUBJECT: Final = "tbsCertificate.subject"
_EXTENSIONS: Final = "tbsCertificate.extensions"
_KEY_USAGE: Final = "tbsCertificate.extensions.keyUsage"

_KEYS: Final = frozenset({(oids.EC_PUBLIC_KEY, oids.SECP521R1), (oids.ED448, "")})
_SIGNATURES: Final = frozenset({oids.ECDSA_WITH_SHA512, oids.ED448})


@rule(
    "e_v2g20_size_1600",
    "[V2G20-1234]",
    "at most 1600 bytes of DER",
    hint="shorten the pointer URLs or names",
    standards=ISO20,
)
def size_1600(context: CertificateContext) -> Verdict:
    """The message schema's limit."""
    size = expected_size(context.view)
    return f"{size} bytes" if size > 1600 else None


@rule(
    "e_v2g20_alg",
    "[V2G20-2674], [V2G20-2675], [V2G20-2319]",
    "secp521r1 with SHA-512, or Ed448",
    hint="make a secp521r1 (or Ed448) key and sign with one",
    standards=ISO20,
    where="tbsCertificate",
)
def alg(context: CertificateContext) -> Verdict:
    """Key and signature are judged apart."""
    view = context.view
    problems = []
    if (view.key.algorithm, view.key.curve) not in _KEYS:
        name = oids.name_of(view.key.curve or view.key.algorithm)
        problems.append(Problem(f"the key is {name}", "tbsCertificate.subjectPublicKeyInfo"))
    if view.signature_algorithm_oid not in _SIGNATURES:
        name = oids.name_of(view.signature_algorithm_oid)
        problems.append(Problem(f"signed with {name}", "tbsCertificate.signature"))
    return problems


@rule(
    "e_iso2_material_in_20",
    "[V2G20-2674]; field reports",
    "no P-256 or SHA-256 under a -20 profile",
    hint="generate the hierarchy anew under iso15118-20: a contract key for P-256 cannot even be delivered",
    standards=ISO20,
    where="tbsCertificate",
)
def iso2_material_in_20(context: CertificateContext) -> Verdict:
    """A public sample PKI labelled -20 is in truth a -2 PKI."""
    view = context.view
    if view.key.curve == oids.SECP256R1 or view.signature_algorithm_oid == oids.ECDSA_WITH_SHA256:
        return "P-256 or ecdsa-with-SHA256: material of ISO 15118-2"
    return None


_LISTED: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.CERTIFICATE_POLICIES,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.AUTHORITY_INFORMATION_ACCESS,
    }
)
_LISTED_FOR: Final = {
    "contract": frozenset({oids.SUBJECT_INFORMATION_ACCESS}),
    "oem-provisioning": frozenset({oids.SUBJECT_INFORMATION_ACCESS, oids.SUBJECT_ALT_PUBLIC_KEY_INFO}),
    "cross": frozenset({oids.SUBJECT_INFORMATION_ACCESS}),
    "vehicle": frozenset({oids.EXTENDED_KEY_USAGE}),
}


@rule(
    "e_v2g20_ext_unlisted",
    "[V2G20-2323], [V2G20-2686]",
    "only the extensions of Annex B",
    hint="leave the extension out",
    standards=ISO20,
    where=_EXTENSIONS,
    # Under Amendment 1 an unknown non-critical extension is passed over.
    severity_by_standard={Standard.ISO15118_20_A1: Severity.NOTICE},
)
def ext_unlisted(context: CertificateContext) -> Verdict:
    """ExtendedKeyUsage of SECC and CPS leaves, and ocsp-nocheck, are notices until their tables are public."""
    listed = _LISTED_FOR.get(context.role, frozenset())
    problems = []
    for extension in context.view.extensions:
        # SubjectAltName is n_san_present_v2g's, an EKU on a contract or a CA has a rule of its own.
        if extension.oid in _LISTED or extension.oid in listed or extension.oid == oids.SUBJECT_ALTERNATIVE_NAME:
            continue
        if extension.oid == oids.EXTENDED_KEY_USAGE and (context.role == "contract" or context.view.is_ca):
            continue
        mild = extension.oid in (oids.EXTENDED_KEY_USAGE, oids.OCSP_NO_CHECK)
        problems.append(
            Problem(
                f"{oids.name_of(extension.oid)} is not listed",
                f"offset {extension.offset}",
                Severity.NOTICE if mild else None,
            )
        )
    return problems


@rule(
    "e_v2g20_revocation_ptr",
    "[V2G20-2590] to [V2G20-2593], [V2G20-2599], [V2G20-2600]",
    "at least one of CRLDistributionPoints and AuthorityInfoAccess",
    hint="set the public URL",
    standards=ISO20,
    applies=(
        "contract",
        "emsp-sub1",
        "emsp-sub2",
        "oem-provisioning",
        "oem-sub1",
        "oem-sub2",
        "vehicle",
        "vehicle-sub1",
        "vehicle-sub2",
    ),
    where=_EXTENSIONS,
)
def revocation_ptr(context: CertificateContext) -> Verdict:
    """The contract, OEM and vehicle families."""
    known = context.view.known
    return None if known.crl_points or known.authority_info else "neither CRLDistributionPoints nor AuthorityInfoAccess"


@rule(
    "e_v2g20_contract_eku",
    "ISO 15118-20 Table B.9",
    "a contract certificate has no ExtendedKeyUsage",
    hint="leave it out",
    standards=ISO20,
    applies=("contract",),
    where="tbsCertificate.extensions.extendedKeyUsage",
)
def contract_eku(context: CertificateContext) -> Verdict:
    """It signs application messages, nothing else."""
    present = context.view.extension(oids.EXTENDED_KEY_USAGE) is not None
    return "ExtendedKeyUsage is present" if present else None


_TOLERATED_IN_CONTRACT: Final = frozenset({oids.COUNTRY_NAME, oids.ORGANIZATIONAL_UNIT_NAME, oids.DOMAIN_COMPONENT})


@rule(
    "e_v2g20_contract_dn",
    "[V2G20-2589]; ISO 15118-20 Table B.9",
    "the subject of a contract certificate is CN and O",
    hint="write CN (the EMAID) and O (the eMSP) alone",
    standards=ISO20,
    applies=("contract",),
    where=_SUBJECT,
)
def contract_dn(context: CertificateContext) -> Verdict:
    """The prose closes the subject after the two, the table lists C, OU and DC too: those are notices."""
    problems = _missing_cn_and_o(context)
    for attribute in context.view.subject_attributes:
        if attribute.oid not in (oids.COMMON_NAME, oids.ORGANIZATION_NAME):
            mild = Severity.NOTICE if attribute.oid in _TOLERATED_IN_CONTRACT else None
            problems.append(Problem(f"the subject has {oids.name_of(attribute.oid)} too", severity=mild))
    return problems


def _missing_cn_and_o(context: CertificateContext) -> list[Problem]:
    return [
        Problem(f"the subject needs exactly one {name}")
        for oid, name in ((oids.COMMON_NAME, "CN"), (oids.ORGANIZATION_NAME, "O"))
        if len(context.view.subject_values(oid)) != 1
    ]


@rule(
    "e_v2g20_leaf_ku",
    "ISO 15118-20 Tables B.9, B.13",
    "a leaf asserts digitalSignature",
    hint="set digitalSignature",
    standards=ISO20,
    applies=("contract", "vehicle"),
    where=_KEY_USAGE,
)
def leaf_ku(context: CertificateContext) -> Verdict:
    """SECC, CPS and OEM leaves have a rule of their own, shared with -2."""
    return None if has_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE) else "keyUsage lacks digitalSignature"


@rule(
    "e_v2g20_leaf_ku_forbidden",
    "ISO 15118-20 Tables B.9, B.13",
    "a leaf asserts no dataEncipherment, encipherOnly, decipherOnly",
    hint="clear these bits",
    standards=ISO20,
    applies=("leaf",),
    where=_KEY_USAGE,
)
def leaf_ku_forbidden(context: CertificateContext) -> Verdict:
    """keyCertSign and cRLSign are forbidden too; e_ku_certsign_on_leaf says so."""
    forbidden = (KeyUsageBit.DATA_ENCIPHERMENT, KeyUsageBit.ENCIPHER_ONLY, KeyUsageBit.DECIPHER_ONLY)
    found = [bit.value for bit in forbidden if has_bits(context.view, bit)]
    return f"keyUsage has {', '.join(found)}" if found else None


@rule(
    "w_v2g20_ski_8byte",
    "[V2G20-2492]; RFC 5280 4.2.1.2 (2)",
    "the SubjectKeyIdentifier of a contract certificate has 8 bytes",
    hint="use the 64-bit form: the AAD of contract delivery holds it as 16 hex digits",
    standards=ISO20,
    applies=("contract",),
    where="tbsCertificate.extensions.subjectKeyIdentifier",
)
def ski_8byte(context: CertificateContext) -> Verdict:
    """PCID and identifier make 34 bytes together."""
    identifier = context.view.known.subject_key_id
    return f"it has {len(identifier)} bytes" if identifier and len(identifier) != 8 else None


@rule(
    "e_vehicle_cn_evccid",
    "[V2G20-2598]",
    "the CN of a vehicle certificate is an EVCCID, O is present",
    hint="write CN (the EVCCID) and O (the OEM)",
    standards=ISO20,
    applies=("vehicle",),
    where=_SUBJECT,
)
def vehicle_cn_evccid(context: CertificateContext) -> Verdict:
    """The SECC compares the CN with the EVCCID of the session."""
    problems = _missing_cn_and_o(context)
    name = context.view.common_name
    try:
        EvccId.parse(name)
    except InputError:
        problems.append(Problem(f"CN {name[:80]!r} is no EVCCID"))
    return problems


@rule(
    "e_vehicle_extra_rdn",
    "[V2G20-2598]; Amendment 1 [V2G20-3073], [V2G20-3406]",
    "the subject of a vehicle certificate is CN and O (with Amendment 1 also one DC ending in EV)",
    hint="leave the others out",
    standards=ISO20,
    applies=("vehicle",),
    where=_SUBJECT,
)
def vehicle_extra_rdn(context: CertificateContext) -> Verdict:
    """The two texts contradict each other about the DC, so each profile follows its own."""
    allowed = {oids.COMMON_NAME, oids.ORGANIZATION_NAME}
    problems = []
    if context.standard is Standard.ISO15118_20_A1:
        allowed.add(oids.DOMAIN_COMPONENT)
        values = context.view.subject_values(oids.DOMAIN_COMPONENT)
        if len(values) != 1 or not values[0].endswith("EV"):
            message = f"DC is {', '.join(values)[:80] or 'absent'}, expected one that ends in EV"
            # The text of Amendment 1 is known from implementers' comments only: no hard error rests on it.
            problems.append(Problem(message, severity=Severity.WARNING))
    problems += [
        Problem(f"the subject has {oids.name_of(attribute.oid)} too")
        for attribute in context.view.subject_attributes
        if attribute.oid not in allowed
    ]
    return problems


@rule(
    "w_vehicle_eku_clientauth",
    "ISO 15118-20 B.8; Amendment 1",
    "ExtendedKeyUsage of a vehicle certificate is clientAuth, serverAuth at most besides",
    hint="write clientAuth; critical under Amendment 1",
    standards=ISO20,
    applies=("vehicle",),
    where="tbsCertificate.extensions.extendedKeyUsage",
    unverified="recommended in 2022; the text of Amendment 1 is known from implementers' comments only",
)
def vehicle_eku_clientauth(context: CertificateContext) -> Verdict:
    """Recommended in 2022; mandatory and critical under Amendment 1, of which no public text exists: a warning."""
    extension = context.view.extension(oids.EXTENDED_KEY_USAGE)
    usages = context.view.known.extended_key_usage or ()
    problems = []
    if oids.EKU_CLIENT_AUTH not in usages:
        problems.append(Problem("clientAuth is missing"))
    problems += [
        Problem(f"{oids.name_of(usage)} does not belong here")
        for usage in usages
        if usage not in (oids.EKU_CLIENT_AUTH, oids.EKU_SERVER_AUTH)
    ]
    if extension is not None and not extension.critical and context.standard is Standard.ISO15118_20_A1:
        problems.append(Problem("ExtendedKeyUsage is not critical"))
    return problems


@rule(
    "w_tpm_ext_pair",
    "[V2G20-2594] to [V2G20-2596]",
    "id-tpmPolicyDigest comes with id-tpmStorageKey",
    hint="write both or none",
    standards=ISO20,
    applies=("oem-provisioning",),
    where="tbsCertificate.extensions.subjectInfoAccess",
    unverified="the arcs are known from a single public source",
)
def tpm_ext_pair(context: CertificateContext) -> Verdict:
    """A policy digest without the key that it guards."""
    methods = {access.method for access in context.view.known.subject_info or ()}
    if oids.AD_TPM_POLICY_DIGEST in methods and oids.AD_TPM_STORAGE_KEY not in methods:
        return "id-tpmPolicyDigest without id-tpmStorageKey"
    return None


@rule(
    "e_ed448_keyagreement",
    "RFC 8410 5; RFC 9295; [V2G20-2534]",
    "an Ed448 key only signs, an X448 key only agrees",
    hint="clear keyAgreement and the encipherment bits of an Ed448 certificate",
    standards=ISO20,
    where=_KEY_USAGE,
)
def ed448_keyagreement(context: CertificateContext) -> Verdict:
    """Contract delivery to an Ed448 key needs a second, X448 key."""
    view = context.view
    if view.key.algorithm == oids.X448:
        return None if has_bits(view, KeyUsageBit.KEY_AGREEMENT) else "an X448 key without keyAgreement"
    if view.key.algorithm != oids.ED448:
        return None
    agreeing = (
        KeyUsageBit.KEY_AGREEMENT,
        KeyUsageBit.KEY_ENCIPHERMENT,
        KeyUsageBit.DATA_ENCIPHERMENT,
        KeyUsageBit.ENCIPHER_ONLY,
        KeyUsageBit.DECIPHER_ONLY,
    )
    found = [bit.value for bit in agreeing if has_bits(view, bit)]
    return f"an Ed448 key with {', '.join(found)}" if found else None


@rule(
    "n_v2g20_dc_secc",
    "ISO 15118-20 Table B.5 (single public source)",
    "an SECC leaf has DC=CSO",
    hint="write DC=CSO; CPO is the value of ISO 15118-2",
    standards=ISO20,
    applies=("secc", "private-secc"),
    where=_SUBJECT,
    unverified="a single public source names the value",
)
def dc_secc(context: CertificateContext) -> Verdict:
    """A notice as long as no second source confirms the value."""
    values = context.view.subject_values(oids.DOMAIN_COMPONENT)
    return None if values == ["CSO"] else f"DC is {', '.join(values)[:80] or 'absent'}"


@rule(
    "n_expires_within_14_days",
    "[V2G20-2218]",
    "a contract certificate does not expire within 14 days",
    hint="renew the contract certificate",
    standards=ISO20,
    applies=("contract",),
    where="tbsCertificate.validity.notAfter",
    needs=Needs(now=True),
)
def expires_within_14_days(context: CertificateContext) -> Verdict:
    """The SECC flags such a contract; one that has expired already is e_expired's."""
    end, now = context.view.not_after.value, context.now
    return f"expires {end}" if end and now and now <= end < now + _NEAR_EXPIRY else None


_NEAR_EXPIRY: Final = timedelta(days=14)


@rule(
    "e_cross_cert_validity",
    "[V2G20-1853]",
    "a cross-certificate is not valid beyond its issuer",
    hint="shorten --validity",
    standards=ISO20,
    applies=(RoleKind.CROSS.value,),
    where="tbsCertificate.validity",
    needs=Needs(issuer=True),
)
def cross_cert_validity(context: CertificateContext) -> Verdict:
    """The certified CA's own end is not visible here."""
    end = context.view.not_after.value
    limit = None if context.issuer is None else context.issuer.not_after.value
    return f"valid until {end}, the issuer until {limit}" if end and limit and end > limit else None
