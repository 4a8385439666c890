"""The certificate profiles of OCPP (A00 of OCPP 2.x, the security white paper for 1.6), as data."""

from __future__ import annotations

from datetime import timedelta

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
    Syntax,
    ValidityRule,
)
from chargepki.pki.profiles.parts import CA_BITS, NO_POINTERS, YEAR, country, extension_rules, free

__all__ = ["PROFILES"]

# Back ends must be able to serve, and to issue to, both families: stations implement either the ECDHE_ECDSA suites or
# the TLS_RSA ones (A00.FR.318, FR.319). The strength floor is 112 bits.
_ECDSA_AND_RSA = (
    KeyAlgorithm.SECP256R1,
    KeyAlgorithm.SECP384R1,
    KeyAlgorithm.SECP521R1,
    KeyAlgorithm.RSA2048,
    KeyAlgorithm.RSA3072,
    KeyAlgorithm.RSA4096,
)
_TLS_KEYS = KeyRule(
    (*_ECDSA_AND_RSA[:3], KeyAlgorithm.ED25519, *_ECDSA_AND_RSA[3:]),
    "OCPP A00.FR.501 to FR.504: at least 112 bits, of a kind that stations have in TLS",
)
# Experimental: OCPP does not name ML-DSA, whose three sizes are far above its 112 bits. One of 44 fits the fields of
# the messages; the larger ones are for what travels by other ways.
_KEYS = KeyRule(
    (*_TLS_KEYS.algorithms, KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87),
    "OCPP A00.FR.501 to FR.504: at least 112 bits",
)
_FIRMWARE_KEYS = KeyRule(
    _ECDSA_AND_RSA,
    "OCPP L01.FR.04: SHA-256 with RSA-PSS or an elliptic curve; others hash otherwise",
)

_POINTERS = PointerRule(
    ocsp=Presence.RECOMMENDED,
    crl=Presence.RECOMMENDED,
    ca_issuers=Presence.RECOMMENDED,
    clause="OCPP A00.FR.702 to FR.705: device and firmware certificates are verified online",
)
_CA_USAGE = KeyUsageRule(emitted=CA_BITS, required=CA_BITS, clause="OCPP A00.FR.512; RFC 5280 4.2.1.3")


def _signature_usage(clause: str, *, rsa_extra: frozenset[KeyUsageBit] = frozenset()) -> KeyUsageRule:
    signature = frozenset({KeyUsageBit.DIGITAL_SIGNATURE})
    return KeyUsageRule(
        emitted=signature,
        required=signature,
        # EVerest and others ask for these in every CSR, and some CAs grant them: no harm in a certificate that we read.
        optional=frozenset({KeyUsageBit.KEY_AGREEMENT, KeyUsageBit.KEY_ENCIPHERMENT, KeyUsageBit.NON_REPUDIATION}),
        clause=clause,
        rsa_extra=rsa_extra,
    )


def _subject(cn_clause: str, syntax: Syntax = Syntax.TEXT) -> SubjectRule:
    return SubjectRule(
        (
            country("OCPP A02: not required"),
            free("O", Presence.REQUIRED, "OCPP A00.FR.509: name of the owner's organisation"),
            free("OU", Presence.OPTIONAL, "OCPP A00: not mentioned"),
            free("CN", Presence.REQUIRED, cn_clause, syntax=syntax),
        )
    )


def _extensions(*, root: bool, pointers: PointerRule, names: ExtensionRule | None = None) -> tuple[ExtensionRule, ...]:
    no_eku = ExtensionRule(
        Extension.EXTENDED_KEY_USAGE,
        Presence.DISCOURAGED,
        critical=False,
        clause="OCPP A00.FR.514: strongly discouraged",
    )
    more = (no_eku,) if names is None else (no_eku, names)
    return extension_rules(root=root, pointers=pointers, clause="RFC 5280 4.2.1", more=more)


def _ca(
    role: str,
    kind: RoleKind,
    title: str,
    *,
    validity: timedelta,
    path_length: int | None,
    path_clause: str,
    clause: str,
    issuers: tuple[str, ...],
) -> Profile:
    root = kind is RoleKind.ROOT
    pointers = NO_POINTERS if root else _POINTERS
    return Profile(
        standard=Standard.OCPP,
        role=role,
        kind=kind,
        title=title,
        subject=_subject("RFC 5280 4.1.2.6: name of the CA"),
        keys=_KEYS,
        validity=ValidityRule(validity, "OCPP sets no limit: chosen to outlast what is issued below"),
        basic_constraints=BasicConstraintsRule(ca=True, path_length=path_length, clause=path_clause),
        key_usage=_CA_USAGE,
        pointers=pointers,
        issuers=issuers,
        clause=clause,
        extensions=_extensions(root=root, pointers=pointers),
    )


_NO_SAN = ExtensionRule(
    Extension.SUBJECT_ALTERNATIVE_NAME,
    Presence.DISCOURAGED,
    critical=False,
    clause="OCPP A00.FR.511 note: no subjectAltName in device certificates",
)
_SAN = ExtensionRule(
    Extension.SUBJECT_ALTERNATIVE_NAME,
    Presence.RECOMMENDED,
    critical=False,
    clause="OCPP A00.FR.511 note allows dNSName in a server certificate; RFC 9525 6.3 reads nothing else",
)

_OPERATOR_ISSUERS = ("cso-sub", "iso15118-2/cpo-sub2")  # A00.FR.602 lets an operator reuse its CPO sub-CA 2.

_CSMS = Profile(
    standard=Standard.OCPP,
    role="csms",
    kind=RoleKind.LEAF,
    title="CSMS certificate: TLS server towards charging stations",
    subject=_subject("OCPP A00.FR.510: FQDN of the server's endpoint", Syntax.HOSTNAME),
    keys=_TLS_KEYS,
    validity=ValidityRule(
        timedelta(hours=23), "OCPP A00.FR.701: revoked by fast expiry, valid for less than 24 hours (SHOULD)"
    ),
    basic_constraints=BasicConstraintsRule(ca=False, path_length=None, clause="RFC 5280 4.2.1.9"),
    key_usage=_signature_usage(
        "OCPP A00.FR.512; keyEncipherment with RSA for the TLS_RSA suites of A00.FR.318",
        rsa_extra=frozenset({KeyUsageBit.KEY_ENCIPHERMENT}),
    ),
    pointers=_POINTERS,
    issuers=_OPERATOR_ISSUERS,
    clause="OCPP A00.FR.507 to FR.514",
    extensions=_extensions(root=False, pointers=_POINTERS, names=_SAN),
    dns_names=Presence.REQUIRED,
    notes=(
        "The CN and, beside it, an identical dNSName: some stations look at the one, some at the other alone.",
        "Wildcards are refused: stations reject them by default (AllowCSMSTLSWildcards).",
        "23 hours suit a server that renews by itself; otherwise pass a longer validity and publish CRLs.",
    ),
)

_CHARGING_STATION = Profile(
    standard=Standard.OCPP,
    role="charging-station",
    kind=RoleKind.LEAF,
    title="Charging station certificate: TLS client towards the CSMS",
    subject=_subject(
        "OCPP A00.FR.511: unique serial number of the station, unlike a URL or an IP address", Syntax.STATION_SERIAL
    ),
    keys=_KEYS,
    # A station renews by itself one month before the end (A03.FR.02); a year leaves it eleven quiet months, and what is
    # revoked is stopped by the CRL and by the CSMS, not by expiry.
    validity=ValidityRule(YEAR, "OCPP sets no limit: renewed a month before the end (A03.FR.02)"),
    basic_constraints=BasicConstraintsRule(ca=False, path_length=None, clause="RFC 5280 4.2.1.9"),
    key_usage=_signature_usage("OCPP A00.FR.512: restricted to what TLS client authentication needs"),
    pointers=_POINTERS,
    issuers=_OPERATOR_ISSUERS,
    clause="OCPP A00.FR.507 to FR.514",
    extensions=_extensions(root=False, pointers=_POINTERS, names=_NO_SAN),
    notes=("No subjectAltName and no extendedKeyUsage, whatever the request asks for.",),
)

_FIRMWARE_SIGNING = Profile(
    standard=Standard.OCPP,
    role="firmware-signing",
    kind=RoleKind.LEAF,
    title="Firmware signing certificate of a manufacturer",
    subject=_subject("OCPP L01: name of the signer"),
    keys=_FIRMWARE_KEYS,
    validity=ValidityRule(2 * YEAR, "OCPP sets no limit: must still be valid when a station installs"),
    basic_constraints=BasicConstraintsRule(ca=False, path_length=None, clause="RFC 5280 4.2.1.9"),
    key_usage=_signature_usage("OCPP A00.FR.512, L01.FR.12: digitalSignature"),
    pointers=_POINTERS,
    issuers=("manufacturer-root",),
    clause="OCPP L01.FR.11, FR.12; A00.FR.507 to FR.514",
    extensions=_extensions(root=False, pointers=_POINTERS, names=_NO_SAN),
    notes=("Issued by the manufacturer root itself: OCPP knows no intermediate certificate here.",),
)

PROFILES: tuple[Profile, ...] = (
    _ca(
        "cso-root",
        RoleKind.ROOT,
        "CSO root: anchor of CSMS and charging station certificates",
        validity=20 * YEAR,
        path_length=None,
        path_clause="RFC 5280 4.2.1.9: an anchor needs no pathLen",
        clause="OCPP A00.FR.601, FR.603",
        issuers=("cso-root",),
    ),
    _ca(
        "cso-sub",
        RoleKind.SUB2,
        "CSO sub-CA: issues CSMS and charging station certificates",
        validity=10 * YEAR,
        path_length=0,
        path_clause="RFC 5280 4.2.1.9: issues leaves alone",
        clause="OCPP A00.FR.601, FR.602",
        issuers=("cso-root",),
    ),
    _CSMS,
    _CHARGING_STATION,
    _ca(
        "manufacturer-root",
        RoleKind.ROOT,
        "Manufacturer root: anchor of firmware signing certificates",
        validity=20 * YEAR,
        path_length=0,
        path_clause="OCPP L01: no intermediate between manufacturer root and signing certificate",
        clause="OCPP A00.FR.603, FR.604",
        issuers=("manufacturer-root",),
    ),
    _FIRMWARE_SIGNING,
)
"""Every OCPP profile, issuers before what they issue."""
