"""One good and one revoked certificate of every profile, issued through the public API, as cases for foreign tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chargepki.pki.authority import Authority, CaOrder, IssueOrder, utc_now
from chargepki.pki.identifiers import Emaid
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.keys import KeyAlgorithm, generate_private_key, spki_der
from chargepki.pki.profiles import list_profiles
from chargepki.pki.profiles.base import Presence, Profile, RoleKind, Syntax
from chargepki.pki.profiles.hierarchy import issuer_ids
from testkit.authorities import make_authority, open_inventory
from testkit.foreign import ChainCase, CrlCase

__all__ = ["EveryProfile", "issue_every_profile"]

SERVER, CLIENT = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
PURPOSES = {"secc": SERVER, "private-secc": SERVER, "csms": SERVER, "charging-station": CLIENT, "vehicle": CLIENT}
VALUES = {
    Syntax.SECC_ID: "DEABCSECC0001",
    Syntax.PCID: "HUBOPENPROVCERT00",
    Syntax.EVCCID: "WMIV1234567890ABCDEX",
    Syntax.STATION_SERIAL: "STATION-0001",
    Syntax.HOSTNAME: "csms.example",
}


@dataclass(slots=True)
class EveryProfile:
    """The questions to the foreign tools; a case id is ``PROFILE|CHECK``."""

    chains: list[ChainCase] = field(default_factory=list)
    crls: list[CrlCase] = field(default_factory=list)


@dataclass(slots=True)
class _Maker:
    authority: Authority
    inventory: Inventory
    cas: dict[str, CaRecord] = field(default_factory=dict)
    """Profile id of a CA -> the CA."""

    def issuer_of(self, profile: Profile) -> CaRecord:
        issuers = issuer_ids(profile)
        return self.cas[issuers[0] if issuers else "iso15118-2/v2g-root"]

    def chain(self, ca: CaRecord) -> tuple[bytes, ...]:
        """Return *ca* and its issuers, root last."""
        assert ca.certificate_der is not None
        above = () if ca.issuer is None else self.chain(self.inventory.get_ca(ca.issuer))
        return (ca.certificate_der, *above)

    def make_ca(self, profile: Profile, suffix: str = "") -> tuple[CaRecord, str]:
        """Create a CA; return it with the id of its certificate."""
        name = profile.id.replace("/", "-") + suffix
        order = CaOrder(
            name=name,
            profile=profile.id,
            issuer=None if profile.is_root else self.issuer_of(profile).id,
            subject=(("CN", name[:60]), ("O", "Example")),
        )
        ca = self.authority.create_ca(order)
        return ca, certificate_id(ca)

    def make_leaf(self, profile: Profile) -> tuple[bytes, str]:
        """Issue a leaf from a request; return its DER and its id."""
        if profile.kind is RoleKind.CROSS:
            return self.make_cross(profile)
        key = ec.generate_private_key(
            {KeyAlgorithm.SECP256R1: ec.SECP256R1(), KeyAlgorithm.SECP521R1: ec.SECP521R1()}[profile.keys.default]
        )
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common_name(profile)),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            ]
        )
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        issued = self.authority.issue(
            IssueOrder(
                ca=self.issuer_of(profile).id,
                profile=profile.id,
                csr=request.public_bytes(Encoding.PEM),
                dns_names=("csms.example",) if profile.dns_names is Presence.REQUIRED else (),
            )
        )
        return issued.certificate_der, issued.record.id

    def make_cross(self, profile: Profile) -> tuple[bytes, str]:
        """Certify the key of another CA, as two roots do for each other."""
        issued = self.authority.issue(
            IssueOrder(
                ca=self.issuer_of(profile).id,
                profile=profile.id,
                spki=spki_der(generate_private_key(profile.keys.default).public_key()),
                subject=(("CN", "Another root"), ("O", "Another example")),
            )
        )
        return issued.certificate_der, issued.record.id


def common_name(profile: Profile) -> str:
    """Return a CN that the profile's grammar accepts."""
    rule = profile.subject.find("CN")
    assert rule is not None
    if rule.syntax is Syntax.EMAID:
        emaid = Emaid.parse("DE8AAC1A2B3C4D")
        return f"DE8AAC1A2B3C4D{emaid.expected_check_digit()}"
    return VALUES.get(rule.syntax, profile.id.replace("/", " "))


def certificate_id(ca: CaRecord) -> str:
    """Return the id under which the inventory holds the certificate of *ca*."""
    assert ca.certificate_der is not None
    serial = x509.load_der_x509_certificate(ca.certificate_der).serial_number
    return f"{ca.issuer or ca.id}:{serial:x}"


def _subjects(maker: _Maker) -> Iterator[tuple[Profile, bytes, str | None, bytes]]:
    """Issue everything; yield (profile, good certificate, id of the revoked twin or None, the twin)."""
    # Issuers come before what they issue in each standard's list; roots first, leaves last.
    for profile in sorted(list_profiles(), key=lambda each: list(RoleKind).index(each.kind)):
        if profile.is_root:
            ca, _ = maker.make_ca(profile)
            assert ca.certificate_der is not None
            maker.cas[profile.id] = ca
            yield profile, ca.certificate_der, None, b""
        elif profile.is_ca and profile.kind is not RoleKind.CROSS:
            ca, _ = maker.make_ca(profile)
            twin, twin_id = maker.make_ca(profile, "-twin")
            assert ca.certificate_der is not None
            assert twin.certificate_der is not None
            maker.cas[profile.id] = ca
            yield profile, ca.certificate_der, twin_id, twin.certificate_der
        else:
            good, _ = maker.make_leaf(profile)
            twin_der, twin_id = maker.make_leaf(profile)
            yield profile, good, twin_id, twin_der


def issue_every_profile(folder: Path) -> EveryProfile:
    """Create every hierarchy, issue every profile twice, revoke the twins, publish every list."""
    inventory = open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder)
    try:
        authority = make_authority(inventory, clock=utc_now)
        maker = _Maker(authority, inventory)
        made = list(_subjects(maker))
        for _, _, twin_id, _ in made:
            if twin_id is not None:
                authority.revoke(twin_id, "keyCompromise")
        lists = {ca.id: authority.publish_crl(ca.id).der for ca in maker.cas.values()}
        return _questions(maker, made, lists)
    finally:
        inventory.close()


def _questions(
    maker: _Maker, made: list[tuple[Profile, bytes, str | None, bytes]], lists: dict[str, bytes]
) -> EveryProfile:
    questions = EveryProfile()
    for profile, good, twin_id, twin in made:
        purpose = PURPOSES.get(profile.role)
        if profile.is_root:
            questions.chains.append(ChainCase(f"{profile.id}|valid", (good,), good))
            continue
        issuer = maker.issuer_of(profile)
        *subs, root = maker.chain(issuer)
        crls = tuple(lists[ca] for ca in _ids_above(maker, issuer))
        assert twin_id is not None
        questions.chains += [
            ChainCase(f"{profile.id}|valid", (good, *subs), root, None, purpose),
            ChainCase(f"{profile.id}|not-revoked", (good, *subs), root, crls, purpose),
            ChainCase(f"{profile.id}|revoked", (twin, *subs), root, crls, purpose),
        ]
    for profile_id, ca in maker.cas.items():
        questions.crls.append(CrlCase(f"{profile_id}|crl", lists[ca.id], maker.chain(ca)))
    return questions


def _ids_above(maker: _Maker, ca: CaRecord) -> Iterator[str]:
    yield ca.id
    if ca.issuer is not None:
        yield from _ids_above(maker, maker.inventory.get_ca(ca.issuer))
