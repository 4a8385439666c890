"""Keys, requests and authorities that the benchmarks share; made at run time."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chargepki.pki.authority import Authority, CaOrder
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.audit import AuditKey
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.signer import SoftwareKeyStore

__all__ = ["ACTOR", "make_authority", "make_request", "open_authority"]

ACTOR = Actor("benchmark", ActorKind.SYSTEM, authenticated=False)


def make_request(common_name: str) -> bytes:
    """Return a PEM request for a new P-256 key, as a station makes it."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        ]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def make_authority(folder: Path, url: str | None = None) -> Authority:
    """Return an authority with the CAs ``root`` and ``sub``, over the database *url* or SQLite in *folder*."""
    authority = open_authority(folder, url)
    subject = (("CN", "Benchmark"), ("O", "Example"))
    authority.create_ca(CaOrder("root", "ocpp/cso-root", subject=subject))
    authority.create_ca(CaOrder("sub", "ocpp/cso-sub", issuer="root", subject=subject))
    return authority


def open_authority(folder: Path, url: str | None = None) -> Authority:
    """Return the authority whose keys are in *folder*, over the database *url* or SQLite in *folder*."""
    log_key = AuditKey.load_or_create(folder / "audit.key")
    inventory = Inventory.open(url or f"sqlite:///{folder / 'inventory.db'}", log_key=log_key)
    return Authority(inventory, SoftwareKeyStore(folder / "keys", lambda: b"benchmark"), actor=ACTOR)
