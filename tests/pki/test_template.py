"""What the template builds is what an independent builder builds, fits its size limit, and takes nothing unasked."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names, oids, template
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pointers import NO_POINTERS, Pointers, choose_pointers
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Extension, KeyUsageBit, Presence, Profile, Standard
from chargepki.pki.profiles.common import adapt_to_issuer
from chargepki.pki.profiles.hierarchy import issuer_ids
from chargepki.pki.template import (
    Criticality,
    IssuerInfo,
    assemble_certificate,
    build_tbs,
    fit_pointers,
    largest_certificate,
    tbs_of,
)
from chargepki.pki.validity import Window
from testkit.effort import examples
from testkit.requests import key_of, usage

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOW, NOW + timedelta(days=60) - timedelta(seconds=1))
PUBLIC_URL = "http://pki.example-charging.org:8080"[:35]
POINTERS = Pointers("http://p/ocsp", "http://p/crl/x@1.crl", "http://p/ca/x@1.cer")
ISSUER_NAME = names.build_name([("DC", "V2G"), ("C", "DE"), ("O", "Example"), ("CN", "Example Sub-CA 2")])
SUBJECT = names.build_name([("DC", "CPO"), ("C", "DE"), ("O", "Example"), ("CN", "DE*ICE*E45B*78C")])
USAGE_NAMES = {
    KeyUsageBit.DIGITAL_SIGNATURE: "digital_signature",
    KeyUsageBit.NON_REPUDIATION: "content_commitment",
    KeyUsageBit.KEY_ENCIPHERMENT: "key_encipherment",
    KeyUsageBit.DATA_ENCIPHERMENT: "data_encipherment",
    KeyUsageBit.KEY_AGREEMENT: "key_agreement",
    KeyUsageBit.KEY_CERT_SIGN: "key_cert_sign",
    KeyUsageBit.CRL_SIGN: "crl_sign",
}
PROFILES = list_profiles()


def info_of(algorithm: KeyAlgorithm, name: x509.Name = ISSUER_NAME) -> IssuerInfo:
    spki = keys.spki_der(key_of(algorithm, 1))
    return IssuerInfo(names.name_der(name), keys.key_identifier(spki), algorithm)


def extensions_of(
    profile: Profile,
    algorithm: KeyAlgorithm,
    issuer: IssuerInfo,
    pointers: Pointers,
    dns_names: tuple[str, ...],
    relaxed: bool,
) -> list[tuple[x509.ExtensionType, bool]]:
    """Say in cryptography's terms what *profile* wants, by a second reading of its data."""

    def critical(extension: Extension) -> bool:
        identifying = extension not in (Extension.EXTENDED_KEY_USAGE, Extension.SUBJECT_ALTERNATIVE_NAME)
        rule = profile.extension_rule(extension)
        return rule is not None and rule.critical and not (relaxed and identifying)

    bits = [USAGE_NAMES[bit] for bit in profile.key_usage.emitted_for(algorithm)]
    spki = keys.spki_der(key_of(algorithm))
    identifier = keys.key_identifier(spki, 8 if profile.ski_bytes == 8 else 20)
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(profile.basic_constraints.ca, profile.basic_constraints.path_length), True),
        (usage(*bits), True),
    ]
    if profile.extended_key_usage:
        eku = x509.ExtendedKeyUsage([x509.ObjectIdentifier(dotted) for dotted in profile.extended_key_usage])
        found.append((eku, critical(Extension.EXTENDED_KEY_USAGE)))
    found.append((x509.SubjectKeyIdentifier(identifier), critical(Extension.SUBJECT_KEY_IDENTIFIER)))
    if not profile.is_root:
        aki = x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None)
        found.append((aki, critical(Extension.AUTHORITY_KEY_IDENTIFIER)))
    if pointers.crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(pointers.crl)], None, None, None)
        found.append((x509.CRLDistributionPoints([point]), critical(Extension.CRL_DISTRIBUTION_POINTS)))
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, url in (
            (AuthorityInformationAccessOID.OCSP, pointers.ocsp),
            (AuthorityInformationAccessOID.CA_ISSUERS, pointers.ca_issuers),
        )
        if url
    ]
    if access:
        found.append((x509.AuthorityInformationAccess(access), critical(Extension.AUTHORITY_INFORMATION_ACCESS)))
    if profile.id == "common/ocsp-signer":
        found.append((x509.OCSPNoCheck(), False))
    if dns_names:
        found.append((x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names]), False))
    return found


def built_by_cryptography(
    profile: Profile,
    algorithm: KeyAlgorithm,
    issuer_algorithm: KeyAlgorithm,
    serial: int,
    window: Window,
    pointers: Pointers,
    dns_names: tuple[str, ...] = (),
    *,
    relaxed: bool = False,
) -> bytes:
    issuer = info_of(issuer_algorithm)
    builder = (
        x509.CertificateBuilder()
        .subject_name(SUBJECT)
        .issuer_name(ISSUER_NAME)
        .public_key(key_of(algorithm).public_key())
        .serial_number(serial)
        .not_valid_before(window.not_before)
        .not_valid_after(window.not_after)
    )
    for value, critical in extensions_of(profile, algorithm, issuer, pointers, dns_names, relaxed):
        builder = builder.add_extension(value, critical)
    key = key_of(issuer_algorithm, 1)
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        return builder.sign(key, hashes.SHA256(), rsa_padding=pss).tbs_certificate_bytes
    digest: hashes.HashAlgorithm | None = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.key_size]
    return builder.sign(key, digest).tbs_certificate_bytes  # type: ignore[arg-type]  # a union of hashes to mypy


def built_by_us(
    profile: Profile,
    algorithm: KeyAlgorithm,
    issuer_algorithm: KeyAlgorithm,
    serial: int = 1,
    window: Window = WINDOW,
    pointers: Pointers = NO_POINTERS,
    dns_names: tuple[str, ...] = (),
    *,
    criticality: Criticality = "profile",
) -> bytes:
    return build_tbs(
        profile,
        issuer=info_of(issuer_algorithm),
        serial=serial,
        subject_der=names.name_der(SUBJECT),
        spki_der=keys.spki_der(key_of(algorithm)),
        window=window,
        pointers=pointers,
        dns_names=dns_names,
        criticality=criticality,
    )


def dns_of(profile: Profile) -> tuple[str, ...]:
    return ("csms.example.org", "b.example.org") if profile.dns_names is Presence.REQUIRED else ()


def test_the_name_of_an_issuer_is_copied_octet_for_octet_whatever_string_types_it_has() -> None:
    """A name that is written anew breaks the chain for everybody who compares octets."""
    text = der.sequence(der.oid(oids.COMMON_NAME), der.printable_string("Sub CA"))
    found = der.sequence(der.set_of(text))
    assert names.name_der(names.parse_rdns("CN=Sub CA")) != found  # as we would write it
    issuer = dataclasses.replace(info_of(KeyAlgorithm.SECP256R1), name_der=found)
    tbs = build_tbs(
        get_profile("ocpp/charging-station"),
        issuer=issuer,
        serial=1,
        subject_der=names.name_der(SUBJECT),
        spki_der=keys.spki_der(key_of(KeyAlgorithm.SECP256R1)),
        window=WINDOW,
        pointers=NO_POINTERS,
    )
    assert found in tbs


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_every_profile_with_each_of_its_keys_equals_the_independent_builder(profile: Profile) -> None:
    for algorithm in profile.keys.algorithms:
        issuer_algorithm = profile.keys.default
        arguments = (profile, algorithm, issuer_algorithm, 1 << 158, WINDOW, POINTERS, dns_of(profile))
        assert built_by_us(*arguments) == built_by_cryptography(*arguments)


INSTANTS = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(  # noqa: DTZ001 - hypothesis wants naive bounds
    lambda moment: moment.replace(microsecond=0)
)
URLS = st.none() | st.from_regex(r"http://[a-z]{1,20}\.example/[a-z0-9@.-]{0,90}", fullmatch=True)
QUICK = [algorithm for algorithm in KeyAlgorithm if algorithm not in (KeyAlgorithm.RSA3072, KeyAlgorithm.RSA4096)]


@settings(max_examples=examples(150))
@given(
    profile=st.sampled_from(PROFILES),
    algorithm=st.sampled_from(QUICK),
    issuer_algorithm=st.sampled_from(QUICK),
    serial=st.integers(1, (1 << 159) - 1),
    bounds=st.tuples(INSTANTS, INSTANTS).map(sorted),
    pointers=st.builds(Pointers, URLS, URLS, URLS),
    relaxed=st.booleans(),
)
def test_every_certificate_equals_the_independent_builder(
    profile: Profile,
    algorithm: KeyAlgorithm,
    issuer_algorithm: KeyAlgorithm,
    serial: int,
    bounds: list[datetime],
    pointers: Pointers,
    relaxed: bool,
) -> None:
    arguments = (profile, algorithm, issuer_algorithm, serial, Window(*bounds), pointers, dns_of(profile))
    ours = built_by_us(*arguments, criticality="rfc5280" if relaxed else "profile")
    assert ours == built_by_cryptography(*arguments, relaxed=relaxed)


def test_the_2022_text_marks_identifiers_and_pointers_critical_and_amendment_1_does_not() -> None:
    marked = {}
    for standard in ("iso15118-20", "iso15118-20-a1"):
        profile = get_profile(f"{standard}/contract")
        tbs = built_by_us(profile, KeyAlgorithm.SECP521R1, KeyAlgorithm.SECP521R1, pointers=POINTERS)
        certificate = parsed(tbs, KeyAlgorithm.SECP521R1)
        marked[standard] = {extension.oid.dotted_string for extension in certificate.extensions if extension.critical}
    always = {oids.BASIC_CONSTRAINTS, oids.KEY_USAGE}
    assert marked["iso15118-20-a1"] == always
    assert marked["iso15118-20"] == always | {
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.AUTHORITY_INFORMATION_ACCESS,
    }


def parsed(tbs: bytes, issuer_algorithm: KeyAlgorithm) -> x509.Certificate:
    signature = keys.sign(key_of(issuer_algorithm, 1), tbs)
    algorithm = keys.signature_algorithm(issuer_algorithm).der
    return x509.load_der_x509_certificate(assemble_certificate(tbs, algorithm, signature))


def test_an_assembled_certificate_verifies_and_gives_its_tbs_back() -> None:
    tbs = built_by_us(get_profile("iso15118-2/secc"), KeyAlgorithm.SECP256R1, KeyAlgorithm.SECP256R1)
    signature = keys.sign(key_of(KeyAlgorithm.SECP256R1, 1), tbs)
    whole = assemble_certificate(tbs, keys.signature_algorithm(KeyAlgorithm.SECP256R1).der, signature)
    certificate = x509.load_der_x509_certificate(whole)
    public = key_of(KeyAlgorithm.SECP256R1, 1).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    assert tbs_of(whole) == tbs


@pytest.mark.parametrize("bad", [b"", b"\x30\x00", b"\x30\x03\x02\x01\x01", b"junk"])
def test_bytes_that_are_no_certificate_have_no_tbs(bad: bytes) -> None:
    with pytest.raises(InputError):
        tbs_of(bad)


def test_a_contract_of_20_has_the_short_key_identifier_that_its_delivery_presumes() -> None:
    tbs = built_by_us(get_profile("iso15118-20/contract"), KeyAlgorithm.SECP521R1, KeyAlgorithm.SECP521R1)
    ski = parsed(tbs, KeyAlgorithm.SECP521R1).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert len(ski) == 8
    assert ski[0] >> 4 == 0b0100


@pytest.mark.parametrize("role", ["charging-station", "csms"])
def test_ocpp_leaves_carry_no_extended_key_usage_and_rsa_servers_can_do_tls_rsa(role: str) -> None:
    profile = get_profile(f"ocpp/{role}")
    for algorithm in (KeyAlgorithm.SECP256R1, KeyAlgorithm.RSA2048):
        tbs = built_by_us(profile, algorithm, KeyAlgorithm.SECP256R1, dns_names=dns_of(profile))
        extensions = parsed(tbs, KeyAlgorithm.SECP256R1).extensions
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        bits = extensions.get_extension_for_class(x509.KeyUsage).value
        assert bits.digital_signature
        assert bits.key_encipherment == (role == "csms" and algorithm is KeyAlgorithm.RSA2048)


def test_an_ed448_provisioning_certificate_asserts_no_key_agreement() -> None:
    profile = get_profile("iso15118-20/oem-provisioning")
    for algorithm, agreed in ((KeyAlgorithm.SECP521R1, True), (KeyAlgorithm.ED448, False)):
        certificate = parsed(built_by_us(profile, algorithm, KeyAlgorithm.SECP521R1), KeyAlgorithm.SECP521R1)
        assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_agreement is agreed


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_a_serial_that_rfc_5280_forbids_is_refused(serial: int) -> None:
    with pytest.raises(ValueError, match="159 bits"):
        built_by_us(get_profile("iso15118-2/secc"), KeyAlgorithm.SECP256R1, KeyAlgorithm.SECP256R1, serial)


def test_dns_names_reach_a_csms_certificate_alone() -> None:
    p256 = KeyAlgorithm.SECP256R1
    with pytest.raises(PolicyRefusal, match="no subjectAltName"):
        built_by_us(get_profile("ocpp/charging-station"), p256, p256, dns_names=("a.example",))
    with pytest.raises(PolicyRefusal, match="at least one dNSName"):
        built_by_us(get_profile("ocpp/csms"), p256, p256)
    with pytest.raises(InputError, match="cannot stand in a certificate"):
        built_by_us(get_profile("ocpp/csms"), p256, p256, dns_names=("bücher.example",))


def test_a_changed_profile_never_meets_the_cached_template_of_another() -> None:
    p256 = KeyAlgorithm.SECP256R1
    original = get_profile("iso15118-2/secc")
    before = built_by_us(original, p256, p256)
    for _ in range(700):  # more than the cache holds, each freed at once so that identities are taken over
        changed = dataclasses.replace(original, ski_bytes=8)
        assert built_by_us(changed, p256, p256) != before
    assert built_by_us(original, p256, p256) == before


def test_an_ocsp_signer_takes_algorithm_size_limit_and_criticality_from_its_issuer() -> None:
    signer = get_profile("common/ocsp-signer")
    adapted = adapt_to_issuer(signer, get_profile("iso15118-20/cpo-sub2"), KeyAlgorithm.ED448)
    assert adapted.keys.algorithms == (KeyAlgorithm.ED448,)
    assert adapted.max_der_bytes == 1600
    certificate = parsed(built_by_us(adapted, KeyAlgorithm.ED448, KeyAlgorithm.ED448), KeyAlgorithm.ED448)
    assert certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).critical
    assert not certificate.extensions.get_extension_for_class(x509.OCSPNoCheck).critical
    plain = adapt_to_issuer(signer, get_profile("iso15118-2/cpo-sub2"), KeyAlgorithm.SECP256R1)
    assert plain.max_der_bytes == 800
    rule = plain.extension_rule(Extension.AUTHORITY_KEY_IDENTIFIER)
    assert rule is not None and not rule.critical


# ---------------------------------------------------------------- size


def name_of(profile: Profile, length: int) -> x509.Name:
    values = {"C": "DE", "DC": "x" * min(length, 63)}  # a domain component is one label of DNS
    return names.build_name(
        [
            (rule.attribute, rule.fixed or values.get(rule.attribute) or "x" * length)
            for rule in profile.subject.attributes
        ]
    )


def sized(profile: Profile, length: int, ca_id: str, issuer_algorithm: KeyAlgorithm) -> tuple[Pointers, Pointers, int]:
    """Return the wanted pointers, those that fit, and the size of the largest certificate with the latter."""
    issuer_profile = get_profile(issuer_ids(profile)[0])
    issuer = info_of(issuer_algorithm, name_of(issuer_profile, length))
    subject, spki = names.name_der(name_of(profile, length)), keys.spki_der(key_of(issuer_algorithm))
    wanted = choose_pointers(profile, PUBLIC_URL, ca_id)
    fitting = fit_pointers(profile, wanted, issuer=issuer, subject_der=subject, spki_der=spki)
    far = Window(datetime(2060, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))
    tbs = build_tbs(
        profile, issuer=issuer, serial=(1 << 159) - 1, subject_der=subject, spki_der=spki, window=far, pointers=fitting
    )
    return wanted, fitting, largest_certificate(len(tbs), issuer_algorithm)


V2G = [p for p in PROFILES if p.max_der_bytes]


@pytest.mark.parametrize("profile", V2G, ids=lambda profile: profile.id)
def test_every_v2g_profile_fits_its_limit_with_the_longest_names_and_a_35_character_url(profile: Profile) -> None:
    assert len(PUBLIC_URL) == 35
    assert profile.max_der_bytes is not None
    for algorithm in profile.keys.algorithms:
        _, _, size = sized(profile, 64, "c" * 64 + "@12", algorithm)
        assert size <= profile.max_der_bytes


@pytest.mark.parametrize("profile", V2G, ids=lambda profile: profile.id)
def test_every_v2g_profile_keeps_its_pointers_with_ordinary_names(profile: Profile) -> None:
    wanted, fitting, _ = sized(profile, 32, "prefix-cpo-sub2@1", profile.keys.default)
    assert fitting == wanted


def test_room_is_made_by_dropping_the_issuer_then_the_crl_and_keeping_what_an_ev_asks_for() -> None:
    profile = get_profile("iso15118-2/secc")
    wanted, fitting, _ = sized(profile, 48, "c" * 40 + "@1", KeyAlgorithm.SECP256R1)
    assert wanted.crl is not None
    assert fitting == Pointers(ocsp=wanted.ocsp)


def test_the_last_pointer_stays_where_one_is_demanded() -> None:
    tight = dataclasses.replace(get_profile("iso15118-20/contract"), max_der_bytes=200)
    with pytest.raises(PolicyRefusal, match="allows 200"):
        sized(tight, 10, "c@1", KeyAlgorithm.SECP521R1)


@settings(max_examples=examples(25))
@given(st.sampled_from([a for a in KeyAlgorithm if not a.value.startswith("rsa4")]), st.integers(100, 2000))
def test_no_signature_makes_a_certificate_larger_than_foreseen(algorithm: KeyAlgorithm, length: int) -> None:
    tbs = bytes(length)
    signature = keys.sign(key_of(algorithm, 1), tbs)
    whole = assemble_certificate(tbs, keys.signature_algorithm(algorithm).der, signature)
    assert len(whole) <= largest_certificate(length, algorithm)


def test_the_size_estimate_is_for_its_standard_alone() -> None:
    assert {p.standard for p in PROFILES if p.max_der_bytes == 800} == {Standard.ISO15118_2}
    assert {p.standard for p in PROFILES if p.max_der_bytes == 1600} == {Standard.ISO15118_20, Standard.ISO15118_20_A1}


def test_a_template_that_makes_other_certificates_than_the_library_is_never_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each template is compared with `CertificateBuilder` before its first use."""
    profile = get_profile("ocpp/charging-station")
    arguments = (profile, info_of(KeyAlgorithm.SECP256R1), POINTERS, KeyAlgorithm.SECP256R1, "profile")
    right = template._compile(*arguments)  # type: ignore[arg-type]  # mypy widens the literal
    load = template.load_template.__wrapped__
    assert load(*arguments) == right
    wrongs = (
        right._replace(after_ski=right.after_ski[:-1]),
        right._replace(extensions_open=right.extensions_open.replace(b"\x01\x01\xff", b"\x01\x01\x01", 1)),
        right._replace(ski_bytes=8),
        right._replace(algorithm_and_issuer=right.algorithm_and_issuer[:-1]),
    )
    for wrong in wrongs:
        monkeypatch.setattr(template, "_compile", lambda *_, wrong=wrong: wrong)
        with pytest.raises(RuntimeError, match="other certificates than the library"):
            load(*arguments)
