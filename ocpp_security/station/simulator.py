"""A charging station of our own: connects, enrols, renews, and keeps what worked until its successor has worked."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from chargepki.ocpp_security.basic_auth import build_authorization, check_identity
from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.events import MAX_TECH_INFO, SecurityEvent, event_name, is_sent
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
from chargepki.ocpp_security.passwords import password_from_wire
from chargepki.ocpp_security.sign_certificate import InstalledCertificate
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.station.connecting import HANDSHAKE_EVENTS, NoRedirect, RetryPolicy
from chargepki.ocpp_security.station.csr import CsrForgery
from chargepki.ocpp_security.station.device import ATTEMPTS, FIELD_LENGTH, PRIORITY, DeviceModel
from chargepki.ocpp_security.station.ev_contract import EvExchange
from chargepki.ocpp_security.station.firmware import FirmwareFault, FirmwareHooks, StationFirmware
from chargepki.ocpp_security.station.firmware_store import FirmwareStore
from chargepki.ocpp_security.station.network import NetworkFacts, StationNetwork, parse_endpoint
from chargepki.ocpp_security.station.progress import Milestone, Progress
from chargepki.ocpp_security.station.roots import StationRoots
from chargepki.ocpp_security.station.session import StationSession
from chargepki.ocpp_security.station.store import QueuedEvent, StationStore
from chargepki.ocpp_security.tls import TlsIdentity, client_context, peer_chain
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.keys import KeyAlgorithm

__all__ = ["RetryPolicy", "StationSimulator"]

_MODEL, _VENDOR = "Simulator", "chargepki"
_MAX_MESSAGE_BYTES = 262_144
_OPEN_SECONDS = 20
_MAX_DIAGNOSTICS = 1000
_REFUSALS = 3
"""So often in a row a certificate is refused before `enrol_again` takes it for lost: a CSMS may err once."""


@dataclass(frozen=True, slots=True)
class _Credentials:
    profile: int
    password: bytes | None = None
    certificate: InstalledCertificate | None = None


class StationSimulator:
    """One simulated charging station.

    The security profile follows from the URL and from what the store holds: ``ws`` is profile 1; ``wss`` is profile 3
    with a certificate in the store, and profile 2 with a password while there is none. With `enrol` a station without
    a certificate asks for one as soon as it is accepted (A03).

    Example:
        store = StationStore(folder)
        store.set_trust(root_pem)
        store.set_password(b"...")
        simulator = StationSimulator("wss://csms.example:8443", "CS-1", store, OcppVersion.V201, progress=print)
        await simulator.run(until=lambda event: event.milestone is Milestone.CERTIFICATE_PROVEN)
    """

    def __init__(
        self,
        url: str,
        identity: str,
        store: StationStore,
        version: OcppVersion | str,
        *,
        serial_number: str | None = None,
        organization: str | None = None,
        enrol: bool = True,
        enrol_again: bool = False,
        forgery: CsrForgery | None = None,
        vendor: str = _VENDOR,
        model: str = _MODEL,
        firmware_version: str = "1.0.0",
        firmware_faults: frozenset[FirmwareFault] = frozenset(),
        trust_policy: TrustPolicy | None = None,
        ev: EvExchange | None = None,
        secure_url: str | None = None,
        key_algorithm: KeyAlgorithm = KeyAlgorithm.SECP256R1,
        retry: RetryPolicy | None = None,
        progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up the station; nothing is connected yet.

        Args:
            url: ``ws://`` or ``wss://``; without a path ``/ocpp`` is meant. The identity is appended, percent-encoded.
            serial_number: what BootNotification reports and the CN asks for; the identity unless given.
            organization: OrganizationName (1.6: CpoName), the O of its CSR.
            enrol_again: go back to the password when its certificate is refused three times in a row, and ask for a
                new one (if it has no other one that works, and `enrol`). A real station never lowers its
                profile by itself (A00.FR.005); the CSMS lets it in only if its record says profile 2 or lower.
            forgery: make CSRs ask for what an honest station would not (an attack tool, see `CsrForgery`).
            vendor: what BootNotification tells, as for *model*.
            firmware_version: what a new store begins with.
            firmware_faults: what it does wrong in updates.
            trust_policy: how it decides about roots, and what it does wrong with them.
            ev: a vehicle that is plugged in, whose request for its contract is passed on once.
            secure_url: 1.6: where it goes when the CSMS raises its profile to 2 or 3; otherwise to the same host and
                port over TLS. In 2.x the CSMS names the URL.
            progress: called with everything that happens.

        Raises:
            InputError: a bad URL or identity.
            StateError: the store belongs to another station.
        """
        check_identity(identity)
        self.identity, self.version, self.store = identity, OcppVersion(version), store
        parse_endpoint(url, identity)
        self.enrol, self._enrol_again, self.forgery = enrol, enrol_again, forgery
        self.key_algorithm, self.clock = key_algorithm, clock
        self._retry = retry or RetryPolicy()
        self._progress = progress
        self.ev = ev
        state = store.begin(identity, serial_number or identity, _first_variables(identity, organization))
        self._serial_number = state.serial_number
        self.device = DeviceModel(
            state.variables,
            takes_password=self._takes_password,
            takes_order=lambda value: self.network.takes_order(value),
        )
        self.roots = StationRoots(
            store.folder,
            self.version,
            trust_policy or TrustPolicy(),
            own=lambda: self.flow.installed,
            tell=lambda text: self.tell(Milestone.ROOTS, text),
        )
        self.roots_changed()
        self.flow = StationCertificateFlow(
            self.version, self._config(), pending=state.pending, installed=state.installed
        )
        self.network = StationNetwork(store.folder, self.version, url, self._network_facts(), secure_url=secure_url)
        self._network_changed()
        self.device.put(FIELD_LENGTH, str(ev.takes) if ev is not None and ev.takes else "")
        self._diagnostics: deque[tuple[datetime, str]] = deque(maxlen=_MAX_DIAGNOSTICS)
        self._vendor, self._model = vendor, model
        self.firmware = StationFirmware(
            FirmwareStore(store.folder, firmware_version), self._firmware_hooks(), firmware_faults
        )
        self._session: StationSession | None = None
        self._on_fallback = False
        self._profile: int | None = None
        self._reconnect_at_once = self._rebooted = False
        self._password_turn = 0
        self._refusals: tuple[str, int] = ("", 0)
        self._until: Callable[[Progress], bool] | None = None
        self._reached: asyncio.Future[Progress] | None = None

    async def run(self, until: Callable[[Progress], bool] | None = None) -> Progress | None:
        """Connect and stay connected until *until* says yes to something that happened; without it, for ever.

        Returns:
            What *until* said yes to. The connection is closed then. Cancel to stop earlier.
        """
        self._until = until
        self._reached = asyncio.get_running_loop().create_future()
        self.raise_event(SecurityEvent.STARTUP_OF_THE_DEVICE, "simulator started")
        living = asyncio.get_running_loop().create_task(self._live())
        updating = asyncio.get_running_loop().create_task(self.firmware.run())
        try:
            waited: set[asyncio.Future[Any]] = {living, updating, self._reached}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in (living, updating):
                if task.done():
                    task.result()
            return self._reached.result() if self._reached.done() else None
        finally:
            living.cancel()
            updating.cancel()
            await asyncio.gather(living, updating, return_exceptions=True)
            self._until = self._reached = None

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send a message of one's own, as a charge point controller behind the station does; see `RpcLink.call`.

        Raises:
            StateError: the station is not connected.
        """
        if self._session is None:
            raise StateError(f"station {self.identity} is not connected", fix="wait for its milestone booted")
        return await self._session.call(action, payload)

    # For the session

    @property
    def is_secured(self) -> bool:
        """Whether the connection is TLS."""
        return self._profile is not None and self._profile > 1

    @property
    def uses_certificate(self) -> bool:
        """Whether the slot in use opens its connections with a certificate once there is one."""
        profile = self.network.profile
        return profile.url.startswith("wss:") and profile.security_profile != 2

    def tell(
        self, milestone: Milestone, text: str, *, status: int | None = None, certificate: str | None = None
    ) -> None:
        """Report progress, and end `run` if that is what it waits for."""
        event = Progress(milestone, text, self.clock(), self._profile, status, certificate)
        self._diagnostics.append((event.at, f"{wire_time(event.at)} {milestone.value}: {text}"))
        if self._progress is not None:
            self._progress(event)
        if self._reached is not None and not self._reached.done() and self._until is not None and self._until(event):
            self._reached.set_result(event)

    def lost_certificate(self, certificate: InstalledCertificate) -> bool:
        """Say whether the CSMS refuses *certificate* for good and the station goes back to its password."""
        return self._enrol_again and self._refusals[0] == certificate.sha256 and self._refusals[1] >= _REFUSALS

    def reconnect(self, why: str, *, rebooted: bool = False) -> None:
        """Close the connection and come back at once; after a reboot on the first slot of the order."""
        self._reconnect_at_once = True
        self._rebooted = self._rebooted or rebooted
        if self._session is not None:
            self._session.link.close_soon(1000, why)

    def raise_event(self, event: SecurityEvent, tech_info: str) -> None:
        """Report a security event: to the security log always (A04.FR.04), to the queue where it is to be sent."""
        entry = QueuedEvent(event_name(self.version, event), self.clock(), tech_info[:MAX_TECH_INFO])
        self.store.log_event(entry)
        if is_sent(self.version, event):
            self.store.queue_event(entry)
        self.tell(Milestone.SECURITY_EVENT, f"security event {event.value}: {tech_info}")

    def read_log(self, log_type: str, oldest: datetime | None, latest: datetime | None) -> bytes | None:
        """Return a log between two instants, inclusive; ``None`` for one that this station does not keep."""
        if log_type == "SecurityLog":
            lines = self.store.security_log()
        elif log_type == "DiagnosticsLog":
            lines = tuple(self._diagnostics)
        else:
            return None
        kept = [text for at, text in lines if (oldest is None or at >= oldest) and (latest is None or at <= latest)]
        return "".join(f"{text}\n" for text in kept).encode()

    def upload_tls(self) -> ssl.SSLContext:
        """Return the context for uploads: the roots of the CSMS, and our certificate if it asks for one."""
        return self._tls(self.flow.client_certificate(self.clock()))

    def take_variables(self) -> None:
        """Keep changed variables, and let the certificate flow and the network follow them."""
        self.network.set_order(self.device.values()[PRIORITY])
        self.store.set_variables(self.device.values())
        self.flow.config = self._config()

    def roots_changed(self) -> None:
        """Let the variables follow what is installed."""
        policy = self.roots.policy
        self.device.put("AdditionalRootCertificateCheck", str(policy.additional_check).lower())
        self.device.put("CertificateStoreMaxLength", str(policy.max_certificates))
        self.device.put("CertificateEntries", str(len(self.roots.installed())))

    def boot_payload(self) -> dict[str, Any]:
        """Return the BootNotification request."""
        if self.version is OcppVersion.V16:
            return {
                "chargePointModel": self._model,
                "chargePointVendor": self._vendor,
                "chargePointSerialNumber": self._serial_number,
                "firmwareVersion": self.firmware.store.state.version,
            }
        station = {
            "model": self._model,
            "vendorName": self._vendor,
            "serialNumber": self._serial_number,
            "firmwareVersion": self.firmware.store.state.version,
        }
        return {"chargingStation": station, "reason": "PowerUp"}

    def event_payload(self, event: QueuedEvent) -> dict[str, Any]:
        """Return the SecurityEventNotification request for a queued event."""
        return {"type": event.type, "timestamp": wire_time(event.at), "techInfo": event.tech_info}

    def wire_now(self) -> str:
        """Return the present time as OCPP writes it."""
        return wire_time(self.clock())

    # Connections

    async def _live(self) -> None:
        failures = 0
        while True:
            self._reconnect_at_once = False
            if self._rebooted:
                self._rebooted = False
                self.network.restarted()
            credentials = self._choose_credentials()
            self._profile = credentials.profile
            self.tell(Milestone.CONNECTING, f"connecting to {self._endpoint()} (profile {credentials.profile})")
            socket = await self._connect(credentials)
            if socket is None and self._on_fallback:
                # M05.FR.14: the server does not verify under the new root; the old one is there for this.
                socket = await self._connect(credentials, fallback=True)
            if socket is None:
                failures += 1
                self.network.failed()
            else:
                failures = 0
                await self._serve(socket, credentials)
            if not self._reconnect_at_once:
                await asyncio.sleep(self._retry.wait(max(failures, 1)))

    def _endpoint(self) -> str:
        return parse_endpoint(self.network.profile.url, self.identity)

    def _choose_credentials(self) -> _Credentials:
        profile = self.network.profile
        if not profile.url.startswith("wss:"):
            return _Credentials(1, self._password())
        certificate = self.flow.client_certificate(self.clock())
        if profile.security_profile == 3 and not (certificate and self.lost_certificate(certificate)):
            # Without its certificate it fails, as every station of profile 3 does, and goes on to the next slot.
            return _Credentials(3, certificate=certificate)
        if profile.security_profile == 2 or certificate is None or self.lost_certificate(certificate):
            return _Credentials(2, self._password())
        return _Credentials(3, certificate=certificate)

    def _password(self) -> bytes:
        passwords = self.store.passwords()
        if not passwords:
            raise InputError(
                f"station {self.identity} has neither a certificate nor a password", fix="pass --password-file"
            )
        return passwords[self._password_turn % len(passwords)]

    async def _connect(self, credentials: _Credentials, *, fallback: bool = False) -> ClientConnection | None:
        self._on_fallback = False
        headers = {}
        if credentials.password is not None:
            headers["Authorization"] = build_authorization(self.identity, credentials.password)
        try:
            socket = await NoRedirect(
                self._endpoint(),
                subprotocols=[Subprotocol(self.version.value)],
                additional_headers=headers,
                ssl=self._tls(credentials.certificate, fallback=fallback) if credentials.profile > 1 else None,
                compression=None,
                proxy=None,
                open_timeout=_OPEN_SECONDS,
                max_size=_MAX_MESSAGE_BYTES,
                user_agent_header=None,
            )
        except (InvalidHandshake, ssl.SSLError) as exc:
            self._refused(credentials, exc)
            if isinstance(exc, ssl.SSLCertVerificationError) and not fallback:
                # M05.FR.15 and FR.16: on the way to another CSMS the attempts count, and not the old root.
                is_active = self.network.current == self.network.active
                self._on_fallback = is_active and bool(self.roots.csms(fallback=True))
            return None
        except (OSError, TimeoutError) as exc:
            # TLS 1.3: a server that refuses our certificate hangs up after our side thinks the handshake is done.
            if credentials.certificate is not None and isinstance(exc, ConnectionError):
                self.flow.connection_failed(credentials.certificate.sha256, self.clock())
            self.tell(Milestone.UNREACHABLE, f"cannot reach the CSMS: {type(exc).__name__}")
            return None
        if socket.subprotocol != self.version.value:
            await socket.close()
            self.tell(Milestone.REFUSED, f"the CSMS does not speak {self.version.value}", status=101)
            return None
        secured = socket.transport.get_extra_info("ssl_object")
        if secured is not None:
            self.roots.worked(peer_chain(secured), fallback=fallback)
        return socket

    def _tls(self, certificate: InstalledCertificate | None, *, fallback: bool = False) -> ssl.SSLContext:
        identity = None
        if certificate is not None:
            identity = TlsIdentity(certificate.chain_der, self.store.private_key(certificate.spki_sha256))
        return client_context(self.roots.csms(fallback=fallback), identity=identity)

    def _refused(self, credentials: _Credentials, exc: Exception) -> None:
        """Work out what a refusal says about the credentials that were tried."""
        status = exc.response.status_code if isinstance(exc, InvalidStatus) else None
        if isinstance(exc, ssl.SSLCertVerificationError):
            # A00.FR.309, A00.FR.412 and 413: not the credentials' fault.
            self.raise_event(SecurityEvent.INVALID_CSMS_CERTIFICATE, exc.verify_message or "invalid certificate")
            text = f"the CSMS's certificate is not accepted: {exc.verify_message}"
        elif isinstance(exc, ssl.SSLError):
            text = f"the TLS handshake failed: {exc.reason}"
            event = HANDSHAKE_EVENTS.get(exc.reason or "")
            if event is not None:
                self.raise_event(event, text)
        else:
            text = f"the CSMS refused the connection: HTTP {status}" if status else "the CSMS hung up without an answer"
        if not isinstance(exc, ssl.SSLCertVerificationError):
            if credentials.certificate is not None:
                self.flow.connection_failed(credentials.certificate.sha256, self.clock())
                if status == 403 or isinstance(exc, ssl.SSLError):
                    sha256 = credentials.certificate.sha256
                    self._refusals = (sha256, self._refusals[1] + 1 if self._refusals[0] == sha256 else 1)
            elif status == 401:
                self._password_turn += 1
        self.tell(Milestone.REFUSED, text, status=status)

    async def _serve(self, socket: ClientConnection, credentials: _Credentials) -> None:
        certificate = credentials.certificate
        if certificate is not None:
            self._refusals = ("", 0)
        self.store.set_profile(credentials.profile)
        self.device.put("SecurityProfile", str(credentials.profile))
        changed = self.network.connected(credentials.profile)
        self._network_changed()
        if changed is not None:
            self.tell(Milestone.NETWORK, changed)
        self.tell(Milestone.CONNECTED, f"connected on security profile {credentials.profile}")
        if credentials.password is not None:
            self._password_turn = 0
            if self.store.password_worked(credentials.password):
                self.tell(Milestone.PASSWORD_PROVEN, "the new password opened a connection")
        effects = self.flow.connected(certificate.sha256 if certificate is not None else None, self.clock())
        self._session = StationSession(self, socket)
        try:
            await self._session.run(effects)
        finally:
            self._session = None
            await socket.close()
        code = socket.close_code
        self.tell(Milestone.DISCONNECTED, f"disconnected: {code} {socket.close_reason or ''}".rstrip(), status=code)

    # Parts

    def _network_facts(self) -> NetworkFacts:
        return NetworkFacts(
            profile=lambda: self.store.state.security_profile,
            has_root=lambda: bool(self.roots.csms()),
            has_certificate=lambda: self.flow.client_certificate(self.clock()) is not None,
            has_password=lambda: bool(self.store.passwords()),
            attempts=lambda: int(self.device.values()[ATTEMPTS] or "3"),
        )

    def _network_changed(self) -> None:
        self.device.put(PRIORITY, self.network.order_text())
        self.device.put("ActiveNetworkProfile", str(self.network.active))

    def _firmware_hooks(self) -> FirmwareHooks:
        def reported() -> None:
            if self._session is not None:
                self._session.firmware_reported()

        return FirmwareHooks(
            clock=self.clock,
            trust=lambda: FirmwareTrust(self.store.manufacturer_trust()),
            tls=lambda: client_context(self.store.trust()) if self.store.trust() else None,
            raise_event=self.raise_event,
            tell=lambda text: self.tell(Milestone.FIRMWARE, text),
            installed=lambda version: self.tell(Milestone.FIRMWARE_INSTALLED, f"version {version} is installed"),
            reported=reported,
            reboot=lambda: self.reconnect("rebooting into the new firmware", rebooted=True),
        )

    def _config(self) -> StationCertificateConfig:
        values = self.device.values()
        wait, repeat = values.get("CertSigningWaitMinimum", ""), values.get("CertSigningRepeatTimes", "")
        return StationCertificateConfig(
            rules=CertificateRules(
                serial_number=self._serial_number,
                organization=values.get("OrganizationName") or None,
                operator_anchors=(*self.roots.csms(), *self.roots.csms(fallback=True)),
            ),
            wait_minimum=timedelta(seconds=int(wait)) if wait else None,
            repeat_times=int(repeat) if repeat else None,
        )

    def _takes_password(self, value: str) -> bool:
        try:
            password_from_wire(value, self.version)
        except InputError:
            return False
        return True


def _first_variables(identity: str, organization: str | None) -> dict[str, str]:
    return {
        "Identity": identity,
        "OrganizationName": organization or "",
        "SecurityProfile": "0",
        "CertSigningWaitMinimum": "30",
        "CertSigningRepeatTimes": "3",
        "MaxCertificateChainSize": "10000",
        "AdditionalRootCertificateCheck": "false",
        "HeartbeatInterval": "300",
        ATTEMPTS: "3",
    }
