"""The profile tables say what the fact sheets say, and agree with each other."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from chargepki.pki import oids
from chargepki.pki.errors import InputError, NotFound, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Extension, KeyUsageBit, Presence, Profile, RoleKind, Standard, Syntax
from chargepki.pki.profiles.describe import describe, duration_text
from chargepki.pki.profiles.hierarchy import check_issuer, default_issuer, hierarchy, issuer_ids, may_issue
from chargepki.pki.profiles.syntax import check_value

PROFILES = list_profiles()
ROLES_2 = (
    "v2g-root cpo-sub1 cpo-sub2 secc cps-sub1 cps-sub2 cps mo-root mo-sub1 mo-sub2 contract oem-root oem-sub1 oem-sub2 "
    "oem-provisioning private-root private-secc"
)
ROLES_20 = ROLES_2.replace("mo-", "emsp-") + " vehicle-sub1 vehicle-sub2 vehicle cross"
INTERFACES = {
    "iso15118-2": ROLES_2,
    "iso15118-20": ROLES_20,
    "iso15118-20-a1": ROLES_20,
    "ocpp": "cso-root cso-sub csms charging-station manufacturer-root firmware-signing",
    "common": "ocsp-signer",
}
# Beyond the interfaces, which may be extended freely.
ADDED = {"common/cross"}


def all_profiles(*standards: Standard) -> list[Profile]:
    return [profile for profile in PROFILES if profile.standard in (standards or tuple(Standard))]


def test_every_profile_of_the_interfaces_exists_and_no_other() -> None:
    promised = {f"{standard}/{role}" for standard, roles in INTERFACES.items() for role in roles.split()}
    assert {profile.id for profile in PROFILES} == promised | ADDED
    assert len(PROFILES) == len(promised | ADDED)


def test_an_unknown_profile_names_the_close_ones() -> None:
    with pytest.raises(NotFound, match="ocpp/charging-staton") as caught:
        get_profile("ocpp/charging-staton")
    assert "ocpp/charging-station" in caught.value.fix
    with pytest.raises(NotFound) as caught:
        get_profile("secc")
    assert "iso15118-2/secc" in caught.value.fix
    with pytest.raises(NotFound) as caught:
        get_profile("?" * 5000)
    assert "profile list" in caught.value.fix
    assert len(caught.value.what) < 200


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_every_field_of_every_profile_has_a_clause(profile: Profile) -> None:
    clauses = [
        profile.clause, profile.keys.clause, profile.validity.clause, profile.basic_constraints.clause,
        profile.key_usage.clause, profile.pointers.clause,
    ]  # fmt: skip
    clauses += [rule.clause for rule in profile.subject.attributes]
    clauses += [rule.clause for rule in profile.extensions]
    assert all(clause.strip() for clause in clauses)
    listed = [rule.extension for rule in profile.extensions]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_every_profile_is_consistent_in_itself(profile: Profile) -> None:
    assert profile.key_usage.required <= profile.key_usage.emitted
    for algorithm in profile.keys.algorithms:
        assert profile.key_usage.required_for(algorithm) <= profile.key_usage.emitted_for(algorithm)
    assert (KeyUsageBit.KEY_CERT_SIGN in profile.key_usage.emitted) == profile.is_ca
    assert profile.is_ca == (profile.kind is not RoleKind.LEAF)
    if profile.basic_constraints.path_length is not None:
        assert profile.is_ca
    usage = profile.extension_rule(Extension.EXTENDED_KEY_USAGE)
    written = usage is not None and usage.presence in (Presence.REQUIRED, Presence.RECOMMENDED)
    assert written == bool(profile.extended_key_usage)
    common_name = profile.subject.find("CN")
    assert common_name is not None and common_name.presence is Presence.REQUIRED
    limits = profile.validity
    assert (limits.minimum or limits.default) <= limits.default <= (limits.maximum or limits.default)
    for rule in profile.subject.attributes:
        if rule.fixed is not None:
            assert not check_value(rule.syntax, rule.fixed, profile.standard)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_every_issuer_exists_signs_and_outlasts_a_sub_ca_of_default_validity(profile: Profile) -> None:
    issuers = [get_profile(issuer) for issuer in issuer_ids(profile)]
    assert issuers or profile.standard is Standard.COMMON
    for issuer in issuers:
        assert may_issue(issuer, profile)
        if profile.is_root:
            assert issuer is profile
        elif profile.kind is RoleKind.CROSS:
            assert issuer.is_root
            assert profile.validity.default < issuer.validity.default
        elif profile.is_ca:
            # Strictly: one made a moment after its issuer must still fit.
            assert profile.validity.default < issuer.validity.default
        if issuer.basic_constraints.path_length == 0:
            # A certificate of the same name counts for no path length (RFC 5280 6.1.4 (l)): the next generation's key
            # may be certified, and `cross_sign` refuses other names.
            assert not profile.is_ca or profile.is_root or profile.kind is RoleKind.CROSS


# ---------------------------------------------------------------- who issues whom


@pytest.mark.parametrize(
    ("profile", "issuers"),
    [
        ("iso15118-2/cpo-sub1", ["v2g-root"]),
        ("iso15118-2/cpo-sub2", ["cpo-sub1", "v2g-root"]),
        ("iso15118-2/secc", ["cpo-sub2"]),
        ("iso15118-2/private-secc", ["private-root"]),
        ("iso15118-2/mo-sub1", ["mo-root", "v2g-root"]),
        ("iso15118-2/oem-sub1", ["oem-root", "v2g-root"]),
        ("iso15118-2/oem-sub2", ["oem-sub1", "oem-root", "v2g-root"]),
        ("iso15118-20/vehicle-sub1", ["oem-root", "v2g-root"]),
        ("iso15118-20/vehicle", ["vehicle-sub2"]),
        ("iso15118-20-a1/emsp-sub1", ["emsp-root", "v2g-root"]),
        ("ocpp/cso-sub", ["cso-root"]),
        ("ocpp/firmware-signing", ["manufacturer-root"]),
    ],
)
def test_the_chains_of_ev_pki_0_hold(profile: str, issuers: list[str]) -> None:
    standard = profile.partition("/")[0]
    assert list(issuer_ids(get_profile(profile))) == [f"{standard}/{issuer}" for issuer in issuers]
    assert default_issuer(get_profile(profile)) == issuers[0]


def test_v2g20_2331_a_vehicle_never_chains_to_an_emsp_root() -> None:
    vehicle = get_profile("iso15118-20/vehicle-sub1")
    assert not may_issue(get_profile("iso15118-20/emsp-root"), vehicle)
    with pytest.raises(PolicyRefusal, match="does not issue"):
        check_issuer(get_profile("iso15118-20/emsp-root"), vehicle)


def test_v2g2_867_a_v2g_root_issues_no_leaf() -> None:
    root = get_profile("iso15118-2/v2g-root")
    assert not [
        profile.id for profile in all_profiles() if not profile.is_ca and profile.issuers and may_issue(root, profile)
    ]


def test_a00_fr_602_the_cpo_sub_ca_2_may_issue_for_ocpp_and_no_leaf_issues_anything() -> None:
    station = get_profile("ocpp/charging-station")
    assert may_issue(get_profile("iso15118-2/cpo-sub2"), station)
    assert not may_issue(get_profile("iso15118-2/mo-sub2"), station)
    assert not may_issue(station, get_profile("common/ocsp-signer"))
    assert may_issue(get_profile("ocpp/cso-root"), get_profile("common/ocsp-signer"))


@pytest.mark.parametrize("standard", [each for each in Standard if each is not Standard.COMMON])
def test_a_hierarchy_is_every_root_and_sub_ca_after_its_issuer(standard: Standard) -> None:
    made: list[str] = []
    for profile in hierarchy(standard):
        assert profile.is_root or default_issuer(profile) in made
        made.append(profile.role)
    expected = {p.role for p in all_profiles(standard) if p.is_ca and p.kind is not RoleKind.CROSS}
    assert set(made) == expected
    assert hierarchy(standard.value) == hierarchy(standard)


@pytest.mark.parametrize("standard", ["common", "iso15118-3", ""])
def test_what_has_no_hierarchy_says_what_has_one(standard: str) -> None:
    with pytest.raises(InputError) as caught:
        hierarchy(standard)
    assert "iso15118-20-a1" in caught.value.fix


# ---------------------------------------------------------------- facts of the standards


@pytest.mark.parametrize("profile", all_profiles(Standard.ISO15118_2), ids=lambda profile: profile.id)
def test_v2g2_006_007_010_every_iso_15118_2_certificate_is_p_256_within_800_bytes(profile: Profile) -> None:
    assert profile.keys.algorithms == (KeyAlgorithm.SECP256R1,)
    assert profile.max_der_bytes == 800
    assert profile.basic_constraints.critical and profile.key_usage.critical


@pytest.mark.parametrize(
    "profile", all_profiles(Standard.ISO15118_20, Standard.ISO15118_20_A1), ids=lambda profile: profile.id
)
def test_v2g20_2674_2319_1234_every_20_certificate_is_p_521_or_ed448_within_1600_bytes(profile: Profile) -> None:
    assert profile.keys.algorithms == (KeyAlgorithm.SECP521R1, KeyAlgorithm.ED448)
    assert profile.max_der_bytes == 1600
    assert not profile.validity.verified
    critical = profile.standard is Standard.ISO15118_20
    for extension in (
        Extension.SUBJECT_KEY_IDENTIFIER,
        Extension.AUTHORITY_KEY_IDENTIFIER,
        Extension.CRL_DISTRIBUTION_POINTS,
        Extension.AUTHORITY_INFORMATION_ACCESS,
    ):
        rule = profile.extension_rule(extension)
        assert rule is not None and rule.critical is critical


@pytest.mark.parametrize(
    ("profile", "bits"),
    [
        ("iso15118-2/secc", {"digitalSignature", "keyAgreement"}),
        ("iso15118-2/cps", {"digitalSignature"}),
        ("iso15118-2/contract", {"digitalSignature", "nonRepudiation", "keyEncipherment", "keyAgreement"}),
        ("iso15118-2/oem-provisioning", {"digitalSignature", "keyAgreement"}),
        ("iso15118-2/mo-sub2", {"digitalSignature", "nonRepudiation", "keyCertSign", "cRLSign"}),
        ("iso15118-2/mo-sub1", {"keyCertSign", "cRLSign"}),
        ("iso15118-20/secc", {"digitalSignature"}),
        ("iso15118-20/vehicle", {"digitalSignature"}),
        ("ocpp/charging-station", {"digitalSignature"}),
        ("ocpp/firmware-signing", {"digitalSignature"}),
        ("common/ocsp-signer", {"digitalSignature"}),
    ],
)
def test_ev_pki_1_5_key_usage(profile: str, bits: set[str]) -> None:
    assert {bit.value for bit in get_profile(profile).key_usage.emitted} == bits


@pytest.mark.parametrize(
    ("profile", "days", "maximum"),
    [
        ("iso15118-2/v2g-root", 14600, 14965),
        ("iso15118-2/cpo-sub1", 1460, 1461),
        ("iso15118-2/cpo-sub2", 730, 731),
        ("iso15118-2/secc", 60, 93),
        ("iso15118-2/cps", 90, 93),
        ("iso15118-2/contract", 365, 731),
        ("iso15118-20/secc", 60, None),
        ("ocpp/charging-station", 365, None),
    ],
)
def test_ev_pki_1_3_validities(profile: str, days: int, maximum: int | None) -> None:
    rule = get_profile(profile).validity
    assert rule.default == timedelta(days=days)
    assert rule.maximum == (None if maximum is None else timedelta(days=maximum))


def test_a00_fr_701_a_csms_certificate_expires_within_a_day() -> None:
    assert get_profile("ocpp/csms").validity.default < timedelta(hours=24)


@pytest.mark.parametrize(
    ("profile", "value", "presence"),
    [
        ("iso15118-2/v2g-root", "V2G", Presence.REQUIRED),
        ("iso15118-2/cpo-sub1", "V2G", Presence.RECOMMENDED),
        ("iso15118-2/secc", "CPO", Presence.REQUIRED),
        ("iso15118-2/cps", "CPS", Presence.REQUIRED),
        ("iso15118-2/contract", "MO", Presence.RECOMMENDED),
        ("iso15118-2/oem-provisioning", "OEM", Presence.RECOMMENDED),
        ("iso15118-20/secc", "CSO", Presence.RECOMMENDED),
        ("iso15118-20-a1/vehicle", "EV", Presence.RECOMMENDED),
    ],
)
def test_ev_pki_1_2_domain_components(profile: str, value: str, presence: Presence) -> None:
    rule = get_profile(profile).subject.find("DC")
    assert rule is not None
    assert (rule.fixed, rule.presence) == (value, presence)


@pytest.mark.parametrize(
    ("profile", "syntax"),
    [
        ("iso15118-2/contract", Syntax.EMAID),
        ("iso15118-2/oem-provisioning", Syntax.PCID),
        ("iso15118-20/vehicle", Syntax.EVCCID),
        ("iso15118-2/secc", Syntax.SECC_ID),
        ("ocpp/charging-station", Syntax.STATION_SERIAL),
        ("ocpp/csms", Syntax.HOSTNAME),
    ],
)
def test_the_common_name_is_the_holders_identifier(profile: str, syntax: Syntax) -> None:
    rule = get_profile(profile).subject.find("CN")
    assert rule is not None and rule.syntax is syntax


def test_only_vehicles_and_ocsp_signers_carry_an_extended_key_usage() -> None:
    carrying = {profile.id: profile.extended_key_usage for profile in PROFILES if profile.extended_key_usage}
    assert carrying == {
        "iso15118-20/vehicle": (oids.EKU_CLIENT_AUTH,),
        "iso15118-20-a1/vehicle": (oids.EKU_CLIENT_AUTH,),
        "common/ocsp-signer": (oids.EKU_OCSP_SIGNING,),
    }
    amended = get_profile("iso15118-20-a1/vehicle").extension_rule(Extension.EXTENDED_KEY_USAGE)
    assert amended is not None and amended.critical and amended.presence is Presence.REQUIRED


@pytest.mark.parametrize("role", ["cso-root", "cso-sub", "csms", "charging-station", "manufacturer-root"])
def test_a00_fr_318_319_operator_certificates_come_with_elliptic_curve_and_with_rsa_keys(role: str) -> None:
    profile = get_profile(f"ocpp/{role}")
    assert profile.keys.default is KeyAlgorithm.SECP256R1
    quantum = {KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87}
    expected = set(KeyAlgorithm) - {KeyAlgorithm.ED448}
    # A CSMS is reached over TLS, and nobody's TLS library is claimed to take ML-DSA.
    assert set(profile.keys.algorithms) == (expected - quantum if role == "csms" else expected)


def test_l01_fr_04_firmware_is_not_signed_with_ed25519() -> None:
    assert KeyAlgorithm.ED25519 not in get_profile("ocpp/firmware-signing").keys.algorithms


# ---------------------------------------------------------------- description


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_every_description_is_json_and_shows_every_field(profile: Profile) -> None:
    data = describe(profile)
    text = json.dumps(data)
    assert json.loads(text) == data
    for rule in profile.subject.attributes:
        assert rule.clause in str(data)
    for extension in profile.extensions:
        assert extension.extension.value in text
    shown = {
        "standard", "role", "kind", "title", "subject", "keys", "validity", "basic_constraints", "key_usage",
        "pointers", "issuers", "clause", "extended_key_usage", "extensions", "max_der_bytes", "dns_names", "notes",
    }  # fmt: skip
    fields = set(Profile.__dataclass_fields__) - {"ski_bytes"}
    assert shown == fields
    assert fields | {"subject_key_identifier_bytes"} <= set(data)


def test_a_description_names_issuers_in_full_and_limits_in_words() -> None:
    data = describe(get_profile("ocpp/csms"))
    assert data["issuers"] == ["ocpp/cso-sub", "iso15118-2/cpo-sub2"]
    assert isinstance(data["validity"], dict) and data["validity"]["default"] == "23h"
    assert isinstance(data["key_usage"], dict) and data["key_usage"]["emitted_for_rsa"] == ["keyEncipherment"]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=14600), "40y"),
        (timedelta(days=366), "366d"),
        (timedelta(minutes=90), "90m"),
        (timedelta(seconds=61), "61s"),
    ],
)
def test_durations_read_as_they_are_typed(duration: timedelta, text: str) -> None:
    assert duration_text(duration) == text
