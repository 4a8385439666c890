"""Nothing of a request but its key and the subject fields of the profile reaches a certificate."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names, oids
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.policy import Outcome, RequestVerdict, choose_dns_names, choose_subject, judge_request
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile
from testkit.effort import examples
from testkit.requests import EVEREST_EXTENSIONS, key_of, make_csr, usage

STATION = get_profile("ocpp/charging-station")
SECC = get_profile("iso15118-2/secc")
CONTRACT = get_profile("iso15118-2/contract")


def request_for(
    subject: str | x509.Name,
    key: PrivateKey | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> CertificateRequest:
    name = names.parse_rdns(subject) if isinstance(subject, str) else subject
    return parse_csr(make_csr(name, key, extensions=extensions))


def judge(
    profile: str,
    subject: str,
    *,
    override: str | None = None,
    defaults: Mapping[str, str] | None = None,
    algorithm: KeyAlgorithm | None = None,
) -> RequestVerdict:
    chosen = get_profile(profile)
    return judge_request(
        request_for(subject, key_of(algorithm or chosen.keys.default)),
        chosen,
        subject_override=names.parse_rdns(override) if override else None,
        subject_defaults=defaults,
    )


def refused(verdict: RequestVerdict) -> list[str]:
    return [rule.rule for rule in verdict.refusals]


def subject_of(verdict: RequestVerdict) -> str:
    assert verdict.subject is not None
    return names.text(verdict.subject)


# ---------------------------------------------------------------- extensions


def test_what_everest_sends_is_granted_without_its_extras() -> None:
    verdict = judge_request(request_for("C=DE,O=Example CSO,CN=SN-0001,DC=CPO", extensions=EVEREST_EXTENSIONS), STATION)
    assert verdict.accepted
    assert subject_of(verdict) == "C=DE,O=Example CSO,CN=SN-0001"
    told = [(rule.rule, rule.message) for rule in verdict.notices]
    assert told == [
        ("extension", "the requested basicConstraints is ignored"),
        ("extension", "the requested keyUsage is ignored"),
        ("subject", "DC is not part of the subject of ocpp/charging-station: left out of the request"),
    ]


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "CA:TRUE"),
        (x509.BasicConstraints(ca=True, path_length=0), "CA:TRUE"),
        (usage("digital_signature", "key_cert_sign"), "keyCertSign"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.BASIC_CONSTRAINTS), b"junk"), "unreadable"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.KEY_USAGE), b""), "unreadable"),
    ],
)
@pytest.mark.parametrize("critical", [True, False])
def test_p_23_a_request_to_be_a_ca_is_refused(extension: x509.ExtensionType, words: str, critical: bool) -> None:
    verdict = judge_request(request_for("O=x,CN=SN-1", extensions=((extension, critical),)), STATION)
    assert refused(verdict) == ["ca-request"]
    assert words in verdict.refusals[0].message
    assert verdict.refusals[0].fix


def test_any_other_extension_is_ignored_with_a_notice() -> None:
    asked: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.SubjectAlternativeName([x509.DNSName("csms.example.org")]), False),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier(oids.EKU_SERVER_AUTH)]), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
    )
    verdict = judge_request(request_for("O=x,CN=SN-1", extensions=asked), STATION)
    assert verdict.accepted
    assert [rule.message for rule in verdict.notices] == [
        "the requested subjectAltName is ignored",
        "the requested extendedKeyUsage is ignored",
        "the requested 1.2.3.4 is ignored",
    ]


def test_a_flood_of_extensions_makes_no_flood_of_notices() -> None:
    asked = tuple(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{i}"), b"\x05\x00"), False) for i in range(200)
    )
    verdict = judge_request(request_for("O=x,CN=SN-1", extensions=asked), STATION)
    assert verdict.accepted
    assert len(verdict.notices) == 33
    assert verdict.notices[-1].message == "168 more are ignored"


def test_a_ca_profile_may_be_asked_for_by_a_ca() -> None:
    asked = ((x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True))
    request = request_for("CN=OEM root,O=OEM,C=DE", key_of(KeyAlgorithm.SECP521R1), asked)
    assert judge_request(request, get_profile("iso15118-20/cross")).accepted


# ---------------------------------------------------------------- possession and key


def test_a_request_signed_by_another_key_is_refused() -> None:
    request = request_for("O=x,CN=SN-1")
    info = request.info_der.replace(request.spki_der, keys.spki_der(key_of(KeyAlgorithm.SECP256R1, 1)))
    forged = der.sequence(info, request.signature_algorithm_der, der.bit_string(request.signature))
    assert refused(judge_request(parse_csr(forged), STATION)) == ["possession"]


@pytest.mark.parametrize("profile", list_profiles(), ids=lambda profile: profile.id)
def test_every_profile_takes_its_own_key_algorithms_and_no_other(profile: Profile) -> None:
    for algorithm in KeyAlgorithm:
        verdict = judge_request(request_for("O=x,CN=SN-1", key_of(algorithm)), profile)
        assert ("key-algorithm" in refused(verdict)) == (algorithm not in profile.keys.algorithms)


def test_every_rule_is_evaluated_even_when_the_first_refuses() -> None:
    verdict = judge_request(
        request_for(
            "CN=10.0.0.1", key_of(KeyAlgorithm.ED448), ((x509.BasicConstraints(ca=True, path_length=None), True),)
        ),
        STATION,
    )
    assert refused(verdict) == ["key-algorithm", "ca-request", "subject-O", "subject-CN"]
    assert verdict.subject is None


def test_the_verdict_as_json_holds_every_rule_with_its_clause() -> None:
    verdict = judge("ocpp/charging-station", "O=x,CN=SN-1")
    data = verdict.to_json()
    assert data["profile"] == "ocpp/charging-station"
    assert data["accepted"] is True
    assert data["subject"] == "O=x,CN=SN-1"
    rules = data["rules"]
    assert isinstance(rules, list)
    assert {rule["outcome"] for rule in rules} <= {outcome.value for outcome in Outcome}
    assert all(rule["clause"] for rule in rules)


# ---------------------------------------------------------------- subject


def test_the_order_is_the_profiles_and_not_the_requests() -> None:
    verdict = judge("iso15118-2/secc", "CN=DE*ICE*E45B*78C,O=Example,C=DE,DC=CPO")
    assert subject_of(verdict) == "DC=CPO,C=DE,O=Example,CN=DE*ICE*E45B*78C"
    assert not verdict.notices


@pytest.mark.parametrize("asked", ["DC=cpo", "DC=V2G", "DC=V2G,DC=CPO", "L=Berlin"])
def test_v2g2_925_the_secc_domain_component_is_cpo_whatever_is_asked_for(asked: str) -> None:
    verdict = judge("iso15118-2/secc", f"CN=DE*ICE*E45B*78C,O=Example,{asked}")
    assert verdict.accepted
    assert subject_of(verdict) == "DC=CPO,O=Example,CN=DE*ICE*E45B*78C"
    assert len(verdict.notices) == 1


def test_a_verified_domain_component_cannot_be_overridden_and_an_unverified_one_can() -> None:
    subject = "CN=x,O=Example,DC=MINE"
    assert refused(judge("iso15118-2/secc", "CN=a", override=subject)) == ["subject-DC"]
    verdict = judge("iso15118-2/mo-sub1", "CN=a", override=subject)
    assert subject_of(verdict) == "DC=MINE,O=Example,CN=x"
    assert [rule.rule for rule in verdict.notices] == ["subject-DC"]


def test_a_20_secc_gets_cso_and_an_operator_may_still_write_cpo() -> None:
    given_name = "CN=DE*ICE*E45B*78C,O=Example"
    assert subject_of(judge("iso15118-20/secc", given_name)).startswith("DC=CSO,")
    assert subject_of(judge("iso15118-20/secc", given_name, override=given_name + ",DC=CPO")).startswith("DC=CPO,")


def test_an_override_replaces_the_whole_requested_subject() -> None:
    verdict = judge("ocpp/charging-station", "CN=SN-1,O=Example,C=DE", override="CN=SN-2,O=Other")
    assert subject_of(verdict) == "O=Other,CN=SN-2"
    assert refused(judge("ocpp/charging-station", "CN=SN-1,O=Example", override="CN=SN-2")) == ["subject-O"]


def test_an_override_with_a_foreign_attribute_is_refused() -> None:
    verdict = judge("ocpp/charging-station", "CN=SN-1,O=Example", override="CN=SN-2,O=Example,L=Berlin")
    assert refused(verdict) == ["subject"]
    assert "C, O, OU, CN" in verdict.refusals[0].fix


def test_the_stations_record_fills_what_the_request_leaves_out_and_no_more() -> None:
    verdict = judge("ocpp/charging-station", "CN=SN-1", defaults={"O": "From the record", "CN": "SN-9", "L": "x"})
    assert subject_of(verdict) == "O=From the record,CN=SN-1"


def test_a_missing_attribute_is_refused_with_its_cure() -> None:
    with pytest.raises(PolicyRefusal, match="the request has no O") as caught:
        choose_subject(STATION, request_for("CN=SN-1"))
    assert "A00.FR.509" in caught.value.why
    assert "--subject" in caught.value.fix


def test_a_doubled_identity_is_refused() -> None:
    verdict = judge("ocpp/charging-station", "CN=SN-1,CN=SN-2,O=Example")
    assert refused(verdict) == ["subject-CN"]
    assert "2 times" in verdict.refusals[0].message


@pytest.mark.parametrize(
    "cn", ["10.0.0.7", "csms.example.org", "wss://x", "::1", "localhost", "*.example.org", "a.b:80"]
)
def test_a00_fr_511_a_station_is_not_named_like_a_host(cn: str) -> None:
    assert refused(judge("ocpp/charging-station", f"O=x,CN={cn}")) == ["subject-CN"]


@pytest.mark.parametrize("cn", ["SN-0001", "00:1A:2B:3C:4D:5E", "SN.2024.01", "CS001", "DE*ICE*E45B*78C", "12345"])
def test_serial_numbers_of_the_field_are_taken(cn: str) -> None:
    assert judge("ocpp/charging-station", f"O=x,CN={cn}").accepted


@pytest.mark.parametrize("cn", [" SN-1", "SN-1 ", "SN  1", "SN\u200b-1", "SN\u202e1", "SN\n1"])
def test_look_alike_identities_are_refused(cn: str) -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "x")])
    subject = x509.Name([*subject, x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    assert refused(judge_request(request_for(subject), STATION)) == ["subject-CN"]


@pytest.mark.parametrize(
    ("profile", "cn", "outcome"),
    [
        ("iso15118-2/contract", "DE8AA0012345670", Outcome.PASS),
        ("iso15118-2/contract", "DE8AA0012345671", Outcome.NOTICE),
        ("iso15118-2/contract", "DE-8AA-001234567-0", Outcome.NOTICE),
        ("iso15118-2/contract", "not an EMAID", Outcome.REFUSE),
        ("iso15118-2/oem-provisioning", "WMI12345678901234", Outcome.PASS),
        ("iso15118-20/oem-provisioning", "WMI12345678901234", Outcome.NOTICE),
        ("iso15118-20/oem-provisioning", "WMI123456789012345", Outcome.PASS),
        ("iso15118-2/oem-provisioning", "OEMProvCert", Outcome.REFUSE),
        ("iso15118-20/vehicle", "WMIV1234567890ABCDEX", Outcome.NOTICE),
        ("iso15118-20/vehicle", "WMIV1234567890ABCDE1", Outcome.NOTICE),
        ("iso15118-20/vehicle", "WMIX1234567890ABCDEX", Outcome.REFUSE),
        ("iso15118-2/secc", "DE*ICE*E45B*78C", Outcome.PASS),
        ("iso15118-2/secc", "DE-ICE-S-00003C4D557878675645330967543476-2", Outcome.PASS),
        ("iso15118-2/secc", "station 1", Outcome.NOTICE),
        ("ocpp/csms", "csms.example.org", Outcome.PASS),
        ("ocpp/csms", "localhost", Outcome.NOTICE),
        ("ocpp/csms", "*.example.org", Outcome.REFUSE),
        ("ocpp/csms", "127.0.0.1", Outcome.REFUSE),
        ("ocpp/csms", "a_b.example.org", Outcome.REFUSE),
        ("ocpp/charging-station", "A" * 26, Outcome.NOTICE),
    ],
)
def test_the_common_name_follows_its_grammar(profile: str, cn: str, outcome: Outcome) -> None:
    verdict = judge(profile, f"O=x,CN={cn}")
    outcomes = {rule.outcome for rule in verdict.rules if rule.rule == "subject-CN"} - {Outcome.PASS}
    assert outcomes == (set() if outcome is Outcome.PASS else {outcome})


def test_a_vehicle_has_cn_and_o_and_under_amendment_1_a_domain_component() -> None:
    subject = "CN=WMIV1234567890ABCDEX,O=OEM,C=DE,DC=OEM"
    assert subject_of(judge("iso15118-20/vehicle", subject)) == "O=OEM,CN=WMIV1234567890ABCDEX"
    assert subject_of(judge("iso15118-20-a1/vehicle", subject)) == "DC=EV,O=OEM,CN=WMIV1234567890ABCDEX"


def test_a_contract_of_20_closes_its_subject_after_cn_and_o() -> None:
    subject = "CN=DE8AA0012345670,O=eMSP,C=DE,DC=MO,OU=Sales"
    assert subject_of(judge("iso15118-20/contract", subject)) == "O=eMSP,CN=DE8AA0012345670"


def test_a_country_is_two_letters_in_upper_case() -> None:
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "de"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "x"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "SN-1"),
        ]
    )
    assert subject_of(judge_request(request_for(name), STATION)) == "C=DE,O=x,CN=SN-1"


def test_a_cross_certificate_repeats_the_certified_name_byte_for_byte() -> None:
    name = names.parse_rdns("CN=OEM root,O=OEM,C=DE,DC=OEM,OU=PKI")
    chosen = choose_subject(get_profile("iso15118-20/cross"), request_for(name, key_of(KeyAlgorithm.SECP521R1)))
    assert names.name_der(chosen) == names.name_der(name)


def test_without_a_request_the_record_and_the_profile_make_the_subject() -> None:
    chosen = choose_subject(get_profile("iso15118-2/v2g-root"), None, defaults={"CN": "t-v2g-root", "O": "Example"})
    assert names.text(chosen) == "DC=V2G,O=Example,CN=t-v2g-root"
    with pytest.raises(PolicyRefusal, match="the subject has no O"):
        choose_subject(get_profile("iso15118-2/v2g-root"), None, defaults={"CN": "t-v2g-root"})


def test_a_value_too_long_for_x_520_is_refused() -> None:
    verdict = judge("ocpp/charging-station", "CN=SN-1,O=x", defaults={"OU": "y" * 65})
    assert refused(verdict) == ["subject"]


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
ATTRIBUTES = st.sampled_from(["CN", "O", "OU", "DC", "L", "ST", "serialNumber", "UID", "title"])


@settings(max_examples=examples(150))
@given(st.sampled_from(list_profiles()), st.lists(st.tuples(ATTRIBUTES, VALUES), max_size=6))
def test_every_accepted_subject_holds_only_what_its_profile_knows(
    profile: Profile, pairs: list[tuple[str, str]]
) -> None:
    ascii_only = {"DC", "serialNumber"}
    name = names.build_name([(key, "x" if key in ascii_only else value) for key, value in pairs])
    try:
        chosen = choose_subject(profile, None, override=name)
    except PolicyRefusal:
        return
    known = [rule.attribute for rule in profile.subject.attributes]
    found = [attribute for attribute, _ in names.attributes(chosen)]
    if profile.subject.closed:
        assert found == [attribute for attribute in known if attribute in found]
    for rule in profile.subject.attributes:
        if rule.presence == "required":
            assert rule.attribute in found


# ---------------------------------------------------------------- dNSNames


def test_item_25_a_csms_certificate_has_its_cn_as_dns_name_first() -> None:
    csms = get_profile("ocpp/csms")
    subject = names.parse_rdns("O=x,CN=csms.example.org")
    assert choose_dns_names(csms, subject) == ("csms.example.org",)
    wanted = ["b.example.org", "CSMS.example.org", "b.example.org"]
    assert choose_dns_names(csms, subject, wanted) == ("csms.example.org", "b.example.org")


@pytest.mark.parametrize("name", ["*.example.org", "10.0.0.1", "a b", "", "-a.example", "x" * 254])
def test_a_dns_name_that_stations_would_reject_is_refused(name: str) -> None:
    with pytest.raises(PolicyRefusal):
        choose_dns_names(get_profile("ocpp/csms"), names.parse_rdns("CN=csms.example.org,O=x"), [name])


def test_a_station_has_no_dns_name() -> None:
    subject = names.parse_rdns("O=x,CN=SN-1")
    assert choose_dns_names(STATION, subject) == ()
    with pytest.raises(PolicyRefusal, match="no subjectAltName"):
        choose_dns_names(STATION, subject, ["a.example.org"])


@pytest.mark.parametrize("serial", ["\uff23\uff33-0001", "CS-\u2460", "CS\u2160"])
def test_a_serial_number_that_name_comparison_takes_for_another_is_refused(serial: str) -> None:
    verdict = judge("ocpp/charging-station", f"CN={serial},O=Example CSO")
    assert refused(verdict) == ["subject-CN"]
