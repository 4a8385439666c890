"""Profile, issuer, subject, key, serial and window in; to-be-signed bytes out: pure, and quick when repeated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from chargepki.pki import der, keys, oids
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pointers import NO_POINTERS, Pointers, choose_pointers
from chargepki.pki.post_quantum import ML_DSA_SIGNATURE_BYTES
from chargepki.pki.profiles.base import Extension, Presence, Profile
from chargepki.pki.validity import Window, choose_window

__all__ = [
    "NO_POINTERS",
    "Criticality",
    "IssuerInfo",
    "Pointers",
    "Template",
    "Window",
    "assemble_certificate",
    "build_tbs",
    "choose_pointers",
    "choose_window",
    "encode_window",
    "fit_pointers",
    "is_critical",
    "largest_certificate",
    "load_template",
    "tbs_of",
]

Criticality: TypeAlias = Literal["profile", "rfc5280"]
"""``rfc5280`` makes non-critical what ISO 15118-20:2022 marks critical against RFC 5280."""

_MAX_SERIAL_BITS: Final = 159
"""20 octets with the sign bit clear (RFC 5280 4.1.2.2)."""
_V3: Final = der.explicit(0, der.integer(2))
_NEVER_CRITICAL_IN_RFC5280: Final = frozenset(
    {
        Extension.SUBJECT_KEY_IDENTIFIER,
        Extension.AUTHORITY_KEY_IDENTIFIER,
        Extension.CRL_DISTRIBUTION_POINTS,
        Extension.AUTHORITY_INFORMATION_ACCESS,
        Extension.SUBJECT_INFORMATION_ACCESS,
    }
)
_MAX_TEMPLATES: Final = 512


@dataclass(frozen=True, slots=True)
class IssuerInfo:
    """What a certificate takes from its issuer; for a self-signed root, its own name and key."""

    name_der: bytes
    """The issuer's subject exactly as its certificate encodes it."""
    key_identifier: bytes
    """Content of the issuer's subjectKeyIdentifier."""
    key_algorithm: KeyAlgorithm


class Template(NamedTuple):
    """The parts of a TBS that do not change while profile, issuer, pointers and kind of subject key stay the same."""

    algorithm_and_issuer: bytes
    extensions_open: bytes
    """[3], SEQUENCE, and the extensions up to the key identifier, for certificates without subjectAltName."""
    before_ski: bytes
    after_ski: bytes
    san_critical: bool
    ski_bytes: int

    def fill(
        self, serial: int, window_der: bytes, subject_der: bytes, spki_der: bytes, bits: bytes, san: bytes = b""
    ) -> bytes:
        """Return the to-be-signed certificate with these variable parts; nothing is checked here.

        Args:
            serial: positive, at most 159 bits.
            window_der: what `encode_window` gives.
            bits: the subject's public key, the value of the BIT STRING in *spki_der*.
            san: the whole extension; only for a profile that has one.
        """
        # An identifier, not a signature: RFC 5280 4.2.1.2 names SHA-1, and nothing rests on collisions being hard.
        digest = hashlib.sha1(bits, usedforsecurity=False).digest()
        ski = digest if self.ski_bytes == 20 else bytes((0x40 | (digest[12] & 0x0F),)) + digest[13:]
        if san:
            extensions = der.explicit(3, der.sequence(self.before_ski, ski, self.after_ski, san))
        else:
            extensions = self.extensions_open + ski + self.after_ski
        return der.sequence(
            _V3, der.integer(serial), self.algorithm_and_issuer, window_der, subject_der, spki_der, extensions
        )


class _KeyForm(NamedTuple):
    """An encoding of SubjectPublicKeyInfo with fixed length: where its BIT STRING's value begins."""

    algorithm: KeyAlgorithm
    prefix: bytes


def build_tbs(
    profile: Profile,
    *,
    issuer: IssuerInfo,
    serial: int,
    subject_der: bytes,
    spki_der: bytes,
    window: Window,
    pointers: Pointers,
    dns_names: tuple[str, ...] = (),
    criticality: Criticality = "profile",
) -> bytes:
    """Return the DER of the to-be-signed certificate that *profile* describes.

    Nothing of a request reaches it but *subject_der* and *spki_der*. A self-signed root carries no
    authorityKeyIdentifier (RFC 5280 4.2.1.1 allows that). Pure: the same arguments give the same bytes.

    Args:
        serial: positive, at most 159 bits.
        subject_der: Name in DER, as `names.name_der` gives it.
        spki_der: SubjectPublicKeyInfo in DER.
        dns_names: dNSName values of subjectAltName, in this order; see `policy.choose_dns_names`.
        criticality: see `Criticality`.

    Raises:
        ValueError: the serial is not positive or too long.
        PolicyRefusal: *dns_names* where the profile has none, or none where it demands them.
        InputError: *spki_der* is no key that we know.
    """
    if serial <= 0 or serial.bit_length() > _MAX_SERIAL_BITS:
        raise ValueError("a serial number is positive and has at most 159 bits")
    algorithm, bits = _key_bits(spki_der)
    template = load_template(profile, issuer, pointers, algorithm, criticality)
    san = b""
    if dns_names or profile.dns_names is not Presence.FORBIDDEN:
        san = _subject_alternative_name(profile, dns_names, critical=template.san_critical)
    window_der = encode_window(window.not_before, window.not_after)
    return template.fill(serial, window_der, subject_der, spki_der, bits, san)


def assemble_certificate(tbs: bytes, signature_algorithm_der: bytes, signature: bytes) -> bytes:
    """Return the certificate of *tbs* and *signature* (DER)."""
    return der.sequence(tbs, signature_algorithm_der, der.bit_string(signature))


def tbs_of(certificate_der: bytes) -> bytes:
    """Return the to-be-signed slice of a certificate, byte for byte.

    Raises:
        InputError: not a certificate.
    """
    parts = der.parse(certificate_der).children(der.SEQUENCE)
    if len(parts) != 3:
        raise der.DerError("not-a-certificate", 0, f"a certificate has 3 parts, this has {len(parts)}")
    return parts[0].expect(der.SEQUENCE, "tbsCertificate").raw


def largest_certificate(tbs_bytes: int, issuer_algorithm: KeyAlgorithm) -> int:
    """Return the most bytes of DER that a certificate with *tbs_bytes* of TBS can have.

    An ECDSA signature is shorter by up to a few bytes, as chance has it, so its longest form counts.
    """
    algorithm = keys.signature_algorithm(issuer_algorithm).der
    return len(der.tlv(0x30, bytes(tbs_bytes) + algorithm + der.bit_string(bytes(_SIGNATURE_BYTES[issuer_algorithm]))))


def fit_pointers(
    profile: Profile,
    pointers: Pointers,
    *,
    issuer: IssuerInfo,
    subject_der: bytes,
    spki_der: bytes,
    dns_names: tuple[str, ...] = (),
) -> Pointers:
    """Return *pointers* without those for which the profile's size limit leaves no room.

    The issuer's certificate goes first, then the CRL, then OCSP, which is what an EV asks for. A required pointer
    stays, and so does the last one where the profile demands at least one. The longest serial and signature are
    assumed.

    Raises:
        PolicyRefusal: too large even so.

    Clause: ISO 15118-2 [V2G2-010] 800 bytes; ISO 15118-20 [V2G20-1234] 1600 bytes.
    """
    if profile.max_der_bytes is None:
        return pointers

    def size(candidate: Pointers) -> int:
        tbs = build_tbs(
            profile,
            issuer=issuer,
            serial=_LONGEST_SERIAL,
            subject_der=subject_der,
            spki_der=spki_der,
            window=_LONGEST_WINDOW,
            pointers=candidate,
            dns_names=dns_names,
        )
        return largest_certificate(len(tbs), issuer.key_algorithm)

    needed = size(pointers)
    while needed > profile.max_der_bytes:
        smaller = _without_one(profile, pointers)
        if smaller is None:
            raise PolicyRefusal(
                f"the certificate would have up to {needed} bytes, {profile.id} allows {profile.max_der_bytes}",
                why="a peer may refuse or cut off a larger one (ISO 15118-2 [V2G2-010], ISO 15118-20 [V2G20-1234])",
                fix="shorten the subject, the name of the issuing CA, or the public URL",
            )
        pointers = smaller
        needed = size(pointers)
    return pointers


# ---------------------------------------------------------------- the changing parts

_LONGEST_SERIAL: Final = (1 << _MAX_SERIAL_BITS) - 1
_LONGEST_WINDOW: Final = Window(datetime(2050, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC))
_SIGNATURE_BYTES: Final = {
    KeyAlgorithm.SECP256R1: 72,
    KeyAlgorithm.SECP384R1: 104,
    KeyAlgorithm.SECP521R1: 139,
    KeyAlgorithm.ED25519: 64,
    KeyAlgorithm.ED448: 114,
    KeyAlgorithm.RSA2048: 256,
    KeyAlgorithm.RSA3072: 384,
    KeyAlgorithm.RSA4096: 512,
    KeyAlgorithm.ML_DSA_44: ML_DSA_SIGNATURE_BYTES[oids.ML_DSA_44],
    KeyAlgorithm.ML_DSA_65: ML_DSA_SIGNATURE_BYTES[oids.ML_DSA_65],
    KeyAlgorithm.ML_DSA_87: ML_DSA_SIGNATURE_BYTES[oids.ML_DSA_87],
}


def _without_one(profile: Profile, pointers: Pointers) -> Pointers | None:
    """Return *pointers* less the one we can best do without, or ``None`` when none may go."""
    rule = profile.pointers
    if pointers.ca_issuers is not None and rule.ca_issuers is not Presence.REQUIRED:
        return replace(pointers, ca_issuers=None)
    revocation_pointers = (pointers.ocsp is not None) + (pointers.crl is not None)
    if revocation_pointers <= (1 if rule.at_least_one else 0):
        return None
    if pointers.crl is not None and rule.crl is not Presence.REQUIRED:
        return replace(pointers, crl=None)
    if pointers.ocsp is not None and rule.ocsp is not Presence.REQUIRED:
        return replace(pointers, ocsp=None)
    return None


@lru_cache(maxsize=256)
def encode_window(not_before: datetime, not_after: datetime) -> bytes:
    """Return Validity in DER (RFC 5280 4.1.2.5)."""
    # Many certificates of one batch share both seconds.
    return der.sequence(der.time(not_before), der.time(not_after))


def _subject_alternative_name(profile: Profile, dns_names: tuple[str, ...], *, critical: bool) -> bytes:
    if profile.dns_names is Presence.FORBIDDEN:
        raise PolicyRefusal(
            f"{profile.id} has no subjectAltName", why=profile.clause, fix="leave --dns out; it is for ocpp/csms"
        )
    if not dns_names:
        if profile.dns_names is Presence.REQUIRED:
            raise PolicyRefusal(
                f"{profile.id} needs at least one dNSName", why=profile.clause, fix="pass the host name of the endpoint"
            )
        return b""
    names = [der.implicit(2, _ascii(name), False) for name in dns_names]
    return _extension(oids.SUBJECT_ALTERNATIVE_NAME, der.sequence(*names), critical=critical)


def _key_forms() -> dict[int, tuple[_KeyForm, ...]]:
    """Return the fixed prefixes of SubjectPublicKeyInfo by total length, so that no parser runs in the hot path."""

    def form(algorithm: KeyAlgorithm, identifier: bytes, bits: int) -> tuple[int, _KeyForm]:
        whole = der.sequence(identifier, der.bit_string(bytes(bits)))
        return len(whole), _KeyForm(algorithm, whole[:-bits])

    def curve(dotted: str) -> bytes:
        return der.sequence(der.oid(oids.EC_PUBLIC_KEY), der.oid(dotted))

    forms = (
        form(KeyAlgorithm.SECP256R1, curve(oids.SECP256R1), 65),
        form(KeyAlgorithm.SECP384R1, curve(oids.SECP384R1), 97),
        form(KeyAlgorithm.SECP521R1, curve(oids.SECP521R1), 133),
        form(KeyAlgorithm.ED25519, der.sequence(der.oid(oids.ED25519)), 32),
        form(KeyAlgorithm.ED448, der.sequence(der.oid(oids.ED448)), 57),
    )
    return {length: tuple(one for size, one in forms if size == length) for length, _ in forms}


_KEY_FORMS: Final = _key_forms()


def _key_bits(spki_der: bytes) -> tuple[KeyAlgorithm, bytes]:
    """Return the algorithm and the key bits of *spki_der*."""
    for form in _KEY_FORMS.get(len(spki_der), ()):
        if spki_der.startswith(form.prefix):
            return form.algorithm, spki_der[len(form.prefix) :]
    return keys.algorithm_of(keys.load_public_key(spki_der)), keys.public_key_bits(spki_der)


# ---------------------------------------------------------------- the fixed parts


@lru_cache(maxsize=_MAX_TEMPLATES)
def load_template(
    profile: Profile, issuer: IssuerInfo, pointers: Pointers, algorithm: KeyAlgorithm, criticality: Criticality
) -> Template:
    """Return the template of the certificates that *profile* describes; the same arguments give the same object.

    Before it is used for the first time it is proven: what it makes is, octet for octet, what the library's own
    builder makes (`template_proof`).

    Args:
        algorithm: of the subject's key, which decides on key usages.
    """
    from chargepki.pki.template_proof import prove

    template = _compile(profile, issuer, pointers, algorithm, criticality)
    prove(template, profile, issuer, pointers, algorithm, criticality)
    return template


def is_critical(profile: Profile, extension: Extension, criticality: Criticality) -> bool:
    """Return whether *extension* is marked critical in a certificate of *profile*."""
    rule = profile.extension_rule(extension)
    if rule is None or (criticality == "rfc5280" and extension in _NEVER_CRITICAL_IN_RFC5280):
        return False
    return rule.critical


def _compile(
    profile: Profile, issuer: IssuerInfo, pointers: Pointers, algorithm: KeyAlgorithm, criticality: Criticality
) -> Template:
    def critical(extension: Extension) -> bool:
        return is_critical(profile, extension, criticality)

    # The key identifier has a fixed length and changes with each key: everything around its octets is fixed.
    ski = _extension(
        oids.SUBJECT_KEY_IDENTIFIER,
        der.octet_string(bytes(profile.ski_bytes)),
        critical=critical(Extension.SUBJECT_KEY_IDENTIFIER),
    )
    before = _constraints_and_usage(profile, algorithm)
    if profile.extended_key_usage:
        usages = der.sequence(*map(der.oid, profile.extended_key_usage))
        before += _extension(oids.EXTENDED_KEY_USAGE, usages, critical=critical(Extension.EXTENDED_KEY_USAGE))
    before += ski[: -profile.ski_bytes]
    after = b""
    if not profile.is_root:
        identifier = der.sequence(der.implicit(0, issuer.key_identifier, False))
        after += _extension(
            oids.AUTHORITY_KEY_IDENTIFIER, identifier, critical=critical(Extension.AUTHORITY_KEY_IDENTIFIER)
        )
    if pointers.crl is not None:
        after += _extension(
            oids.CRL_DISTRIBUTION_POINTS,
            der.sequence(der.sequence(der.explicit(0, der.explicit(0, _uri(pointers.crl))))),
            critical=critical(Extension.CRL_DISTRIBUTION_POINTS),
        )
    access = [
        der.sequence(der.oid(method), _uri(url))
        for method, url in ((oids.AD_OCSP, pointers.ocsp), (oids.AD_CA_ISSUERS, pointers.ca_issuers))
        if url is not None
    ]
    if access:
        after += _extension(
            oids.AUTHORITY_INFORMATION_ACCESS,
            der.sequence(*access),
            critical=critical(Extension.AUTHORITY_INFORMATION_ACCESS),
        )
    no_check = profile.extension_rule(Extension.OCSP_NO_CHECK)
    if no_check is not None and no_check.presence in (Presence.REQUIRED, Presence.RECOMMENDED):
        after += _extension(oids.OCSP_NO_CHECK, der.null(), critical=no_check.critical)
    whole = der.explicit(3, der.sequence(before, bytes(profile.ski_bytes), after))
    return Template(
        algorithm_and_issuer=keys.signature_algorithm(issuer.key_algorithm).der + issuer.name_der,
        extensions_open=whole[: len(whole) - len(after) - profile.ski_bytes],
        before_ski=before,
        after_ski=after,
        san_critical=critical(Extension.SUBJECT_ALTERNATIVE_NAME),
        ski_bytes=profile.ski_bytes,
    )


def _constraints_and_usage(profile: Profile, algorithm: KeyAlgorithm) -> bytes:
    constraints = profile.basic_constraints
    # cA FALSE is the default and so left out (X.690 11.5).
    content = der.boolean(True) if constraints.ca else b""
    if constraints.path_length is not None:
        content += der.integer(constraints.path_length)
    usage = der.named_bits(bit.bit for bit in profile.key_usage.emitted_for(algorithm))
    return _extension(oids.BASIC_CONSTRAINTS, der.sequence(content), critical=constraints.critical) + _extension(
        oids.KEY_USAGE, usage, critical=profile.key_usage.critical
    )


def _uri(url: str) -> bytes:
    """Return *url* as GeneralName uniformResourceIdentifier."""
    return der.implicit(6, _ascii(url), False)


def _ascii(text: str) -> bytes:
    if not text or not text.isascii():
        raise InputError(
            f"{text!r} cannot stand in a certificate", why="IA5String", fix="use ASCII, punycode for hosts"
        )
    return text.encode("ascii")


def _extension(dotted: str, value: bytes, *, critical: bool) -> bytes:
    return der.sequence(der.oid(dotted), der.boolean(True) if critical else b"", der.octet_string(value))
