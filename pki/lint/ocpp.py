"""OCPP 2.0.1/2.1 part 2 A00 (and the 1.6 security whitepaper): certificates between station, CSMS and manufacturer."""

from __future__ import annotations

from typing import Final

from chargepki.pki import oids
from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.hygiene import rsa_numbers
from chargepki.pki.lint.sizes import expected_pem_size
from chargepki.pki.lint.standards import ISO2, OCPP, has_bits, is_hostname, is_ip_address
from chargepki.pki.post_quantum import ML_DSA_OIDS
from chargepki.pki.profiles.base import KeyUsageBit

_EKU: Final = "tbsCertificate.extensions.extendedKeyUsage"
_DNS_NAME: Final = 2
_WEAK_CURVES: Final = frozenset({"1.2.840.10045.3.1.1", "1.3.132.0.8", "1.3.132.0.9", "1.3.132.0.31"})


@rule(
    "e_cs_cn_hostname",
    "OCPP A00.FR.511",
    "the CN of a charging station certificate is no IP address or host name",
    hint="use the station's serial number",
    standards=OCPP,
    applies=("charging-station",),
    where="tbsCertificate.subject",
)
def cs_cn_hostname(context: CertificateContext) -> Verdict:
    """The CN is the serial number by which the CSMS knows the station."""
    name = context.view.common_name
    if is_ip_address(name) or is_hostname(name, qualified=True):
        return f"CN {name!r} is an address"
    return None


_BOUND: Final = ((oids.COMMON_NAME, "CN"), (oids.ORGANIZATION_NAME, "O"))


@rule(
    "e_cs_cn_missing",
    "OCPP A00.FR.509, A00.FR.511",
    "a charging station certificate has one CN and one O",
    hint="CN is the station's serial number, O the charging station operator",
    standards=OCPP,
    applies=("charging-station",),
    where="tbsCertificate.subject",
)
def cs_cn_missing(context: CertificateContext) -> Verdict:
    """Identity binding compares both."""
    there = [attribute.oid for attribute in context.view.subject_attributes if attribute.content]
    return [Problem(f"the subject needs exactly one {name}") for oid, name in _BOUND if there.count(oid) != 1]


@rule(
    "w_cs_cn_serial",
    "OCPP A00.FR.511",
    "the CN of a charging station certificate is the station's serial number",
    hint="issue it for the serial number that the station reports, or correct the configured one",
    standards=OCPP,
    applies=("charging-station",),
    where="tbsCertificate.subject",
    needs=Needs(serial_number=True),
)
def cs_cn_serial(context: CertificateContext) -> Verdict:
    """Which number that is only the operator knows."""
    name, wanted = context.view.common_name, context.data.serial_number
    return None if name == wanted else f"CN is {name[:80]!r}, the station's serial number is {wanted!r}"


@rule(
    "w_cs_o_cso",
    "OCPP A00.FR.509",
    "O of a charging station certificate is the charging station operator",
    hint="O equals OrganizationName (2.0.1) or CpoName (1.6) as configured on the station",
    standards=OCPP,
    applies=("charging-station",),
    where="tbsCertificate.subject",
    needs=Needs(organization=True),
)
def cs_o_cso(context: CertificateContext) -> Verdict:
    """Which name that is only the operator knows."""
    values, wanted = context.view.subject_values(oids.ORGANIZATION_NAME), context.data.organization
    return None if values == [wanted] else f"O is {', '.join(values)[:80]!r}, the operator is {wanted!r}"


@rule(
    "w_dual_use_cert",
    "OCPP A02; ISO 15118-2 [V2G2-925]",
    "one certificate does not serve both OCPP and ISO 15118",
    hint="issue two; if one must do, judge it with --profile ocpp/charging-station and with iso15118-2/secc",
    standards=OCPP | ISO2,
    applies=("charging-station", "secc", "private-secc"),
    where="tbsCertificate",
)
def dual_use_cert(context: CertificateContext) -> Verdict:
    """Both rule sets hold then: DC=CPO, 800 bytes, and a CN that is a serial number and an EVSEID at once."""
    view = context.view
    usages = view.known.extended_key_usage or ()
    domains = set(view.subject_values(oids.DOMAIN_COMPONENT))
    if oids.EKU_CLIENT_AUTH in usages and domains & {"CPO", "CSO"}:
        return "clientAuth together with the domainComponent of an SECC: the certificate serves OCPP and ISO 15118"
    return None


@rule(
    "e_csms_name",
    "OCPP A00.FR.510; RFC 9525",
    "a CSMS certificate names the endpoint's FQDN",
    hint="pass --dns with the host name of the OCPP endpoint",
    standards=OCPP,
    applies=("csms",),
    where="tbsCertificate.extensions.subjectAltName",
)
def csms_name(context: CertificateContext) -> Verdict:
    """In a dNSName; a name in the CN alone is a warning, since many TLS libraries no longer look there."""
    names = [name.text for name in context.view.known.subject_names or () if name.tag == _DNS_NAME]
    broken = [name for name in names if not is_hostname(name.removeprefix("*."), qualified=False)]
    if broken:
        return f"dNSName {broken[0][:80]!r} is no host name"
    if names:
        return None
    common_name = context.view.common_name
    if is_hostname(common_name, qualified=False) and not is_ip_address(common_name):
        return [Problem(f"the host name {common_name!r} is in the CN alone", severity=Severity.WARNING)]
    return "neither a dNSName nor a CN that is a host name"


@rule(
    "e_csms_eku_serverauth",
    "RFC 5280 4.2.1.12",
    "an ExtendedKeyUsage of a CSMS certificate includes serverAuth",
    hint="add serverAuth, or leave the extension out",
    standards=OCPP,
    applies=("csms",),
    where=_EKU,
)
def csms_eku_serverauth(context: CertificateContext) -> Verdict:
    """Stations refuse the server otherwise."""
    return _lacks(context, oids.EKU_SERVER_AUTH)


@rule(
    "w_cs_eku_clientauth",
    "RFC 5280 4.2.1.12",
    "an ExtendedKeyUsage of a charging station certificate includes clientAuth",
    hint="add clientAuth, or leave the extension out",
    standards=OCPP,
    applies=("charging-station",),
    where=_EKU,
)
def cs_eku_clientauth(context: CertificateContext) -> Verdict:
    """TLS libraries of a CSMS refuse the client otherwise."""
    return _lacks(context, oids.EKU_CLIENT_AUTH)


def _lacks(context: CertificateContext, usage: str) -> str | None:
    usages = context.view.known.extended_key_usage
    if usages is None or usage in usages or oids.EKU_ANY in usages:
        return None
    return f"ExtendedKeyUsage lacks {oids.name_of(usage)}"


@rule(
    "e_ocpp_leaf_ku",
    "RFC 5280 4.2.1.3",
    "a leaf that signs asserts digitalSignature",
    hint="set digitalSignature",
    standards=OCPP,
    applies=("csms", "charging-station", "firmware-signing"),
    where="tbsCertificate.extensions.keyUsage",
)
def leaf_ku(context: CertificateContext) -> Verdict:
    """TLS authentication and firmware signatures both need it; an absent KeyUsage forbids nothing."""
    if context.view.known.key_usage is None or has_bits(context.view, KeyUsageBit.DIGITAL_SIGNATURE):
        return None
    return "keyUsage lacks digitalSignature"


@rule(
    "e_ocpp_key_strength",
    "OCPP A00.FR.501 to FR.504",
    "RSA of at least 2048 bits, EC of at least 224",
    hint="make a P-256 key, or RSA with 2048 bits or more",
    standards=OCPP,
    where="tbsCertificate.subjectPublicKeyInfo",
)
def key_strength(context: CertificateContext) -> Verdict:
    """112 bits of strength; keys that nobody can measure are refused too."""
    key = context.view.key
    if key.algorithm == oids.RSA_ENCRYPTION:
        numbers = rsa_numbers(key.bits)
        if numbers is None:
            return "the RSA key cannot be decoded"
        size = numbers[0].bit_length()
        return f"the RSA key has {size} bits" if size < 2048 else None
    if key.algorithm == oids.EC_PUBLIC_KEY:
        return f"the curve {key.curve} is weaker than 224 bits" if key.curve in _WEAK_CURVES else None
    known = key.algorithm in (oids.ED25519, oids.ED448) or key.algorithm in ML_DSA_OIDS
    return None if known else f"keys of {oids.name_of(key.algorithm)} are not known"


_INSTALLED: Final = 5500
"""Characters of InstallCertificate.certificate in 1.6 and 2.0.1; 2.1 has 10000."""


@rule(
    "w_ocpp_field_size",
    "OCPP 1.6 security 5, 2.0.1 part 2 InstallCertificateRequest: 5500 characters",
    "a CA certificate fits the field in which stations are given it",
    hint="shorten the subject, use a key of fewer octets, or bring the root to the stations by another way",
    standards=OCPP,
    where="tbsCertificate",
)
def field_size(context: CertificateContext) -> Verdict:
    """Roots are installed one by one; a leaf travels with its chain, which whoever sends it measures."""
    if not context.view.is_ca:
        return None
    size = expected_pem_size(context.view)
    return (
        None if size <= _INSTALLED else f"up to {size} characters of PEM, stations of 1.6 and 2.0.1 take {_INSTALLED}"
    )


@rule(
    "n_ocpp_post_quantum",
    "FIPS 204; RFC 9881",
    "ML-DSA in a certificate of OCPP is an experiment",
    hint="keep certificates with established keys beside it",
    standards=OCPP,
    where="tbsCertificate",
)
def post_quantum(context: CertificateContext) -> Verdict:
    """No document of OCPP names it, and no TLS library is claimed to take such a certificate."""
    view = context.view
    if view.key.algorithm in ML_DSA_OIDS or view.signature_algorithm_oid in ML_DSA_OIDS:
        return "ML-DSA: no OCPP document names it, and no TLS connection with it is promised"
    return None
