"""Object identifiers as dotted text, each with the document that assigns it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# ---------------------------------------------------------------- attribute types of distinguished names
COMMON_NAME: Final = "2.5.4.3"  # X.520 6.2.2
SURNAME: Final = "2.5.4.4"  # X.520 6.2.3
SERIAL_NUMBER: Final = "2.5.4.5"  # X.520 6.2.9
COUNTRY_NAME: Final = "2.5.4.6"  # X.520 6.3.1
LOCALITY_NAME: Final = "2.5.4.7"  # X.520 6.3.4
STATE_OR_PROVINCE_NAME: Final = "2.5.4.8"  # X.520 6.3.5
STREET_ADDRESS: Final = "2.5.4.9"  # X.520 6.3.6
ORGANIZATION_NAME: Final = "2.5.4.10"  # X.520 6.4.1
ORGANIZATIONAL_UNIT_NAME: Final = "2.5.4.11"  # X.520 6.4.2
TITLE: Final = "2.5.4.12"  # X.520 6.4.3
GIVEN_NAME: Final = "2.5.4.42"  # X.520 6.2.4
DN_QUALIFIER: Final = "2.5.4.46"  # X.520 6.2.8
ORGANIZATION_IDENTIFIER: Final = "2.5.4.97"  # X.520 6.2.16
USER_ID: Final = "0.9.2342.19200300.100.1.1"  # RFC 4519 2.39
DOMAIN_COMPONENT: Final = "0.9.2342.19200300.100.1.25"  # RFC 4519 2.4; ISO 15118-2 Annex F
EMAIL_ADDRESS: Final = "1.2.840.113549.1.9.1"  # RFC 2985 5.2.1

# ---------------------------------------------------------------- certificate extensions
SUBJECT_DIRECTORY_ATTRIBUTES: Final = "2.5.29.9"  # RFC 5280 4.2.1.8
SUBJECT_KEY_IDENTIFIER: Final = "2.5.29.14"  # RFC 5280 4.2.1.2
KEY_USAGE: Final = "2.5.29.15"  # RFC 5280 4.2.1.3
SUBJECT_ALTERNATIVE_NAME: Final = "2.5.29.17"  # RFC 5280 4.2.1.6
ISSUER_ALTERNATIVE_NAME: Final = "2.5.29.18"  # RFC 5280 4.2.1.7
BASIC_CONSTRAINTS: Final = "2.5.29.19"  # RFC 5280 4.2.1.9
NAME_CONSTRAINTS: Final = "2.5.29.30"  # RFC 5280 4.2.1.10
CRL_DISTRIBUTION_POINTS: Final = "2.5.29.31"  # RFC 5280 4.2.1.13
CERTIFICATE_POLICIES: Final = "2.5.29.32"  # RFC 5280 4.2.1.4
ANY_POLICY: Final = "2.5.29.32.0"  # RFC 5280 4.2.1.4
POLICY_MAPPINGS: Final = "2.5.29.33"  # RFC 5280 4.2.1.5
AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"  # RFC 5280 4.2.1.1
POLICY_CONSTRAINTS: Final = "2.5.29.36"  # RFC 5280 4.2.1.11
EXTENDED_KEY_USAGE: Final = "2.5.29.37"  # RFC 5280 4.2.1.12
FRESHEST_CRL: Final = "2.5.29.46"  # RFC 5280 4.2.1.15
INHIBIT_ANY_POLICY: Final = "2.5.29.54"  # RFC 5280 4.2.1.14
SUBJECT_ALT_PUBLIC_KEY_INFO: Final = "2.5.29.72"  # X.509 (2019) 9.8.2; presumed carrier of V2G20-2534's X448 key
AUTHORITY_INFORMATION_ACCESS: Final = "1.3.6.1.5.5.7.1.1"  # RFC 5280 4.2.2.1
SUBJECT_INFORMATION_ACCESS: Final = "1.3.6.1.5.5.7.1.11"  # RFC 5280 4.2.2.2
TLS_FEATURE: Final = "1.3.6.1.5.5.7.1.24"  # RFC 7633 6
OCSP_NO_CHECK: Final = "1.3.6.1.5.5.7.48.1.5"  # RFC 6960 4.2.2.2.1

# ---------------------------------------------------------------- CRL and CRL entry extensions
CRL_NUMBER: Final = "2.5.29.20"  # RFC 5280 5.2.3
REASON_CODE: Final = "2.5.29.21"  # RFC 5280 5.3.1
INVALIDITY_DATE: Final = "2.5.29.24"  # RFC 5280 5.3.2
DELTA_CRL_INDICATOR: Final = "2.5.29.27"  # RFC 5280 5.2.4
ISSUING_DISTRIBUTION_POINT: Final = "2.5.29.28"  # RFC 5280 5.2.5
CERTIFICATE_ISSUER: Final = "2.5.29.29"  # RFC 5280 5.3.3

# ---------------------------------------------------------------- access methods
AD_OCSP: Final = "1.3.6.1.5.5.7.48.1"  # RFC 5280 4.2.2.1
AD_CA_ISSUERS: Final = "1.3.6.1.5.5.7.48.2"  # RFC 5280 4.2.2.1
AD_CA_REPOSITORY: Final = "1.3.6.1.5.5.7.48.5"  # RFC 5280 4.2.2.2
AD_TPM_STORAGE_KEY: Final = "1.0.15118.20.0.4"  # ISO 15118-20 [V2G20-2594]..[V2G20-2596]
AD_TPM_POLICY_DIGEST: Final = "1.0.15118.20.0.5"  # ISO 15118-20 [V2G20-2594]..[V2G20-2596]

# ---------------------------------------------------------------- extended key usages
EKU_ANY: Final = "2.5.29.37.0"  # RFC 5280 4.2.1.12
EKU_SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"  # RFC 5280 4.2.1.12
EKU_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"  # RFC 5280 4.2.1.12
EKU_CODE_SIGNING: Final = "1.3.6.1.5.5.7.3.3"  # RFC 5280 4.2.1.12
EKU_EMAIL_PROTECTION: Final = "1.3.6.1.5.5.7.3.4"  # RFC 5280 4.2.1.12
EKU_TIME_STAMPING: Final = "1.3.6.1.5.5.7.3.8"  # RFC 5280 4.2.1.12
EKU_OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"  # RFC 6960 4.2.2.2

# ---------------------------------------------------------------- public keys and curves
RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"  # RFC 8017 A.1
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"  # RFC 5480 2.1.1
SECP256R1: Final = "1.2.840.10045.3.1.7"  # RFC 5480 2.1.1.1
SECP384R1: Final = "1.3.132.0.34"  # RFC 5480 2.1.1.1
SECP521R1: Final = "1.3.132.0.35"  # RFC 5480 2.1.1.1
X25519: Final = "1.3.101.110"  # RFC 8410 3
X448: Final = "1.3.101.111"  # RFC 8410 3
ED25519: Final = "1.3.101.112"  # RFC 8410 3; key and signature algorithm alike
ML_DSA_44: Final = "2.16.840.1.101.3.4.3.17"  # RFC 9881 2; key and signature algorithm alike
ML_DSA_65: Final = "2.16.840.1.101.3.4.3.18"
ML_DSA_87: Final = "2.16.840.1.101.3.4.3.19"
ED448: Final = "1.3.101.113"  # RFC 8410 3; key and signature algorithm alike

# ---------------------------------------------------------------- signature algorithms
ECDSA_WITH_SHA1: Final = "1.2.840.10045.4.1"  # RFC 3279 2.2.3
ECDSA_WITH_SHA224: Final = "1.2.840.10045.4.3.1"  # RFC 5758 3.2
ECDSA_WITH_SHA256: Final = "1.2.840.10045.4.3.2"  # RFC 5758 3.2
ECDSA_WITH_SHA384: Final = "1.2.840.10045.4.3.3"  # RFC 5758 3.2
ECDSA_WITH_SHA512: Final = "1.2.840.10045.4.3.4"  # RFC 5758 3.2
MD2_WITH_RSA: Final = "1.2.840.113549.1.1.2"  # RFC 3279 2.2.1
MD4_WITH_RSA: Final = "1.2.840.113549.1.1.3"  # RFC 2313
MD5_WITH_RSA: Final = "1.2.840.113549.1.1.4"  # RFC 3279 2.2.1
SHA1_WITH_RSA: Final = "1.2.840.113549.1.1.5"  # RFC 3279 2.2.1
MGF1: Final = "1.2.840.113549.1.1.8"  # RFC 8017 A.2.1
RSASSA_PSS: Final = "1.2.840.113549.1.1.10"  # RFC 4055 3.1
SHA256_WITH_RSA: Final = "1.2.840.113549.1.1.11"  # RFC 4055 5
SHA384_WITH_RSA: Final = "1.2.840.113549.1.1.12"  # RFC 4055 5
SHA512_WITH_RSA: Final = "1.2.840.113549.1.1.13"  # RFC 4055 5

# ---------------------------------------------------------------- hashes
SHA1: Final = "1.3.14.3.2.26"  # RFC 3279 2.2.1
SHA256: Final = "2.16.840.1.101.3.4.2.1"  # RFC 5754 2
SHA384: Final = "2.16.840.1.101.3.4.2.2"  # RFC 5754 2
SHA512: Final = "2.16.840.1.101.3.4.2.3"  # RFC 5754 2

# ---------------------------------------------------------------- encryption of private keys
PBES2: Final = "1.2.840.113549.1.5.13"  # RFC 8018 A.4
PBKDF2: Final = "1.2.840.113549.1.5.12"  # RFC 8018 A.2
SCRYPT: Final = "1.3.6.1.4.1.11591.4.11"  # RFC 7914 7
AES256_CBC: Final = "2.16.840.1.101.3.4.1.42"  # RFC 3565 4.1

# ---------------------------------------------------------------- attributes of certification requests
CHALLENGE_PASSWORD: Final = "1.2.840.113549.1.9.7"  # RFC 2985 5.4.1  # noqa: S105 - an identifier, not a password
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"  # RFC 2985 5.4.2
MICROSOFT_EXTENSION_REQUEST: Final = "1.3.6.1.4.1.311.2.1.14"  # Microsoft [MS-WCCE] 2.2.2.7.7.1

EXTENSIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "basicConstraints": BASIC_CONSTRAINTS,
        "keyUsage": KEY_USAGE,
        "extendedKeyUsage": EXTENDED_KEY_USAGE,
        "subjectKeyIdentifier": SUBJECT_KEY_IDENTIFIER,
        "authorityKeyIdentifier": AUTHORITY_KEY_IDENTIFIER,
        "cRLDistributionPoints": CRL_DISTRIBUTION_POINTS,
        "authorityInfoAccess": AUTHORITY_INFORMATION_ACCESS,
        "subjectInfoAccess": SUBJECT_INFORMATION_ACCESS,
        "subjectAltName": SUBJECT_ALTERNATIVE_NAME,
        "certificatePolicies": CERTIFICATE_POLICIES,
        "ocspNoCheck": OCSP_NO_CHECK,
    }
)
"""Extension name, as the value of `chargepki.pki.profiles.base.Extension` spells it, to its object identifier."""

EXTENDED_KEY_USAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anyExtendedKeyUsage": EKU_ANY,
        "serverAuth": EKU_SERVER_AUTH,
        "clientAuth": EKU_CLIENT_AUTH,
        "codeSigning": EKU_CODE_SIGNING,
        "emailProtection": EKU_EMAIL_PROTECTION,
        "timeStamping": EKU_TIME_STAMPING,
        "OCSPSigning": EKU_OCSP_SIGNING,
    }
)
"""Name of an extended key usage, as RFC 5280 spells it, to its object identifier."""

_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        SUBJECT_DIRECTORY_ATTRIBUTES: "subjectDirectoryAttributes",
        ISSUER_ALTERNATIVE_NAME: "issuerAltName",
        NAME_CONSTRAINTS: "nameConstraints",
        ANY_POLICY: "anyPolicy",
        POLICY_MAPPINGS: "policyMappings",
        POLICY_CONSTRAINTS: "policyConstraints",
        FRESHEST_CRL: "freshestCRL",
        INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
        SUBJECT_ALT_PUBLIC_KEY_INFO: "subjectAltPublicKeyInfo",
        TLS_FEATURE: "tlsFeature",
        CRL_NUMBER: "cRLNumber",
        REASON_CODE: "reasonCode",
        INVALIDITY_DATE: "invalidityDate",
        DELTA_CRL_INDICATOR: "deltaCRLIndicator",
        ISSUING_DISTRIBUTION_POINT: "issuingDistributionPoint",
        CERTIFICATE_ISSUER: "certificateIssuer",
        RSA_ENCRYPTION: "rsaEncryption",
        EC_PUBLIC_KEY: "ecPublicKey",
        SECP256R1: "secp256r1",
        SECP384R1: "secp384r1",
        SECP521R1: "secp521r1",
        X25519: "X25519",
        X448: "X448",
        ED25519: "Ed25519",
        ED448: "Ed448",
        ML_DSA_44: "ML-DSA-44",
        ML_DSA_65: "ML-DSA-65",
        ML_DSA_87: "ML-DSA-87",
        ECDSA_WITH_SHA1: "ecdsa-with-SHA1",
        ECDSA_WITH_SHA224: "ecdsa-with-SHA224",
        ECDSA_WITH_SHA256: "ecdsa-with-SHA256",
        ECDSA_WITH_SHA384: "ecdsa-with-SHA384",
        ECDSA_WITH_SHA512: "ecdsa-with-SHA512",
        MD2_WITH_RSA: "md2WithRSAEncryption",
        MD4_WITH_RSA: "md4WithRSAEncryption",
        MD5_WITH_RSA: "md5WithRSAEncryption",
        SHA1_WITH_RSA: "sha1WithRSAEncryption",
        RSASSA_PSS: "rsassaPss",
        SHA256_WITH_RSA: "sha256WithRSAEncryption",
        SHA384_WITH_RSA: "sha384WithRSAEncryption",
        SHA512_WITH_RSA: "sha512WithRSAEncryption",
    }
)

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{oid: name for name, oid in EXTENSIONS.items()},
        **{oid: name for name, oid in EXTENDED_KEY_USAGES.items()},
        **_OTHER_NAMES,
    }
)


def name_of(dotted: str) -> str:
    """Return the customary name of an identifier, or *dotted* itself when we have none.

    >>> name_of("2.5.29.19"), name_of("1.2.3")
    ('basicConstraints', '1.2.3')
    """
    return _NAMES.get(dotted, dotted)
