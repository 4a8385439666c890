"""Certificates to be spoilt: begin with what our template builds for a profile, change one thing, encode it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Self

from chargepki.pki import der, keys, names, oids
from chargepki.pki.certificate_view import CertificateView, view_tbs
from chargepki.pki.identifiers import Emaid
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pointers import Pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Presence, Profile, Standard, Syntax
from chargepki.pki.profiles.hierarchy import default_issuer
from chargepki.pki.template import IssuerInfo, Window, build_tbs
from testkit.requests import key_of

__all__ = ["START", "Draft", "DraftExtension"]

START = datetime(2026, 1, 1, tzinfo=UTC)
ISSUER_KEY_ID = b"issuer-key-id-20byte"
ISSUER_NAME = names.name_der(names.parse_rdns("CN=Issuing CA,O=Example"))
POINTERS = Pointers(ocsp="http://pki.cso.eu/ocsp", crl="http://pki.cso.eu/ca.crl", ca_issuers=None)
_VALUES = {
    Syntax.SECC_ID: "DE*ABC*E12345",
    Syntax.PCID: "HUBOPENPROVCERT001",
    Syntax.EVCCID: "WMIV1234567890ABCDEX",
    Syntax.STATION_SERIAL: "STATION-0001",
    Syntax.HOSTNAME: "csms.cso.eu",
    Syntax.EMAID: "DE8AAC1A2B3C4D" + Emaid.parse("DE8AAC1A2B3C4D").expected_check_digit(),
}


@dataclass(slots=True)
class DraftExtension:
    """One extension; `critical_der` overrides how the flag is encoded."""

    oid: str
    critical: bool
    value: bytes
    critical_der: bytes | None = None

    def encode(self) -> bytes:
        flag = self.critical_der
        if flag is None:
            flag = der.boolean(True) if self.critical else b""
        return der.sequence(der.oid(self.oid), flag, der.octet_string(self.value))


@dataclass(slots=True)
class Draft:
    """The fields of a to-be-signed certificate, each as DER that a test may replace."""

    key_source: ClassVar[Callable[[KeyAlgorithm, int], keys.PrivateKey]] = staticmethod(key_of)
    """Where `of` and `issuer_of` take their keys from."""

    profile: Profile
    version: bytes
    serial: bytes
    algorithm: bytes
    issuer: bytes
    not_before: bytes
    not_after: bytes
    subject: bytes
    spki: bytes
    unique_ids: bytes = b""
    extensions: list[DraftExtension] = field(default_factory=list)
    outer_algorithm: bytes | None = None

    @classmethod
    def of(cls, profile_id: str, algorithm: KeyAlgorithm | None = None) -> Self:
        """Return the fields of what our template builds for *profile_id*."""
        profile = get_profile(profile_id)
        algorithm = algorithm or profile.keys.default
        spki = keys.spki_der(cls.key_source(algorithm, 0))
        subject = _subject(profile)
        own = IssuerInfo(subject, keys.key_identifier(spki), algorithm)
        hosts = profile.dns_names is not Presence.FORBIDDEN
        tbs = build_tbs(
            profile,
            issuer=own if profile.is_root else IssuerInfo(ISSUER_NAME, ISSUER_KEY_ID, algorithm),
            serial=0x5EED_0000_0000_0000_0001,
            subject_der=subject,
            spki_der=spki,
            window=Window(START, START + profile.validity.default - timedelta(seconds=1)),
            pointers=Pointers(None, None, None) if profile.is_root else POINTERS,
            dns_names=("csms.cso.eu",) if hosts else (),
        )
        return cls.from_view(profile, view_tbs(tbs))

    @classmethod
    def issuer_of(cls, profile_id: str, algorithm: KeyAlgorithm | None = None) -> Self:
        """Return a CA that may have issued what `of` builds for *profile_id*."""
        profile = get_profile(profile_id)
        issuer = default_issuer(profile) or "iso15118-2/cpo-sub2"
        draft = cls.of(issuer if "/" in issuer else f"{profile.standard.value}/{issuer}", algorithm)
        algorithm = algorithm or profile.keys.default
        draft.subject, draft.spki = ISSUER_NAME, keys.spki_der(cls.key_source(algorithm, 1))
        draft.put(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(ISSUER_KEY_ID))
        draft.not_after = der.time(START + profile.validity.default + timedelta(days=1))
        return draft

    @classmethod
    def from_view(cls, profile: Profile, view: CertificateView) -> Self:
        return cls(
            profile=profile,
            version=der.explicit(0, der.integer(2)),
            serial=der.integer(view.serial),
            algorithm=view.signature_algorithm,
            issuer=view.issuer,
            not_before=der.tlv(view.not_before.tag, view.not_before.text),
            not_after=der.tlv(view.not_after.tag, view.not_after.text),
            subject=view.subject,
            spki=view.key.der,
            extensions=[DraftExtension(each.oid, each.critical, each.value) for each in view.extensions],
        )

    def tbs(self) -> bytes:
        """Encode the to-be-signed part."""
        listed = der.sequence(*(extension.encode() for extension in self.extensions))
        return der.sequence(
            self.version,
            self.serial,
            self.algorithm,
            self.issuer,
            der.sequence(self.not_before, self.not_after),
            self.subject,
            self.spki,
            self.unique_ids,
            der.explicit(3, listed) if self.extensions else b"",
        )

    def certificate(self, signer: keys.PrivateKey | None = None) -> bytes:
        """Encode the whole certificate; without *signer* the signature is 72 meaningless octets."""
        tbs = self.tbs()
        signature = bytes(72) if signer is None else keys.sign(signer, tbs)
        return der.sequence(tbs, self.outer_algorithm or self.algorithm, der.bit_string(signature))

    def find(self, oid: str) -> DraftExtension:
        """Return the extension *oid*; a missing one is an error of the test."""
        return next(extension for extension in self.extensions if extension.oid == oid)

    def put(self, oid: str, value: bytes, *, critical: bool = False) -> None:
        """Replace the extension *oid*, or append it."""
        for extension in self.extensions:
            if extension.oid == oid:
                extension.value, extension.critical = value, critical
                return
        self.extensions.append(DraftExtension(oid, critical, value))

    def drop(self, *dropped: str) -> None:
        """Remove extensions."""
        self.extensions = [extension for extension in self.extensions if extension.oid not in dropped]

    def name(self, *pairs: tuple[str, str]) -> None:
        """Replace the subject; short attribute names, usual string types."""
        self.subject = names.name_der(names.build_name(pairs))

    def key_usage(self, bits: Iterable[int], *, critical: bool = True) -> None:
        """Replace the KeyUsage."""
        self.put(oids.KEY_USAGE, der.named_bits(bits), critical=critical)

    def valid_for(self, days: float) -> None:
        """Let it begin at `START` and be valid for *days*, both bounds included."""
        self.not_before = der.time(START)
        self.not_after = der.time(START + timedelta(days=days) - timedelta(seconds=1))


def _subject(profile: Profile) -> bytes:
    pairs = []
    for rule in profile.subject.attributes:
        if rule.attribute == "C" and profile.standard is not Standard.COMMON:
            pairs.append(("C", "DE"))
        elif rule.fixed is not None:
            pairs.append((rule.attribute, rule.fixed))
        elif rule.presence is Presence.REQUIRED:
            pairs.append((rule.attribute, _VALUES.get(rule.syntax, f"Example {profile.role}")))
    return names.name_der(names.build_name(pairs))
