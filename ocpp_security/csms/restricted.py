"""A station that is let in to get its certificate and for nothing else: Pending, A02, SecurityError for the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from chargepki.ocpp_security.authentication import Restriction
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.link import CallRefused, CallUnanswered
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.wire import CertificateUse, build_trigger
from chargepki.ocpp_security.wire_time import wire_time

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["begin_renewal", "check_allowed", "entry_incident", "pending_answer"]

_log = logging.getLogger("chargepki.csms")
_BOOT_AGAIN = timedelta(seconds=60)
"""When a station in Pending sends BootNotification again; if it still has no certificate, it is asked again."""
_LINK_CERTIFICATES = (None, "ChargingStationCertificate")
_WORDS: Mapping[Restriction, str] = {
    Restriction.EXPIRED_CERTIFICATE: "let in with an expired certificate, only to renew it (A00.FR.429)",
    Restriction.ONBOARDING: "let in with its manufacturer's certificate, only to get one of ours (A00.FR.406)",
}


def entry_incident(restriction: Restriction) -> Incident:
    """Return what the operator is told when such a station comes in."""
    return Incident(
        restriction.value,
        _WORDS[restriction],
        "nothing, if its renewal follows; `station show` tells",
        SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE
        if restriction is Restriction.EXPIRED_CERTIFICATE
        else "StationOnboarding",
    )


def pending_answer(now: datetime) -> dict[str, Any]:
    """Return the answer to BootNotification (A00.FR.406, A00.FR.429; B02)."""
    return {"status": "Pending", "currentTime": wire_time(now), "interval": int(_BOOT_AGAIN.total_seconds())}


def check_allowed(call: CallReceived, restriction: Restriction) -> None:
    """Refuse what is neither BootNotification nor the request for the certificate that opens the connection.

    Raises:
        OcppRefusal: answered with SecurityError.

    Clause: B02.FR.09 (B01.FR.10), A00.FR.406, A00.FR.429.
    """
    if call.action == "BootNotification":
        return
    if call.action == "SignCertificate" and call.payload.get("certificateType") in _LINK_CERTIFICATES:
        return
    raise OcppRefusal(
        f"{call.action} from a station that has to get its certificate first",
        answer=CallErrorAnswer(RpcErrorCode.SECURITY_ERROR, "pending: only a certificate can be requested"),
        why=_WORDS[restriction],
        event=SecurityEvent.INVALID_MESSAGES,
    )


async def begin_renewal(connection: StationConnection) -> None:
    """Ask the station for a CSR (A02); it goes on by itself from there."""
    call = build_trigger(connection.version, CertificateUse.CHARGING_STATION)
    try:
        answer = await connection.call(call.action, dict(call.payload))
        status = str(answer.get("status"))
    except CallRefused as error:
        status = error.rpc_code
    except CallUnanswered:
        _log.warning("%s: %s stayed unanswered; asked again when it boots", connection.station.id, call.action)
        return
    if status == "Accepted":
        _log.info("%s: asked for its CSR, since it is %s", connection.station.id, _WORDS[connection.restriction])  # type: ignore[index]  # only restricted connections come here
        return
    incident = Incident(
        "renewal-not-begun",
        f"the station answered {status} to {call.action}, so it gets no certificate and stays in Pending",
        "let the station send SignCertificate by itself, or install a certificate on it locally",
        "CertificateUndelivered",
    )
    connection.note(incident)
