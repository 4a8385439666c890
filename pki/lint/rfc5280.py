"""RFC 5280: the fields of the to-be-signed part, encoding, names, validity and the public key's form."""

from __future__ import annotations

import re
from typing import Final

from chargepki.pki import names, oids
from chargepki.pki.certificate_view import AttributeView
from chargepki.pki.curves import is_degenerate, is_on_curve
from chargepki.pki.errors import InputError, printable_number
from chargepki.pki.findings import Severity
from chargepki.pki.lint.countries import COUNTRY_CODES
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.view import TimeView
from chargepki.pki.post_quantum import ML_DSA_OIDS
from chargepki.pki.profiles.base import Standard

_EDWARDS: Final = frozenset({oids.ED448, oids.ED25519, oids.X448, oids.X25519, *ML_DSA_OIDS})
_ECDSA: Final = "1.2.840.10045.4."
_LETTERS: Final = re.compile(r"[A-Za-z]{2}", re.ASCII)
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


@rule(
    "e_der_strict",
    "X.690; RFC 5280 4.1",
    "the certificate is DER",
    hint="encode with definite, shortest lengths and without DEFAULT values; send nothing after the object",
)
def der_strict(context: CertificateContext) -> Verdict:
    """Report what the reader noted on its way."""
    return [
        Problem(f"{problem.what} (rule {problem.rule})", f"offset {problem.offset}")
        for problem in context.view.problems
    ]


@rule(
    "e_version_v3",
    "RFC 5280 4.1.2.1",
    "the version is v3",
    hint="set version to 2, which means v3",
    where="tbsCertificate.version",
)
def version_v3(context: CertificateContext) -> Verdict:
    """Extensions exist in v3 only."""
    version = context.view.version
    return None if version == 2 else f"version field is {printable_number(version)}, v3 is 2"


@rule(
    "e_serial_positive",
    "RFC 5280 4.1.2.2",
    "the serial number is positive",
    hint="draw a positive serial number",
    where="tbsCertificate.serialNumber",
)
def serial_positive(context: CertificateContext) -> Verdict:
    """Zero and negative numbers are not allowed."""
    return None if context.view.serial > 0 else "the serial number is zero or negative"


@rule(
    "e_serial_max_20_octets",
    "RFC 5280 4.1.2.2",
    "the serial number has at most 20 octets",
    hint="use at most 159 random bits",
    where="tbsCertificate.serialNumber",
)
def serial_max_20_octets(context: CertificateContext) -> Verdict:
    """A leading 00 octet counts."""
    size = len(context.view.serial_content)
    return None if size <= 20 else f"the serial number has {size} content octets"


@rule(
    "w_serial_low_entropy",
    "CA/Browser Forum BR 7.1 (practice)",
    "the serial number is not guessable",
    hint="draw at least 64 random bits from a secure source",
    where="tbsCertificate.serialNumber",
)
def serial_low_entropy(context: CertificateContext) -> Verdict:
    """Counters and timestamps stay below 2^48; a random 64-bit number practically never does."""
    serial = context.view.serial
    return f"the serial number {serial} looks like a counter or a timestamp" if 0 < serial < 1 << 48 else None


@rule(
    "e_sigalg_mismatch",
    "RFC 5280 4.1.1.2",
    "the two signature algorithm fields are equal",
    hint="write the same AlgorithmIdentifier in both places",
    where="signatureAlgorithm",
    needs=Needs(signature=True),
)
def sigalg_mismatch(context: CertificateContext) -> Verdict:
    """Compared byte for byte: an attacker could swap the unsigned one."""
    view = context.view
    return (
        None
        if view.outer_algorithm == view.signature_algorithm
        else "signatureAlgorithm is not tbsCertificate.signature"
    )


@rule(
    "e_ecdsa_params_present",
    "RFC 5758 3.2",
    "ecdsa-with-* has no parameters",
    hint="leave the parameters out; NULL is not the same",
    where="tbsCertificate.signature",
)
def ecdsa_params_present(context: CertificateContext) -> Verdict:
    """NULL belongs to RSA."""
    view = context.view
    if view.signature_algorithm_oid.startswith(_ECDSA) and view.signature_parameters is not None:
        return "the ECDSA AlgorithmIdentifier has parameters"
    return None


@rule(
    "e_eddsa_params_present",
    "RFC 8410 3",
    "EdDSA and X25519/X448 have no parameters",
    hint="leave the parameters out",
    where="tbsCertificate",
)
def eddsa_params_present(context: CertificateContext) -> Verdict:
    """Both where the signature and where the key is described."""
    view = context.view
    problems = []
    if view.signature_algorithm_oid in _EDWARDS and view.signature_parameters is not None:
        problems.append(Problem("the EdDSA AlgorithmIdentifier has parameters", "tbsCertificate.signature"))
    if view.key.algorithm in _EDWARDS and view.key.parameters is not None:
        problems.append(Problem("the key's AlgorithmIdentifier has parameters", "tbsCertificate.subjectPublicKeyInfo"))
    return problems


@rule(
    "e_ec_explicit_params",
    "RFC 5480 2.1.1",
    "an EC key names its curve",
    hint="use namedCurve; explicit parameters let an attacker choose the generator (CVE-2020-0601)",
    where="tbsCertificate.subjectPublicKeyInfo",
)
def ec_explicit_params(context: CertificateContext) -> Verdict:
    """implicitCurve (NULL) and absent parameters are refused alike."""
    key = context.view.key
    return "the EC key does not name its curve" if key.algorithm == oids.EC_PUBLIC_KEY and not key.curve else None


@rule(
    "e_ec_point_compressed",
    "RFC 5480 2.2; [V2G20-2572] by analogy",
    "the EC point is uncompressed",
    hint="encode the point as 04 followed by both coordinates",
    where="tbsCertificate.subjectPublicKeyInfo",
    # RFC 5480 itself makes the compressed form optional, so only the V2G documents turn it into an error.
    severity_by_standard={Standard.OCPP: Severity.NOTICE, Standard.COMMON: Severity.NOTICE},
)
def ec_point_compressed(context: CertificateContext) -> Verdict:
    """02 and 03 are the compressed forms."""
    key = context.view.key
    return (
        "the EC point is compressed" if key.algorithm == oids.EC_PUBLIC_KEY and key.bits[:1] in (b"\2", b"\3") else None
    )


@rule(
    "e_ec_point_not_on_curve",
    "SP 800-56A 5.6.2",
    "the point is one of its curve, and of large order",
    hint="the key is broken or hostile: ask for another",
    where="tbsCertificate.subjectPublicKeyInfo",
)
def ec_point_not_on_curve(context: CertificateContext) -> Verdict:
    """The point at infinity, a wrong length, coordinates off the curve and points of small order are refused alike."""
    key = context.view.key
    if key.algorithm == oids.EC_PUBLIC_KEY:
        return "the public key is no point of its curve" if is_on_curve(key.curve, key.bits) is False else None
    if is_degenerate(key.algorithm, key.bits):
        return "the public key is a point of small order, for which everybody can sign"
    return None


@rule(
    "e_utctime_year_ge_2050",
    "RFC 5280 4.1.2.5",
    "UTCTime through 2049, GeneralizedTime from 2050",
    hint="UTCTime has two digits of a year; a 40-year root crosses 2050",
    where="tbsCertificate.validity",
)
def utctime_year_ge_2050(context: CertificateContext) -> Verdict:
    """A UTCTime of 2055 cannot be told from 1955, so a notAfter before 2000 is taken for the former."""
    problems = []
    for name, time in _times(context):
        if time.value is None:
            continue
        if time.tag == _GENERALIZED_TIME and time.value.year < 2050:
            problems.append(
                Problem(f"{name} {time.value:%Y-%m-%d} is a GeneralizedTime", f"tbsCertificate.validity.{name}")
            )
        elif time.tag == _UTC_TIME and time.value.year < 2000 and name == "notAfter":
            problems.append(Problem(f"{name} reads as the year {time.value.year}", f"tbsCertificate.validity.{name}"))
    return problems


@rule(
    "e_time_not_zulu_or_no_seconds",
    "RFC 5280 4.1.2.5",
    "times are YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ",
    hint="write UTC with seconds, without fraction and offset",
    where="tbsCertificate.validity",
)
def time_not_zulu_or_no_seconds(context: CertificateContext) -> Verdict:
    """Also finds dates that the calendar does not have."""
    return [
        Problem(f"{name} is {time.text.decode('latin-1')!r}", f"tbsCertificate.validity.{name}")
        for name, time in _times(context)
        if time.value is None
    ]


def _times(context: CertificateContext) -> tuple[tuple[str, TimeView], tuple[str, TimeView]]:
    return ("notBefore", context.view.not_before), ("notAfter", context.view.not_after)


@rule(
    "e_validity_inverted",
    "RFC 5280 4.1.2.5",
    "notBefore is not after notAfter",
    hint="swap the two, or check the clock of the issuing machine",
    where="tbsCertificate.validity",
)
def validity_inverted(context: CertificateContext) -> Verdict:
    """Equal bounds are one valid second."""
    start, end = context.view.not_before.value, context.view.not_after.value
    return f"notBefore {start:{_TIME}} is after notAfter {end:{_TIME}}" if start and end and start > end else None


@rule(
    "e_expired",
    "RFC 5280 4.1.2.5; [V2G2-910]",
    "the certificate has not expired",
    hint="renew it",
    where="tbsCertificate.validity.notAfter",
    needs=Needs(now=True),
)
def expired(context: CertificateContext) -> Verdict:
    """NotAfter itself is still valid."""
    end, now = context.view.not_after.value, context.now
    return f"expired {end:{_TIME}}" if end and now and now > end else None


@rule(
    "e_not_yet_valid",
    "RFC 5280 4.1.2.5; [V2G2-910]",
    "the certificate is valid already",
    hint="wait, or check the clock",
    where="tbsCertificate.validity.notBefore",
    needs=Needs(now=True),
)
def not_yet_valid(context: CertificateContext) -> Verdict:
    """NotBefore itself is valid."""
    start, now = context.view.not_before.value, context.now
    return f"valid from {start:{_TIME}}" if start and now and now < start else None


@rule(
    "e_child_outlives_issuer",
    "[V2G20-1004] (shell model; RFC 5280 has no such rule)",
    "the validity lies inside the issuer's",
    hint="shorten the validity, or renew the issuing CA first",
    where="tbsCertificate.validity",
    needs=Needs(issuer=True),
    severity=Severity.WARNING,
    unverified="whether V2G20-1004 nests the windows or only constrains the moment of issuance is not settled",
)
def child_outlives_issuer(context: CertificateContext) -> Verdict:
    """A warning: whether V2G20-1004 nests the windows or only the moment of issuance is not settled."""
    view, issuer = context.view, context.issuer
    if issuer is None or not view.not_after.value or not issuer.not_after.value:
        return None
    if view.not_after.value > issuer.not_after.value:
        return f"valid until {view.not_after.value}, the issuer until {issuer.not_after.value}"
    if view.not_before.value and issuer.not_before.value and view.not_before.value < issuer.not_before.value:
        return f"valid from {view.not_before.value}, the issuer from {issuer.not_before.value}"
    return None


@rule(
    "e_issuer_empty",
    "RFC 5280 4.1.2.4",
    "the issuer has a name",
    hint="write the issuing CA's subject",
    where="tbsCertificate.issuer",
)
def issuer_empty(context: CertificateContext) -> Verdict:
    """An empty issuer cannot be chained."""
    return None if context.view.issuer_attributes else "the issuer name is empty"


@rule(
    "e_subject_empty_ca",
    "RFC 5280 4.1.2.6",
    "a CA has a subject name",
    hint="name the CA",
    applies=("ca",),
    where="tbsCertificate.subject",
)
def subject_empty_ca(context: CertificateContext) -> Verdict:
    """What it issues carries this name as issuer."""
    return None if context.view.subject_attributes else "the subject name of a CA is empty"


@rule(
    "e_dn_chain_mismatch",
    "RFC 5280 6.1.3, 7.1",
    "the issuer name is the issuer's subject",
    hint="copy the bytes of the issuer's subject",
    where="tbsCertificate.issuer",
    needs=Needs(issuer=True),
)
def dn_chain_mismatch(context: CertificateContext) -> Verdict:
    """Equal names in another encoding are only a warning: some implementations compare bytes."""
    view, issuer = context.view, context.issuer
    if issuer is None or view.issuer == issuer.subject:
        return None
    try:
        equal = names.same(view.issuer, issuer.subject)
    except InputError:
        equal = False
    if equal:
        return [Problem("the issuer name is encoded in another way than in the issuer", severity=Severity.WARNING)]
    return "the issuer name is not the subject of the given issuer"


@rule(
    "e_unique_ids_present",
    "RFC 5280 4.1.2.8",
    "no issuerUniqueID or subjectUniqueID",
    hint="leave both out",
    where="tbsCertificate",
)
def unique_ids_present(context: CertificateContext) -> Verdict:
    """CAs conforming to RFC 5280 must not generate them."""
    return "a unique identifier is present" if context.view.has_unique_ids else None


@rule(
    "e_dc_not_ia5",
    "RFC 4519 2.4; [V2G20-3038]",
    "domainComponent is an IA5String, country a PrintableString",
    hint="encode DC as IA5String and C as PrintableString of two letters",
    where="tbsCertificate.subject",
)
def dc_not_ia5(context: CertificateContext) -> Verdict:
    """Stations compare the encoded value; another string type is another name to them."""
    wrong = []
    for attribute in context.view.subject_attributes:
        if attribute.oid == oids.DOMAIN_COMPONENT and attribute.tag != 0x16:
            wrong.append(Problem(f"DC {attribute.text!r} is not an IA5String"))
        elif attribute.oid == oids.COUNTRY_NAME and attribute.tag != 0x13:
            wrong.append(Problem(f"C {attribute.text!r} is not a PrintableString"))
    return wrong


_TEXT_ATTRIBUTES: Final = frozenset({oids.COMMON_NAME, oids.ORGANIZATION_NAME, oids.ORGANIZATIONAL_UNIT_NAME})


@rule(
    "w_dn_string_type",
    "RFC 5280 Appendix A; [V2G20-3038]",
    "CN, O and OU are UTF8String or PrintableString of 1 to 64 characters",
    hint="use UTF8String and shorten the value",
    where="tbsCertificate.subject",
)
def dn_string_type(context: CertificateContext) -> Verdict:
    """ub-common-name and its siblings are 64."""
    return [
        Problem(f"{oids.name_of(attribute.oid)} {attribute.text[:80]!r} has an unusual string type or length")
        for attribute in context.view.subject_attributes
        if attribute.oid in _TEXT_ATTRIBUTES
        and not (attribute.tag in (0x0C, 0x13) and attribute.content and _fits(attribute))
    ]


def _fits(attribute: AttributeView) -> bool:
    """At most 64 characters; there are never more characters than octets, so decoding is rarely needed."""
    return len(attribute.content) <= 64 or len(attribute.text) <= 64


@rule(
    "e_country_invalid",
    "RFC 5280 Appendix A (X520countryName)",
    "the country has two letters",
    hint="use the ISO 3166-1 alpha-2 code",
    where="tbsCertificate.subject",
)
def country_invalid(context: CertificateContext) -> Verdict:
    """X.509 cannot tell assigned codes from others, and test PKIs use ``UK``: those are a warning."""
    problems = []
    for value in context.view.subject_values(oids.COUNTRY_NAME):
        if not _LETTERS.fullmatch(value):
            problems.append(Problem(f"C is {value[:40]!r}"))
        elif value.upper() not in COUNTRY_CODES:
            advice = "; the United Kingdom is GB" if value.upper() == "UK" else ", which ISO 3166-1 has not assigned"
            problems.append(Problem(f"C is {value!r}{advice}", severity=Severity.WARNING))
    return problems
