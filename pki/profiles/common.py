"""Profiles that belong to no single standard: the delegated OCSP signer, which adapts to its issuer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from chargepki.pki import oids
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles.base import (
    BasicConstraintsRule,
    Extension,
    ExtensionRule,
    KeyRule,
    KeyUsageBit,
    KeyUsageRule,
    PointerRule,
    Presence,
    Profile,
    RoleKind,
    Standard,
    SubjectRule,
    ValidityRule,
)
from chargepki.pki.profiles.parts import country, days, extension_rules, free

__all__ = ["PROFILES", "adapt_to_issuer"]

_CLAUSE = "RFC 6960 4.2.2.2"
_POINTERS = PointerRule(
    ocsp=Presence.OPTIONAL,
    crl=Presence.OPTIONAL,
    ca_issuers=Presence.OPTIONAL,
    clause="RFC 6960 4.2.2.2.1: ocsp-nocheck takes the place of revocation pointers",
)
_DELEGATED = (
    ExtensionRule(
        Extension.EXTENDED_KEY_USAGE, Presence.REQUIRED, critical=False, clause=_CLAUSE + ": id-kp-OCSPSigning"
    ),
    ExtensionRule(Extension.OCSP_NO_CHECK, Presence.RECOMMENDED, critical=False, clause="RFC 6960 4.2.2.2.1"),
)
_DIGITAL_SIGNATURE = frozenset({KeyUsageBit.DIGITAL_SIGNATURE})

_OCSP_SIGNER = Profile(
    standard=Standard.COMMON,
    role="ocsp-signer",
    kind=RoleKind.LEAF,
    title="Delegated OCSP signer, issued by the CA whose certificates it answers for",
    subject=SubjectRule(
        (
            country(_CLAUSE),
            free("O", Presence.REQUIRED, "ISO 15118-2 Table F.2: operator"),
            free("CN", Presence.REQUIRED, _CLAUSE),
        )
    ),
    keys=KeyRule(tuple(KeyAlgorithm), "as its issuer: relying parties of a chain know the issuer's algorithm"),
    validity=ValidityRule(days(30), "RFC 6960 4.2.2.2.1: short-lived, because ocsp-nocheck exempts it from revocation"),
    basic_constraints=BasicConstraintsRule(ca=False, path_length=None, clause="ISO 15118-2 Annex F; RFC 5280 4.2.1.9"),
    key_usage=KeyUsageRule(emitted=_DIGITAL_SIGNATURE, required=_DIGITAL_SIGNATURE, clause="RFC 5280 4.2.1.3"),
    pointers=_POINTERS,
    issuers=(),
    clause=_CLAUSE,
    extended_key_usage=(oids.EKU_OCSP_SIGNING,),
    extensions=extension_rules(root=False, pointers=_POINTERS, clause=_CLAUSE, more=_DELEGATED),
    notes=("Takes key algorithm, size limit and criticality of key identifiers from its issuer.",),
)


def adapt_to_issuer(profile: Profile, issuer: Profile, issuer_algorithm: KeyAlgorithm) -> Profile:
    """Return *profile* as it applies under a CA of profile *issuer* whose key is of *issuer_algorithm*.

    Profiles of a standard are returned unchanged. Those of `common` take the issuer's algorithm, its size limit, and
    the criticality of the extensions that both carry (ISO 15118-20:2022 marks the key identifiers critical). The same
    arguments give the same object, as with `get_profile`: templates are cached by identity.
    """
    if profile.standard is not Standard.COMMON:
        return profile
    return _adapted(profile, issuer, issuer_algorithm)


@lru_cache(maxsize=128)
def _adapted(profile: Profile, issuer: Profile, issuer_algorithm: KeyAlgorithm) -> Profile:
    extensions = []
    for rule in profile.extensions:
        theirs = issuer.extension_rule(rule.extension)
        extensions.append(rule if theirs is None else replace(rule, critical=theirs.critical))
    return replace(
        profile,
        keys=replace(profile.keys, algorithms=(issuer_algorithm,)),
        max_der_bytes=issuer.max_der_bytes,
        extensions=tuple(extensions),
    )


PROFILES: tuple[Profile, ...] = (_OCSP_SIGNER,)
"""Every common profile."""
