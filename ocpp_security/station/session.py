"""One connection of the simulated station: boots, answers the CSMS, renews its certificate, sends its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidHandshake

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, build_status
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, RpcLink
from chargepki.ocpp_security.rpc import ProtocolViolation, RpcSession
from chargepki.ocpp_security.sign_certificate import (
    CertificateProven,
    DiscardCertificate,
    DropRequests,
    InstallCertificate,
    MakeKey,
    RaiseEvent,
    Reconnect,
    SendRequest,
    StationEffect,
    StoreRequest,
)
from chargepki.ocpp_security.station.answering import StationAnswers
from chargepki.ocpp_security.station.csr import forge_csr
from chargepki.ocpp_security.station.device import PNC
from chargepki.ocpp_security.station.dialling import Credentials
from chargepki.ocpp_security.station.ev_contract import ask_for_contracts
from chargepki.ocpp_security.station.facts import event_payload
from chargepki.ocpp_security.station.misbehaviour import Misbehaviour
from chargepki.ocpp_security.station.progress import Milestone
from chargepki.ocpp_security.station.status_asking import Pair, StatusOutcome, question, send_to_csms
from chargepki.ocpp_security.versions import OcppVersion, Role
from chargepki.ocpp_security.wire import CertificateUse, WireCall, unwrap_answer
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key

if TYPE_CHECKING:
    from chargepki.ocpp_security.station.simulator import StationSimulator

__all__ = ["StationSession"]

_log = logging.getLogger("chargepki.station")
_CALL_TIMEOUT = timedelta(seconds=30)
_TICK_SECONDS: Final = 5.0
"""How often expiry is looked at; resends have their own time."""
_LEAST_TICK_SECONDS: Final = 0.05
_STAPLE_SECONDS: Final = 60.0
"""How often it is looked whether an answer has ended; a new certificate is asked about at once."""
_STORM_SECONDS: Final = 0.25
_RETRY_BOOT_SECONDS = 10.0


class StationSession:
    """Lives as long as its connection; what must survive it is in the simulator and its store."""

    def __init__(self, simulator: StationSimulator, socket: ClientConnection, credentials: Credentials) -> None:
        self.station, self._credentials = simulator, credentials
        self._booted = asyncio.Event()
        self.is_rejected = False
        """Whether the CSMS rejected the last BootNotification: until the next one both ends keep quiet (B03)."""
        self._firmware_news = asyncio.Event()
        self._sending_events = asyncio.Lock()
        self._changed = asyncio.Event()
        self._certificates_changed = asyncio.Event()
        self._new_keys: dict[CertificateUse, PrivateKey] = {}
        # Hash data that are written wrongly may break the schema as well; a station that errs so sends them anyway.
        session = RpcSession(simulator.version, role=Role.STATION, unchecked=simulator.conduct.unchecked)
        self._answers = StationAnswers(self)
        self.link = RpcLink(
            socket,
            session,
            on_call=self._answers.answer,
            on_violation=self._on_violation,
            clock=simulator.clock,
            log=_log,
            name=simulator.identity,
        )

    async def run(self, effects: Sequence[StationEffect]) -> None:
        """Serve the connection until it closes; *effects* are those of having connected."""
        tasks = [
            asyncio.create_task(self._live(effects)),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._report_firmware()),
            asyncio.create_task(self._keep_staples()),
        ]
        if self.station.conduct.does(Misbehaviour.CSR_STORM):
            tasks.append(asyncio.create_task(self._storm()))
        if self.station.conduct.does(Misbehaviour.SECOND_CONNECTION):
            tasks.append(asyncio.create_task(self._connect_twice()))
        try:
            await self.link.run()
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, (CallUnanswered, CallRefused)):
                    raise outcome

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Call the CSMS; see `RpcLink.call`."""
        return await self.link.call(action, payload, _CALL_TIMEOUT)

    # Life on the connection

    async def _live(self, effects: Sequence[StationEffect]) -> None:
        await self.perform(effects)
        if self.station.conduct.does(Misbehaviour.EVENTS_EARLY):
            await self._send_events()
        interval = await self._boot()
        self._booted.set()
        await self._status()
        await self.send_events()
        await self._enrol()
        await self._serve_vehicle()
        await self.station.authorize(self.call)
        while True:
            await asyncio.sleep(max(interval, 1))
            with suppress(CallRefused):
                await self.call("Heartbeat", {})

    async def _enrol(self) -> None:
        """Ask for every certificate that the station should have and has not (A03)."""
        station = self.station
        held = {item.use for item in station.flow.installed if not station.dialler.lost_certificate(item)}
        for use in sorted(station.uses - held) if station.enrol else ():
            await self.perform(station.flow.renew(use))

    async def _keep_staples(self) -> None:
        """Ask for the status of its own V2G certificates, and again when an answer ends (M06.FR.06, FR.10)."""
        await self._booted.wait()
        station = self.station
        while True:
            pairs = station.own_pairs()
            station.staples.keep_only([certificate for certificate, _ in pairs])
            for pair in station.staples.wanted(pairs, station.clock()):
                await self._ask_status(pair)
            self._certificates_changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STAPLE_SECONDS):
                    await self._certificates_changed.wait()

    async def _ask_status(self, pair: Pair) -> None:
        station = self.station
        answer: dict[str, Any] = {}
        try:
            payload = {"ocspRequestData": question(pair, station.conduct)}
            answer = await send_to_csms(station.version, self.call, "GetCertificateStatus", payload, station.dialect)
            why = str(answer.get("status"))
        except (CallRefused, InputError) as exc:
            why = exc.what
        outcome = station.staples.take(pair, answer, station.clock())
        station.tell(Milestone.STATUS, f"status of a certificate of its own: {outcome.value} ({why})")
        if outcome is StatusOutcome.REVOKED:
            # Ocpp-security 5.3, rule 4: a revoked chain is shown to nobody any more. Another one is asked for unless
            # it would come from the same revoked sub-CA.
            for item in station.flow.installed:
                if item.use is not CertificateUse.CHARGING_STATION and pair[0] in item.chain_der:
                    again = station.flow.renew(item.use) if pair[0] == item.chain_der[0] else []
                    await self.perform([station.flow.forget(item), *again])

    async def _ask_about_vehicle(self) -> None:
        """Ask for the status of the chain of the vehicle that is plugged in (2.1, M07)."""
        station = self.station
        if station.version is not OcppVersion.V21 or not station.vehicle_chain:
            return
        try:
            word = await station.vehicle.status(self.call, station.clock())
        except (CallRefused, ChargePkiError) as exc:
            word = f"not known: {exc.what}"
        station.tell(Milestone.STATUS, f"status of the vehicle's chain: {word}")

    async def _serve_vehicle(self) -> None:
        """Do for the vehicle that is plugged in what it needs, once."""
        station = self.station
        await self._ask_about_vehicle()
        if station.ev is None:
            return
        exchange, station.ev = station.ev, None
        try:
            async for remaining in ask_for_contracts(exchange, station.version, self.call, station.dialect):
                station.tell(Milestone.CONTRACT, f"the vehicle got a contract; {remaining} remain")
        except (CallRefused, ChargePkiError) as exc:
            station.tell(Milestone.CONTRACT_REFUSED, str(exc))

    async def _boot(self) -> int:
        station = self.station
        while True:
            wait = _RETRY_BOOT_SECONDS
            try:
                answer = await self.call("BootNotification", station.boot_payload())
            except CallRefused as exc:
                station.tell(Milestone.DISCONNECTED, f"the CSMS refused the BootNotification: {exc.rpc_code}")
            else:
                wait = float(answer.get("interval") or _RETRY_BOOT_SECONDS)
                self.is_rejected = answer["status"] == "Rejected"
                if answer["status"] == "Accepted":
                    station.tell(Milestone.BOOTED, "the CSMS accepted the BootNotification")
                    return int(wait)
            await asyncio.sleep(wait)

    async def _status(self) -> None:
        station = self.station
        if station.version is OcppVersion.V16:
            payload: dict[str, Any] = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
        else:
            at = station.wire_now()
            payload = {"timestamp": at, "connectorStatus": "Available", "evseId": 1, "connectorId": 1}
        with suppress(CallRefused):
            await self.call("StatusNotification", payload)

    async def _tick(self) -> None:
        await self._booted.wait()
        while True:
            await self.perform(self.station.flow.due(self.station.clock()))
            self._changed.clear()
            with suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 forgets a cancellation that meets the event.
                async with asyncio.timeout(self._next_tick()):
                    await self._changed.wait()

    def _next_tick(self) -> float:
        due = self.station.flow.next_due()
        if due is None:
            return _TICK_SECONDS
        left = (due - self.station.clock()).total_seconds()
        return min(max(left, _LEAST_TICK_SECONDS), _TICK_SECONDS)

    async def _storm(self) -> None:
        """Send what waits for its certificate again and again, as stations did that took seconds for milliseconds."""
        await self._booted.wait()
        while True:
            await asyncio.sleep(_STORM_SECONDS)
            for request in self.station.flow.pending:
                await self.perform([self.station.flow.again(request)])

    async def _connect_twice(self) -> None:
        """Hold another connection in the station's name until this one ends."""
        await self._booted.wait()
        with suppress(OSError, InvalidHandshake, TimeoutError):
            second = await self.station.dialler.open(self._credentials)
            try:
                await second.wait_closed()
            finally:
                await second.close()

    async def send_events(self) -> None:
        """Send what is queued, oldest first; each leaves the queue only when the CSMS has answered."""
        if self._booted.is_set():
            await self._send_events()

    async def _send_events(self) -> None:
        # The boot, the firmware and what the CSMS asks for all come here, at the same time too: without the lock two of
        # them would send the same event.
        async with self._sending_events:
            await self._send_queued()

    async def _send_queued(self) -> None:
        station = self.station
        while station.store.state.events:
            event = station.store.state.events[0]
            try:
                for _ in range(2 if station.conduct.does(Misbehaviour.EVENTS_TWICE) else 1):
                    await self.call("SecurityEventNotification", event_payload(event))
            except CallUnanswered:
                return
            except CallRefused as exc:
                _log.warning("%s: the CSMS does not take the event %s: %s", station.identity, event.type, exc.rpc_code)
            station.store.event_sent(event)

    def firmware_reported(self) -> None:
        """A firmware status waits to be sent."""
        self._firmware_news.set()

    async def _report_firmware(self) -> None:
        """Send the statuses in their order; each leaves the queue only when the CSMS has answered (L01.FR.01)."""
        await self._booted.wait()
        station = self.station
        while True:
            # Forget old news before looking, so that what happens meanwhile is not forgotten.
            self._firmware_news.clear()
            while station.firmware.store.state.queue:
                status, number = station.firmware.store.state.queue[0]
                call = build_status(station.version, status, number)
                try:
                    await self.call(call.action, call.payload)
                except CallUnanswered:
                    return
                except CallRefused as exc:
                    _log.warning("%s: the CSMS does not take %s: %s", station.identity, call.action, exc.rpc_code)
                if status is FirmwareStatus.INSTALLED:
                    await self.send_events()
                station.firmware.status_sent(status, number)
            # An event that belongs to a status comes behind it (part 6: InvalidSignature, then the event).
            await self.send_events()
            await self._firmware_news.wait()

    # Effects of the certificate flow

    async def perform(self, effects: Sequence[StationEffect]) -> None:
        """Carry out *effects* and whatever follows from them, in order."""
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, MakeKey):
                key = await asyncio.to_thread(generate_private_key, self._algorithm(effect.use))
                self._new_keys[effect.use] = key
                queue += self.station.flow.start(effect.use, key, self.station.clock())
            elif isinstance(effect, SendRequest):
                queue += await self._send_request(effect)
            else:
                await self._perform_locally(effect)

        self._changed.set()

    def _algorithm(self, use: CertificateUse) -> KeyAlgorithm:
        """Return what the key of a certificate has to be: the two editions of ISO 15118 each have their curve."""
        if use is CertificateUse.V2G20:
            return KeyAlgorithm.SECP521R1
        return KeyAlgorithm.SECP256R1 if use is CertificateUse.V2G else self.station.key_algorithm

    async def _perform_locally(self, effect: StationEffect) -> None:
        station = self.station
        match effect:
            case StoreRequest():
                station.store.add_request(effect.request, self._new_keys.pop(effect.request.use))
            case InstallCertificate():
                station.store.put_certificate(effect.certificate)
                self._certificates_changed.set()
                text = f"installed a certificate valid until {effect.certificate.not_after:%Y-%m-%d}"
                station.tell(Milestone.CERTIFICATE_INSTALLED, text, certificate=effect.certificate.sha256)
            case CertificateProven():
                station.store.put_certificate(effect.certificate)
                text = "the new certificate opened a connection"
                station.tell(Milestone.CERTIFICATE_PROVEN, text, certificate=effect.certificate.sha256)
            case DropRequests():
                station.store.drop_requests(effect.requests)
            case DiscardCertificate():
                station.store.discard_certificate(effect.certificate)
            case Reconnect():
                # On profiles 1 and 2 the password stays in use: coming back would show nothing.
                if station.uses_certificate:
                    station.reconnect(effect.why)
            case RaiseEvent():
                station.raise_event(effect.event, effect.tech_info)
                await self.send_events()

    async def _send_request(self, effect: SendRequest) -> Sequence[StationEffect]:
        station, payload = self.station, self._written(effect)
        station.tell(Milestone.CSR_SENT, "sent a certificate signing request")
        status: str | None = None
        detail = ""
        try:
            sent = WireCall(effect.action, payload)
            answer = unwrap_answer(sent, await self.call(effect.action, payload))
            status = str(answer["status"])
            info = cast("dict[str, Any]", answer.get("statusInfo") or {})
            detail = ", ".join(str(info[name]) for name in ("reasonCode", "additionalInfo") if name in info)
        except CallRefused as exc:
            status, detail = exc.rpc_code, exc.description
        except CallUnanswered:
            pass
        if status not in (None, "Accepted") and effect.request.use is not CertificateUse.CHARGING_STATION:
            # A02.FR.21: without a certificate there is no Plug & Charge; until the next reboot.
            station.device.put(PNC, "false")
            station.take_variables()
        if status == "Accepted":
            station.tell(Milestone.CSR_ACCEPTED, "the CSMS accepted the request; its certificate will follow")
        elif status is not None:
            station.tell(
                Milestone.CSR_REFUSED, f"the CSMS refused the request: {status}" + (f" ({detail})" if detail else "")
            )
        return station.flow.sign_answered(effect.request, status, station.clock())

    def _written(self, effect: SendRequest) -> dict[str, Any]:
        """Return the payload as this station writes it, wrongly where it misbehaves; in 1.6 V2G CSRs are inside."""
        station, payload = self.station, dict(effect.payload)
        inner = payload if effect.action == "SignCertificate" else orjson.loads(str(payload["data"]))
        if station.forgery is not None:
            key = station.store.private_key(effect.request.spki_sha256)
            inner["csr"] = forge_csr(effect.request.csr_pem, key, station.forgery)
        if station.conduct.does(Misbehaviour.CSR_UNTYPED):
            inner.pop("certificateType", None)
            inner.pop("typeOfCertificate", None)
        return payload if inner is payload else {**payload, "data": orjson.dumps(inner).decode()}

    # What the CSMS sends

    async def _on_violation(self, event: ProtocolViolation) -> None:
        self.station.raise_event(SecurityEvent.INVALID_MESSAGES, event.reason)

    async def tell_firmware(self) -> None:
        """Send the present status of the firmware, behind what waits to be sent."""
        if self.station.firmware.store.state.queue:
            # What waits to be sent ends with the present status, which must not overtake the ones before it.
            self._firmware_news.set()
            return
        call = build_status(self.station.version, *self.station.firmware.triggered())
        with suppress(ChargePkiError):
            await self.call(call.action, call.payload)
