"""A whole CSMS for a test: inventory on disk, the ocpp hierarchy, a server certificate, stations on record."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chargepki.ocpp_security.csms import CsmsConfig, CsmsLimits, CsmsServer
from chargepki.ocpp_security.passwords import hash_password
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.tls import TlsIdentity, server_context
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import aio
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.inventory import AuditKey, Inventory, SealingKey
from chargepki.pki.inventory.records import Actor, ActorKind, StationRecord, StationState
from chargepki.pki.keys import KeyAlgorithm, generate_private_key, spki_der
from chargepki.pki.pem import to_pem
from chargepki.pki.signer import SoftwareKeyStore
from testkit.ocpp_peers import Credential, client_tls

__all__ = ["ACTOR", "PASSWORD", "Rig", "run_on", "wait_for"]

T = TypeVar("T")

ACTOR = Actor("tester", ActorKind.OS_USER, authenticated=False)
PASSWORD = b"correct-horse-16"
ORGANIZATION = "Example CSO"


def run_on(loop: str, work: Coroutine[Any, Any, T]) -> T:
    """Run *work* on ``asyncio`` or ``uvloop``, for at most three minutes."""

    async def limited() -> T:
        return await asyncio.wait_for(work, 180)

    factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(limited())


async def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until *condition* is true; fail after *seconds*."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("waited in vain")
        await asyncio.sleep(0.01)


class Rig:
    """Owns everything below one folder; open it with `with`."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder / 'inventory.db'}"
        self.log_key = AuditKey.load_or_create(folder / "audit.key")
        self.sealing_key = SealingKey.load_or_create(folder / "sealing.key")
        self.inventory = Inventory.open(self.url, log_key=self.log_key)
        self.keystore = SoftwareKeyStore(folder / "keys", lambda: b"test passphrase")
        self.authority = Authority(self.inventory, self.keystore, actor=ACTOR, public_url="http://pki.example")
        subject = (("O", ORGANIZATION), ("C", "DE"))
        self.authority.create_ca(CaOrder("t-cso-root", "ocpp/cso-root", subject=(("CN", "t-cso-root"), *subject)))
        self.authority.create_ca(
            CaOrder("t-cso-sub", "ocpp/cso-sub", issuer="t-cso-root", subject=(("CN", "t-cso-sub"), *subject))
        )
        root, sub = self.inventory.get_ca("t-cso-root"), self.inventory.get_ca("t-cso-sub")
        assert root.certificate_der is not None and sub.certificate_der is not None
        self.root_der, self.sub_der = root.certificate_der, sub.certificate_der
        self.root_pem = to_pem("CERTIFICATE", self.root_der)
        self.makers: list[bytes] = []
        """DER of manufacturer CAs that the handshake trusts as well."""
        self.server_identity = self._server_identity()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.inventory.close()

    def _server_identity(self) -> TlsIdentity:
        key = generate_private_key(KeyAlgorithm.SECP256R1)
        order = IssueOrder(
            ca="t-cso-sub",
            profile="ocpp/csms",
            spki=spki_der(key),
            subject=(("CN", "localhost"), ("O", ORGANIZATION)),
            dns_names=("localhost",),
        )
        return TlsIdentity(self.authority.issue(order).chain, key)

    def tls(self, profiles: frozenset[int]) -> ssl.SSLContext | None:
        """Return the server's context for *profiles*."""
        if profiles <= {0, 1}:
            return None
        chosen = {SecurityProfile(number) for number in profiles}
        trust = (self.root_der, *self.makers) if 3 in profiles else ()
        # As `csms serve` does: the upgrade judges validity, and can name the station.
        return server_context(chosen, [self.server_identity], client_trust=trust, ignore_client_validity=3 in profiles)

    @contextlib.asynccontextmanager
    async def server(
        self,
        *profiles: int,
        issuer: aio.Issuer | None = None,
        inventory: Inventory | None = None,
        limits: CsmsLimits | None = None,
        plans: Mapping[CertificateUse, IssuePlan] | None = None,
        **options: Any,
    ) -> AsyncIterator[CsmsServer]:
        """Run a server for the block; profiles 2 and 3 unless told otherwise."""
        served = frozenset(profiles or (2, 3))
        # Profile 1 is the shortest way to most things; that it changes no certificate without TLS has tests of its own.
        options.setdefault("allow_unsecured", ("*",))
        if plans is None:
            plan = IssuePlan("t-cso-sub", "ocpp/charging-station")
            plans = {CertificateUse.CHARGING_STATION: plan}
        config = CsmsConfig(
            host="127.0.0.1",
            security_profiles=served,
            tls=None if "proxy" in options else self.tls(served),
            plans=plans,
            sealing_key=self.sealing_key,
            limits=limits or CsmsLimits(),
            **options,
        )
        own = issuer or aio.Authority(self.authority)
        server = CsmsServer(config, inventory or self.inventory, own)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
            if issuer is None:
                await own.aclose()

    def url_of(self, server: CsmsServer) -> str:
        """Return the base URL of *server* by the name in its certificate."""
        return f"{'ws' if server.config.tls is None else 'wss'}://localhost:{server.port}"

    def add_station(
        self,
        identity: str,
        *,
        password: bytes | None = PASSWORD,
        profile: int = 2,
        serial_number: str | None = None,
        organization: str | None = ORGANIZATION,
    ) -> StationRecord:
        """Register a station."""
        record = StationRecord(
            id=identity,
            serial_number=serial_number or identity,
            organization=organization,
            security_profile=profile,
            state=StationState.ACTIVE,
            created_at=datetime.now(UTC),
            password_hash=None if password is None else hash_password(password),
        )

        def work(tx: Any) -> None:
            tx.add_station(record)
            tx.audit(ACTOR, "station.add", identity, now=datetime.now(UTC))

        self.inventory.write(work)
        return record

    def credential(
        self, identity: str | None, *, common_name: str | None = None, validity: timedelta | None = None
    ) -> tuple[Credential, str]:
        """Issue a certificate for *identity* (``None``: linked to no station) outside OCPP; return it and its id."""
        credential = Credential()
        spki = credential.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        issued = self.authority.issue(
            IssueOrder(
                ca="t-cso-sub",
                profile="ocpp/charging-station",
                spki=spki,
                subject=(("CN", common_name or identity or "nobody"), ("O", ORGANIZATION)),
                station=identity,
                validity=validity,
            )
        )
        credential.chain_pem = "".join(to_pem("CERTIFICATE", der) for der in issued.chain)
        return credential, issued.record.id

    def client_tls(self, credential: Credential | None = None) -> ssl.SSLContext:
        """Return a foreign client's context."""
        return client_tls(self.root_pem, self.folder, credential)


def subject_of(chain_pem: str) -> str:
    """Return the subject of the leaf of a chain."""
    return x509.load_pem_x509_certificates(chain_pem.encode())[0].subject.rfc4514_string()
