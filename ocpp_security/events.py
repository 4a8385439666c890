"""The catalogue of security events: names, criticality and which ones are sent, per OCPP version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from chargepki.ocpp_security.versions import OcppVersion

__all__ = [
    "MAX_TECH_INFO",
    "MAX_TYPE",
    "SecurityEvent",
    "build_notification",
    "event_name",
    "find_event",
    "is_critical",
    "is_sent",
]

MAX_TYPE = 50
"""Longest event name, in characters (all versions)."""

MAX_TECH_INFO = 255
"""Longest techInfo, in characters (all versions)."""


class SecurityEvent(StrEnum):
    """Standard security events in the spelling of OCPP 2.x.

    The list is open (a station may send its own), but a listed name must be used when it fits.
    Clause: OCPP 2.1 appendices v2.0, chapter 1; 1.6 security white paper, edition 3.
    """

    FIRMWARE_UPDATED = "FirmwareUpdated"
    FAILED_TO_AUTHENTICATE_AT_CSMS = "FailedToAuthenticateAtCsms"
    CSMS_FAILED_TO_AUTHENTICATE = "CsmsFailedToAuthenticate"
    SETTING_SYSTEM_TIME = "SettingSystemTime"
    STARTUP_OF_THE_DEVICE = "StartupOfTheDevice"
    RESET_OR_REBOOT = "ResetOrReboot"
    SECURITY_LOG_WAS_CLEARED = "SecurityLogWasCleared"
    RECONFIGURATION_OF_SECURITY_PARAMETERS = "ReconfigurationOfSecurityParameters"
    MEMORY_EXHAUSTION = "MemoryExhaustion"
    INVALID_MESSAGES = "InvalidMessages"
    ATTEMPTED_REPLAY_ATTACKS = "AttemptedReplayAttacks"
    TAMPER_DETECTION_ACTIVATED = "TamperDetectionActivated"
    INVALID_FIRMWARE_SIGNATURE = "InvalidFirmwareSignature"
    INVALID_FIRMWARE_SIGNING_CERTIFICATE = "InvalidFirmwareSigningCertificate"
    INVALID_CSMS_CERTIFICATE = "InvalidCsmsCertificate"
    INVALID_CHARGING_STATION_CERTIFICATE = "InvalidChargingStationCertificate"
    DISCARDED_RENEWED_CLIENT_CERTIFICATE = "DiscardedRenewedClientCertificate"
    INVALID_TLS_VERSION = "InvalidTLSVersion"
    INVALID_TLS_CIPHER_SUITE = "InvalidTLSCipherSuite"
    MAINTENANCE_LOGIN_ACCEPTED = "MaintenanceLoginAccepted"
    MAINTENANCE_LOGIN_FAILED = "MaintenanceLoginFailed"


@dataclass(frozen=True, slots=True)
class _Row:
    critical_16: bool | None
    """``None``: 1.6 has no such event."""
    critical_2x: bool
    name_16: str | None = None
    """Its name in 1.6, where that differs."""
    sent_16_anyway: bool = False


# The white paper calls four events non-critical and demands their notification all the same
# (A02.FR.07, L01.FR.02/03; TC_077_CS, TC_078_CS, TC_081_CS): they are sent.
_TABLE: Mapping[SecurityEvent, _Row] = MappingProxyType(
    {
        SecurityEvent.FIRMWARE_UPDATED: _Row(True, True),
        SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS: _Row(False, False, "FailedToAuthenticationAtCentralSystem"),
        SecurityEvent.CSMS_FAILED_TO_AUTHENTICATE: _Row(False, False, "CentralSystemFailedToAuthentication"),
        SecurityEvent.SETTING_SYSTEM_TIME: _Row(True, True),
        SecurityEvent.STARTUP_OF_THE_DEVICE: _Row(True, True),
        SecurityEvent.RESET_OR_REBOOT: _Row(True, True),
        SecurityEvent.SECURITY_LOG_WAS_CLEARED: _Row(True, True),
        SecurityEvent.RECONFIGURATION_OF_SECURITY_PARAMETERS: _Row(False, False),
        SecurityEvent.MEMORY_EXHAUSTION: _Row(True, True),
        SecurityEvent.INVALID_MESSAGES: _Row(False, False),
        SecurityEvent.ATTEMPTED_REPLAY_ATTACKS: _Row(False, False),
        SecurityEvent.TAMPER_DETECTION_ACTIVATED: _Row(True, True),
        SecurityEvent.INVALID_FIRMWARE_SIGNATURE: _Row(False, True, sent_16_anyway=True),
        SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE: _Row(False, True, sent_16_anyway=True),
        SecurityEvent.INVALID_CSMS_CERTIFICATE: _Row(
            False, True, "InvalidCentralSystemCertificate", sent_16_anyway=True
        ),
        SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE: _Row(
            False, True, "InvalidChargePointCertificate", sent_16_anyway=True
        ),
        SecurityEvent.DISCARDED_RENEWED_CLIENT_CERTIFICATE: _Row(None, True),
        SecurityEvent.INVALID_TLS_VERSION: _Row(False, True),
        SecurityEvent.INVALID_TLS_CIPHER_SUITE: _Row(False, True),
        SecurityEvent.MAINTENANCE_LOGIN_ACCEPTED: _Row(None, True),
        SecurityEvent.MAINTENANCE_LOGIN_FAILED: _Row(None, True),
    }
)

_BY_NAME: Mapping[str, SecurityEvent] = MappingProxyType(
    {name: event for event, row in _TABLE.items() for name in (event.value, row.name_16) if name}
)


def event_name(version: OcppVersion, event: SecurityEvent) -> str:
    """Return how *version* spells *event*; an event that 1.6 lacks keeps its 2.x name (the list is open).

    >>> event_name(OcppVersion.V16, SecurityEvent.INVALID_CSMS_CERTIFICATE)
    'InvalidCentralSystemCertificate'
    """
    row = _TABLE[event]
    if version is OcppVersion.V16 and row.name_16:
        return row.name_16
    return event.value


def find_event(name: str) -> SecurityEvent | None:
    """Return the standard event with this name in any version's spelling, or ``None`` for a vendor's own.

    Both spellings are taken whatever the connection speaks, because stations mix them.
    """
    return _BY_NAME.get(name)


def is_critical(version: OcppVersion, event: SecurityEvent) -> bool:
    """Say whether *version* lists *event* as critical (2.x: ed. 3 appendices v1.4 and 2.1 v2.0).

    An event that 1.6 does not list counts as 2.x rates it.
    """
    row = _TABLE[event]
    if version is OcppVersion.V16 and row.critical_16 is not None:
        return row.critical_16
    return row.critical_2x


def is_sent(version: OcppVersion, event: SecurityEvent) -> bool:
    """Say whether a station sends *event* to the CSMS, and queues it while offline, or only logs it.

    Critical events are sent (A04.FR.01-04), and in 1.6 also four that its table calls non-critical
    although use cases and test cases demand them.
    """
    return is_critical(version, event) or (version is OcppVersion.V16 and _TABLE[event].sent_16_anyway)


def build_notification(
    version: OcppVersion, event: SecurityEvent, at: datetime, tech_info: str = ""
) -> dict[str, object]:
    """Return the SecurityEventNotification request for *event*.

    Args:
        at: when it happened; timezone-aware.
        tech_info: cut to 255 characters; left out when empty.

    Raises:
        TypeError: *at* is naive.
    """
    if at.tzinfo is None:
        raise TypeError("at must be timezone-aware")
    payload: dict[str, object] = {
        "type": event_name(version, event),
        "timestamp": at.isoformat().replace("+00:00", "Z"),
    }
    if tech_info:
        payload["techInfo"] = tech_info[:MAX_TECH_INFO]
    return payload
