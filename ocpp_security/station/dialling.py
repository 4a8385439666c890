"""Open the simulated station's connection: with which credentials, and what a refusal says about them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from chargepki.ocpp_security.basic_auth import build_authorization
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.sign_certificate import InstalledCertificate
from chargepki.ocpp_security.station.connecting import HANDSHAKE_EVENTS, NoRedirect
from chargepki.ocpp_security.station.misbehaviour import Misbehaviour
from chargepki.ocpp_security.station.network import parse_endpoint
from chargepki.ocpp_security.station.progress import Milestone
from chargepki.ocpp_security.tls import TlsIdentity, client_context, peer_chain
from chargepki.pki.errors import InputError

if TYPE_CHECKING:
    from chargepki.ocpp_security.station.simulator import StationSimulator

__all__ = ["Credentials", "Dialler"]

_T = TypeVar("_T")
_MAX_MESSAGE_BYTES = 262_144
_OPEN_SECONDS = 20
_PING_SECONDS = 60
_REFUSALS = 3
"""So often in a row a certificate is refused before `enrol_again` takes it for lost: a CSMS may err once."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one attempt to connect is made with."""

    profile: int
    identity: str
    password: bytes | None = field(default=None, repr=False)
    certificate: InstalledCertificate | None = None


class Dialler:
    """Connects for one station, and remembers what was refused.

    Args:
        gate: entered for each attempt: bounds how many stations of a fleet connect at once.
    """

    def __init__(
        self,
        station: StationSimulator,
        *,
        enrol_again: bool,
        gate: contextlib.AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        self._station, self._enrol_again = station, enrol_again
        self._gate = gate or contextlib.nullcontext()
        self._on_fallback = False
        self._turn = 0
        """Which of several identities and passwords is tried: the next one, each time that they are refused."""
        self._refusals: tuple[str, int] = ("", 0)

    def lost_certificate(self, certificate: InstalledCertificate) -> bool:
        """Say whether the CSMS refuses *certificate* for good and the station goes back to its password."""
        return self._enrol_again and self._refusals[0] == certificate.sha256 and self._refusals[1] >= _REFUSALS

    def address(self, identity: str) -> str:
        """Return where the next attempt goes to."""
        return parse_endpoint(self._station.network.profile.url, identity)

    def choose_credentials(self) -> Credentials:
        """Return what the next attempt is made with.

        Raises:
            InputError: the station has none that the slot could be used with.
        """
        station = self._station
        profile = station.network.profile
        if not profile.url.startswith("wss:"):
            return self._by_password(1)
        certificate = station.flow.client_certificate(station.clock())
        if profile.security_profile == 3 and not (certificate and self.lost_certificate(certificate)):
            # Without its certificate it fails, as every station of profile 3 does, and goes on to the next slot.
            return Credentials(3, self._chosen(self._identities()), certificate=certificate)
        if profile.security_profile == 2 or certificate is None or self.lost_certificate(certificate):
            return self._by_password(2)
        return Credentials(3, self._chosen(self._identities()), certificate=certificate)

    async def connect(self, credentials: Credentials) -> ClientConnection | None:
        """Connect, with the fallback root too where there is one; ``None`` when it failed, which has been told."""
        async with self._gate:
            socket = await self._try(credentials, fallback=False)
            if socket is None and self._on_fallback:
                # M05.FR.14: the server does not verify under the new root; the old one is there for this.
                socket = await self._try(credentials, fallback=True)
        return socket

    def opened(self, credentials: Credentials) -> None:
        """Take the report that these credentials work."""
        if credentials.certificate is not None:
            self._refusals = ("", 0)
        self._turn = 0

    def tls(self, certificate: InstalledCertificate | None, *, fallback: bool = False) -> ssl.SSLContext:
        """Return the context for a connection with *certificate*, or without one."""
        station, identity = self._station, None
        if certificate is not None:
            identity = TlsIdentity(certificate.chain_der, station.store.private_key(certificate.spki_sha256))
        return client_context(station.roots.csms(fallback=fallback), identity=identity)

    async def open(self, credentials: Credentials, *, fallback: bool = False) -> ClientConnection:
        """Open a WebSocket; raises what `websockets` and `ssl` raise."""
        station, headers = self._station, {}
        if credentials.password is not None:
            headers["Authorization"] = build_authorization(credentials.identity, credentials.password)
        return await NoRedirect(
            self.address(credentials.identity),
            subprotocols=[Subprotocol(station.version.value)],
            additional_headers=headers,
            ssl=self.tls(credentials.certificate, fallback=fallback) if credentials.profile > 1 else None,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_SECONDS,
            ping_interval=_PING_SECONDS,
            ping_timeout=_PING_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
            user_agent_header=None,
        )

    # Parts

    def _identities(self) -> Sequence[str]:
        """Return the identities to try: that of the slot, or those of SecurityCtrlr (B09.FR.16, FR.18)."""
        network = self._station.network
        return (network.profile.identity,) if network.profile.identity is not None else network.identities

    def _chosen(self, among: Sequence[_T]) -> _T:
        return among[self._turn % len(among)]

    def _by_password(self, profile: int) -> Credentials:
        identity, password = self._chosen([(name, word) for name in self._identities() for word in self._passwords()])
        return Credentials(profile, identity, password)

    def _passwords(self) -> Sequence[bytes]:
        own = self._station.network.profile.password
        if own is not None and not self._station.conduct.does(Misbehaviour.SLOT_PASSWORD_IGNORED):
            return (own.encode(),)
        passwords = self._station.store.passwords()
        if not passwords:
            raise InputError(
                f"station {self._station.identity} has neither a certificate nor a password", fix="pass --password-file"
            )
        if self._station.conduct.does(Misbehaviour.PASSWORD_FORGOTTEN):
            return passwords[-1:]
        return passwords

    async def _try(self, credentials: Credentials, *, fallback: bool) -> ClientConnection | None:
        station = self._station
        self._on_fallback = False
        try:
            socket = await self.open(credentials, fallback=fallback)
        except (InvalidHandshake, ssl.SSLError) as exc:
            self._refused(credentials, exc)
            if isinstance(exc, ssl.SSLCertVerificationError) and not fallback:
                # M05.FR.15 and FR.16: on the way to another CSMS the attempts count, and not the old root.
                is_active = station.network.current == station.network.active
                self._on_fallback = is_active and bool(station.roots.csms(fallback=True))
            return None
        except (OSError, TimeoutError) as exc:
            # TLS 1.3: a server that refuses our certificate hangs up after our side thinks the handshake is done.
            if credentials.certificate is not None and isinstance(exc, ConnectionError):
                station.flow.connection_failed(credentials.certificate.sha256, station.clock())
            station.tell(Milestone.UNREACHABLE, f"cannot reach the CSMS: {type(exc).__name__}")
            return None
        if socket.subprotocol != station.version.value:
            await socket.close()
            station.tell(Milestone.REFUSED, f"the CSMS does not speak {station.version.value}", status=101)
            return None
        secured = socket.transport.get_extra_info("ssl_object")
        if secured is not None:
            station.roots.worked(peer_chain(secured), fallback=fallback)
        return socket

    def _refused(self, credentials: Credentials, exc: Exception) -> None:
        """Work out what a refusal says about the credentials that were tried."""
        station = self._station
        status = exc.response.status_code if isinstance(exc, InvalidStatus) else None
        if isinstance(exc, ssl.SSLCertVerificationError):
            # A00.FR.309, A00.FR.412 and 413: not the credentials' fault.
            station.raise_event(SecurityEvent.INVALID_CSMS_CERTIFICATE, exc.verify_message or "invalid certificate")
            text = f"the CSMS's certificate is not accepted: {exc.verify_message}"
        elif isinstance(exc, ssl.SSLError):
            text = f"the TLS handshake failed: {exc.reason}"
            event = HANDSHAKE_EVENTS.get(exc.reason or "")
            if event is not None:
                station.raise_event(event, text)
        else:
            text = f"the CSMS refused the connection: HTTP {status}" if status else "the CSMS hung up without an answer"
        if credentials.certificate is not None and not isinstance(exc, ssl.SSLCertVerificationError):
            station.flow.connection_failed(credentials.certificate.sha256, station.clock())
            if status == 403 or isinstance(exc, ssl.SSLError):
                sha256 = credentials.certificate.sha256
                self._refusals = (sha256, self._refusals[1] + 1 if self._refusals[0] == sha256 else 1)
        if status == 401 or (status == 403 and len(self._identities()) > 1):
            self._turn += 1
        station.tell(Milestone.REFUSED, text, status=status)
