"""The messages of a firmware update and the order of its statuses (L01), for both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import WireCall
from chargepki.ocpp_security.wire_time import wire_time

__all__ = [
    "FINAL_FAILURES",
    "FirmwareStatus",
    "UpdateRequest",
    "build_status",
    "build_status_trigger",
    "build_update",
    "follows",
    "parse_status",
    "parse_update",
    "status_action",
    "update_action",
]


class FirmwareStatus(StrEnum):
    """Statuses of a firmware status notification; the same in every version since edition 2 of the white paper."""

    IDLE = "Idle"
    DOWNLOAD_SCHEDULED = "DownloadScheduled"
    DOWNLOADING = "Downloading"
    DOWNLOAD_PAUSED = "DownloadPaused"
    DOWNLOADED = "Downloaded"
    DOWNLOAD_FAILED = "DownloadFailed"
    SIGNATURE_VERIFIED = "SignatureVerified"
    INVALID_SIGNATURE = "InvalidSignature"
    INSTALL_SCHEDULED = "InstallScheduled"
    INSTALLING = "Installing"
    INSTALL_REBOOTING = "InstallRebooting"
    INSTALL_VERIFICATION_FAILED = "InstallVerificationFailed"
    INSTALLATION_FAILED = "InstallationFailed"
    INSTALLED = "Installed"


FINAL_FAILURES: Final = frozenset(
    {
        FirmwareStatus.DOWNLOAD_FAILED,
        FirmwareStatus.INVALID_SIGNATURE,
        FirmwareStatus.INSTALL_VERIFICATION_FAILED,
        FirmwareStatus.INSTALLATION_FAILED,
    }
)
"""Statuses after which an update is over, and was not installed."""

_S = FirmwareStatus
_INSTALL: Final = frozenset(
    {_S.INSTALL_SCHEDULED, _S.INSTALLING, _S.INSTALL_REBOOTING, _S.INSTALLED, _S.INSTALLATION_FAILED}
)
# Installing may be left out (L01.FR.23), InstallRebooting and Installed may come before or behind it (FR.15, FR.32),
# and a station whose update was canceled ends it with a failure at any point (FR.24).
_AFTER: Final[Mapping[FirmwareStatus | None, frozenset[FirmwareStatus]]] = {
    None: frozenset({_S.DOWNLOAD_SCHEDULED, _S.DOWNLOADING, _S.DOWNLOAD_FAILED}),
    _S.DOWNLOAD_SCHEDULED: frozenset({_S.DOWNLOADING, _S.DOWNLOAD_FAILED}),
    _S.DOWNLOADING: frozenset({_S.DOWNLOADING, _S.DOWNLOAD_PAUSED, _S.DOWNLOADED, _S.DOWNLOAD_FAILED}),
    _S.DOWNLOAD_PAUSED: frozenset({_S.DOWNLOADING, _S.DOWNLOADED, _S.DOWNLOAD_FAILED}),
    _S.DOWNLOADED: frozenset({_S.SIGNATURE_VERIFIED, _S.INVALID_SIGNATURE, _S.INSTALLATION_FAILED}),
    _S.SIGNATURE_VERIFIED: _INSTALL | {_S.INSTALL_VERIFICATION_FAILED},
    _S.INSTALL_SCHEDULED: _INSTALL - {_S.INSTALL_SCHEDULED} | {_S.INSTALL_VERIFICATION_FAILED},
    _S.INSTALLING: _INSTALL - {_S.INSTALLING} | {_S.INSTALL_VERIFICATION_FAILED},
    _S.INSTALL_REBOOTING: _INSTALL | {_S.INSTALL_VERIFICATION_FAILED},
}


def follows(previous: FirmwareStatus | None, status: FirmwareStatus) -> bool:
    """Say whether the standard lets *status* come after *previous* (``None``: the first). A repetition always may.

    Clause: OCPP 2.x L01 figure and FR.13 to FR.16, FR.23, FR.28 to FR.34.
    """
    return status == previous or status in _AFTER.get(previous, frozenset())


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What an update request asks for."""

    request_id: int
    location: str
    retrieve_at: datetime
    install_at: datetime | None
    certificate_pem: str | None
    signature: str | None
    retries: int | None = None
    retry_interval: int | None = None
    """Seconds."""


def update_action(version: OcppVersion) -> str:
    """Return the action of the secure update; the plain ``UpdateFirmware`` of 1.6 is never sent and never obeyed."""
    return "SignedUpdateFirmware" if version is OcppVersion.V16 else "UpdateFirmware"


def status_action(version: OcppVersion) -> str:
    """Return the action of a status notification."""
    return "SignedFirmwareStatusNotification" if version is OcppVersion.V16 else "FirmwareStatusNotification"


def build_update(version: OcppVersion, request: UpdateRequest) -> WireCall:
    """Return the call that makes a station update itself."""
    firmware: dict[str, object] = {
        "location": request.location,
        "retrieveDateTime": wire_time(request.retrieve_at),
    }
    if request.install_at is not None:
        firmware["installDateTime"] = wire_time(request.install_at)
    if request.certificate_pem is not None:
        firmware["signingCertificate"] = request.certificate_pem
    if request.signature is not None:
        firmware["signature"] = request.signature
    payload: dict[str, object] = {"requestId": request.request_id, "firmware": firmware}
    if request.retries is not None:
        payload["retries"] = request.retries
    if request.retry_interval is not None:
        payload["retryInterval"] = request.retry_interval
    return WireCall(update_action(version), payload)


def parse_update(payload: Mapping[str, object], now: datetime) -> UpdateRequest:
    """Read an update request that has passed its schema; times that cannot be read count as *now*."""
    firmware = payload["firmware"]
    assert isinstance(firmware, Mapping)
    install = firmware.get("installDateTime")
    retries, interval = payload.get("retries"), payload.get("retryInterval")
    certificate, signature = firmware.get("signingCertificate"), firmware.get("signature")
    return UpdateRequest(
        request_id=int(str(payload["requestId"])),
        location=str(firmware["location"]),
        retrieve_at=_time(str(firmware["retrieveDateTime"]), now),
        install_at=None if install is None else _time(str(install), now),
        certificate_pem=None if certificate is None else str(certificate),
        signature=None if signature is None else str(signature),
        retries=int(str(retries)) if retries is not None else None,
        retry_interval=int(str(interval)) if interval is not None else None,
    )


def _time(text: str, fallback: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else fallback
    except (ValueError, OverflowError):
        return fallback


def build_status(version: OcppVersion, status: FirmwareStatus, request_id: int | None) -> WireCall:
    """Return the notification; its request id is left out with Idle (L01.FR.20)."""
    payload: dict[str, object] = {"status": status.value}
    if request_id is not None and status is not FirmwareStatus.IDLE:
        payload["requestId"] = request_id
    return WireCall(status_action(version), payload)


def parse_status(payload: Mapping[str, object]) -> tuple[FirmwareStatus | None, int | None]:
    """Return status and request id of a notification that has passed its schema; ``None`` for one we do not know."""
    number = payload.get("requestId")
    try:
        status = FirmwareStatus(str(payload.get("status")))
    except ValueError:
        return None, None
    return status, number if isinstance(number, int) else None


def build_status_trigger(version: OcppVersion) -> WireCall:
    """Return the call that asks a station for its firmware status (L01.FR.25, FR.26; 1.6 FR.28, FR.29)."""
    action = "ExtendedTriggerMessage" if version is OcppVersion.V16 else "TriggerMessage"
    return WireCall(action, {"requestedMessage": "FirmwareStatusNotification"})
