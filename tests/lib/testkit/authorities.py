"""Authorities over real databases for tests, with keys in memory so that scrypt does not cost 0.1 s per CA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from chargepki.pki import keys
from chargepki.pki.authority import Authority, CaOrder
from chargepki.pki.errors import Conflict, SignerError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.names import build_name
from chargepki.pki.signer import Signer

__all__ = [
    "ACTOR",
    "NOW",
    "PUBLIC_URL",
    "MemoryKeyStore",
    "log_findings",
    "make_authority",
    "make_csr",
    "make_key",
    "ocpp_authority",
    "open_inventory",
]

ACTOR = Actor("alice", ActorKind.OPERATOR, authenticated=True)
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PUBLIC_URL = "http://pki.example.org"


class MemoryKeyStore:
    """A `KeyStore` that lives as long as its object; share one between authorities that stand for one machine."""

    def __init__(self) -> None:
        self.signers: dict[str, Signer] = {}

    def uri(self, label: str) -> str:
        return f"memory:{label}"

    def exists(self, label: str) -> bool:
        return self.uri(label) in self.signers

    def create(self, label: str, algorithm: KeyAlgorithm) -> str:
        uri = self.uri(label)
        if uri in self.signers:
            raise Conflict(f"{uri} exists")
        self.signers[uri] = Signer.of(uri, keys.generate_private_key(algorithm))
        return uri

    def open(self, uri: str) -> Signer:
        if uri not in self.signers:
            raise SignerError(f"no key {uri}")
        return self.signers[uri]


def open_inventory(url: str, folder: Path) -> Inventory:
    """Open the inventory at *url* with the log key of *folder*."""
    return Inventory.open(url, log_key=AuditKey.load_or_create(folder / "audit.key"))


def log_findings(inventory: Inventory, folder: Path) -> list[str]:
    """Return what is wrong with the audit log, believing the log key of *folder*."""
    report = verify_log(inventory, pinned_keys=[AuditKey.load_or_create(folder / "audit.key").public])
    return [f"{finding.code}: {finding.what}" for finding in report.findings]


def make_authority(
    inventory: Inventory,
    *,
    keystore: MemoryKeyStore | None = None,
    clock: Callable[[], datetime] = lambda: NOW,
    public_url: str | None = PUBLIC_URL,
    publish_folder: Path | None = None,
) -> Authority:
    """Return an authority whose clock stands at `NOW` unless told otherwise."""
    return Authority(
        inventory,
        keystore or MemoryKeyStore(),
        actor=ACTOR,
        clock=clock,
        public_url=public_url,
        publish_folder=publish_folder,
    )


def ocpp_authority(
    inventory: Inventory,
    *,
    keystore: MemoryKeyStore | None = None,
    clock: Callable[[], datetime] = lambda: NOW,
    publish_folder: Path | None = None,
) -> Authority:
    """Return an authority with the CAs ``t-root`` and ``t-sub`` for OCPP certificates."""
    authority = make_authority(inventory, keystore=keystore, clock=clock, publish_folder=publish_folder)
    subject = (("CN", "Test Root"), ("O", "Test CSO"), ("C", "DE"))
    authority.create_ca(CaOrder("t-root", "ocpp/cso-root", subject=subject))
    subject = (("CN", "Test Sub"), ("O", "Test CSO"), ("C", "DE"))
    authority.create_ca(CaOrder("t-sub", "ocpp/cso-sub", issuer="t-root", subject=subject))
    return authority


def make_key(algorithm: KeyAlgorithm = KeyAlgorithm.SECP256R1) -> PrivateKey:
    """Return a fresh key."""
    return keys.generate_private_key(algorithm)


_HASHES: Mapping[KeyAlgorithm, hashes.HashAlgorithm | None] = MappingProxyType(
    {
        KeyAlgorithm.SECP384R1: hashes.SHA384(),
        KeyAlgorithm.SECP521R1: hashes.SHA512(),
        KeyAlgorithm.ED25519: None,
        KeyAlgorithm.ED448: None,
        **dict.fromkeys((KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87)),
    }
)


def make_csr(
    common_name: str = "CS-0001",
    *,
    organization: str | None = "Test CSO",
    key: PrivateKey | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    **attributes: str,
) -> bytes:
    """Return a PEM request made by a builder that is not ours."""
    key = key or make_key()
    pairs = [("CN", common_name)]
    if organization is not None:
        pairs.append(("O", organization))
    pairs += list(attributes.items())
    builder = x509.CertificateSigningRequestBuilder().subject_name(build_name(pairs))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = keys.algorithm_of(key.public_key())
    digest = _HASHES[algorithm] if algorithm in _HASHES else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]  # EdDSA: None
