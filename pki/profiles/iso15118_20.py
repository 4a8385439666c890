"""The certificate profiles of ISO 15118-20, Annex B: the 2022 text and Amendment 1, built from one table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from chargepki.pki import oids
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles.base import (
    AttributeRule,
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

__all__ = ["PROFILES_2022", "PROFILES_A1"]

_MAX_DER_BYTES = 1600  # V2G20-1234 and the message schema.

_KEYS = KeyRule(
    (KeyAlgorithm.SECP521R1, KeyAlgorithm.ED448),
    "ISO 15118-20 [V2G20-2674], [V2G20-2675] secp521r1 with SHA-512; [V2G20-2319] Ed448",
)

_UNLIMITED = "ISO 15118-20 Annex B: the maxima are in no public text; the value of ISO 15118-2 is taken"

_OCSP_CHECKED = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-20 [V2G20-2388], [V2G20-2391]: one OCSP answer per chain certificate",
)
_UNCHECKED = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-20 [V2G20-1078]: the EV validates this chain without a revocation check",
)
_PRIVATE = PointerRule(
    ocsp=Presence.OPTIONAL,
    crl=Presence.OPTIONAL,
    ca_issuers=Presence.OPTIONAL,
    clause="ISO 15118-20 [V2G20-2398]: a private SECC without Plug and Charge may ignore revocation",
)


def _one_of(clause: str) -> PointerRule:
    return PointerRule(
        ocsp=Presence.RECOMMENDED,
        crl=Presence.RECOMMENDED,
        ca_issuers=Presence.OPTIONAL,
        clause=clause,
        at_least_one=True,
    )


_EMSP_POINTERS = _one_of("ISO 15118-20 [V2G20-2590], [V2G20-2591]: CRLDP or AIA")
_OEM_POINTERS = _one_of("ISO 15118-20 [V2G20-2592], [V2G20-2593]: CRLDP or AIA")
_VEHICLE_POINTERS = _one_of("ISO 15118-20 [V2G20-2599], [V2G20-2600]: CRLDP or AIA")


def _signs(*more: KeyUsageBit, optional: frozenset[KeyUsageBit] = frozenset(), clause: str) -> KeyUsageRule:
    """Return a leaf's usage: digitalSignature demanded, *more* set by us and tolerated in others."""
    return KeyUsageRule(
        emitted=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, *more}),
        required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE}),
        optional=frozenset(more) | optional,
        clause=clause,
    )


_CA_USAGE = KeyUsageRule(emitted=CA_BITS, required=CA_BITS, clause="ISO 15118-20 Annex B: keyCertSign and cRLSign")
_EMSP_SUB2_USAGE = KeyUsageRule(
    emitted=SIGNING_CA_BITS,
    required=CA_BITS,
    optional=SIGNING_CA_BITS - CA_BITS,
    clause="ISO 15118-20 Annex B: keyCertSign and cRLSign; signs price schedules too",
)
# One implementation of Amendment 1 rejects cRLSign here, the 2022 text demands it: set, but not demanded under A1.
_VEHICLE_SUB_USAGE_A1 = KeyUsageRule(
    emitted=CA_BITS,
    required=frozenset({KeyUsageBit.KEY_CERT_SIGN}),
    optional=frozenset({KeyUsageBit.CRL_SIGN}),
    clause="ISO 15118-20 Annex B: keyCertSign and cRLSign; implementations of Amendment 1 differ on cRLSign",
)

_CN_OF_CA = "ISO 15118-20 Annex B: name of the CA"
_O = "ISO 15118-20 Annex B"


def _name(clause: str, *, dc_rule: AttributeRule | None = None, syntax: Syntax = Syntax.TEXT) -> SubjectRule:
    attributes = [dc_rule] if dc_rule else []
    attributes += [
        country(_O),
        free("O", Presence.REQUIRED, _O),
        free("CN", Presence.REQUIRED, clause, syntax=syntax),
    ]
    return SubjectRule(tuple(attributes))


def _bare(
    clause: str, syntax: Syntax, *, dc_rule: AttributeRule | None = None, tolerated: tuple[str, ...]
) -> SubjectRule:
    """Return a subject of O and CN alone."""
    attributes = [dc_rule] if dc_rule else []
    attributes += [free("O", Presence.REQUIRED, clause), free("CN", Presence.REQUIRED, clause, syntax=syntax)]
    return SubjectRule(tuple(attributes), tolerated=tolerated)


# V2G20-1001 d) wants the domainComponent to match the profile, but the values of Annex B are public for the SECC alone.
# Where the value is a guess it is a default that the operator's --subject can change.
_V2G_DC = dc("V2G", Presence.RECOMMENDED, "ISO 15118-20 [V2G20-1001]; value as in ISO 15118-2, unverified")
_CPS_DC = dc("CPS", Presence.RECOMMENDED, "ISO 15118-20 [V2G20-1001]; value as in ISO 15118-2, unverified")
_OEM_DC = dc("OEM", Presence.RECOMMENDED, "ISO 15118-20 [V2G20-1001]; value as in ISO 15118-2, unverified")
_SECC_DC = dc("CSO", Presence.RECOMMENDED, "ISO 15118-20 Table B.5: CSO (single public source; CPO is accepted)", "CPO")
_VEHICLE_DC_A1 = dc(
    "EV", Presence.RECOMMENDED, "ISO 15118-20 Amendment 1 [V2G20-3073], [V2G20-3406]: one DC ending in EV"
)
_FREE_DC = free("DC", Presence.OPTIONAL, "ISO 15118-20 [V2G20-1001]; the value is in no public text")

_CONTRACT_SUBJECT = _bare(
    "ISO 15118-20 [V2G20-2589] CN is the EMAID, O the eMSP, nothing else; Table B.9 also lists C, OU and DC",
    Syntax.EMAID,
    tolerated=("C", "OU", "DC"),
)
_VEHICLE_CLAUSE = "ISO 15118-20 [V2G20-2598]: CN is the EVCCID, O the OEM"
_CROSS_SUBJECT = SubjectRule(
    (
        free("DC", Presence.OPTIONAL, "ISO 15118-20 B.9"),
        country("ISO 15118-20 B.9"),
        free("O", Presence.OPTIONAL, "ISO 15118-20 B.9"),
        free("CN", Presence.REQUIRED, "ISO 15118-20 B.9: the subject of the CA that is certified, unchanged"),
    ),
    closed=False,
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the common table; what differs between the 2022 text and A1 is decided in `_build`."""

    role: str
    kind: RoleKind
    title: str
    clause: str
    subject: SubjectRule
    validity: timedelta
    issuers: tuple[str, ...]
    pointers: PointerRule = NO_POINTERS
    usage: KeyUsageRule = _CA_USAGE
    ski_bytes: int = 20
    no_eku: bool = False
    notes: tuple[str, ...] = ()


_ROOT, _SUB1, _SUB2, _LEAF = RoleKind.ROOT, RoleKind.SUB1, RoleKind.SUB2, RoleKind.LEAF
_V2G_CA = _name(_CN_OF_CA, dc_rule=_V2G_DC)
_CPS_CA = _name(_CN_OF_CA, dc_rule=_CPS_DC)
_OEM_CA = _name(_CN_OF_CA, dc_rule=_OEM_DC)
_ANY_CA = _name(_CN_OF_CA, dc_rule=_FREE_DC)
_CSO, _CPS, _EMSP, _OEM, _VEHICLE, _PE = (
    f"ISO 15118-20 {tables}"
    for tables in (
        "B.4, Tables B.5 and B.6",
        "B.5, Tables B.7 and B.8",
        "B.6, Tables B.9 and B.10",
        "B.7, Tables B.11 and B.12",
        "B.8, Tables B.13 and B.14",
        "B.10, Tables B.17 and B.18",
    )
)
_SECC_USAGE = _signs(
    optional=frozenset({KeyUsageBit.KEY_AGREEMENT}),
    clause="ISO 15118-20 Annex B: digitalSignature (TLS 1.3 needs no other bit)",
)

_ROWS: tuple[_Row, ...] = (
    _Row("v2g-root", _ROOT, "V2G root", "ISO 15118-20 B.3", _V2G_CA, 40 * YEAR, ("v2g-root",)),
    _Row("cpo-sub1", _SUB1, "CSO sub-CA 1", _CSO, _V2G_CA, 4 * YEAR, ("v2g-root",), _OCSP_CHECKED),
    _Row("cpo-sub2", _SUB2, "CSO sub-CA 2", _CSO, _V2G_CA, 2 * YEAR, ("cpo-sub1", "v2g-root"), _OCSP_CHECKED),
    _Row(
        "secc",
        _LEAF,
        "SECC leaf: TLS server certificate of a charging station towards the EV",
        _CSO,
        _name("ISO 15118-20 Table B.5: the SECCID", dc_rule=_SECC_DC, syntax=Syntax.SECC_ID),
        days(60),
        ("cpo-sub2",),
        _OCSP_CHECKED,
        _SECC_USAGE,
    ),
    _Row("cps-sub1", _SUB1, "CPS sub-CA 1", _CPS, _CPS_CA, 4 * YEAR, ("v2g-root",), _UNCHECKED),
    _Row("cps-sub2", _SUB2, "CPS sub-CA 2", _CPS, _CPS_CA, 2 * YEAR, ("cps-sub1", "v2g-root"), _UNCHECKED),
    _Row(
        "cps",
        _LEAF,
        "CPS leaf: signs certificate installation responses",
        _CPS,
        _name("ISO 15118-20 B.5: name of the provisioning service", dc_rule=_CPS_DC),
        days(90),
        ("cps-sub2",),
        _UNCHECKED,
        _signs(clause="ISO 15118-20 B.5: digitalSignature"),
    ),
    _Row("emsp-root", _ROOT, "eMSP root", _EMSP, _ANY_CA, 20 * YEAR, ("emsp-root",)),
    _Row("emsp-sub1", _SUB1, "eMSP sub-CA 1", _EMSP, _ANY_CA, 10 * YEAR, ("emsp-root", "v2g-root"), _EMSP_POINTERS),
    _Row(
        "emsp-sub2",
        _SUB2,
        "eMSP sub-CA 2: issues contract certificates and signs price schedules",
        _EMSP,
        _ANY_CA,
        4 * YEAR,
        ("emsp-sub1", "emsp-root", "v2g-root"),
        _EMSP_POINTERS,
        _EMSP_SUB2_USAGE,
    ),
    _Row(
        "contract",
        _LEAF,
        "Contract certificate",
        _EMSP,
        _CONTRACT_SUBJECT,
        YEAR,
        ("emsp-sub2",),
        _EMSP_POINTERS,
        # No static ECDH with a contract key in -20, so neither keyAgreement nor keyEncipherment is set.
        _signs(
            KeyUsageBit.NON_REPUDIATION,
            optional=frozenset({KeyUsageBit.KEY_ENCIPHERMENT, KeyUsageBit.KEY_AGREEMENT}),
            clause="ISO 15118-20 Table B.9: digitalSignature; nonRepudiation as in ISO 15118-2",
        ),
        ski_bytes=8,
        no_eku=True,
        notes=("The key identifier has 8 bytes: the AAD of contract delivery holds it as 16 hex digits [V2G20-2492].",),
    ),
    _Row("oem-root", _ROOT, "OEM root", _OEM, _OEM_CA, 40 * YEAR, ("oem-root",)),
    _Row("oem-sub1", _SUB1, "OEM sub-CA 1", _OEM, _OEM_CA, 30 * YEAR, ("oem-root", "v2g-root"), _OEM_POINTERS),
    _Row(
        "oem-sub2", _SUB2, "OEM sub-CA 2", _OEM, _OEM_CA, 20 * YEAR, ("oem-sub1", "oem-root", "v2g-root"), _OEM_POINTERS
    ),
    _Row(
        "oem-provisioning",
        _LEAF,
        "OEM provisioning certificate",
        _OEM,
        _name("ISO 15118-20 [V2G20-2492]: the PCID, 18 characters", dc_rule=_OEM_DC, syntax=Syntax.PCID),
        15 * YEAR,
        ("oem-sub2",),
        _OEM_POINTERS,
        KeyUsageRule(
            emitted=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT}),
            required=frozenset({KeyUsageBit.DIGITAL_SIGNATURE, KeyUsageBit.KEY_AGREEMENT}),
            clause="ISO 15118-20 [V2G20-822]: keyAgreement on secp521r1; Ed448 cannot assert it (RFC 8410 5, RFC 9295)",
        ),
        notes=("The Ed448 form carries no alternate X448 key [V2G20-2534]: contract delivery to it is not possible.",),
    ),
    _Row(
        "vehicle-sub1",
        _SUB1,
        "Vehicle sub-CA 1",
        _VEHICLE,
        _ANY_CA,
        30 * YEAR,
        ("oem-root", "v2g-root"),
        _VEHICLE_POINTERS,
    ),
    _Row(
        "vehicle-sub2",
        _SUB2,
        "Vehicle sub-CA 2",
        _VEHICLE,
        _ANY_CA,
        20 * YEAR,
        ("vehicle-sub1", "oem-root", "v2g-root"),
        _VEHICLE_POINTERS,
    ),
    _Row(
        "vehicle",
        _LEAF,
        "Vehicle certificate: TLS client certificate of an EV",
        _VEHICLE,
        _bare(_VEHICLE_CLAUSE + ", no other attribute", Syntax.EVCCID, tolerated=()),
        2 * YEAR,
        ("vehicle-sub2",),
        _VEHICLE_POINTERS,
        _signs(
            optional=frozenset({KeyUsageBit.KEY_AGREEMENT, KeyUsageBit.NON_REPUDIATION, KeyUsageBit.KEY_ENCIPHERMENT}),
            clause="ISO 15118-20 Table B.13: digitalSignature",
        ),
    ),
    _Row(
        "private-root",
        _ROOT,
        "Private-environment root: signs SECC leaves directly",
        _PE,
        _ANY_CA,
        40 * YEAR,
        ("private-root",),
        notes=("Trusted by those EVs alone that were taught it.",),
    ),
    _Row(
        "private-secc",
        _LEAF,
        "SECC leaf of a private environment",
        _PE,
        _name("ISO 15118-20 B.10: the SECCID", dc_rule=_SECC_DC, syntax=Syntax.SECC_ID),
        days(60),
        ("private-root",),
        _PRIVATE,
        _SECC_USAGE,
    ),
    _Row(
        "cross",
        RoleKind.CROSS,
        "Cross-certificate: one root's key, certified by another root",
        "ISO 15118-20 B.9, Tables B.15 and B.16; [V2G20-1002]",
        _CROSS_SUBJECT,
        4 * YEAR,
        ("v2g-root", "oem-root", "emsp-root"),
        _OCSP_CHECKED,
        notes=(
            "Not valid beyond either CA [V2G20-1853]: the certified root's own end is for the operator to respect.",
            "Subject and key are those of the certified root, so that chains below it verify under both.",
        ),
    ),
)

_PATH_LENGTH = {RoleKind.SUB1: 1, RoleKind.SUB2: 0}


def _eku(row: _Row, *, amended: bool) -> ExtensionRule | None:
    """Return the rule for extendedKeyUsage, or ``None`` where no public text speaks of it."""
    if row.role == "vehicle":
        return ExtensionRule(
            Extension.EXTENDED_KEY_USAGE,
            Presence.REQUIRED if amended else Presence.RECOMMENDED,
            critical=amended,
            clause="ISO 15118-20 Amendment 1: clientAuth, critical"
            if amended
            else "ISO 15118-20 B.8: clientAuth recommended",
        )
    if row.no_eku:
        return ExtensionRule(
            Extension.EXTENDED_KEY_USAGE, Presence.FORBIDDEN, critical=False, clause="ISO 15118-20 Table B.9"
        )
    if amended and row.role.startswith("vehicle-sub"):
        return ExtensionRule(
            Extension.EXTENDED_KEY_USAGE, Presence.FORBIDDEN, critical=False, clause="ISO 15118-20 Amendment 1"
        )
    return None


def _information_access(row: _Row, *, amended: bool) -> tuple[ExtensionRule, ...]:
    """Return the rule for SIA, which contract, OEM provisioning and cross-certificates may carry; we write none."""
    if row.role not in ("contract", "oem-provisioning", "cross"):
        return ()
    return (
        ExtensionRule(
            Extension.SUBJECT_INFORMATION_ACCESS,
            Presence.OPTIONAL,
            critical=not amended,
            clause="ISO 15118-20 [V2G20-1225], [V2G20-2594], [V2G20-1002]",
        ),
    )


def _build(row: _Row, *, amended: bool) -> Profile:
    ca = row.kind is not RoleKind.LEAF
    subject, usage = row.subject, row.usage
    if amended and row.role == "vehicle":
        subject = _bare(_VEHICLE_CLAUSE, Syntax.EVCCID, dc_rule=_VEHICLE_DC_A1, tolerated=())
    if amended and row.role.startswith("vehicle-sub"):
        usage = _VEHICLE_SUB_USAGE_A1
    eku = _eku(row, amended=amended)
    return Profile(
        standard=Standard.ISO15118_20_A1 if amended else Standard.ISO15118_20,
        role=row.role,
        kind=row.kind,
        title=row.title,
        subject=subject,
        keys=_KEYS,
        validity=ValidityRule(row.validity, _UNLIMITED, verified=False),
        basic_constraints=BasicConstraintsRule(
            ca=ca, path_length=_PATH_LENGTH.get(row.kind), clause=f"{row.clause}; [V2G20-1003], [V2G20-911]"
        ),
        key_usage=usage,
        pointers=row.pointers,
        issuers=row.issuers,
        clause=row.clause + (", Amendment 1" if amended else ""),
        extended_key_usage=(oids.EKU_CLIENT_AUTH,) if row.role == "vehicle" else (),
        extensions=extension_rules(
            root=row.kind is RoleKind.ROOT,
            pointers=row.pointers,
            clause=row.clause,
            # The 2022 text marks them critical, against RFC 5280; stock OpenSSL and Java refuse the result. Amendment 1
            # takes that back. --extension-criticality rfc5280 overrides it for one issuance.
            identifiers_critical=not amended,
            pointers_critical=not amended,
            more=(*_information_access(row, amended=amended), *((eku,) if eku else ())),
        ),
        max_der_bytes=_MAX_DER_BYTES,
        ski_bytes=row.ski_bytes,
        notes=row.notes,
    )


PROFILES_2022: tuple[Profile, ...] = tuple(_build(row, amended=False) for row in _ROWS)
"""Every profile of the 2022 text, issuers before what they issue."""

PROFILES_A1: tuple[Profile, ...] = tuple(_build(row, amended=True) for row in _ROWS)
"""The same under Amendment 1, as far as implementations have made it public."""
