"""Profiles that belong to no single standard, and adapt to their issuer: the OCSP signer, the cross-certificate."""

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
from chargepki.pki.profiles.parts import CA_BITS, YEAR, country, days, extension_rules, free

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


_CROSS_CLAUSE = "RFC 9810 4.4; RFC 5280 3.2"
_CROSS_POINTERS = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.RECOMMENDED,
    clause="RFC 5280 4.2.1.13, 4.2.2.1: a cross-certificate is revoked like any other",
)
_ROOTS_WITHOUT_RULE = (
    "ocpp/cso-root",
    "ocpp/manufacturer-root",
    *(f"iso15118-2/{role}-root" for role in ("v2g", "mo", "oem", "private")),
    "iso15118-20/private-root",
    "iso15118-20-a1/private-root",
)
"""Roots whose standard knows no cross-certificate."""

_CROSS = Profile(
    standard=Standard.COMMON,
    role="cross",
    kind=RoleKind.CROSS,
    title="Cross-certificate: one root's key, certified by another root or by another generation of it",
    subject=SubjectRule(
        (
            free("DC", Presence.OPTIONAL, _CROSS_CLAUSE),
            country(_CROSS_CLAUSE),
            free("O", Presence.OPTIONAL, _CROSS_CLAUSE),
            free("CN", Presence.REQUIRED, _CROSS_CLAUSE + ": the subject of the CA that is certified, unchanged"),
        ),
        closed=False,
    ),
    keys=KeyRule(tuple(KeyAlgorithm), "as the CA that is certified: a rollover may change the algorithm"),
    validity=ValidityRule(4 * YEAR, "RFC 9810 4.4: until the end entities hold the new root; never beyond either CA"),
    basic_constraints=BasicConstraintsRule(ca=True, path_length=None, clause="RFC 5280 4.2.1.9"),
    key_usage=KeyUsageRule(emitted=CA_BITS, required=CA_BITS, clause="RFC 5280 4.2.1.3"),
    pointers=_CROSS_POINTERS,
    issuers=_ROOTS_WITHOUT_RULE,
    clause=_CROSS_CLAUSE,
    extensions=extension_rules(root=False, pointers=_CROSS_POINTERS, clause=_CROSS_CLAUSE),
    notes=(
        "Subject and key are those of the certified root, so that chains below it verify under both.",
        "ISO 15118-2 allows three certificates below a root, and a cross-certificate is one of them.",
    ),
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
    # A cross-certificate is for the key of another CA, which may be of another algorithm.
    keys = profile.keys if profile.kind is RoleKind.CROSS else replace(profile.keys, algorithms=(issuer_algorithm,))
    return replace(
        profile,
        keys=keys,
        max_der_bytes=issuer.max_der_bytes,
        extensions=tuple(extensions),
    )


PROFILES: tuple[Profile, ...] = (_OCSP_SIGNER, _CROSS)
"""Every common profile."""
