"""Logs that stations are asked for (GetLog): the call, the way to its end, and what each status means (pure)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import quote

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import WireCall
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import SealingKey
from chargepki.pki.inventory.event_records import LogRequestState, RequestedLogRecord

__all__ = [
    "LogStatus",
    "LogType",
    "build_get_log",
    "check_log_parameters",
    "is_failure",
    "may_follow",
    "token_digest",
    "upload_location",
    "upload_token",
]

RETRIES = 2
"""How often a station may try an upload again; its wait between two attempts is `RETRY_INTERVAL`."""
RETRY_INTERVAL = timedelta(seconds=20)
_PARAMETERS = frozenset({"type", "from", "to"})


class LogType(StrEnum):
    """What can be asked for; the values are OCPP's. (2.1 knows DataCollectorLog too, which is no security matter.)"""

    SECURITY = "SecurityLog"
    DIAGNOSTICS = "DiagnosticsLog"


class LogStatus(StrEnum):
    """Values of LogStatusNotification; 1.6 lacks the last one."""

    IDLE = "Idle"
    UPLOADING = "Uploading"
    UPLOADED = "Uploaded"
    UPLOAD_FAILURE = "UploadFailure"
    BAD_MESSAGE = "BadMessage"
    PERMISSION_DENIED = "PermissionDenied"
    NOT_SUPPORTED_OPERATION = "NotSupportedOperation"
    ACCEPTED_CANCELED = "AcceptedCanceled"


_FAILURES = frozenset(
    {
        LogStatus.UPLOAD_FAILURE, LogStatus.BAD_MESSAGE, LogStatus.PERMISSION_DENIED,
        LogStatus.NOT_SUPPORTED_OPERATION, LogStatus.ACCEPTED_CANCELED,
    }
)  # fmt: skip


def is_failure(status: str | None) -> bool:
    """Say whether a status ends an upload without a log (N01.FR.10, N01.FR.20)."""
    return status in _FAILURES


def may_follow(before: str | None, after: str) -> bool:
    """Say whether status *after* may follow *before* for one request.

    Uploading comes first and may come again with each attempt; what ends an upload comes once (N01.FR.08-10). A
    station may fail before it begins to upload.

    >>> may_follow(None, "Uploading"), may_follow("Uploading", "Uploaded"), may_follow("Uploaded", "Uploading")
    (True, True, False)
    """
    if after == LogStatus.IDLE:
        return False  # it is about no request
    if before is None:
        return after != LogStatus.UPLOADED
    return before == LogStatus.UPLOADING


def check_log_parameters(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that `get-log` does not take: ``type``, optionally ``from`` and ``to`` (RFC 3339).

    Raises:
        InputError: unknown or wrong ones, or an interval that ends before it begins.
    """
    unknown = sorted(set(parameters) - _PARAMETERS)
    if unknown:
        raise InputError(f"get-log takes no parameter {unknown[0]!r}")
    if parameters.get("type") not in [known.value for known in LogType]:
        raise InputError(f"unknown type of log {parameters.get('type')!r}", fix="one of security, diagnostics")
    begin, end = _instant(parameters, "from"), _instant(parameters, "to")
    if begin is not None and end is not None and end <= begin:
        raise InputError("the end of the interval is not after its beginning", fix="swap --from and --to")


def _instant(parameters: Mapping[str, object], name: str) -> datetime | None:
    value = parameters.get(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InputError(f"{name} must be a time with its zone", fix="for example 2026-03-01T00:00:00Z")
    return found


def upload_token(sealing: SealingKey, log: RequestedLogRecord) -> str:
    """Return the secret part of the address that *log* is uploaded to: 32 characters, for this request alone.

    It is computed from the workspace's key, so that no database holds it and every process that may need it has it.
    """
    context = f"log-upload/{log.id}/{log.station}/{log.request_id}"
    return base64.urlsafe_b64encode(sealing.derive(context)[:24]).decode("ascii")


def token_digest(token: str) -> str:
    """Return what the inventory holds of a token (lower-case hex)."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def upload_location(base_url: str, log: RequestedLogRecord, token: str) -> str:
    """Return the one-time address that a station uploads *log* to.

    Args:
        base_url: of the endpoint for uploads, without a slash at the end.
    """
    return f"{base_url}/logs/{quote(log.station, safe='')}/{log.request_id}/{token}"


def build_get_log(
    version: OcppVersion, parameters: Mapping[str, object], log: RequestedLogRecord, location: str
) -> WireCall:
    """Return the GetLog that asks for *log*; its fields are the same in 1.6 (security extension), 2.0.1 and 2.1.

    Raises:
        InputError: the address is longer than *version* allows.

    Clause: N01.FR.01-04; 1.6 white paper, GetLog.req.
    """
    longest = schemas.max_length(version, "GetLog", Kind.REQUEST, "log.remoteLocation")
    if len(location) > longest:
        raise InputError(
            f"the upload address has {len(location)} characters; {version.value} allows {longest}",
            fix="shorten --upload-url",
        )
    place: dict[str, object] = {"remoteLocation": location}
    for name, field in (("from", "oldestTimestamp"), ("to", "latestTimestamp")):
        at = _instant(parameters, name)
        if at is not None:
            place[field] = wire_time(at)
    return WireCall(
        "GetLog",
        {
            "logType": str(parameters["type"]),
            "requestId": log.request_id,
            "retries": RETRIES,
            "retryInterval": int(RETRY_INTERVAL.total_seconds()),
            "log": place,
        },
    )


def outcome_of(log: RequestedLogRecord) -> dict[str, object] | None:
    """Return the outcome of a request whose log is here, for the operation; ``None`` while it is not."""
    if log.state is not LogRequestState.RECEIVED:
        return None
    return {"log": log.id, "size": log.size, "sha256": log.sha256}
