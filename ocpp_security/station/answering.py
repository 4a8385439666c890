"""What the simulated station answers to the CSMS, and what it does next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode, StatusAnswer
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware_flow import update_action
from chargepki.ocpp_security.link import Reply
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.sign_certificate import InstallCertificate, RaiseEvent, Reconnect
from chargepki.ocpp_security.station.device import PROFILE
from chargepki.ocpp_security.station.log_upload import LogUploader
from chargepki.ocpp_security.station.misbehaviour import Misbehaviour
from chargepki.ocpp_security.station.progress import Milestone
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import find_trigger_use, status_answer
from chargepki.pki.errors import ChargePkiError, InputError

if TYPE_CHECKING:
    from chargepki.ocpp_security.station.session import StationSession

__all__ = ["StationAnswers"]

_REPORTED_AT_ONCE: Final = 20
_UNSECURED: Final = "certificates are not changed over a link without TLS"
# What this station says to messages that it need not act on; everything else is NotSupported.
_FIXED_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "CancelReservation": {"status": "Rejected"},
    "ChangeAvailability": {"status": "Accepted"},
    "ClearCache": {"status": "Accepted"},
    "GetReport": {"status": "NotSupported"},
    "RemoteStartTransaction": {"status": "Rejected"},
    "RemoteStopTransaction": {"status": "Rejected"},
    "RequestStartTransaction": {"status": "Rejected"},
    "RequestStopTransaction": {"status": "Rejected"},
}


class StationAnswers:
    """Answers the calls of one connection."""

    def __init__(self, session: StationSession) -> None:
        self._session, self._station = session, session.station
        station = session.station
        self._logs = LogUploader(
            station.version,
            identity=station.identity,
            read=station.read_log,
            tls=station.upload_tls,
            call=session.call,
            tell=lambda text: station.tell(Milestone.LOG, text),
        )

    async def answer(self, event: CallReceived) -> Reply:
        """Return the answer to a call.

        Raises:
            OcppRefusal: this station does not support it.
        """
        station, payload = self._station, cast("dict[str, Any]", event.payload)
        if self._session.is_rejected and station.version is not OcppVersion.V16:
            answer_no = CallErrorAnswer(RpcErrorCode.SECURITY_ERROR, "BootNotification was rejected")
            raise OcppRefusal(f"{event.action} while BootNotification is rejected (B03.FR.08)", answer=answer_no)
        match event.action:
            case "TriggerMessage" | "ExtendedTriggerMessage":
                return self._triggered(event.action, payload)
            case "CertificateSigned":
                return await self._certificate_signed(payload)
            case "ChangeConfiguration" if payload["key"] == PROFILE:
                return self._raise_profile(str(payload["value"]))
            case "SetNetworkProfile" if not station.conduct.does(Misbehaviour.NETWORK_BY_VARIABLES):
                answer = station.network.set_profile(payload)
                station.network_changed()
                return Reply(answer)
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
                return Reply({"status": station.firmware.requested(payload)}, self._session.send_events)
            case "DataTransfer":
                return await self._transferred(payload)
            case "InstallCertificate" | "DeleteCertificate" | "GetInstalledCertificateIds":
                return self._about_roots(event.action, payload)
            case "SendLocalList" if station.version is not OcppVersion.V16:
                return Reply(station.authorizer.take_list(payload))
            case "GetLocalListVersion" if station.version is not OcppVersion.V16:
                return Reply({"versionNumber": station.authorizer.list_version})
            case "GetBaseReport":
                return self._report(payload)
            case "GetLog":
                return self._logs.asked(payload)
            case "Reset":
                return Reply({"status": "Accepted"}, self._reconnecting("reset by the CSMS", rebooted=True))
        if event.action in _FIXED_ANSWERS:
            return Reply(_FIXED_ANSWERS[event.action])
        answer_no = CallErrorAnswer(RpcErrorCode.NOT_SUPPORTED, "this station does not support it")
        raise OcppRefusal(f"{event.action} is not supported", answer=answer_no)

    def _report(self, payload: dict[str, Any]) -> Reply:
        """Answer GetBaseReport, and send the report in parts (B07.FR.01 to FR.09)."""
        base, session, at = payload["reportBase"], self._session, self._station.wire_now()
        if base == "SummaryInventory":
            return Reply({"status": "NotSupported"})
        items = self._station.device.report(settable_only=base == "ConfigurationInventory")
        parts = [items[start : start + _REPORTED_AT_ONCE] for start in range(0, len(items), _REPORTED_AT_ONCE)]

        async def send() -> None:
            for number, part in enumerate(parts):
                report = {"requestId": payload["requestId"], "generatedAt": at, "seqNo": number, "reportData": part}
                with suppress(ChargePkiError):
                    await session.call("NotifyReport", {**report, "tbc": number + 1 < len(parts)})

        return Reply({"status": "Accepted"}, send)

    def _raise_profile(self, value: str) -> Reply:
        """Answer the ChangeConfiguration of SecurityProfile (1.6)."""
        station = self._station
        if station.conduct.does(Misbehaviour.PROFILE_FORGOTTEN):
            status = "Accepted"
        else:
            status = station.network.raise_profile(value)
        after = self._reconnecting("the security profile is raised", rebooted=True)
        return Reply({"status": status}, after if status == "Accepted" else None)

    async def _transferred(self, payload: dict[str, Any]) -> Reply:
        """Answer what 1.6 wraps: triggers and certificates for V2G leaves here, roots in the trust store."""
        try:
            found = pnc_transfer.read_transfer(payload) if self._station.version is OcppVersion.V16 else None
        except InputError:
            return Reply({"status": "Rejected"})
        if found is None or found.message not in ("CertificateSigned", "TriggerMessage"):
            return self._about_roots("DataTransfer", payload)
        if found.message == "TriggerMessage":
            reply = self._triggered("DataTransfer", payload)
        else:
            reply = await self._certificate_signed(payload)
        return Reply(pnc_transfer.wrap_answer(found, reply.payload), reply.then)

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
        station, session = self._station, self._session
        if not station.takes_certificates and find_trigger_use(station.version, action, payload) is not None:
            station.tell(Milestone.CSR_REFUSED, "the CSMS asked for a CSR without TLS: it gets none")
            told = StatusAnswer("Rejected", "UnsupportedRequest", _UNSECURED)
            return Reply(status_answer(station.version, told))
        answer, effects = station.flow.triggered(action, payload, station.clock())
        if answer["status"] == "Accepted":
            station.tell(Milestone.TRIGGERED, "the CSMS asked for a new certificate")
            if station.conduct.does(Misbehaviour.CSR_NEVER):
                return Reply(answer)
            return Reply(answer, lambda: session.perform(effects))
        if payload.get("requestedMessage") == "FirmwareStatusNotification":
            return Reply({"status": "Accepted"}, session.tell_firmware)
        others: dict[str, dict[str, Any]] = {"BootNotification": station.boot_payload(), "Heartbeat": {}}
        requested = str(payload.get("requestedMessage"))
        if requested in others:

            async def send() -> None:
                with suppress(ChargePkiError):
                    await session.call(requested, others[requested])

            return Reply({"status": "Accepted"}, send)
        return Reply(answer)

    async def _certificate_signed(self, payload: dict[str, Any]) -> Reply:
        """Judge a chain, and have it on disk before the CSMS hears Accepted."""
        station = self._station
        does = station.conduct.does
        if does(Misbehaviour.SIGNED_UNANSWERED):
            # Calls are answered in turn: whatever comes behind this one waits, too, as at a station that hangs.
            await self._session.link.connection.wait_closed()
            raise OcppRefusal("never answered", answer=CallErrorAnswer(RpcErrorCode.INTERNAL_ERROR, "hangs"))
        if does(Misbehaviour.SIGNED_REFUSED):
            return Reply({"status": "Rejected"})
        if not station.takes_certificates:
            # Not InvalidChargingStationCertificate: nobody has looked at the certificate.
            station.tell(Milestone.CERTIFICATE_REFUSED, "refused the certificate: it came without TLS")
            told = StatusAnswer("Rejected", "UnsupportedRequest", _UNSECURED)
            return Reply(status_answer(station.version, told))
        answer, effects = station.flow.certificate_signed(payload, station.clock())
        before = [item for item in effects if not isinstance(item, (Reconnect, RaiseEvent))]
        after = [item for item in effects if isinstance(item, (Reconnect, RaiseEvent))]
        await self._session.perform(before)
        if answer["status"] != "Accepted":
            why = next((item.tech_info for item in after if isinstance(item, RaiseEvent)), "")
            station.tell(Milestone.CERTIFICATE_REFUSED, f"refused the certificate: {why}")
            if does(Misbehaviour.SIGNED_TAKES_ANYTHING):
                return Reply({"status": "Accepted"})
        if does(Misbehaviour.SIGNED_FORGOTTEN):
            await self._session.perform(
                [station.flow.forget(item.certificate) for item in effects if isinstance(item, InstallCertificate)]
            )
        if does(Misbehaviour.SIGNED_STAYS):
            after = [item for item in after if not isinstance(item, Reconnect)]
        return Reply(answer, lambda: self._session.perform(after))

    def _configured(self, answer: dict[str, Any], password: str | None) -> Reply:
        station = self._station
        station.take_variables()
        if password is None:
            return Reply(answer)
        # Checked by the device model already; the old one stays until this one has opened a connection.
        station.store.offer_password(station.read_password(password))
        station.network.forget_password()
        station.raise_event(SecurityEvent.RECONFIGURATION_OF_SECURITY_PARAMETERS, "Basic authentication password")
        station.tell(Milestone.PASSWORD_OFFERED, "the CSMS set a new password")
        return Reply(answer, self._reconnecting("a new password is to be used"))

    def _reconnecting(self, why: str, *, rebooted: bool = False) -> Callable[[], Awaitable[None]]:
        async def reconnect() -> None:
            self._station.reconnect(why, rebooted=rebooted)

        return reconnect
