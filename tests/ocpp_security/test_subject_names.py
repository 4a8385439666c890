"""The quick look at a subject: it gives way, or it finds what a full decoder finds."""

from __future__ import annotations

import functools
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.identity import certificate_identity
from chargepki.ocpp_security.subject_names import COMMON_NAME, ORGANIZATION, usual_names
from testkit.flows import NOW, new_key

key = functools.cache(new_key)
OIDS = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.DOMAIN_COMPONENT, NameOID.ORGANIZATIONAL_UNIT_NAME)
Attribute = x509.NameAttribute[str]
TEXTS = {
    _ASN1Type.UTF8String: ("CS-1", "Example Operator", "caf\xe9", "x" * 64, "\U0001f50c"),
    _ASN1Type.PrintableString: ("CS-1", "Example Operator", "a-b"),
    _ASN1Type.IA5String: ("example", "a@b"),
    _ASN1Type.BMPString: ("CS-1", "caf\xe9"),
}


@st.composite
def attributes(draw: st.DrawFn) -> Attribute:
    kind = draw(st.sampled_from(list(TEXTS)))
    return x509.NameAttribute(draw(st.sampled_from(OIDS)), draw(st.sampled_from(TEXTS[kind])), kind, _validate=False)


usual = st.builds(x509.NameAttribute, st.sampled_from(OIDS[:2]), st.sampled_from(("CS-1", "Example Operator")))
several = st.lists(attributes(), min_size=1, max_size=2, unique_by=lambda one: one.oid)
subjects = st.lists(st.one_of(usual.map(lambda one: [one]), several), max_size=4)


def certificate(names: list[list[Attribute]], serial: int) -> bytes:
    subject = x509.Name([x509.RelativeDistinguishedName(each) for each in names])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).serial_number(serial)
    builder = builder.public_key(key().public_key()).not_valid_before(NOW).not_valid_after(NOW)
    return builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.DER)


@settings(max_examples=80, deadline=None)
@given(names=subjects, serial=st.sampled_from([1, 200, 2**159 - 1]))
def test_a_quick_look_gives_way_or_finds_what_is_there(names: list[list[Attribute]], serial: int) -> None:
    der = certificate(names, serial)
    found = usual_names(der)
    if found is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject = x509.load_der_x509_certificate(der).subject
    theirs = [(each.oid, each.value) for each in subject]
    assert len(theirs) == len(found)
    for oid, octets in ((NameOID.COMMON_NAME, COMMON_NAME), (NameOID.ORGANIZATION_NAME, ORGANIZATION)):
        assert dict(theirs).get(oid) == found.get(octets)


def test_the_subjects_of_station_certificates_are_usual_ones() -> None:
    attributes = [(NameOID.COMMON_NAME, "CS-1"), (NameOID.ORGANIZATION_NAME, "Example"), (NameOID.COUNTRY_NAME, "DE")]
    der = certificate([[x509.NameAttribute(*each)] for each in attributes], 2**159 - 1)
    found = usual_names(der)
    assert found is not None and (found[COMMON_NAME], found[ORGANIZATION]) == ("CS-1", "Example")
    identity = certificate_identity(der)
    assert (identity.common_name, identity.organization) == ("CS-1", "Example")
