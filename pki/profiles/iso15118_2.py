"""The certificate profiles of ISO 15118-2:2014, Annex F, as data."""

from __future__ import annotations

from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles.base import (
    AttributeRule,
    BasicConstraintsRule,
    KeyRule,
    KeyUsageBit,
    KeyUsageRule,
    PointerRule,
    Presence,
    Profile,
    RoleKind,
    Standard,
    SubjectRule,
    Syntax,
    ValidityRule,
)
from chargepki.pki.profiles.parts import (
    CA_BITS,
    NO_POINTERS,
    SIGNING_CA_BITS,
    YEAR,
    country,
    days,
    extension_rules,
    free,
)
from chargepki.pki.profiles.parts import fixed_dc as dc

__all__ = ["PROFILES"]

_ANNEX = "ISO 15118-2 Annex F"
_MAX_DER_BYTES = 800  # V2G2-010; `certificateType` of the message schema has maxLength 800.

_KEYS = KeyRule((KeyAlgorithm.SECP256R1,), "ISO 15118-2 [V2G2-007] secp256r1, [V2G2-006] ecdsa-with-SHA256")

# Which cells of Annex F make these mandatory is not public; what is solid is that a public SECC owes one OCSP answer
# for each certificate that it sends (V2G2-871). Hence: written whenever we know a URL, never a reason to refuse.
# caIssuers stays out: with it a certificate passes 800 bytes too easily.
_STAPLED = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-2 [V2G2-871] one OCSP answer per certificate; Annex F recommends",
)
_CHECKED_BY_BACK_END = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-2 Annex F (optional); the SECC and the CSMS look revocation up (OCPP M06, C07)",
)
# The private root is exempt from stapling (V2G2-868, V2G2-872), so nothing is written without being asked for.
_PRIVATE = PointerRule(
    ocsp=Presence.OPTIONAL,
    crl=Presence.OPTIONAL,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-2 [V2G2-868], [V2G2-872]: private environments are exempt from OCSP",
)

_CA_USAGE = KeyUsageRule(emitted=CA_BITS, required=CA_BITS, clause=_ANNEX + ": keyCertSign and cRLSign, critical")


def _name(clause: str, *, dc_rule: AttributeRule | None = None, syntax: Syntax = Syntax.TEXT) -> SubjectRule:
    """Return a subject of DC, C, O and CN, most general first (the standard fixes no order)."""
    attributes = [dc_rule] if dc_rule else []
    attributes += [
        country(_ANNEX),
        free("O", Presence.REQUIRED, _ANNEX),
        free("CN", Presence.REQUIRED, clause, syntax=syntax),
    ]
    return SubjectRule(tuple(attributes))


def _root(
    role: str, title: str, *, table: str, subject: SubjectRule, validity: ValidityRule, notes: str = ""
) -> Profile:
    return Profile(
        standard=Standard.ISO15118_2,
        role=role,
        kind=RoleKind.ROOT,
        title=title,
        subject=subject,
        keys=_KEYS,
        validity=validity,
        basic_constraints=BasicConstraintsRule(ca=True, path_length=None, clause=f"{_ANNEX} {table}: no pathLen"),
        key_usage=_CA_USAGE,
        pointers=NO_POINTERS,
        issuers=(role,),
        clause=f"{_ANNEX} {table}",
        extensions=extension_rules(root=True, pointers=NO_POINTERS, clause=f"{_ANNEX} {table}"),
        max_der_bytes=_MAX_DER_BYTES,
        notes=(notes,) if notes else (),
    )


def _sub(
    role: str,
    title: str,
    *,
    table: str,
    subject: SubjectRule,
    validity: ValidityRule,
    issuers: tuple[str, ...],
    pointers: PointerRule = _CHECKED_BY_BACK_END,
    key_usage: KeyUsageRule = _CA_USAGE,
) -> Profile:
    first_level = role.endswith("1")
    return Profile(
        standard=Standard.ISO15118_2,
        role=role,
        kind=RoleKind.SUB1 if first_level else RoleKind.SUB2,
        title=title,
        subject=subject,
        keys=_KEYS,
        validity=validity,
        basic_constraints=BasicConstraintsRule(
            ca=True,
            path_length=1 if first_level else 0,
            clause=f"{_ANNEX} {table}; [V2G2-009] at most two sub-CA levels",
        ),
        key_usage=key_usage,
        pointers=pointers,
        issuers=issuers,
        clause=f"{_ANNEX} {table}",
        extensions=extension_rules(root=False, pointers=pointers, clause=f"{_ANNEX} {table}"),
        max_der_bytes=_MAX_DER_BYTES,
        notes=() if first_level else ("Directly under a root it is the single sub-CA level, which uses this profile.",),
    )


def _leaf(
    role: str,
    title: str,
    *,
    table: str,
    subject: SubjectRule,
    validity: ValidityRule,
    issuers: tuple[str, ...],
    key_usage: KeyUsageRule,
    pointers: PointerRule = _CHECKED_BY_BACK_END,
    notes: tuple[str, ...] = (),
) -> Profile:
    return Profile(
        standard=Standard.ISO15118_2,
        role=role,
        kind=RoleKind.LEAF,
        title=title,
        subject=subject,
        keys=_KEYS,
        validity=validity,
        basic_constraints=BasicConstraintsRule(ca=False, path_length=None, clause=f"{_ANNEX} {table}"),
        key_usage=key_usage,
        pointers=pointers,
        issuers=issuers,
        clause=f"{_ANNEX} {table}",
        extensions=extension_rules(root=False, pointers=pointers, clause=f"{_ANNEX} {table}"),
        max_der_bytes=_MAX_DER_BYTES,
        notes=notes,
    )


_CHOSEN_BY_OWNER = _ANNEX + ": chosen by the operator, no limit"
_SECC_CN = "ISO 15118-2 Annex F: operator-chosen station id; EVSEID or SECCID in practice"
_SECC_USAGE = KeyUsageRule(
    emitted=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT}),
    required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE}),
    # Table F.2 is read both ways; the mandatory static-ECDH suite needs the bit, so we set it and demand nothing.
    optional=frozenset({KeyUsageBit.KEY_AGREEMENT}),
    clause="ISO 15118-2 Table F.2: digitalSignature; keyAgreement for TLS_ECDH_ECDSA [V2G2-602] (sources disagree)",
)
_SECC_VALIDITY = ValidityRule(days(60), "ISO 15118-2 Annex F: two to three months", maximum=days(93), verified=True)
_V2G_DC = dc("V2G", Presence.RECOMMENDED, "convention of every public configuration; requirement level unverified")
_CPS_DC = dc("CPS", Presence.RECOMMENDED, "convention of every public configuration; requirement level unverified")
_MO_DC = dc("MO", Presence.RECOMMENDED, "convention; Table F.4 marks DC optional")
_OEM_DC = dc("OEM", Presence.RECOMMENDED, "ISO 15118-2 [V2G2-925] names it, Table F.5 marks it optional")
_PLAIN = "ISO 15118-2 Annex F: name of the CA"

_V2G = (
    _root(
        "v2g-root",
        "V2G root",
        table="Table F.1",
        subject=_name(_PLAIN, dc_rule=dc("V2G", Presence.REQUIRED, "ISO 15118-2 Table F.1")),
        validity=ValidityRule(40 * YEAR, "ISO 15118-2 [V2G2-011]: 40 years", minimum=39 * YEAR, maximum=41 * YEAR),
    ),
    _sub(
        "cpo-sub1",
        "CPO sub-CA 1",
        table="Table F.2",
        subject=_name(_PLAIN, dc_rule=_V2G_DC),
        validity=ValidityRule(4 * YEAR, "ISO 15118-2 Annex F: 4 years", maximum=days(1461), verified=False),
        issuers=("v2g-root",),
        pointers=_STAPLED,
    ),
    _sub(
        "cpo-sub2",
        "CPO sub-CA 2",
        table="Table F.2",
        subject=_name(_PLAIN, dc_rule=_V2G_DC),
        validity=ValidityRule(2 * YEAR, "ISO 15118-2 Annex F: 1 to 2 years", maximum=days(731), verified=False),
        issuers=("cpo-sub1", "v2g-root"),
        pointers=_STAPLED,
    ),
    _leaf(
        "secc",
        "SECC leaf: TLS server certificate of a charging station towards the EV",
        table="Table F.2",
        subject=_name(
            _SECC_CN,
            dc_rule=dc("CPO", Presence.REQUIRED, "ISO 15118-2 [V2G2-925], [V2G2-875]: the EV aborts without it"),
            syntax=Syntax.SECC_ID,
        ),
        validity=_SECC_VALIDITY,
        issuers=("cpo-sub2",),
        key_usage=_SECC_USAGE,
        pointers=_STAPLED,
    ),
    _sub(
        "cps-sub1",
        "CPS sub-CA 1",
        table="Table F.3",
        subject=_name(_PLAIN, dc_rule=_CPS_DC),
        validity=ValidityRule(4 * YEAR, "ISO 15118-2 Annex F: 4 years", maximum=days(1461), verified=False),
        issuers=("v2g-root",),
    ),
    _sub(
        "cps-sub2",
        "CPS sub-CA 2",
        table="Table F.3",
        subject=_name(_PLAIN, dc_rule=_CPS_DC),
        validity=ValidityRule(2 * YEAR, "ISO 15118-2 Annex F: 1 to 2 years", maximum=days(731), verified=False),
        issuers=("cps-sub1", "v2g-root"),
    ),
    _leaf(
        "cps",
        "CPS leaf: signs certificate installation responses",
        table="Table F.3",
        subject=_name(
            "ISO 15118-2 Table F.3: name of the provisioning service",
            dc_rule=dc(
                "CPS", Presence.REQUIRED, "ISO 15118-2 [V2G2-891], [V2G2-925]: the EV discards the message without it"
            ),
        ),
        validity=ValidityRule(days(90), "ISO 15118-2 Annex F: two to three months", maximum=days(93), verified=False),
        issuers=("cps-sub2",),
        key_usage=KeyUsageRule(
            emitted=frozenset({KeyUsageBit.DIGITAL_SIGNATURE}),
            required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE}),
            clause="ISO 15118-2 Table F.3: digitalSignature",
        ),
    ),
)

_MO = (
    _root(
        "mo-root",
        "MO root",
        table="Table F.4",
        subject=_name(_PLAIN, dc_rule=_MO_DC),
        validity=ValidityRule(20 * YEAR, _CHOSEN_BY_OWNER),
    ),
    _sub(
        "mo-sub1",
        "MO sub-CA 1",
        table="Table F.4",
        subject=_name(_PLAIN, dc_rule=_MO_DC),
        validity=ValidityRule(10 * YEAR, _CHOSEN_BY_OWNER),
        issuers=("mo-root", "v2g-root"),
    ),
    _sub(
        "mo-sub2",
        "MO sub-CA 2: issues contract certificates and signs sales tariffs",
        table="Table F.4",
        subject=_name(_PLAIN, dc_rule=_MO_DC),
        validity=ValidityRule(4 * YEAR, _CHOSEN_BY_OWNER),
        issuers=("mo-sub1", "mo-root", "v2g-root"),
        key_usage=KeyUsageRule(
            emitted=SIGNING_CA_BITS,
            required=CA_BITS,
            optional=SIGNING_CA_BITS - CA_BITS,
            clause="ISO 15118-2 Table F.4: signs SalesTariff, hence digitalSignature and nonRepudiation too",
        ),
    ),
    _leaf(
        "contract",
        "Contract certificate",
        table="Table F.4",
        subject=_name("ISO 15118-2 [V2G2-108]: the EMAID", dc_rule=_MO_DC, syntax=Syntax.EMAID),
        validity=ValidityRule(
            YEAR,
            "ISO 15118-2 Annex F: 4 weeks to 2 years, never beyond the contract",
            minimum=days(28),
            maximum=days(731),
        ),
        issuers=("mo-sub2",),
        key_usage=KeyUsageRule(
            emitted=frozenset(
                {
                    KeyUsageBit.DIGITAL_SIGNATURE,
                    KeyUsageBit.NON_REPUDIATION,
                    KeyUsageBit.KEY_ENCIPHERMENT,
                    KeyUsageBit.KEY_AGREEMENT,
                }
            ),
            required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.NON_REPUDIATION}),
            optional=frozenset({KeyUsageBit.KEY_ENCIPHERMENT, KeyUsageBit.KEY_AGREEMENT}),
            clause="ISO 15118-2 Table F.4; [V2G2-822] keyAgreement: it is the static ECDH key of CertificateUpdate",
        ),
    ),
)

_OEM = (
    _root(
        "oem-root",
        "OEM root",
        table="Table F.5",
        subject=_name(_PLAIN, dc_rule=_OEM_DC),
        validity=ValidityRule(40 * YEAR, _CHOSEN_BY_OWNER),
    ),
    _sub(
        "oem-sub1",
        "OEM sub-CA 1",
        table="Table F.5",
        subject=_name(_PLAIN, dc_rule=_OEM_DC),
        validity=ValidityRule(30 * YEAR, _CHOSEN_BY_OWNER),
        issuers=("oem-root", "v2g-root"),
    ),
    _sub(
        "oem-sub2",
        "OEM sub-CA 2",
        table="Table F.5",
        subject=_name(_PLAIN, dc_rule=_OEM_DC),
        validity=ValidityRule(20 * YEAR, _CHOSEN_BY_OWNER),
        issuers=("oem-sub1", "oem-root", "v2g-root"),
    ),
    _leaf(
        "oem-provisioning",
        "OEM provisioning certificate",
        table="Table F.5",
        subject=_name("ISO 15118-2 [V2G2-933]: the PCID", dc_rule=_OEM_DC, syntax=Syntax.PCID),
        # It stays in the vehicle and nothing renews it over the air, so the default outlasts a first owner.
        validity=ValidityRule(15 * YEAR, _CHOSEN_BY_OWNER),
        issuers=("oem-sub2",),
        key_usage=KeyUsageRule(
            emitted=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT}),
            required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT}),
            clause="ISO 15118-2 Table F.5; [V2G2-822] keyAgreement: it is the static ECDH key of contract delivery",
        ),
    ),
)

_PRIVATE_ENVIRONMENT = (
    _root(
        "private-root",
        "Private-environment root: signs SECC leaves directly",
        table="(private operator root)",
        subject=_name(_PLAIN),
        validity=ValidityRule(40 * YEAR, "chosen by the operator; no public text gives a limit", verified=False),
        notes="Trusted by those EVs alone that were taught it; a sub-CA below it does not exist in ISO 15118-2.",
    ),
    _leaf(
        "private-secc",
        "SECC leaf of a private environment",
        table="Table F.2",
        subject=_name(
            _SECC_CN,
            dc_rule=dc("CPO", Presence.RECOMMENDED, "ISO 15118-2 [V2G2-875]; for private environments unverified"),
            syntax=Syntax.SECC_ID,
        ),
        validity=_SECC_VALIDITY,
        issuers=("private-root",),
        key_usage=_SECC_USAGE,
        pointers=_PRIVATE,
        notes=("ISO 15118-2 [V2G2-867], [V2G2-868]: issued by the private root itself.",),
    ),
)

PROFILES: tuple[Profile, ...] = _V2G + _MO + _OEM + _PRIVATE_ENVIRONMENT
"""Every ISO 15118-2 profile, issuers before what they issue."""
