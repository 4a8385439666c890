"""Every certificate rule finds the certificate that breaks it, and keeps silent about the one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from chargepki.pki import der, keys, names, oids
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_certificate, lint_tbs, list_rules
from chargepki.pki.profiles import list_profiles
from chargepki.pki.profiles.base import Profile
from testkit.drafts import START, Draft, DraftExtension
from testkit.requests import key_of

SECC, CPS, CONTRACT, OEM = "iso15118-2/secc", "iso15118-2/cps", "iso15118-2/contract", "iso15118-2/oem-provisioning"
SUB1, SUB2, ROOT = "iso15118-2/cpo-sub1", "iso15118-2/cpo-sub2", "iso15118-2/v2g-root"
CONTRACT20, OEM20, SECC20 = "iso15118-20/contract", "iso15118-20/oem-provisioning", "iso15118-20/secc"
VEHICLE20, VEHICLE_A1, CONTRACT_A1 = "iso15118-20/vehicle", "iso15118-20-a1/vehicle", "iso15118-20-a1/contract"
CSMS, STATION, OCSP = "ocpp/csms", "ocpp/charging-station", "common/ocsp-signer"
P256, RSA2048 = KeyAlgorithm.SECP256R1, KeyAlgorithm.RSA2048
UNKNOWN = "1.3.6.1.4.1.55555.1"

Spoil = Callable[[Draft], None]


@dataclass(frozen=True)
class Case:
    """One way to break one rule."""

    rule: str
    profile: str
    spoil: Spoil
    severity: Severity | None = None
    """Expected severity; by default what the rule's prefix says."""
    algorithm: KeyAlgorithm | None = None
    issuer: Spoil | None = None
    """Also lint against the issuer, changed like this."""
    now: datetime | None = None

    def __str__(self) -> str:
        return f"{self.rule}-{self.profile}"


def put(oid: str, value: bytes, *, critical: bool = False) -> Spoil:
    return lambda draft: draft.put(oid, value, critical=critical)


def drop(*dropped: str) -> Spoil:
    return lambda draft: draft.drop(*dropped)


def usage(*bits: int, critical: bool = True) -> Spoil:
    return lambda draft: draft.key_usage(bits, critical=critical)


def name(*pairs: tuple[str, str]) -> Spoil:
    return lambda draft: draft.name(*pairs)


def change(**fields: bytes) -> Spoil:
    def spoil(draft: Draft) -> None:
        for attribute, value in fields.items():
            setattr(draft, attribute, value)

    return spoil


def critical(oid: str, flag: bool) -> Spoil:
    return lambda draft: setattr(draft.find(oid), "critical", flag)


def valid_for(days: float) -> Spoil:
    return lambda draft: draft.valid_for(days)


def nothing(draft: Draft) -> None:
    """Leave the certificate alone: the fault is in the issuer, or in the time."""


def eku(*usages: str) -> bytes:
    return der.sequence(*map(der.oid, usages))


def constraints(*parts: bytes) -> bytes:
    return der.sequence(*parts)


def aia(url: str, method: str = oids.AD_OCSP) -> bytes:
    return der.sequence(der.sequence(der.oid(method), der.implicit(6, url.encode(), constructed=False)))


def crl_point(location: bytes) -> bytes:
    full_name = der.implicit(0, location, constructed=True)
    return der.sequence(der.sequence(der.implicit(0, full_name, constructed=True)))


def rdn(oid: str, value: bytes) -> bytes:
    return der.sequence(der.set_of(der.sequence(der.oid(oid), value)))


def ec_spki(point: bytes, parameters: bytes | None = None) -> bytes:
    curve = der.oid(oids.SECP256R1) if parameters is None else parameters
    return der.sequence(der.sequence(der.oid(oids.EC_PUBLIC_KEY), curve), der.bit_string(point))


def rsa_spki(modulus: int, exponent: int = 65537) -> bytes:
    numbers = der.sequence(der.integer(modulus), der.integer(exponent))
    return der.sequence(der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null()), der.bit_string(numbers))


POINT = keys.public_key_bits(keys.spki_der(key_of(P256, 0)))
RSA_SPKI = keys.spki_der(key_of(RSA2048, 0))
PRIME_1024 = 2**1024 - 105  # prime
# The ROCA library multiplies these primes to M; its moduli are powers of 65537 modulo M.
ROCA_M = 1
for _prime in (p for p in range(2, 168) if all(p % d for d in range(2, p))):
    ROCA_M *= _prime
ROCA_MODULUS = pow(65537, 12345, ROCA_M) + ROCA_M * (2**2047 // ROCA_M + 1)
while any(ROCA_MODULUS % p == 0 for p in range(3, 752)):
    ROCA_MODULUS += ROCA_M
LONG_AKI = bytes.fromhex("3006800101820101")
"""An AuthorityKeyIdentifier with keyIdentifier and authorityCertSerialNumber."""
CA_FALSE = der.sequence(der.boolean(False))
WITH_NULL = der.sequence(der.oid(oids.ECDSA_WITH_SHA256), der.null())


def sig(oid: str) -> bytes:
    return der.sequence(der.oid(oid))


def key(algorithm: KeyAlgorithm, number: int = 0) -> bytes:
    return keys.spki_der(key_of(algorithm, number))


def outlive(draft: Draft) -> None:
    draft.not_after = der.time(START + timedelta(days=1))


def rename(draft: Draft) -> None:
    draft.subject = names.name_der(names.parse_rdns("CN=Another,O=Example"))


def recode(draft: Draft) -> None:
    """Give the issuer the same name in another encoding."""
    draft.subject = names.name_der(names.parse_rdns("CN=ISSUING  ca,O=Example"))


def long_url(characters: int) -> Spoil:
    return put(oids.AUTHORITY_INFORMATION_ACCESS, aia("http://pki.cso.eu/" + "x" * characters))


def twice(draft: Draft) -> None:
    draft.extensions.append(draft.extensions[0])


def ski(size: int) -> Spoil:
    return put(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(bytes(size or 0)))


def v2g_root(draft: Draft) -> None:
    draft.name(("DC", "V2G"), ("CN", "Root"))
    draft.issuer = draft.subject


def nameless_csms(draft: Draft) -> None:
    draft.drop(oids.SUBJECT_ALTERNATIVE_NAME)
    draft.name(("CN", "my csms"))


CASES = (
    Case("e_der_strict", SECC, lambda d: setattr(d.find(oids.BASIC_CONSTRAINTS), "critical_der", b"\x01\x01\x01")),
    Case("e_der_strict", SECC, put(oids.KEY_USAGE, der.integer(5), critical=True)),
    Case("e_der_strict", SECC, change(serial=b"\x02\x03\x00\x00\x01")),
    Case("e_version_v3", SECC, change(version=der.explicit(0, der.integer(1)))),
    Case("e_serial_positive", SECC, change(serial=der.integer(-5))),
    Case("e_serial_positive", SECC, change(serial=der.integer(0))),
    Case("e_serial_max_20_octets", SECC, change(serial=der.integer(1 << 159))),
    Case("w_serial_low_entropy", SECC, change(serial=der.integer(12345))),
    Case("e_sigalg_mismatch", SECC, change(outer_algorithm=sig(oids.ECDSA_WITH_SHA384))),
    Case("e_ecdsa_params_present", SECC, change(algorithm=WITH_NULL)),
    Case("e_eddsa_params_present", CONTRACT20, change(algorithm=der.sequence(der.oid(oids.ED448), der.null()))),
    Case("e_ec_explicit_params", SECC, change(spki=ec_spki(POINT, der.sequence(der.integer(1))))),
    Case("e_ec_point_compressed", SECC, change(spki=ec_spki(bytes((2 + POINT[64] % 2,)) + POINT[1:33]))),
    Case(
        "e_ec_point_compressed",
        STATION,
        change(spki=ec_spki(bytes((2 + POINT[64] % 2,)) + POINT[1:33])),
        Severity.NOTICE,
    ),
    Case("e_ec_point_not_on_curve", SECC, change(spki=ec_spki(POINT[:-1] + bytes((POINT[-1] ^ 1,))))),
    Case("e_ec_point_not_on_curve", SECC, change(spki=ec_spki(b"\x00"))),
    Case("e_utctime_year_ge_2050", SECC, change(not_after=der.tlv(0x17, b"550101000000Z"))),
    Case("e_utctime_year_ge_2050", SECC, change(not_after=der.tlv(0x18, b"20260201000000Z"))),
    Case("e_time_not_zulu_or_no_seconds", SECC, change(not_after=der.tlv(0x17, b"2602010000Z"))),
    Case("e_time_not_zulu_or_no_seconds", SECC, change(not_after=der.tlv(0x17, b"260230000000Z"))),
    Case("e_validity_inverted", SECC, change(not_after=der.time(START - timedelta(days=1)))),
    Case("e_expired", SECC, valid_for(1), now=START + timedelta(days=1)),
    Case("e_not_yet_valid", SECC, change(not_before=der.time(START + timedelta(days=1))), now=START),
    Case("e_child_outlives_issuer", SECC, nothing, Severity.WARNING, issuer=outlive),
    Case("e_issuer_empty", SECC, change(issuer=der.sequence())),
    Case("e_subject_empty_ca", SUB2, change(subject=der.sequence())),
    Case("e_dn_chain_mismatch", SECC, nothing, issuer=rename),
    Case("e_dn_chain_mismatch", SECC, nothing, Severity.WARNING, issuer=recode),
    Case("e_unique_ids_present", SECC, change(unique_ids=der.implicit(1, b"\0\1", constructed=False))),
    Case("e_dc_not_ia5", SECC, change(subject=rdn(oids.DOMAIN_COMPONENT, der.utf8_string("CPO")))),
    Case("e_dc_not_ia5", SECC, change(subject=rdn(oids.COUNTRY_NAME, der.utf8_string("DE")))),
    Case("w_dn_string_type", SECC, change(subject=rdn(oids.COMMON_NAME, der.tlv(0x14, b"x")))),
    Case("w_dn_string_type", SECC, change(subject=rdn(oids.COMMON_NAME, der.utf8_string("x" * 65)))),
    Case("e_country_invalid", SECC, change(subject=rdn(oids.COUNTRY_NAME, der.printable_string("DEU")))),
    Case("e_country_invalid", SECC, name(("C", "UK")), Severity.WARNING),
    Case("e_duplicate_extension", SECC, twice),
    Case("e_unknown_critical_ext", SECC, put(UNKNOWN, der.null(), critical=True)),
    Case("e_unknown_critical_ext", SUB2, put(oids.NAME_CONSTRAINTS, der.sequence(), critical=True)),
    Case("e_basic_constraints_ca_not_critical", SUB2, critical(oids.BASIC_CONSTRAINTS, False)),
    Case("e_basic_constraints_ca_not_critical", "ocpp/cso-sub", drop(oids.BASIC_CONSTRAINTS)),
    Case("e_leaf_is_ca", STATION, put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(True)), critical=True)),
    Case("e_pathlen_without_ca", SECC, put(oids.BASIC_CONSTRAINTS, constraints(der.integer(0)), critical=True)),
    Case(
        "e_pathlen_without_ca",
        SUB2,
        put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(True), der.integer(-1)), critical=True),
    ),
    Case("e_pathlen_without_ca", SUB2, usage(6)),
    Case(
        "e_ca_default_false_encoded", SECC, put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(False)), critical=True)
    ),
    Case("e_ku_empty", SECC, put(oids.KEY_USAGE, b"\x03\x01\x00", critical=True)),
    Case("e_ku_trailing_zero_bits", SECC, put(oids.KEY_USAGE, b"\x03\x02\x00\x80", critical=True)),
    Case("e_ku_certsign_on_leaf", SECC, usage(0, 5)),
    Case("e_ku_certsign_on_leaf", SECC, usage(0, 6), Severity.WARNING),
    Case("e_ku_certsign_on_leaf", SECC20, usage(0, 6), Severity.ERROR),
    Case("e_ku_ca_certsign", "ocpp/cso-sub", usage(6)),
    Case("e_ski_missing_ca", SUB2, drop(oids.SUBJECT_KEY_IDENTIFIER)),
    Case("w_ski_missing_leaf", SECC, drop(oids.SUBJECT_KEY_IDENTIFIER)),
    Case("e_aki_missing", SECC, drop(oids.AUTHORITY_KEY_IDENTIFIER)),
    Case("e_aki_ski_mismatch", SECC, nothing, issuer=ski(20)),
    Case(
        "w_aki_issuer_serial_form",
        SECC,
        put(oids.AUTHORITY_KEY_IDENTIFIER, LONG_AKI),
        Severity.NOTICE,
    ),
    Case("w_aki_issuer_serial_form", SECC20, put(oids.AUTHORITY_KEY_IDENTIFIER, LONG_AKI)),
    Case(
        "w_aki_issuer_serial_form",
        CONTRACT_A1,
        put(oids.AUTHORITY_KEY_IDENTIFIER, LONG_AKI),
    ),
    Case("e_aki_ski_critical", SECC, critical(oids.AUTHORITY_KEY_IDENTIFIER, True)),
    Case("e_aki_ski_critical", SECC, critical(oids.CRL_DISTRIBUTION_POINTS, True), Severity.WARNING),
    Case("e_aki_ski_critical", CONTRACT_A1, critical(oids.SUBJECT_KEY_IDENTIFIER, True)),
    Case("e_crldp_aia_scheme", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("ftp://pki.cso.eu/ocsp"))),
    Case("e_crldp_aia_scheme", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("http://u:p@pki.cso.eu/ocsp"))),
    Case("e_crldp_aia_scheme", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("http://[::1/ocsp"))),
    Case(
        "e_crldp_aia_scheme",
        SECC,
        put(oids.CRL_DISTRIBUTION_POINTS, crl_point(der.implicit(4, der.sequence(), constructed=True))),
        Severity.NOTICE,
    ),
    Case("w_revocation_https", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("https://pki.cso.eu/ocsp"))),
    Case("w_placeholder_url", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("http://ocsp.example.com"))),
    Case("w_placeholder_url", SECC, put(oids.AUTHORITY_INFORMATION_ACCESS, aia("http://192.168.1.2/ocsp"))),
    Case("w_eku_on_ca", SUB2, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_SERVER_AUTH))),
    Case("w_cn_role_name", SECC, name(("DC", "CPO"), ("CN", "SECCCert"))),
    Case("n_policy_any", SECC, put(oids.CERTIFICATE_POLICIES, der.sequence(der.sequence(der.oid(oids.ANY_POLICY))))),
    Case("w_policy_placeholder", SECC, put(oids.CERTIFICATE_POLICIES, der.sequence(der.sequence(der.oid("2.999.1"))))),
    Case("w_ocsp_nocheck", OCSP, critical(oids.OCSP_NO_CHECK, True)),
    Case(
        "w_ocsp_nocheck",
        OCSP,
        drop(oids.OCSP_NO_CHECK, oids.AUTHORITY_INFORMATION_ACCESS, oids.CRL_DISTRIBUTION_POINTS),
    ),
    Case("e_ocsp_signer_eku", OCSP, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_SERVER_AUTH))),
    Case("e_leaf_key_equals_ca_key", SECC, nothing, issuer=change(spki=key(P256))),
    # Hygiene
    Case("e_rsa_lt_2048", STATION, change(spki=rsa_spki(2**1023 + 1155))),
    Case("w_rsa_in_v2g", SECC, change(spki=RSA_SPKI)),
    Case("e_rsa_exponent", STATION, change(spki=rsa_spki(3 * PRIME_1024 * PRIME_1024))),
    Case("e_rsa_exponent", STATION, change(spki=rsa_spki(PRIME_1024 * PRIME_1024))),
    Case("e_rsa_exponent", STATION, change(spki=rsa_spki(PRIME_1024, 4))),
    Case("e_roca", STATION, change(spki=rsa_spki(ROCA_MODULUS))),
    Case("e_md5_sha1", STATION, change(algorithm=der.sequence(der.oid(oids.SHA1_WITH_RSA), der.null()))),
    Case("w_weak_curve", SECC, change(spki=ec_spki(POINT, der.oid("1.3.132.0.10")))),
    Case("w_weak_curve", STATION, change(spki=ec_spki(POINT, der.oid("1.3.132.0.33"))), Severity.NOTICE),
    # ISO 15118-2
    Case("e_v2g2_size_800", SECC, long_url(300)),
    Case("n_v2g2_size_near_limit", SECC, lambda d: long_url(780 - len(d.certificate()) + 4)(d)),
    Case("e_v2g2_curve", SECC, change(spki=key(KeyAlgorithm.SECP384R1))),
    Case("e_v2g2_sigalg", SECC, change(algorithm=sig(oids.ECDSA_WITH_SHA384))),
    Case("e_mixed_curves", SECC, nothing, issuer=change(spki=key(KeyAlgorithm.SECP384R1))),
    Case(
        "e_v2g2_pathlen_sub1",
        SUB1,
        put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(True), der.integer(0)), critical=True),
    ),
    Case("e_v2g2_pathlen_sub2", SUB2, put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(True)), critical=True)),
    Case(
        "w_v2g2_pathlen_root",
        ROOT,
        put(oids.BASIC_CONSTRAINTS, constraints(der.boolean(True), der.integer(2)), critical=True),
    ),
    Case("e_v2g2_root_issues_leaf", SECC, nothing, issuer=v2g_root),
    Case("e_v2g2_ku_noncritical", SECC, critical(oids.KEY_USAGE, False)),
    Case("e_v2g2_ku_noncritical", SECC20, drop(oids.KEY_USAGE)),
    Case("e_v2g2_bc_noncritical", SECC, critical(oids.BASIC_CONSTRAINTS, False)),
    Case("e_v2g2_bc_noncritical", SECC20, drop(oids.BASIC_CONSTRAINTS)),
    Case("e_v2g2_ku_ca", SUB2, usage(5)),
    Case("w_v2g2_ku_mo_sub2", "iso15118-2/mo-sub2", usage(5, 6)),
    Case("e_v2g2_dc_root", ROOT, name(("CN", "Root"), ("O", "Example"))),
    Case("e_v2g2_dc_secc", SECC, name(("CN", "DE*ABC*E1"), ("O", "Example"))),
    Case("e_v2g2_dc_secc", SECC, name(("DC", "cpo"), ("CN", "DE*ABC*E1"))),
    Case("e_v2g2_dc_secc", SECC, name(("DC", "V2G"), ("DC", "CPO"), ("CN", "DE*ABC*E1"))),
    Case("e_v2g2_dc_secc", "iso15118-2/private-secc", name(("CN", "DE*ABC*E1")), Severity.WARNING),
    Case("e_v2g2_dc_cps", CPS, name(("CN", "CPS"))),
    Case("w_v2g2_dc_oem", OEM, name(("CN", "HUBOPENPROVCERT00"))),
    Case("n_v2g2_dc_contract", CONTRACT, name(("DC", "EMSP"), ("CN", "DE8AAC1A2B3C4D5"))),
    Case("e_v2g2_ku_secc", SECC, usage(4)),
    Case("n_v2g2_ku_secc_keyagreement", SECC, usage(0)),
    Case("e_v2g2_ku_contract", CONTRACT, usage(0, 4)),
    Case("w_v2g2_ku_contract_keyagreement", CONTRACT, usage(0, 1)),
    Case("e_v2g2_ku_oem", OEM, usage(0)),
    Case("e_v2g2_ku_cps", CPS, usage(1)),
    Case("e_emaid_syntax", CONTRACT, name(("CN", "NOT-AN-EMAID-AT-ALL"))),
    Case("w_emaid_check_digit", CONTRACT, name(("CN", "DE8AAC1A2B3C4D0"))),
    Case("n_emaid_separator", CONTRACT, name(("CN", "DE-8AA-C1A2B3C4D"))),
    Case("e_pcid_syntax", OEM, name(("CN", "TOOSHORT"))),
    Case("w_pcid_17", OEM20, name(("CN", "HUBOPENPROVCERT00"))),
    Case("w_secc_cn_syntax", SECC, name(("DC", "CPO"), ("CN", "a station"))),
    Case("w_validity_secc", SECC, valid_for(94)),
    Case("w_validity_cps", CPS, valid_for(94)),
    Case("w_validity_contract", CONTRACT, valid_for(27)),
    Case("w_validity_contract", CONTRACT, valid_for(732)),
    Case("w_validity_sub2", SUB2, valid_for(732)),
    Case("w_validity_sub1", SUB1, valid_for(1462)),
    Case("w_validity_root40", ROOT, valid_for(3650)),
    Case("w_ocsp_url_missing", SECC, drop(oids.AUTHORITY_INFORMATION_ACCESS)),
    Case("n_san_present_v2g", SECC, put(oids.SUBJECT_ALTERNATIVE_NAME, der.sequence(b"\x82\x01x"))),
    Case("n_san_present_v2g", SECC20, put(oids.SUBJECT_ALTERNATIVE_NAME, der.sequence(b"\x82\x01x")), Severity.ERROR),
    Case("n_missing_crldp_and_aia", CONTRACT, drop(oids.AUTHORITY_INFORMATION_ACCESS, oids.CRL_DISTRIBUTION_POINTS)),
    # ISO 15118-20
    Case("e_v2g20_size_1600", SECC20, long_url(1000)),
    Case("e_v2g20_alg", SECC20, change(spki=key(KeyAlgorithm.SECP384R1))),
    Case("e_v2g20_alg", SECC20, change(algorithm=sig(oids.ECDSA_WITH_SHA384))),
    Case("e_iso2_material_in_20", SECC20, change(spki=key(P256))),
    Case("e_v2g20_ext_unlisted", SECC20, put(oids.SUBJECT_DIRECTORY_ATTRIBUTES, der.sequence(der.sequence()))),
    Case("e_v2g20_ext_unlisted", SECC20, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_SERVER_AUTH)), Severity.NOTICE),
    Case("e_v2g20_ext_unlisted", CONTRACT_A1, put(UNKNOWN, der.null()), Severity.NOTICE),
    Case("e_v2g20_revocation_ptr", CONTRACT20, drop(oids.AUTHORITY_INFORMATION_ACCESS, oids.CRL_DISTRIBUTION_POINTS)),
    Case("e_v2g20_contract_eku", CONTRACT20, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_CLIENT_AUTH))),
    Case("e_v2g20_contract_dn", CONTRACT20, name(("CN", "DE8AAC1A2B3C4D5"))),
    Case("e_v2g20_contract_dn", CONTRACT20, name(("L", "Berlin"), ("O", "x"), ("CN", "DE8AAC1A2B3C4D5"))),
    Case("e_v2g20_contract_dn", CONTRACT20, name(("C", "DE"), ("O", "x"), ("CN", "DE8AAC1A2B3C4D5")), Severity.NOTICE),
    Case("e_v2g20_leaf_ku", CONTRACT20, usage(1)),
    Case("e_v2g20_leaf_ku_forbidden", CONTRACT20, usage(0, 3)),
    Case("w_v2g20_ski_8byte", CONTRACT20, ski(20)),
    Case("e_vehicle_cn_evccid", VEHICLE20, name(("O", "OEM"), ("CN", "my car"))),
    Case("e_vehicle_extra_rdn", VEHICLE20, name(("DC", "EV"), ("O", "OEM"), ("CN", "WMIV1234567890ABCDEX"))),
    Case("e_vehicle_extra_rdn", VEHICLE_A1, name(("O", "OEM"), ("CN", "WMIV1234567890ABCDEX")), Severity.WARNING),
    Case("w_vehicle_eku_clientauth", VEHICLE20, drop(oids.EXTENDED_KEY_USAGE)),
    Case("w_vehicle_eku_clientauth", VEHICLE_A1, critical(oids.EXTENDED_KEY_USAGE, False)),
    Case(
        "w_vehicle_eku_clientauth",
        VEHICLE20,
        put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_CLIENT_AUTH, oids.EKU_ANY)),
    ),
    Case("w_tpm_ext_pair", OEM20, put(oids.SUBJECT_INFORMATION_ACCESS, aia("urn:x", oids.AD_TPM_POLICY_DIGEST))),
    Case("e_ed448_keyagreement", OEM20, usage(0, 4), algorithm=KeyAlgorithm.ED448),
    Case("n_v2g20_dc_secc", SECC20, name(("DC", "CPO"), ("CN", "DE*ABC*E1"))),
    Case("e_cross_cert_validity", "iso15118-20/cross", nothing, issuer=outlive),
    # OCPP
    Case("e_cs_cn_hostname", STATION, name(("O", "CSO"), ("CN", "station1.cso.eu"))),
    Case("e_cs_cn_hostname", STATION, name(("O", "CSO"), ("CN", "10.0.0.7"))),
    Case("e_cs_cn_missing", STATION, name(("CN", "S1"))),
    Case("e_csms_name", CSMS, nameless_csms),
    Case("e_csms_name", CSMS, drop(oids.SUBJECT_ALTERNATIVE_NAME), Severity.WARNING),
    Case("e_csms_eku_serverauth", CSMS, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_CLIENT_AUTH))),
    Case("w_cs_eku_clientauth", STATION, put(oids.EXTENDED_KEY_USAGE, eku(oids.EKU_SERVER_AUTH))),
    Case("e_ocpp_leaf_ku", STATION, usage(4)),
    Case("e_ocpp_key_strength", STATION, change(spki=rsa_spki(2**1023 + 1155))),
    Case("e_ocpp_key_strength", STATION, change(spki=ec_spki(POINT, der.oid("1.2.840.10045.3.1.1")))),
    Case("e_ocpp_key_strength", STATION, change(spki=der.sequence(sig("1.2.840.10040.4.1"), der.bit_string(b"x")))),
)

ALWAYS_SAID = {"n_v2g2_ku_secc_keyagreement"}
"""A notice in both directions: there is no certificate about which it is silent."""


def lint(case: Case, *, spoilt: bool) -> list[Finding]:
    """Lint the certificate of *case*, spoilt or as it comes, and return what its rule says."""
    draft = Draft.of(case.profile, case.algorithm)
    issuer = Draft.issuer_of(case.profile, case.algorithm)
    now = case.now
    if spoilt:
        case.spoil(draft)
        (case.issuer or nothing)(issuer)
    elif now is not None:
        now = START + timedelta(hours=1)
    report = lint_certificate(
        draft.certificate(),
        profile=draft.profile,
        now=now,
        issuer_der=issuer.certificate() if case.issuer else None,
    )
    assert case.rule in report.rules_run
    return [finding for finding in report.findings if finding.rule == case.rule]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_certificate_that_breaks_the_rule_is_found(case: Case) -> None:
    findings = lint(case, spoilt=True)
    expected = case.severity or {"e_": "error", "w_": "warning", "n_": "notice"}[case.rule[:2]]
    assert expected in [finding.severity for finding in findings]
    assert all(finding.clause and finding.hint and finding.message for finding in findings)


@pytest.mark.parametrize("case", [case for case in CASES if case.rule not in ALWAYS_SAID], ids=str)
def test_a_certificate_that_keeps_the_rule_passes_it(case: Case) -> None:
    findings = lint(case, spoilt=False)
    # -20:2022 marks key identifiers critical: the notice is expected there.
    assert [finding for finding in findings if finding.severity is not Severity.NOTICE] == []


def test_every_rule_has_a_certificate_that_breaks_it() -> None:
    assert {case.rule for case in CASES} == {rule.id for rule in list_rules()}


@pytest.mark.parametrize(
    ("profile", "algorithm"),
    [(p, a) for p in list_profiles() for a in p.keys.algorithms],
    ids=lambda v: getattr(v, "id", v),
)
def test_everything_that_our_template_builds_passes_without_error_or_warning(
    profile: Profile, algorithm: KeyAlgorithm
) -> None:
    draft = Draft.of(profile.id, algorithm)
    report = lint_tbs(draft.tbs(), profile=profile, issuer_der=Draft.issuer_of(profile.id, algorithm).certificate())
    said = [finding for finding in report.findings if finding.severity is not Severity.NOTICE]
    if profile.is_root or profile.role == "cross":
        # A root is its own issuer; the one that stands in here has another name and key.
        said = [finding for finding in said if finding.rule not in ("e_dn_chain_mismatch", "e_leaf_key_equals_ca_key")]
    assert said == []


def test_an_ed448_oem_certificate_passes_without_key_agreement() -> None:
    draft = Draft.of(OEM20, KeyAlgorithm.ED448)
    draft.key_usage([0])
    report = lint_tbs(draft.tbs(), profile=draft.profile)
    assert report.ok


def test_a_wildcard_extension_is_reported_once_per_repetition() -> None:
    draft = Draft.of(SECC)
    draft.extensions += [DraftExtension(UNKNOWN, False, der.null())] * 3
    report = lint_tbs(draft.tbs(), profile=draft.profile)
    assert len([finding for finding in report.findings if finding.rule == "e_duplicate_extension"]) == 2
