"""Object identifiers: well-formed, unique, and complete for the extensions that profiles speak of."""

from __future__ import annotations

from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from chargepki.pki import der, oids
from chargepki.pki.profiles.base import Extension

CONSTANTS = {name: value for name, value in vars(oids).items() if name.isupper() and isinstance(value, str)}


def test_every_identifier_survives_encoding() -> None:
    assert len(CONSTANTS) > 60
    for name, dotted in CONSTANTS.items():
        assert der.parse(der.oid(dotted)).as_oid() == dotted, name


def test_no_identifier_has_two_names() -> None:
    assert len(set(CONSTANTS.values())) == len(CONSTANTS)


def test_every_extension_of_the_profiles_has_an_identifier() -> None:
    assert set(oids.EXTENSIONS) == {extension.value for extension in Extension}


def test_identifiers_agree_with_an_independent_library() -> None:
    pairs = {
        oids.BASIC_CONSTRAINTS: ExtensionOID.BASIC_CONSTRAINTS,
        oids.KEY_USAGE: ExtensionOID.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE: ExtensionOID.EXTENDED_KEY_USAGE,
        oids.SUBJECT_KEY_IDENTIFIER: ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER: ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        oids.CRL_DISTRIBUTION_POINTS: ExtensionOID.CRL_DISTRIBUTION_POINTS,
        oids.AUTHORITY_INFORMATION_ACCESS: ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        oids.SUBJECT_INFORMATION_ACCESS: ExtensionOID.SUBJECT_INFORMATION_ACCESS,
        oids.SUBJECT_ALTERNATIVE_NAME: ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        oids.CERTIFICATE_POLICIES: ExtensionOID.CERTIFICATE_POLICIES,
        oids.OCSP_NO_CHECK: ExtensionOID.OCSP_NO_CHECK,
        oids.ISSUING_DISTRIBUTION_POINT: ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        oids.CRL_NUMBER: ExtensionOID.CRL_NUMBER,
        oids.EKU_OCSP_SIGNING: ExtendedKeyUsageOID.OCSP_SIGNING,
        oids.ECDSA_WITH_SHA512: SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        oids.RSASSA_PSS: SignatureAlgorithmOID.RSASSA_PSS,
        oids.ED448: SignatureAlgorithmOID.ED448,
    }
    for ours, theirs in pairs.items():
        assert ours == theirs.dotted_string


def test_an_unknown_identifier_is_its_own_name() -> None:
    assert oids.name_of("1.2.3.4") == "1.2.3.4"
    assert oids.name_of(oids.ED448) == "Ed448"
