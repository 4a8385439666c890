"""What the CSMS answers to messages that are not about security: plausible and schema-valid, no more.

A driver is never let in by this table: authorisation belongs to the operator's own back end (and, for Plug & Charge, to
a decision table of its own), so a token is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire_time import wire_time

__all__ = ["plain_answer"]

Payload = Mapping[str, Any]
Answer = Callable[[Payload, datetime], dict[str, Any]]


def _empty(_payload: Payload, _now: datetime) -> dict[str, Any]:
    return {}


def _heartbeat(_payload: Payload, now: datetime) -> dict[str, Any]:
    return {"currentTime": wire_time(now)}


def _data_transfer(_payload: Payload, _now: datetime) -> dict[str, Any]:
    return {"status": "UnknownVendorId"}


def _authorize_16(_payload: Payload, _now: datetime) -> dict[str, Any]:
    return {"idTagInfo": {"status": "Invalid"}}


def _start_transaction(_payload: Payload, now: datetime) -> dict[str, Any]:
    # 1.6 lets the CSMS number transactions; the time keeps the numbers apart and within 31 bits.
    return {"transactionId": int(now.timestamp()) & 0x7FFF_FFFF, "idTagInfo": {"status": "Invalid"}}


def _authorize_2x(_payload: Payload, _now: datetime) -> dict[str, Any]:
    return {"idTokenInfo": {"status": "Unknown"}}


def _transaction_event(payload: Payload, _now: datetime) -> dict[str, Any]:
    return {"idTokenInfo": {"status": "Unknown"}} if "idToken" in payload else {}


_EMPTY_16 = (
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "MeterValues",
    "SignedFirmwareStatusNotification",
    "StatusNotification",
    "StopTransaction",
)
_EMPTY_2X = (
    "ClearedChargingLimit",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "MeterValues",
    "NotifyChargingLimit",
    "NotifyCustomerInformation",
    "NotifyDisplayMessages",
    "NotifyEvent",
    "NotifyMonitoringReport",
    "NotifyReport",
    "PublishFirmwareStatusNotification",
    "ReportChargingProfiles",
    "ReservationStatusUpdate",
    "StatusNotification",
)
_EMPTY_21 = ("NotifyDERAlarm", "NotifyDERStartStop", "NotifyPriorityCharging", "ReportDERControl")

_V16: dict[str, Answer] = {
    **dict.fromkeys(_EMPTY_16, _empty),
    "Authorize": _authorize_16,
    "DataTransfer": _data_transfer,
    "Heartbeat": _heartbeat,
    "StartTransaction": _start_transaction,
}
_V201: dict[str, Answer] = {
    **dict.fromkeys(_EMPTY_2X, _empty),
    "Authorize": _authorize_2x,
    "DataTransfer": _data_transfer,
    "Heartbeat": _heartbeat,
    "TransactionEvent": _transaction_event,
}
_TABLES: Mapping[OcppVersion, Mapping[str, Answer]] = {
    OcppVersion.V16: _V16,
    OcppVersion.V201: _V201,
    OcppVersion.V21: {**_V201, **dict.fromkeys(_EMPTY_21, _empty)},
}


def plain_answer(version: OcppVersion, action: str, payload: Payload, now: datetime) -> dict[str, Any] | None:
    """Return the answer to *action*, or ``None`` for one that this CSMS does not serve (answer NotSupported)."""
    answer = _TABLES[version].get(action)
    return None if answer is None else answer(payload, now)
