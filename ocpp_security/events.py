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
    "NEWEST_EDITION",
    "Edition",
    "EventRule",
    "Repetition",
    "SecurityEvent",
    "build_notification",
    "catalogue",
    "event_name",
    "find_event",
    "is_critical",
    "is_sent",
    "spellings",
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


class Edition(StrEnum):
    """Editions of the standards whose lists of events differ."""

    V16 = "OCPP 1.6 security white paper, edition 3"
    V201_ED2 = "OCPP 2.0.1 appendices v1.3 (edition 2)"
    V201_ED3 = "OCPP 2.0.1 appendices v1.4 (edition 3)"
    V21 = "OCPP 2.1 appendices v2.0 (edition 1)"


NEWEST_EDITION: Mapping[OcppVersion, Edition] = MappingProxyType(
    {OcppVersion.V16: Edition.V16, OcppVersion.V201: Edition.V201_ED3, OcppVersion.V21: Edition.V21}
)


class Repetition(StrEnum):
    """What a station may do with an event that occurs again and again."""

    EACH = "each"
    """Every occurrence is reported."""
    SERIES = "series"
    """One report for a series of failed attempts is enough (A00.FR.316, A00.FR.419)."""


@dataclass(frozen=True, slots=True)
class EventRule:
    """One event in one edition: the catalogue's row."""

    event: SecurityEvent
    edition: Edition
    name: str
    """As that edition spells it."""
    critical: bool
    sent: bool
    """Whether it is sent to the CSMS and queued while offline (A04.FR.01, A04.FR.02); every event is logged."""
    repetition: Repetition
    clause: str


@dataclass(frozen=True, slots=True)
class _Row:
    critical: tuple[bool | None, bool | None, bool | None, bool | None]
    """In 1.6, 2.0.1 edition 2, 2.0.1 edition 3, 2.1; ``None``: that edition has no such event."""
    name_16: str | None = None
    """Its name in 1.6, where that differs."""
    forced_by: str = ""
    """Clauses that demand its notification although 1.6 (and 2.0.1 edition 2) call it non-critical."""
    repetition: Repetition = Repetition.EACH


_NO, _YES = (False,) * 4, (True,) * 4
_ONCE = Repetition.SERIES

# The white paper calls four events non-critical and demands their notification all the same: they are sent.
_TABLE: Mapping[SecurityEvent, _Row] = MappingProxyType(
    {
        SecurityEvent.FIRMWARE_UPDATED: _Row(_YES),
        SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS: _Row(_NO, "FailedToAuthenticationAtCentralSystem"),
        SecurityEvent.CSMS_FAILED_TO_AUTHENTICATE: _Row(_NO, "CentralSystemFailedToAuthentication"),
        SecurityEvent.SETTING_SYSTEM_TIME: _Row(_YES),
        SecurityEvent.STARTUP_OF_THE_DEVICE: _Row(_YES),
        SecurityEvent.RESET_OR_REBOOT: _Row(_YES),
        SecurityEvent.SECURITY_LOG_WAS_CLEARED: _Row(_YES),
        SecurityEvent.RECONFIGURATION_OF_SECURITY_PARAMETERS: _Row(_NO),
        SecurityEvent.MEMORY_EXHAUSTION: _Row(_YES),
        SecurityEvent.INVALID_MESSAGES: _Row(_NO),
        SecurityEvent.ATTEMPTED_REPLAY_ATTACKS: _Row(_NO),
        SecurityEvent.TAMPER_DETECTION_ACTIVATED: _Row(_YES),
        SecurityEvent.INVALID_FIRMWARE_SIGNATURE: _Row((False, False, True, True), forced_by="L01.FR.03, TC_081_CS"),
        SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE: _Row((False, False, True, True), forced_by="L01.FR.02"),
        SecurityEvent.INVALID_CSMS_CERTIFICATE: _Row(
            (False, True, True, True), "InvalidCentralSystemCertificate", "A00.FR.309, TC_078_CS", _ONCE
        ),
        SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE: _Row(
            (False, True, True, True), "InvalidChargePointCertificate", "A02.FR.07, TC_077_CS"
        ),
        SecurityEvent.DISCARDED_RENEWED_CLIENT_CERTIFICATE: _Row((None, None, True, True)),
        SecurityEvent.INVALID_TLS_VERSION: _Row((False, True, True, True), repetition=_ONCE),
        SecurityEvent.INVALID_TLS_CIPHER_SUITE: _Row((False, True, True, True), repetition=_ONCE),
        SecurityEvent.MAINTENANCE_LOGIN_ACCEPTED: _Row((None, True, True, True)),
        SecurityEvent.MAINTENANCE_LOGIN_FAILED: _Row((None, True, True, True)),
    }
)


def catalogue(edition: Edition) -> tuple[EventRule, ...]:
    """Return every event that *edition* lists, with its criticality, queueing and repetition, in the list's order.

    >>> [rule.critical for rule in catalogue(Edition.V201_ED3) if rule.name == "InvalidFirmwareSignature"]
    [True]
    """
    position = list(Edition).index(edition)
    found = []
    for event, row in _TABLE.items():
        critical = row.critical[position]
        if critical is None:
            continue
        forced = not critical and bool(row.forced_by)
        found.append(
            EventRule(
                event=event,
                edition=edition,
                name=row.name_16 if edition is Edition.V16 and row.name_16 else event.value,
                critical=critical,
                sent=critical or forced,
                repetition=row.repetition,
                clause=f"{edition.value}; {row.forced_by if forced else 'A04.FR.01-04'}",
            )
        )
    return tuple(found)


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


def spellings(event: SecurityEvent) -> tuple[str, ...]:
    """Return the names that any version gives *event*."""
    other = _TABLE[event].name_16
    return (event.value, other) if other else (event.value,)


def is_critical(version: OcppVersion, event: SecurityEvent) -> bool:
    """Say whether *version* lists *event* as critical (2.x: ed. 3 appendices v1.4 and 2.1 v2.0).

    An event that 1.6 does not list counts as 2.x rates it.
    """
    critical = _TABLE[event].critical
    stated = critical[list(Edition).index(NEWEST_EDITION[version])]
    return bool(critical[-1] if stated is None else stated)


def is_sent(version: OcppVersion, event: SecurityEvent) -> bool:
    """Say whether a station sends *event* to the CSMS, and queues it while offline, or only logs it.

    Critical events are sent (A04.FR.01-04), and in 1.6 also four that its table calls non-critical
    although use cases and test cases demand them.
    """
    return is_critical(version, event) or (version is OcppVersion.V16 and bool(_TABLE[event].forced_by))


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
