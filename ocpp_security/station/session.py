"""One connection of the simulated station: boots, answers the CSMS, renews its certificate, sends its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from websockets.asyncio.client import ClientConnection

from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, build_status, update_action
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply, RpcLink
from chargepki.ocpp_security.passwords import password_from_wire
from chargepki.ocpp_security.rpc import CallReceived, ProtocolViolation, RpcSession
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
from chargepki.ocpp_security.station.csr import forge_csr
from chargepki.ocpp_security.station.device import PROFILE
from chargepki.ocpp_security.station.ev_contract import ask_for_contracts
from chargepki.ocpp_security.station.log_upload import LogUploader
from chargepki.ocpp_security.station.progress import Milestone
from chargepki.ocpp_security.versions import OcppVersion, Role
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.keys import PrivateKey, generate_private_key

if TYPE_CHECKING:
    from chargepki.ocpp_security.station.simulator import StationSimulator

__all__ = ["StationSession"]

_log = logging.getLogger("chargepki.station")
_CALL_TIMEOUT = timedelta(seconds=30)
_TICK_SECONDS = 0.5
_RETRY_BOOT_SECONDS = 10.0

# What this station says to messages that it need not act on; everything else is NotSupported.
_FIXED_ANSWERS: dict[str, dict[str, Any]] = {
    "CancelReservation": {"status": "Rejected"},
    "ChangeAvailability": {"status": "Accepted"},
    "ClearCache": {"status": "Accepted"},
    "GetBaseReport": {"status": "NotSupported"},
    "GetReport": {"status": "NotSupported"},
    "RemoteStartTransaction": {"status": "Rejected"},
    "RemoteStopTransaction": {"status": "Rejected"},
    "RequestStartTransaction": {"status": "Rejected"},
    "RequestStopTransaction": {"status": "Rejected"},
}


class StationSession:
    """Lives as long as its connection; what must survive it is in the simulator and its store."""

    def __init__(self, simulator: StationSimulator, socket: ClientConnection) -> None:
        self._station = simulator
        self._booted = asyncio.Event()
        self._firmware_news = asyncio.Event()
        self._new_keys: dict[CertificateUse, PrivateKey] = {}
        self._logs = LogUploader(
            simulator.version,
            identity=simulator.identity,
            read=simulator.read_log,
            tls=simulator.upload_tls,
            call=self.call,
            tell=lambda text: simulator.tell(Milestone.LOG, text),
        )
        # Hash data that are written wrongly may break the schema as well; a station that errs so sends them anyway.
        errs = bool(simulator.roots.policy.hash_defects)
        unchecked = ("DeleteCertificate", "GetInstalledCertificateIds") if errs else ()
        session = RpcSession(simulator.version, role=Role.STATION, unchecked=unchecked)
        self.link = RpcLink(
            socket,
            session,
            on_call=self._on_call,
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
        ]
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
        interval = await self._boot()
        self._booted.set()
        await self._status()
        await self.send_events()
        station = self._station
        has_certificate = any(
            item.use is CertificateUse.CHARGING_STATION and not station.lost_certificate(item)
            for item in station.flow.installed
        )
        if station.enrol and not has_certificate:
            await self.perform(station.flow.renew(CertificateUse.CHARGING_STATION))
        await self._serve_vehicle()
        while True:
            await asyncio.sleep(max(interval, 1))
            with suppress(CallRefused):
                await self.call("Heartbeat", {})

    async def _serve_vehicle(self) -> None:
        """Ask for the contracts of the vehicle that is plugged in, once."""
        station = self._station
        if station.ev is None:
            return
        exchange, station.ev = station.ev, None
        try:
            async for remaining in ask_for_contracts(exchange, station.version, self.call):
                station.tell(Milestone.CONTRACT, f"the vehicle got a contract; {remaining} remain")
        except (CallRefused, ChargePkiError) as exc:
            station.tell(Milestone.CONTRACT_REFUSED, str(exc))

    async def _boot(self) -> int:
        station = self._station
        while True:
            wait = _RETRY_BOOT_SECONDS
            try:
                answer = await self.call("BootNotification", station.boot_payload())
            except CallRefused as exc:
                station.tell(Milestone.DISCONNECTED, f"the CSMS refused the BootNotification: {exc.rpc_code}")
            else:
                wait = float(answer.get("interval") or _RETRY_BOOT_SECONDS)
                if answer["status"] == "Accepted":
                    station.tell(Milestone.BOOTED, "the CSMS accepted the BootNotification")
                    return int(wait)
            await asyncio.sleep(wait)

    async def _status(self) -> None:
        station = self._station
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
            await asyncio.sleep(_TICK_SECONDS)
            await self.perform(self._station.flow.due(self._station.clock()))

    async def send_events(self) -> None:
        """Send what is queued, oldest first; each leaves the queue only when the CSMS has answered."""
        station = self._station
        while self._booted.is_set() and station.store.state.events:
            event = station.store.state.events[0]
            try:
                await self.call("SecurityEventNotification", station.event_payload(event))
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
        station = self._station
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
                key = await asyncio.to_thread(generate_private_key, self._station.key_algorithm)
                self._new_keys[effect.use] = key
                queue += self._station.flow.start(effect.use, key, self._station.clock())
            elif isinstance(effect, SendRequest):
                queue += await self._send_request(effect)
            else:
                await self._perform_locally(effect)

    async def _perform_locally(self, effect: StationEffect) -> None:
        station = self._station
        match effect:
            case StoreRequest():
                station.store.add_request(effect.request, self._new_keys.pop(effect.request.use))
            case InstallCertificate():
                station.store.put_certificate(effect.certificate)
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
        station, payload = self._station, dict(effect.payload)
        if station.forgery is not None:
            key = station.store.private_key(effect.request.spki_sha256)
            payload["csr"] = forge_csr(effect.request.csr_pem, key, station.forgery)
        station.tell(Milestone.CSR_SENT, "sent a certificate signing request")
        status: str | None = None
        detail = ""
        try:
            answer = await self.call(effect.action, payload)
            status = str(answer["status"])
            info = cast("dict[str, Any]", answer.get("statusInfo") or {})
            detail = ", ".join(str(info[name]) for name in ("reasonCode", "additionalInfo") if name in info)
        except CallRefused as exc:
            status, detail = exc.rpc_code, exc.description
        except CallUnanswered:
            pass
        if status == "Accepted":
            station.tell(Milestone.CSR_ACCEPTED, "the CSMS accepted the request; its certificate will follow")
        elif status is not None:
            station.tell(
                Milestone.CSR_REFUSED, f"the CSMS refused the request: {status}" + (f" ({detail})" if detail else "")
            )
        return station.flow.sign_answered(effect.request, status, station.clock())

    # What the CSMS sends

    async def _on_violation(self, event: ProtocolViolation) -> None:
        self._station.raise_event(SecurityEvent.INVALID_MESSAGES, event.reason)

    async def _on_call(self, event: CallReceived) -> Reply:
        station, payload = self._station, cast("dict[str, Any]", event.payload)
        match event.action:
            case "TriggerMessage" | "ExtendedTriggerMessage":
                return self._triggered(event.action, payload)
            case "CertificateSigned":
                return await self._certificate_signed(payload)
            case "ChangeConfiguration" if payload["key"] == PROFILE:
                status = station.network.raise_profile(str(payload["value"]))
                after = self._reconnecting("the security profile is raised", rebooted=True)
                return Reply({"status": status}, after if status == "Accepted" else None)
            case "SetNetworkProfile":
                return Reply(station.network.set_profile(payload))
            case "ChangeConfiguration":
                status, password = station.device.change_configuration(payload)
                return self._configured({"status": status}, password)
            case "SetVariables":
                answer, password = station.device.set_variables(payload)
                return self._configured(answer, password)
            case "GetConfiguration":
                return Reply(station.device.get_configuration(payload))
            case "GetVariables":
                return Reply(station.device.get_variables(payload))
            case "SignedUpdateFirmware" | "UpdateFirmware" if event.action == update_action(station.version):
                return Reply({"status": station.firmware.requested(payload)}, self.send_events)
            case "InstallCertificate" | "DeleteCertificate" | "GetInstalledCertificateIds" | "DataTransfer":
                return self._about_roots(event.action, payload)
            case "GetLog":
                return self._logs.asked(payload)
            case "Reset":
                return Reply({"status": "Accepted"}, self._reconnecting("reset by the CSMS", rebooted=True))
        if event.action in _FIXED_ANSWERS:
            return Reply(_FIXED_ANSWERS[event.action])
        answer_no = CallErrorAnswer(RpcErrorCode.NOT_SUPPORTED, "this station does not support it")
        raise OcppRefusal(f"{event.action} is not supported", answer=answer_no)

    def _about_roots(self, action: str, payload: dict[str, Any]) -> Reply:
        station = self._station
        now, over_tls = station.clock(), station.is_secured
        if action == "DataTransfer":
            answer = station.roots.answer_transfer(payload, now, over_tls=over_tls)
        else:
            answer = station.roots.answer(action, payload, now, over_tls=over_tls)
        station.roots_changed()
        station.take_variables()
        return Reply(answer)

    def _triggered(self, action: str, payload: dict[str, Any]) -> Reply:
        station = self._station
        answer, effects = station.flow.triggered(action, payload, station.clock())
        if answer["status"] == "Accepted":
            station.tell(Milestone.TRIGGERED, "the CSMS asked for a new certificate")
            return Reply(answer, lambda: self.perform(effects))
        if payload.get("requestedMessage") == "FirmwareStatusNotification":
            return Reply({"status": "Accepted"}, self._tell_firmware)
        others: dict[str, dict[str, Any]] = {"BootNotification": station.boot_payload(), "Heartbeat": {}}
        requested = str(payload["requestedMessage"])
        if requested in others:

            async def send() -> None:
                with suppress(ChargePkiError):
                    await self.call(requested, others[requested])

            return Reply({"status": "Accepted"}, send)
        return Reply(answer)

    async def _tell_firmware(self) -> None:
        if self._station.firmware.store.state.queue:
            # What waits to be sent ends with the present status, which must not overtake the ones before it.
            self._firmware_news.set()
            return
        call = build_status(self._station.version, *self._station.firmware.triggered())
        with suppress(ChargePkiError):
            await self.call(call.action, call.payload)

    async def _certificate_signed(self, payload: dict[str, Any]) -> Reply:
        """Judge a chain, and have it on disk before the CSMS hears Accepted."""
        station = self._station
        answer, effects = station.flow.certificate_signed(payload, station.clock())
        before = [item for item in effects if not isinstance(item, (Reconnect, RaiseEvent))]
        after = [item for item in effects if isinstance(item, (Reconnect, RaiseEvent))]
        await self.perform(before)
        if answer["status"] != "Accepted":
            why = next((item.tech_info for item in after if isinstance(item, RaiseEvent)), "")
            station.tell(Milestone.CERTIFICATE_REFUSED, f"refused the certificate: {why}")
        return Reply(answer, lambda: self.perform(after))

    def _configured(self, answer: dict[str, Any], password: str | None) -> Reply:
        station = self._station
        station.take_variables()
        if password is None:
            return Reply(answer)
        # Checked by the device model already; the old one stays until this one has opened a connection.
        station.store.offer_password(password_from_wire(password, station.version))
        station.raise_event(SecurityEvent.RECONFIGURATION_OF_SECURITY_PARAMETERS, "Basic authentication password")
        station.tell(Milestone.PASSWORD_OFFERED, "the CSMS set a new password")
        return Reply(answer, self._reconnecting("a new password is to be used"))

    def _reconnecting(self, why: str, *, rebooted: bool = False) -> Any:
        async def reconnect() -> None:
            self._station.reconnect(why, rebooted=rebooted)

        return reconnect
