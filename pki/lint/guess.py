"""Guess which profile a certificate was made for, or a request asks for, from its own fields alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from chargepki.pki import oids
from chargepki.pki.errors import InputError
from chargepki.pki.identifiers import Emaid, EvccId, EvseId, Pcid, SeccId
from chargepki.pki.lint.standards import has_bits
from chargepki.pki.lint.view import CertificateView
from chargepki.pki.profiles import list_profiles
from chargepki.pki.profiles.base import KeyUsageBit, Profile, Standard

if TYPE_CHECKING:
    from chargepki.pki.lint.csr_view import CsrView

__all__ = ["guess_profile", "guess_request_profile"]

_Identifier: TypeAlias = Emaid | Pcid | EvccId | EvseId | SeccId
_DNS_NAME = 2
_CA_FAMILIES = {"V2G": "cpo", "CPS": "cps", "MO": "mo", "OEM": "oem"}


def guess_profile(view: CertificateView) -> tuple[Profile | None, str]:
    """Return the likeliest profile and the reason, or ``None`` and why nothing could be told.

    A guess is a convenience for a person with a file in hand; no decision of ours rests on one.
    """
    standard = _standard(view)
    role, reason = _ca_role(view, standard) if view.is_ca else _leaf_role(view)
    if role is None:
        return None, reason
    if role in ("csms", "charging-station"):
        standard = Standard.OCPP
    elif role == "ocsp-signer":
        standard = Standard.COMMON
    if standard is None:
        return None, f"{reason}, but its key belongs to neither ISO 15118-2 nor ISO 15118-20"
    if standard is not Standard.ISO15118_2:
        role = "emsp" + role.removeprefix("mo") if role.startswith("mo-") else role
    return _named(standard, role, reason)


def guess_request_profile(view: CsrView) -> tuple[Profile | None, str]:
    """Return the likeliest profile of the certificate that is asked for and the reason, like `guess_profile`.

    A request says less than a certificate: most have a subject and nothing else, so the form of the CN counts more.
    """
    constraints = view.known.basic_constraints
    if constraints is not None and constraints.ca:
        return None, "a request for a CA; pass --profile"
    role, reason = _requested_role(view)
    if role is None:
        return None, reason
    if role in ("csms", "charging-station", "firmware-signing"):
        return _named(Standard.OCPP, role, reason)
    if role == "ocsp-signer":
        return _named(Standard.COMMON, role, reason)
    if view.key.curve == oids.SECP256R1:
        return _named(Standard.ISO15118_2, role, reason)
    if view.key.curve == oids.SECP521R1 or view.key.algorithm == oids.ED448:
        # Criticality of extensions that the CA adds tells the two texts of -20 apart; a request cannot.
        return _named(Standard.ISO15118_20, role, reason)
    # Another key is what the rules of -2, which most of the field follows, are to find fault with.
    return _named(Standard.ISO15118_2, role, f"{reason}; its key belongs to no ISO 15118")


def _requested_role(view: CsrView) -> tuple[str | None, str]:
    usages = view.known.extended_key_usage or ()
    for usage, role, name in _BY_USAGE:
        if usage in usages:
            return role, f"it asks for ExtendedKeyUsage {name}"
    values = view.subject_values(oids.DOMAIN_COMPONENT)
    if values in (["CPO"], ["CSO"]):
        return "secc", f"DC={values[0]}"
    if values == ["CPS"]:
        return "cps", "DC=CPS"
    name = view.common_name
    # Any 17 letters and digits are a PCID, serial numbers of stations too: the form alone proves nothing.
    bits = view.known.key_usage
    agrees = bits is not None and bits.has(KeyUsageBit.KEY_AGREEMENT.bit)
    if (values == ["OEM"] or agrees) and _parses(Pcid, name):
        return "oem-provisioning", "the CN is a PCID"
    if oids.EKU_CLIENT_AUTH in usages and _parses(EvccId, name):
        return "vehicle", "the CN is an EVCCID, and it asks for ExtendedKeyUsage clientAuth"
    for kind, role, what in _BY_NAME:
        if _parses(kind, name):
            return role, f"the CN is {what}"
    if oids.EKU_SERVER_AUTH in usages:
        return "csms", "it asks for ExtendedKeyUsage serverAuth"
    if any(each.tag == _DNS_NAME for each in view.known.subject_names or ()):
        return "csms", "it asks for a host name in SubjectAltName"
    if oids.EKU_CLIENT_AUTH in usages:
        return "charging-station", "it asks for ExtendedKeyUsage clientAuth"
    if name and not values and view.subject_values(oids.ORGANIZATION_NAME):
        return "charging-station", "CN and O alone, as an OCPP station asks"
    return None, "neither its subject nor what it asks for names a profile"


_BY_USAGE = (
    (oids.EKU_OCSP_SIGNING, "ocsp-signer", "OCSPSigning"),
    (oids.EKU_CODE_SIGNING, "firmware-signing", "codeSigning"),
)
_BY_NAME: tuple[tuple[type[_Identifier], str, str], ...] = (
    (EvseId, "secc", "an EVSEID"),
    (SeccId, "secc", "an SECCID"),
    (Emaid, "contract", "an EMAID"),
)


def _named(standard: Standard, role: str, reason: str) -> tuple[Profile | None, str]:
    """Return the profile, under the role's name in *standard*."""
    wanted = f"{standard.value}/{role}"
    found = next((profile for profile in list_profiles() if profile.id == wanted), None)
    return (found, reason) if found else (None, f"{reason}, but there is no profile {wanted}")


def _standard(view: CertificateView) -> Standard | None:
    """The key tells -2 from -20, criticality of the key identifiers tells the 2022 text from Amendment 1."""
    if view.key.curve == oids.SECP256R1:
        return Standard.ISO15118_2
    if view.key.curve != oids.SECP521R1 and view.key.algorithm != oids.ED448:
        return None
    identifiers = [view.extension(oid) for oid in (oids.SUBJECT_KEY_IDENTIFIER, oids.AUTHORITY_KEY_IDENTIFIER)]
    critical = any(extension is not None and extension.critical for extension in identifiers)
    return Standard.ISO15118_20 if critical else Standard.ISO15118_20_A1


def _ca_role(view: CertificateView, standard: Standard | None) -> tuple[str | None, str]:
    values = view.subject_values(oids.DOMAIN_COMPONENT)
    family = _CA_FAMILIES.get(values[0]) if len(values) == 1 else None
    if family is None or standard is None:
        return None, "a CA without a domainComponent of ISO 15118 may belong to any standard"
    if view.is_self_issued:
        return ("v2g-root" if family == "cpo" else f"{family}-root"), f"a self-issued CA with DC={values[0]}"
    constraints = view.known.basic_constraints
    length = None if constraints is None else constraints.path_length
    if length not in (0, 1):
        return None, "a sub-CA has pathLen 1 or 0"
    return f"{family}-sub{2 - length}", f"a CA with DC={values[0]} and pathLen {length}"


def _leaf_role(view: CertificateView) -> tuple[str | None, str]:
    usages = view.known.extended_key_usage or ()
    if oids.EKU_OCSP_SIGNING in usages:
        return "ocsp-signer", "ExtendedKeyUsage is OCSPSigning"
    values = view.subject_values(oids.DOMAIN_COMPONENT)
    if values in (["CPO"], ["CSO"]):
        return "secc", f"DC={values[0]}"
    if values == ["CPS"]:
        return "cps", "DC=CPS"
    name = view.common_name
    if has_bits(view, KeyUsageBit.NON_REPUDIATION) and _parses(Emaid, name):
        return "contract", "the CN is an EMAID and nonRepudiation is set"
    if (values == ["OEM"] or has_bits(view, KeyUsageBit.KEY_AGREEMENT)) and _parses(Pcid, name):
        return "oem-provisioning", "the CN is a PCID"
    if oids.EKU_CLIENT_AUTH in usages and _parses(EvccId, name):
        return "vehicle", "the CN is an EVCCID and ExtendedKeyUsage has clientAuth"
    if oids.EKU_SERVER_AUTH in usages:
        return "csms", "ExtendedKeyUsage has serverAuth"
    if any(each.tag == _DNS_NAME for each in view.known.subject_names or ()):
        return "csms", "SubjectAltName holds a host name"
    if oids.EKU_CLIENT_AUTH in usages:
        return "charging-station", "ExtendedKeyUsage has clientAuth"
    return None, "neither its subject nor its key usages name a profile"


def _parses(kind: type[_Identifier], text: str) -> bool:
    try:
        kind.parse(text)
    except InputError:
        return False
    return True
