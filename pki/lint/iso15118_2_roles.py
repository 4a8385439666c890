"""ISO 15118-2:2014: what each role demands of subject, key usage, validity and pointers; -20 shares some of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from chargepki.pki import oids
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Severity
from chargepki.pki.identifiers import Emaid, EvseId, Pcid, SeccId
from chargepki.pki.lint.engine import CertificateContext, Problem, Verdict, rule
from chargepki.pki.lint.standards import ISO2, ISO20, V2G, has_bits, missing_bits
from chargepki.pki.profiles.base import KeyUsageBit, Standard

_SUBJECT: Final = "tbsCertificate.subject"
_KEY_USAGE: Final = "tbsCertificate.extensions.keyUsage"
_VALIDITY: Final = "tbsCertificate.validity"
_SECC: Final = ("secc", "private-secc")
_DAY: Final = timedelta(days=1)


def _dc(context: CertificateContext) -> list[str]:
    return context.view.subject_values(oids.DOMAIN_COMPONENT)


def _duration(context: CertificateContext) -> timedelta | None:
    """Both bounds count (RFC 5280 4.1.2.5)."""
    start, end = context.view.not_before.value, context.view.not_after.value
    return None if start is None or end is None else end - start + timedelta(seconds=1)


def _longer_than(context: CertificateContext, days: int) -> str | None:
    duration = _duration(context)
    if duration is None or duration <= days * _DAY:
        return None
    return f"valid for {duration / _DAY:.1f} days, at most {days} are foreseen"


@rule(
    "e_v2g2_dc_root",
    "ISO 15118-2 Table F.1",
    "a V2G root has DC=V2G",
    hint="add DC=V2G to the subject",
    standards=ISO2,
    applies=("v2g-root",),
    where=_SUBJECT,
)
def dc_root(context: CertificateContext) -> Verdict:
    """Compared exactly, upper case."""
    return _wrong_dc(context, "V2G")


@rule(
    "e_v2g2_dc_secc",
    "ISO 15118-2 [V2G2-925], [V2G2-875]",
    "an SECC leaf has DC=CPO",
    hint="add DC=CPO to the subject: the EV aborts TLS without it",
    standards=ISO2,
    applies=_SECC,
    where=_SUBJECT,
)
def dc_secc(context: CertificateContext) -> Verdict:
    """For private environments no public text settles the level, so there it is a warning."""
    message = _wrong_dc(context, "CPO")
    if message and context.role == "private-secc":
        return [Problem(message, severity=Severity.WARNING)]
    return message


@rule(
    "e_v2g2_dc_cps",
    "ISO 15118-2 [V2G2-925], [V2G2-891]",
    "a CPS leaf has DC=CPS",
    hint="add DC=CPS to the subject: the EV discards the message without it",
    standards=ISO2,
    applies=("cps",),
    where=_SUBJECT,
)
def dc_cps(context: CertificateContext) -> Verdict:
    """Compared exactly, upper case."""
    return _wrong_dc(context, "CPS")


@rule(
    "w_v2g2_dc_oem",
    "ISO 15118-2 [V2G2-925]; Table F.5 says optional",
    "an OEM provisioning certificate has DC=OEM",
    hint="add DC=OEM to the subject",
    standards=ISO2,
    applies=("oem-provisioning",),
    where=_SUBJECT,
    unverified="V2G2-925 names it, Table F.5 marks it optional",
)
def dc_oem(context: CertificateContext) -> Verdict:
    """The two places of the standard contradict each other."""
    return _wrong_dc(context, "OEM")


def _wrong_dc(context: CertificateContext, wanted: str) -> str | None:
    found = _dc(context)
    return None if found == [wanted] else f"DC is {', '.join(found)[:80] or 'absent'}, expected exactly one DC={wanted}"


@rule(
    "n_v2g2_dc_contract",
    "ISO 15118-2 Table F.4 (optional); convention",
    "a DC in a contract certificate is MO",
    hint="write DC=MO or none",
    standards=ISO2,
    applies=("contract",),
    where=_SUBJECT,
)
def dc_contract(context: CertificateContext) -> Verdict:
    """Not a validity condition."""
    found = _dc(context)
    return f"DC is {', '.join(found)[:80]}" if found and found != ["MO"] else None


@rule(
    "e_v2g2_ku_secc",
    "ISO 15118-2 Table F.2; ISO 15118-20 Annex B",
    "an SECC leaf asserts digitalSignature",
    hint="set digitalSignature",
    standards=V2G,
    applies=_SECC,
    where=_KEY_USAGE,
)
def ku_secc(context: CertificateContext) -> Verdict:
    """ECDHE_ECDSA and TLS 1.3 sign with the key."""
    return missing_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE)


@rule(
    "n_v2g2_ku_secc_keyagreement",
    "ISO 15118-2 [V2G2-602]; Table F.2 (readings disagree)",
    "whether an SECC leaf asserts keyAgreement",
    hint="needed for the static-ECDH suite, which current TLS libraries no longer offer",
    standards=ISO2,
    applies=_SECC,
    where=_KEY_USAGE,
    unverified="public readings of Table F.2 contradict each other",
)
def ku_secc_keyagreement(context: CertificateContext) -> Verdict:
    """A notice in both directions, since sources disagree."""
    present = has_bits(context.view, KeyUsageBit.KEY_AGREEMENT)
    return "keyAgreement is set" if present else "keyAgreement is not set"


@rule(
    "e_v2g2_ku_contract",
    "ISO 15118-2 Table F.4",
    "a contract certificate asserts digitalSignature and nonRepudiation",
    hint="set both bits",
    standards=ISO2,
    applies=("contract",),
    where=_KEY_USAGE,
)
def ku_contract(context: CertificateContext) -> Verdict:
    """It signs authorisations and meter readings."""
    return missing_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.NON_REPUDIATION)


@rule(
    "w_v2g2_ku_contract_keyagreement",
    "ISO 15118-2 [V2G2-822]",
    "a contract certificate asserts keyAgreement",
    hint="set keyAgreement, or CertificateUpdate cannot use the key",
    standards=ISO2,
    applies=("contract",),
    where=_KEY_USAGE,
)
def ku_contract_keyagreement(context: CertificateContext) -> Verdict:
    """It is the static ECDH key of CertificateUpdate."""
    return missing_bits(context.view, KeyUsageBit.KEY_AGREEMENT)


@rule(
    "e_v2g2_ku_oem",
    "ISO 15118-2 [V2G2-822]; [V2G20-822]",
    "an OEM provisioning certificate asserts digitalSignature and, on EC keys, keyAgreement",
    hint="set both bits; Ed448 keys have digitalSignature alone",
    standards=V2G,
    applies=("oem-provisioning",),
    where=_KEY_USAGE,
)
def ku_oem(context: CertificateContext) -> Verdict:
    """It is the static ECDH key of contract delivery."""
    bits = (KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT)
    return missing_bits(context.view, *(bits if context.view.key.algorithm == oids.EC_PUBLIC_KEY else bits[:1]))


@rule(
    "e_v2g2_ku_cps",
    "ISO 15118-2 Table F.3; ISO 15118-20 Annex B",
    "a CPS leaf asserts digitalSignature",
    hint="set digitalSignature",
    standards=V2G,
    applies=("cps",),
    where=_KEY_USAGE,
)
def ku_cps(context: CertificateContext) -> Verdict:
    """It signs contract deliveries."""
    return missing_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE)


@rule(
    "e_emaid_syntax",
    "ISO 15118-2 Annex H.1; [V2G2-108]",
    "the CN is an EMAID",
    hint="use country, provider, instance and check digit, as in DE8AA1A2B3C4D59",
    standards=V2G,
    applies=("contract",),
    where=_SUBJECT,
)
def emaid_syntax(context: CertificateContext) -> Verdict:
    """14 or 15 characters, more with separators, any letter case."""
    return None if _emaid(context) is not None else f"CN {context.view.common_name[:80]!r} is no EMAID"


@rule(
    "w_emaid_check_digit",
    "ISO 15118-2 Annex H.1",
    "the EMAID's check digit is right",
    hint="correct the EMAID, or leave the check digit out",
    standards=V2G,
    applies=("contract",),
    where=_SUBJECT,
)
def emaid_check_digit(context: CertificateContext) -> Verdict:
    """Absent is allowed; wrong usually means a typing error."""
    emaid = _emaid(context)
    return f"the check digit of {emaid} is wrong" if emaid is not None and emaid.check_digit_ok is False else None


@rule(
    "n_emaid_separator",
    "ISO 15118-2 eMAIDType",
    "the EMAID has no separators and is upper case",
    hint="write it without '-' and in upper case: some back ends compare byte by byte",
    standards=ISO2,
    applies=("contract",),
    where=_SUBJECT,
)
def emaid_separator(context: CertificateContext) -> Verdict:
    """The schema's type allows 14 or 15 characters only."""
    name = context.view.common_name
    return f"CN {name!r}" if _emaid(context) is not None and ("-" in name or name != name.upper()) else None


def _emaid(context: CertificateContext) -> Emaid | None:
    try:
        return Emaid.parse(context.view.common_name)
    except InputError:
        return None


@rule(
    "e_pcid_syntax",
    "ISO 15118-2 [V2G2-933]; OPCP identifiers",
    "the CN is a PCID",
    hint="use 17 letters and digits (18 with check digit)",
    standards=V2G,
    applies=("oem-provisioning",),
    where=_SUBJECT,
)
def pcid_syntax(context: CertificateContext) -> Verdict:
    """Called CertID in the standard."""
    try:
        Pcid.parse(context.view.common_name)
    except InputError:
        return f"CN {context.view.common_name[:80]!r} is no PCID"
    return None


@rule(
    "w_pcid_17",
    "[V2G20-2492]",
    "the PCID has 18 characters",
    hint="append the check digit: the AAD of contract delivery is ambiguous without it",
    standards=ISO20,
    applies=("oem-provisioning",),
    where=_SUBJECT,
)
def pcid_17(context: CertificateContext) -> Verdict:
    """17 characters are still a PCID, as in -2."""
    return "the PCID has 17 characters" if len(context.view.common_name) == 17 else None


@rule(
    "w_secc_cn_syntax",
    "OPCP identifiers; operators' choice in Annex F",
    "the CN is an EVSEID or a SECCID",
    hint="use an EVSEID such as DE*ABC*E1234, or a SECCID",
    standards=V2G,
    applies=_SECC,
    where=_SUBJECT,
)
def secc_cn_syntax(context: CertificateContext) -> Verdict:
    """Root operators want one of the two."""
    name = context.view.common_name
    return None if EvseId.fits(name) or SeccId.fits(name) else f"CN {name[:80]!r} is neither"


@rule(
    "w_validity_secc",
    "ISO 15118-2 Annex F",
    "an SECC leaf lives 2 to 3 months",
    hint="shorten --validity",
    standards=ISO2,
    applies=_SECC,
    where=_VALIDITY,
)
def validity_secc(context: CertificateContext) -> Verdict:
    """Widely ignored in the field."""
    return _longer_than(context, 93)


@rule(
    "w_validity_cps",
    "ISO 15118-2 Annex F",
    "a CPS leaf lives 2 to 3 months",
    hint="shorten --validity",
    standards=ISO2,
    applies=("cps",),
    where=_VALIDITY,
)
def validity_cps(context: CertificateContext) -> Verdict:
    """EVs check no revocation for it."""
    return _longer_than(context, 93)


@rule(
    "w_validity_contract",
    "ISO 15118-2 Annex F",
    "a contract certificate lives 4 weeks to 2 years",
    hint="choose a validity between 28 and 731 days",
    standards=ISO2,
    applies=("contract",),
    where=_VALIDITY,
)
def validity_contract(context: CertificateContext) -> Verdict:
    """And never beyond the contract, which we do not know."""
    duration = _duration(context)
    if duration is not None and duration < 28 * _DAY:
        return f"valid for {duration / _DAY:.1f} days, at least 28 are foreseen"
    return _longer_than(context, 731)


@rule(
    "w_validity_sub2",
    "ISO 15118-2 Annex F",
    "CPO and CPS sub-CA 2 live 1 to 2 years",
    hint="shorten --validity",
    standards=ISO2,
    applies=("cpo-sub2", "cps-sub2"),
    where=_VALIDITY,
)
def validity_sub2(context: CertificateContext) -> Verdict:
    """Two years with a leap day are 731 days."""
    return _longer_than(context, 731)


@rule(
    "w_validity_sub1",
    "ISO 15118-2 Annex F",
    "CPO and CPS sub-CA 1 live 4 years",
    hint="shorten --validity",
    standards=ISO2,
    applies=("cpo-sub1", "cps-sub1"),
    where=_VALIDITY,
)
def validity_sub1(context: CertificateContext) -> Verdict:
    """Four years with a leap day are 1461 days."""
    return _longer_than(context, 1461)


@rule(
    "w_validity_root40",
    "ISO 15118-2 [V2G2-011]",
    "a V2G root lives 40 years",
    hint="use the default validity",
    standards=ISO2,
    applies=("v2g-root",),
    where=_VALIDITY,
)
def validity_root40(context: CertificateContext) -> Verdict:
    """One year of slack either way."""
    duration = _duration(context)
    if duration is None or 39 * 365 * _DAY <= duration <= 41 * 366 * _DAY:
        return None
    return f"valid for {duration / (365.25 * _DAY):.1f} years"


@rule(
    "w_ocsp_url_missing",
    "ISO 15118-2 [V2G2-871]",
    "an OCSP pointer",
    hint="set the public URL: the station owes the EV one OCSP answer per certificate",
    standards=ISO2,
    applies=("cpo-sub1", "cpo-sub2", "secc"),
    where="tbsCertificate.extensions.authorityInfoAccess",
    unverified="the cells of Annex F about pointers are not public",
)
def ocsp_url_missing(context: CertificateContext) -> Verdict:
    """Private environments are exempt."""
    accesses = context.view.known.authority_info or ()
    return None if any(access.method == oids.AD_OCSP for access in accesses) else "no id-ad-ocsp"


@rule(
    "n_san_present_v2g",
    "[V2G20-2323]; ISO 15118-2 Annex F",
    "no SubjectAltName",
    hint="leave it out, unless the certificate serves OCPP too",
    standards=V2G,
    applies=("leaf",),
    where="tbsCertificate.extensions.subjectAltName",
    severity_by_standard={Standard.ISO15118_20: Severity.ERROR},
)
def san_present_v2g(context: CertificateContext) -> Verdict:
    """EVs do not match host names; -20:2022 forbids what Annex B does not list."""
    present = context.view.extension(oids.SUBJECT_ALTERNATIVE_NAME) is not None
    return "SubjectAltName is present" if present else None


@rule(
    "n_missing_crldp_and_aia",
    "ISO 15118-2 Annex F (recommended)",
    "a revocation pointer",
    hint="set the public URL",
    standards=ISO2,
    applies=("secc", "cps", "contract", "oem-provisioning"),
    where="tbsCertificate.extensions",
    unverified="the cells of Annex F about pointers are not public",
)
def missing_crldp_and_aia(context: CertificateContext) -> Verdict:
    """Whoever wants to check revocation must find out elsewhere where."""
    known = context.view.known
    return None if known.crl_points or known.authority_info else "neither CRLDistributionPoints nor AuthorityInfoAccess"
