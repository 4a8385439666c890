"""Prove a template: what it makes is, octet for octet, what `cryptography`'s own builder makes of the same profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID

from chargepki.pki import keys, names
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles.base import Extension, KeyUsageBit, Presence, Profile
from chargepki.pki.validity import Window

if TYPE_CHECKING:
    from chargepki.pki.pointers import Pointers
    from chargepki.pki.template import Criticality, IssuerInfo, Template

__all__ = ["prove"]

_SERIAL: Final = 0x5EED


def prove(
    template: Template,
    profile: Profile,
    issuer: IssuerInfo,
    pointers: Pointers,
    algorithm: KeyAlgorithm,
    criticality: Criticality,
) -> None:
    """Compare *template*, filled with a key and a subject of our own, with the certificate that the library builds.

    The library needs a key to sign, and we have a throw-away one: its algorithm identifier stands where the issuer's
    will, and the name of the issuer, which the library would encode anew, is our own too.

    Raises:
        RuntimeError: they differ, which is a bug of ours: nothing may be signed with this template.
    """
    from chargepki.pki.template import encode_window

    key = ec.generate_private_key(ec.SECP256R1())
    spki = keys.spki_der(key)
    window = _window()
    name = names.build_name([("CN", "proof")])
    name_der = names.name_der(name)
    own = template._replace(algorithm_and_issuer=keys.signature_algorithm(KeyAlgorithm.SECP256R1).der + name_der)
    window_der = encode_window(window.not_before, window.not_after)
    ours = own.fill(_SERIAL, window_der, name_der, spki, keys.public_key_bits(spki))
    builder = x509.CertificateBuilder(name, name, key.public_key(), _SERIAL, window.not_before, window.not_after)
    for extension, critical in _extensions(profile, issuer, pointers, algorithm, criticality, spki):
        builder = builder.add_extension(extension, critical)
    theirs = builder.sign(key, hashes.SHA256()).tbs_certificate_bytes
    head = keys.signature_algorithm(issuer.key_algorithm).der + issuer.name_der
    if ours != theirs or template.algorithm_and_issuer != head:
        raise RuntimeError(f"the template of {profile.id} makes other certificates than the library's builder")


def _window() -> Window:
    from datetime import UTC, datetime

    return Window(datetime(2049, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC))


def _extensions(
    profile: Profile,
    issuer: IssuerInfo,
    pointers: Pointers,
    algorithm: KeyAlgorithm,
    criticality: Criticality,
    spki: bytes,
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of the profile in their order, but subjectAltName, which differs with each certificate."""
    from chargepki.pki.template import is_critical

    def critical(extension: Extension) -> bool:
        return is_critical(profile, extension, criticality)

    constraints = profile.basic_constraints
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(constraints.ca, constraints.path_length), constraints.critical),
        (_key_usage(profile.key_usage.emitted_for(algorithm)), profile.key_usage.critical),
    ]
    if profile.extended_key_usage:
        usages = [x509.ObjectIdentifier(dotted) for dotted in profile.extended_key_usage]
        found.append((x509.ExtendedKeyUsage(usages), critical(Extension.EXTENDED_KEY_USAGE)))
    own = keys.key_identifier(spki, 8 if profile.ski_bytes == 8 else 20)
    found.append((x509.SubjectKeyIdentifier(own), critical(Extension.SUBJECT_KEY_IDENTIFIER)))
    if not profile.is_root:
        theirs = x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None)
        found.append((theirs, critical(Extension.AUTHORITY_KEY_IDENTIFIER)))
    if pointers.crl is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(pointers.crl)], None, None, None)
        found.append((x509.CRLDistributionPoints([point]), critical(Extension.CRL_DISTRIBUTION_POINTS)))
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, url in (
            (AuthorityInformationAccessOID.OCSP, pointers.ocsp),
            (AuthorityInformationAccessOID.CA_ISSUERS, pointers.ca_issuers),
        )
        if url is not None
    ]
    if access:
        found.append((x509.AuthorityInformationAccess(access), critical(Extension.AUTHORITY_INFORMATION_ACCESS)))
    no_check = profile.extension_rule(Extension.OCSP_NO_CHECK)
    if no_check is not None and no_check.presence in (Presence.REQUIRED, Presence.RECOMMENDED):
        found.append((x509.OCSPNoCheck(), no_check.critical))
    return found


def _key_usage(bits: frozenset[KeyUsageBit]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=KeyUsageBit.DIGITAL_SIGNATURE in bits,
        content_commitment=KeyUsageBit.NON_REPUDIATION in bits,
        key_encipherment=KeyUsageBit.KEY_ENCIPHERMENT in bits,
        data_encipherment=KeyUsageBit.DATA_ENCIPHERMENT in bits,
        key_agreement=KeyUsageBit.KEY_AGREEMENT in bits,
        key_cert_sign=KeyUsageBit.KEY_CERT_SIGN in bits,
        crl_sign=KeyUsageBit.CRL_SIGN in bits,
        encipher_only=KeyUsageBit.ENCIPHER_ONLY in bits,
        decipher_only=KeyUsageBit.DECIPHER_ONLY in bits,
    )
