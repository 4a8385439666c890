"""What the simulated station says about itself: its boot, its security events, the first values of its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chargepki.ocpp_security.station.device import ATTEMPTS, MAY_BE_LOWERED, PNC
from chargepki.ocpp_security.station.misbehaviour import Conduct, Misbehaviour
from chargepki.ocpp_security.station.store import QueuedEvent
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire_time import wire_time

__all__ = ["StationFacts", "event_payload", "first_variables"]


@dataclass(frozen=True, slots=True)
class StationFacts:
    """Who made the station, in the words of its version."""

    version: OcppVersion
    serial_number: str
    vendor: str
    model: str

    def boot(self, firmware_version: str, conduct: Conduct) -> dict[str, Any]:
        """Return the BootNotification request."""
        serial = f"X{self.serial_number}"[:25] if conduct.does(Misbehaviour.BOOT_OTHER_SERIAL) else self.serial_number
        if self.version is OcppVersion.V16:
            return {
                "chargePointModel": self.model,
                "chargePointVendor": self.vendor,
                "chargePointSerialNumber": serial,
                "firmwareVersion": firmware_version,
            }
        station = {
            "model": self.model,
            "vendorName": self.vendor,
            "serialNumber": serial,
            "firmwareVersion": firmware_version,
        }
        return {"chargingStation": station, "reason": "PowerUp"}


def event_payload(event: QueuedEvent) -> dict[str, Any]:
    """Return the SecurityEventNotification request for a queued event."""
    return {"type": event.type, "timestamp": wire_time(event.at), "techInfo": event.tech_info}


def first_variables(identity: str, organization: str | None, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a new store begins with."""
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
        MAY_BE_LOWERED: "false",
        PNC: "true",
        "ISO15118Ctrlr.ContractValidationOffline": "false",
        "ISO15118Ctrlr.CentralContractValidationAllowed": "true",
        "AuthCtrlr.LocalAuthorizeOffline": "true",
        "AuthCtrlr.OfflineTxForUnknownIdEnabled": "false",
        **variables,
    }
