"""The station's side of GetLog: one upload at a time, over HTTP, with its statuses in order (N01)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply
from chargepki.ocpp_security.versions import OcppVersion

__all__ = ["LogUploader"]

_TIMEOUT_SECONDS = 300
_MAX_RETRIES = 10
_MAX_INTERVAL_SECONDS = 3600

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class LogUploader:
    """Answers GetLog on one connection, and uploads what was asked for.

    Args:
        read: returns the log of a type between two instants (either may be ``None``), or ``None`` when there is none.
        tls: makes the context for an ``https`` address: the roots of the CSMS (N01.FR.15).
        call: calls the CSMS.
        tell: is told, in words, what happened.
    """

    def __init__(
        self,
        version: OcppVersion,
        *,
        identity: str,
        read: Callable[[str, datetime | None, datetime | None], bytes | None],
        tls: Callable[[], ssl.SSLContext],
        call: Call,
        tell: Callable[[str], None],
    ) -> None:
        self._version, self._identity = version, identity
        self._read, self._tls, self._call, self._tell = read, tls, call, tell
        self._task: asyncio.Task[None] | None = None
        self._request = 0

    def asked(self, payload: Mapping[str, Any]) -> Reply:
        """Answer a GetLog: Accepted with a file name, AcceptedCanceled when it ends an upload, or Rejected.

        Clause: N01.FR.01-05; N01.FR.12 (1.6: N01.FR.11).
        """
        place = payload["log"]
        oldest, latest = (_instant(place.get(name)) for name in ("oldestTimestamp", "latestTimestamp"))
        log_type, request = str(payload["logType"]), int(payload["requestId"])
        content = self._read(log_type, oldest, latest)
        if content is None:
            return Reply({"status": "Rejected"})
        filename = f"{self._identity}-{log_type}-{request}.log"
        replaced = self._task if self._task is not None and not self._task.done() else None
        old_request, self._request = self._request, request

        async def upload() -> None:
            if replaced is not None:
                replaced.cancel()
                await asyncio.gather(replaced, return_exceptions=True)
                if self._version is not OcppVersion.V16:  # which has no such status
                    await self._status(old_request, "AcceptedCanceled")
            self._task = asyncio.current_task()
            await self._upload(payload, filename, content)

        self._tell(f"the CSMS asked for its {log_type}")
        return Reply(
            {"status": "AcceptedCanceled" if replaced is not None else "Accepted", "filename": filename}, upload
        )

    async def _upload(self, payload: Mapping[str, Any], filename: str, content: bytes) -> None:
        request = int(payload["requestId"])
        attempts = 1 + max(0, min(int(payload.get("retries", 0)), _MAX_RETRIES))
        interval = max(0, min(int(payload.get("retryInterval", 0)), _MAX_INTERVAL_SECONDS))
        await self._status(request, "Uploading")
        status = "UploadFailure"
        for number in range(attempts):
            if number:
                await asyncio.sleep(interval)
            status = await self._put(str(payload["log"]["remoteLocation"]), filename, content)
            if status == "Uploaded":
                break
        # The failure only after the last attempt (N01.FR.10).
        await self._status(request, status)
        self._tell(f"upload of {filename}: {status}")

    async def _put(self, location: str, filename: str, content: bytes) -> str:
        """Upload once and return the status to report."""
        try:
            parts = urlsplit(location)
        except ValueError:
            return "BadMessage"
        if parts.scheme not in ("http", "https"):
            return "NotSupportedOperation"
        # N01.FR.21: a location that ends in a slash is a folder.
        target = location + quote(filename) if location.endswith("/") else location
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{filename}"',
        }
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        context = self._tls() if parts.scheme == "https" else True
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.put(target, data=content, headers=headers, allow_redirects=False, ssl=context) as answer,
            ):
                code = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return "UploadFailure"
        if 200 <= code < 300:
            return "Uploaded"
        return "PermissionDenied" if code in (401, 403, 404, 410) else "UploadFailure"

    async def _status(self, request: int, status: str) -> None:
        with suppress(CallRefused, CallUnanswered):
            await self._call("LogStatusNotification", {"status": status, "requestId": request})


def _instant(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    with suppress(ValueError):
        found = datetime.fromisoformat(value)
        return found if found.tzinfo is not None else None
    return None
