"""What differs between OCPP 1.6, 2.0.1 and 2.1, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from chargepki.ocpp_security.errors import RpcErrorCode

__all__ = ["MessageType", "OcppVersion", "Role", "VersionRules", "rules_of", "spell_error", "takes_call"]


class OcppVersion(StrEnum):
    """The versions we speak; the value is the WebSocket subprotocol."""

    V16 = "ocpp1.6"
    V201 = "ocpp2.0.1"
    V21 = "ocpp2.1"


class Role(StrEnum):
    """Which end of the connection we are."""

    CSMS = "csms"
    STATION = "station"


class MessageType:
    """Message type numbers of OCPP-J; the last two exist in 2.1 only (part 4, 4.1.3)."""

    CALL = 2
    CALLRESULT = 3
    CALLERROR = 4
    CALLRESULTERROR = 5
    SEND = 6


@dataclass(frozen=True, slots=True)
class VersionRules:
    """How one version frames messages and names errors."""

    version: OcppVersion
    schema_folder: str
    """Folder of the `ocpp` wheel that holds its schemas."""
    request_suffix: str
    """What its schema files append to an action for a request; responses append ``Response`` everywhere."""
    message_types: frozenset[int]
    answers_unreadable: bool
    """Whether a message whose id cannot be read is answered, with the id ``-1`` (2.x), or met with silence (1.6)."""
    error_spelling: Mapping[RpcErrorCode, str]
    """Codes that this version spells in its own way or replaces by an older one."""
    sends: frozenset[str]
    """Actions without an answer (message type SEND)."""
    from_station: frozenset[str]
    """Actions that a station may call; all others except `both_ways` are the CSMS's."""
    both_ways: frozenset[str]


_FROM_STATION_16 = frozenset(
    {
        "Authorize", "BootNotification", "DiagnosticsStatusNotification", "FirmwareStatusNotification", "Heartbeat",
        "LogStatusNotification", "MeterValues", "SecurityEventNotification", "SignCertificate",
        "SignedFirmwareStatusNotification", "StartTransaction", "StatusNotification", "StopTransaction",
    }
)  # fmt: skip

_FROM_STATION_201 = frozenset(
    {
        "Authorize", "BootNotification", "ClearedChargingLimit", "FirmwareStatusNotification",
        "Get15118EVCertificate", "GetCertificateStatus", "Heartbeat", "LogStatusNotification", "MeterValues",
        "NotifyChargingLimit", "NotifyCustomerInformation", "NotifyDisplayMessages", "NotifyEVChargingNeeds",
        "NotifyEVChargingSchedule", "NotifyEvent", "NotifyMonitoringReport", "NotifyReport",
        "PublishFirmwareStatusNotification", "ReportChargingProfiles", "ReservationStatusUpdate",
        "SecurityEventNotification", "SignCertificate", "StatusNotification", "TransactionEvent",
    }
)  # fmt: skip

_FROM_STATION_21 = _FROM_STATION_201 | {
    "BatterySwap", "ClosePeriodicEventStream", "GetCertificateChainStatus", "NotifyDERAlarm", "NotifyDERStartStop",
    "NotifyPeriodicEventStream", "NotifyPriorityCharging", "NotifySettlement",
    "OpenPeriodicEventStream", "PullDynamicScheduleUpdate", "ReportDERControl", "VatNumberValidation",
}  # fmt: skip

# 1.6 folds "not conform the PDU structure" into FormationViolation, and has no code for framing errors.
# OccurenceConstraintViolation is spelled so in OCPP-J 1.6, 4.2.3; errata keep it.
_SPELLING_16 = {
    RpcErrorCode.FORMAT_VIOLATION: "FormationViolation",
    RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION: "OccurenceConstraintViolation",
    RpcErrorCode.PROTOCOL_ERROR: "FormationViolation",
    RpcErrorCode.RPC_FRAMEWORK_ERROR: "FormationViolation",
    RpcErrorCode.MESSAGE_TYPE_NOT_SUPPORTED: "GenericError",
}

_RULES: Mapping[OcppVersion, VersionRules] = MappingProxyType(
    {
        OcppVersion.V16: VersionRules(
            version=OcppVersion.V16,
            schema_folder="v16",
            request_suffix="",
            message_types=frozenset({2, 3, 4}),
            answers_unreadable=False,
            error_spelling=MappingProxyType(_SPELLING_16),
            sends=frozenset(),
            from_station=_FROM_STATION_16,
            both_ways=frozenset({"DataTransfer"}),
        ),
        OcppVersion.V201: VersionRules(
            version=OcppVersion.V201,
            schema_folder="v201",
            request_suffix="Request",
            message_types=frozenset({2, 3, 4}),
            answers_unreadable=True,
            error_spelling=MappingProxyType({}),
            sends=frozenset(),
            from_station=_FROM_STATION_201,
            both_ways=frozenset({"DataTransfer"}),
        ),
        OcppVersion.V21: VersionRules(
            version=OcppVersion.V21,
            schema_folder="v21",
            request_suffix="Request",
            message_types=frozenset({2, 3, 4, 5, 6}),
            answers_unreadable=True,
            error_spelling=MappingProxyType({}),
            sends=frozenset({"NotifyPeriodicEventStream"}),
            from_station=_FROM_STATION_21,
            both_ways=frozenset({"DataTransfer"}),
        ),
    }
)


def rules_of(version: OcppVersion) -> VersionRules:
    """Return the framing rules of *version*."""
    return _RULES[version]


def spell_error(version: OcppVersion, code: RpcErrorCode) -> str:
    """Return how *version* spells *code* on the wire.

    >>> spell_error(OcppVersion.V16, RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION)
    'OccurenceConstraintViolation'
    """
    return _RULES[version].error_spelling.get(code, code.value)


def takes_call(version: OcppVersion, role: Role, action: str) -> bool:
    """Say whether an end in *role* may be called with *action*, an action that *version* knows.

    >>> takes_call(OcppVersion.V201, Role.CSMS, "CertificateSigned")
    False
    """
    rules = _RULES[version]
    if action in rules.both_ways:
        return True
    return (action in rules.from_station) == (role is Role.CSMS)
