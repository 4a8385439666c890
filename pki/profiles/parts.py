"""Building blocks shared by the profile tables: subjects, key usages, pointers and extension lists."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from chargepki.pki.profiles.base import (
    AttributeRule,
    Extension,
    ExtensionRule,
    KeyUsageBit,
    PointerRule,
    Presence,
    Syntax,
)

__all__ = [
    "CA_BITS",
    "NO_POINTERS",
    "SIGNING_CA_BITS",
    "YEAR",
    "country",
    "days",
    "extension_rules",
    "fixed_dc",
    "free",
]

YEAR = timedelta(days=365)
"""The interfaces' year: 365 days, without leap-day arithmetic."""

CA_BITS = frozenset({KeyUsageBit.KEY_CERT_SIGN, KeyUsageBit.CRL_SIGN})
SIGNING_CA_BITS = CA_BITS | {KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.NON_REPUDIATION}
"""A CA that also signs data: the MO (eMSP) sub-CA 2 signs tariffs."""

NO_POINTERS = PointerRule(
    ocsp=Presence.OPTIONAL,
    crl=Presence.OPTIONAL,
    ca_issuers=Presence.OPTIONAL,
    clause="RFC 5280 6.1: the anchor of a path is not itself checked for revocation",
)


def days(count: int) -> timedelta:
    """Return *count* whole days."""
    return timedelta(days=count)


def free(
    attribute: str,
    presence: Presence,
    clause: str,
    *,
    syntax: Syntax = Syntax.TEXT,
) -> AttributeRule:
    """Return the rule of an attribute whose value the requester chooses."""
    return AttributeRule(attribute, presence, clause, syntax=syntax)


def country(clause: str, presence: Presence = Presence.OPTIONAL) -> AttributeRule:
    """Return the rule for C: two letters, PrintableString."""
    return AttributeRule("C", presence, clause, syntax=Syntax.COUNTRY)


def fixed_dc(value: str, presence: Presence, clause: str, *also_accepted: str) -> AttributeRule:
    """Return the rule for a domainComponent that the profile dictates (exact, upper case)."""
    return AttributeRule("DC", presence, clause, fixed=value, also_accepted=also_accepted)


def extension_rules(
    *,
    root: bool,
    pointers: PointerRule,
    clause: str,
    identifiers_critical: bool = False,
    pointers_critical: bool = False,
    policies: Presence = Presence.OPTIONAL,
    more: Iterable[ExtensionRule] = (),
) -> tuple[ExtensionRule, ...]:
    """Return the rules for the extensions that nearly every profile carries, then *more*.

    Args:
        root: a self-signed anchor, whose AKI is optional (RFC 5280 4.2.1.1).
        pointers: decides presence of CRLDP and AIA.
        clause: the table of the standard that lists them.
        identifiers_critical: SKI and AKI are critical (ISO 15118-20:2022 only, against RFC 5280).
        pointers_critical: CRLDP, AIA and SIA are critical (ditto).
    """
    access = max((pointers.ocsp, pointers.ca_issuers), key=_STRENGTH.index)
    return (
        ExtensionRule(Extension.BASIC_CONSTRAINTS, Presence.REQUIRED, critical=True, clause=clause),
        ExtensionRule(Extension.KEY_USAGE, Presence.REQUIRED, critical=True, clause=clause),
        ExtensionRule(
            Extension.SUBJECT_KEY_IDENTIFIER, Presence.REQUIRED, critical=identifiers_critical, clause=clause
        ),
        ExtensionRule(
            Extension.AUTHORITY_KEY_IDENTIFIER,
            Presence.OPTIONAL if root else Presence.REQUIRED,
            critical=identifiers_critical,
            clause=clause,
        ),
        ExtensionRule(
            Extension.CRL_DISTRIBUTION_POINTS, pointers.crl, critical=pointers_critical, clause=pointers.clause
        ),
        ExtensionRule(
            Extension.AUTHORITY_INFORMATION_ACCESS, access, critical=pointers_critical, clause=pointers.clause
        ),
        ExtensionRule(Extension.CERTIFICATE_POLICIES, policies, critical=False, clause=clause),
        *more,
    )


_STRENGTH = [Presence.FORBIDDEN, Presence.DISCOURAGED, Presence.OPTIONAL, Presence.RECOMMENDED, Presence.REQUIRED]
