"""A charging station of our own: connects, enrols, renews, and keeps what worked until its successor has worked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from websockets.asyncio.client import ClientConnection

from chargepki.ocpp_security.basic_auth import check_identity
from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.events import MAX_TECH_INFO, SecurityEvent, event_name, is_sent
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
from chargepki.ocpp_security.link import CallRefused
from chargepki.ocpp_security.passwords import password_from_wire
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.sign_certificate import InstalledCertificate
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.station.connecting import RetryPolicy
from chargepki.ocpp_security.station.csr import CsrForgery
from chargepki.ocpp_security.station.device import (
    ATTEMPTS,
    FIELD_LENGTH,
    IDENTITY,
    MAY_BE_LOWERED,
    PNC,
    PRIORITY,
    DeviceModel,
)
from chargepki.ocpp_security.station.dialling import Credentials, Dialler
from chargepki.ocpp_security.station.driver import Authorizer, Contract, Decision, DriverFacts, Token
from chargepki.ocpp_security.station.ev_contract import EvExchange
from chargepki.ocpp_security.station.facts import StationFacts, first_variables
from chargepki.ocpp_security.station.firmware import FirmwareHooks, StationFirmware
from chargepki.ocpp_security.station.firmware_store import FirmwareStore
from chargepki.ocpp_security.station.misbehaviour import HONEST, Conduct, Misbehaviour
from chargepki.ocpp_security.station.network import NetworkFacts, StationNetwork, parse_endpoint
from chargepki.ocpp_security.station.progress import Milestone, Progress
from chargepki.ocpp_security.station.roots import StationRoots
from chargepki.ocpp_security.station.session import StationSession
from chargepki.ocpp_security.station.slot_variables import SlotVariables
from chargepki.ocpp_security.station.status_asking import Call, Staples, issued_pairs
from chargepki.ocpp_security.station.store import QueuedEvent, StationStore
from chargepki.ocpp_security.station.vehicle_chain import VehicleChain
from chargepki.ocpp_security.tls import client_context
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, RootUse, supports_use
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import ChargePkiError, InputError, StateError
from chargepki.pki.hashdata_defects import write_wrongly
from chargepki.pki.keys import KeyAlgorithm

__all__ = ["RetryPolicy", "StationSimulator"]

_MODEL, _VENDOR = "Simulator", "chargepki"
_MAX_DIAGNOSTICS = 1000
_STORM_SECONDS = 0.02


class StationSimulator:
    """One simulated charging station.

    The security profile follows from the URL and from what the store holds: ``ws`` is profile 1; ``wss`` is profile 3
    with a certificate in the store, and profile 2 with a password while there is none. With `enrol` a station without
    a certificate asks for one as soon as it is accepted (A03).

    Args:
        url: ``ws://`` or ``wss://``; without a path ``/ocpp`` is meant. The identity is appended, percent-encoded.
        serial_number: what BootNotification reports and the CN asks for; the identity unless given.
        organization: OrganizationName (1.6: CpoName), the O of its CSR.
        uses: the certificates it has; it enrols for each of them.
        variables: first values of variables in a new store, ``ISO15118Ctrlr.SeccId`` for one.
        enrol_again: go back to the password when its certificate is refused three times in a row, and ask for a
            new one (if it has no other one that works, and `enrol`). A real station never lowers its
            profile by itself (A00.FR.005); the CSMS lets it in only if its record says profile 2 or lower.
        conduct: what it does wrong.
        forgery: make CSRs ask for what an honest station would not (an attack tool, see `CsrForgery`).
        vendor: what BootNotification tells, as for *model*.
        firmware_version: what a new store begins with.
        trust_policy: how it decides about roots.
        dialect: 1.6: of the DataTransfer that the messages of Plug & Charge travel in.
        ev: a vehicle that is plugged in, whose request for its contract is passed on once.
        driver: who wants to charge, once, after the boot; with `drives_in_offline` before the station connects.
        vehicle_chain: 2.1: the chain of a vehicle (DER, leaf first) whose status is asked for after the boot.
        secure_url: 1.6: where it goes when the CSMS raises its profile to 2 or 3; otherwise to the same host and
            port over TLS. In 2.x the CSMS names the URL.
        gate: entered for each attempt to connect; see `Dialler`.
        progress: called with everything that happens.

    Raises:
        InputError: a bad URL or identity.
        StateError: the store belongs to another station.

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
        uses: frozenset[CertificateUse] = frozenset({CertificateUse.CHARGING_STATION}),
        variables: Mapping[str, str] = MappingProxyType({}),
        enrol: bool = True,
        enrol_again: bool = False,
        conduct: Conduct = HONEST,
        forgery: CsrForgery | None = None,
        vendor: str = _VENDOR,
        model: str = _MODEL,
        firmware_version: str = "1.0.0",
        trust_policy: TrustPolicy | None = None,
        dialect: Dialect = Dialect.OCA,
        ev: EvExchange | None = None,
        driver: Contract | Token | None = None,
        drives_in_offline: bool = False,
        vehicle_chain: Sequence[bytes] = (),
        secure_url: str | None = None,
        key_algorithm: KeyAlgorithm = KeyAlgorithm.SECP256R1,
        retry: RetryPolicy | None = None,
        gate: contextlib.AbstractAsyncContextManager[Any] | None = None,
        progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up the station; nothing is connected yet."""
        check_identity(identity)
        self.identity, self.version, self.store = identity, OcppVersion(version), store
        parse_endpoint(url, identity)
        unknown = sorted(use.value for use in uses if not supports_use(self.version, use))
        if unknown:
            raise InputError(f"{self.version.value} has no {unknown[0]}", fix="choose another version, or other uses")
        self.enrol, self.uses = enrol, uses
        self.forgery = forgery or conduct.forgery
        self.key_algorithm, self.clock = key_algorithm, clock
        self._retry = retry or RetryPolicy()
        self._progress, self.ev, self.dialect = progress, ev, dialect
        state = store.begin(identity, serial_number or identity, first_variables(identity, organization, variables))
        self.about = StationFacts(self.version, state.serial_number, vendor, model)
        self._policy = conduct.policy(trust_policy or TrustPolicy())
        self.conduct = replace(conduct, hash_defects=self._policy.hash_defects)
        self._take_up(url, secure_url)
        self.firmware = StationFirmware(
            FirmwareStore(store.folder, firmware_version), self._firmware_hooks(), conduct.firmware
        )
        self.driver, self._is_offline_driver = driver, drives_in_offline
        self._take_up_vehicles(vehicle_chain)
        self.dialler = Dialler(self, enrol_again=enrol_again, gate=gate)
        self._diagnostics: deque[tuple[datetime, str]] = deque(maxlen=_MAX_DIAGNOSTICS)
        self._session: StationSession | None = None
        self._profile: int | None = None
        self._reconnect_at_once = self._rebooted = False
        self._until: Callable[[Progress], bool] | None = None
        self._reached: asyncio.Future[Progress] | None = None

    def _take_up(self, url: str, secure_url: str | None) -> None:
        """Set up what the store holds: variables, roots, certificates, configuration slots."""
        store, state = self.store, self.store.state
        has_slots = self.version is OcppVersion.V21
        self.device = DeviceModel(
            state.variables,
            takes_password=self._takes_password,
            takes_order=lambda value: self.network.takes_order(value),
            takes_identity=_is_identity if has_slots else None,
        )
        self.network = StationNetwork(
            store.folder, self.version, url, self._network_facts(), identity=self.identity, secure_url=secure_url
        )
        if has_slots:
            self.device.slots = SlotVariables(self.network)
        self.roots = StationRoots(
            store.folder,
            self.version,
            self._policy,
            own=lambda: self.flow.installed,
            tell=lambda text: self.tell(Milestone.ROOTS, text),
            conduct=self.conduct,
        )
        self.roots_changed()
        self.flow = StationCertificateFlow(
            self.version, self._config(), pending=state.pending, installed=state.installed
        )
        self.network_changed()

    def _take_up_vehicles(self, vehicle_chain: Sequence[bytes]) -> None:
        """Set up what decides about drivers, and what is known of certificates."""
        self.device.put(FIELD_LENGTH, str(self.ev.takes) if self.ev is not None and self.ev.takes else "")
        facts = DriverFacts(self.device.is_on, lambda: self.roots.of(RootUse.MO, RootUse.V2G), self.clock)
        self.authorizer = Authorizer(self.store.folder, self.version, self.conduct, facts, self.dialect)
        self.staples = Staples(self.store.folder)
        self.vehicle_chain = tuple(vehicle_chain)
        self.vehicle = VehicleChain(self.vehicle_chain, self.roots.of(RootUse.OEM, RootUse.V2G), self.conduct)

    async def run(self, until: Callable[[Progress], bool] | None = None) -> Progress | None:
        """Connect and stay connected until *until* says yes to something that happened; without it, for ever.

        Returns:
            What *until* said yes to. The connection is closed then. Cancel to stop earlier.
        """
        self._until = until
        self._reached = asyncio.get_running_loop().create_future()
        self.raise_event(SecurityEvent.STARTUP_OF_THE_DEVICE, "simulator started")
        if self._is_offline_driver:
            await self.authorize(None)
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
    def takes_certificates(self) -> bool:
        """Whether it takes certificates over this connection: it has TLS, or the station does without."""
        return self.is_secured or not self._policy.needs_tls

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

    async def authorize(self, call: Call | None) -> None:
        """Decide about the driver who waits, once; *call* is ``None`` while the station is offline."""
        if self.driver is None:
            return
        who, self.driver = self.driver, None
        try:
            decision = await self.authorizer.decide(who, call)
        except (CallRefused, ChargePkiError) as exc:
            decision = Decision(False, f"there is no answer: {exc.what}")
        milestone = Milestone.AUTHORIZED if decision.may_charge else Milestone.NOT_AUTHORIZED
        self.tell(milestone, f"the vehicle may {'' if decision.may_charge else 'not '}charge: {decision.why}")

    def own_pairs(self) -> list[tuple[bytes, bytes]]:
        """Return every certificate of the V2G chains with its issuer (M06.FR.07: leaf and sub-CAs)."""
        roots = self.roots.of(RootUse.V2G)
        chains = [item.chain_der for item in self.flow.installed if item.use is not CertificateUse.CHARGING_STATION]
        return [pair for chain in chains for pair in issued_pairs(chain, roots)]

    def secc_certificate(self, use: CertificateUse = CertificateUse.V2G) -> InstalledCertificate | None:
        """Return what the station shows to vehicles: the newest of the use, none that is not valid now (A02.FR.15)."""
        now = self.clock()
        valid = [item for item in self.flow.installed if item.use is use and item.not_before <= now <= item.not_after]
        return max(valid, key=lambda item: (item.not_before, item.installed_at), default=None)

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
        return self.dialler.tls(self.flow.client_certificate(self.clock()))

    def take_variables(self) -> None:
        """Keep changed variables, and let the certificate flow and the network follow them."""
        self.network.set_order(self.device.values()[PRIORITY])
        if self.device.values()[IDENTITY] != self.network.identity():
            self.network.set_identity(self.device.values()[IDENTITY])
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
        return self.about.boot(self.firmware.store.state.version, self.conduct)

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
                self.device.put(PNC, "true")
                if not self.conduct.does(Misbehaviour.PROFILE_FORGOTTEN):
                    self.network.restarted()
            credentials = self.dialler.choose_credentials()
            self._profile = credentials.profile
            self.tell(
                Milestone.CONNECTING,
                f"connecting to {self.dialler.address(credentials.identity)} (profile {credentials.profile})",
            )
            socket = await self.dialler.connect(credentials)
            if socket is None:
                failures += 1
                self.network.failed()
            else:
                failures = 0
                await self._serve(socket, credentials)
            if not self._reconnect_at_once:
                storms = self.conduct.does(Misbehaviour.RECONNECT_STORM)
                await asyncio.sleep(_STORM_SECONDS if storms else self._retry.wait(max(failures, 1)))

    async def _serve(self, socket: ClientConnection, credentials: Credentials) -> None:
        certificate = credentials.certificate
        self.dialler.opened(credentials)
        # A slot that says so was judged when it was written; the password of one that does not is a way of coming in.
        lowered = self.network.profile.security_profile == credentials.profile and self.device.is_on(MAY_BE_LOWERED)
        self.store.set_profile(credentials.profile, lowered=lowered)
        self.device.put("SecurityProfile", str(credentials.profile))
        changed = self.network.connected(credentials.profile, credentials.identity)
        self.network_changed()
        if changed is not None:
            self.tell(Milestone.NETWORK, changed)
        self.tell(Milestone.CONNECTED, f"connected on security profile {credentials.profile}")
        if credentials.password is not None and self.store.password_worked(credentials.password):
            self.tell(Milestone.PASSWORD_PROVEN, "the new password opened a connection")
        effects = self.flow.connected(certificate.sha256 if certificate is not None else None, self.clock())
        self._session = StationSession(self, socket, credentials)
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
            may_be_lowered=lambda: self.device.is_on(MAY_BE_LOWERED),
        )

    def network_changed(self) -> None:
        """Let the variables follow the slots."""
        self.device.put(PRIORITY, self.network.order_text())
        self.device.put("ActiveNetworkProfile", str(self.network.active))
        self.device.put(IDENTITY, self.network.identity())

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
                serial_number=self.about.serial_number,
                organization=values.get("OrganizationName") or None,
                operator_anchors=(*self.roots.csms(), *self.roots.csms(fallback=True)),
                v2g_anchors=self.roots.of(RootUse.V2G),
                secc_id=values["ISO15118Ctrlr.SeccId"] or None,
                v2g_organization=values["ISO15118Ctrlr.OrganizationName"] or None,
                country=values["ISO15118Ctrlr.CountryName"] or None,
            ),
            uses=self.uses,
            root_hash=self._root_hash,
            wait_minimum=timedelta(seconds=int(wait)) if wait else None,
            repeat_times=int(repeat) if repeat else None,
            dialect=self.dialect,
        )

    def _root_hash(self) -> dict[str, str] | None:
        root = self.roots.v2g_root_to_name()
        return None if root is None else write_wrongly(root, root, frozenset())

    def read_password(self, value: str) -> bytes:
        """Return the octets of a password as the CSMS has sent it.

        Raises:
            InputError: it is none for this version.
        """
        password = password_from_wire(value, self.version)
        is_hex = self.version is OcppVersion.V16 and self.conduct.does(Misbehaviour.PASSWORD_HEX)
        return value.encode() if is_hex else password

    def _takes_password(self, value: str) -> bool:
        try:
            self.read_password(value)
        except InputError:
            return False
        return True


def _is_identity(value: str) -> bool:
    try:
        check_identity(value)
    except InputError:
        return False
    return True
