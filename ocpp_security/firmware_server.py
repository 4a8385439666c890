"""Serve images to stations: an aiohttp handler with Range, ETag, one URL per station and a limit of bandwidth."""

from __future__ import annotations

import asyncio
import logging
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from aiohttp import web

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.firmware_catalogue import image_path
from chargepki.ocpp_security.firmware_urls import PATH, open_ticket
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory, SealingKey
from chargepki.pki.inventory.firmware_records import FirmwareReleaseState
from chargepki.pki.inventory.records import StationState

__all__ = ["FirmwareImages"]

_log = logging.getLogger("chargepki.firmware")
_CHUNK: Final = 1 << 16
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})\Z", re.ASCII)
_BUSY_SECONDS: Final = 30


class FirmwareImages:
    """The images of one workspace's releases.

    Example:
        application = web.Application()
        FirmwareImages(inventory, home, sealing_key).add_to(application)
    """

    def __init__(
        self,
        inventory: Inventory,
        home: Path,
        sealing: SealingKey,
        *,
        bytes_per_second: int | None = None,
        max_downloads: int = 200,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up.

        Args:
            bytes_per_second: limit of each download; none by default.
            max_downloads: at once; further ones are told to come back.
        """
        self._inventory, self._home, self._sealing, self._clock = inventory, home, sealing, clock
        self._rate = bytes_per_second
        self._free = max_downloads

    def add_to(self, application: web.Application) -> None:
        """Add the route ``/firmware/TOKEN/NAME`` for GET and HEAD."""
        application.router.add_get(f"{PATH}{{token}}/{{name}}", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whoever has no valid URL hears 404, whatever the reason."""
        try:
            path = await asyncio.to_thread(self._find, request.match_info["token"])
            stream = await asyncio.to_thread(_open, path)
        except OcppRefusal as refusal:
            _log.info("%s: %s", request.remote, refusal.what)
            raise web.HTTPNotFound from refusal
        except (ChargePkiError, OSError) as exc:
            _log.error("an image cannot be served: %s", exc)
            raise web.HTTPServiceUnavailable(headers={"Retry-After": str(_BUSY_SECONDS)}) from exc
        if self._free <= 0:
            stream.close()
            raise web.HTTPServiceUnavailable(headers={"Retry-After": str(_BUSY_SECONDS)})
        self._free -= 1
        try:
            return await self._send(request, stream, path.stem)
        finally:
            self._free += 1
            stream.close()

    def _find(self, token: str) -> Path:
        ticket = open_ticket(token, self._sealing, self._clock())
        station = self._inventory.find_station(ticket.station)
        if station is None or station.state is not StationState.ACTIVE:
            raise _gone(f"{ticket.station} is no active station")
        for record in self._inventory.list_releases():
            if record.sha256 == ticket.sha256 and record.state is FirmwareReleaseState.APPROVED:
                return image_path(self._home, record)
        raise _gone(f"the image for {ticket.station} is of no approved release any more")

    async def _send(self, request: web.Request, stream: BinaryIO, sha256: str) -> web.StreamResponse:
        size = stream.seek(0, 2)
        tag = f'"{sha256}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-store"}
        if tag in (item.strip() for item in request.headers.get("If-None-Match", "").split(",")):
            return web.Response(status=304, headers=headers)
        start, end, status = 0, size, 200
        wanted = request.headers.get("Range")
        # A part of another image than the station has begun with would never verify.
        if wanted is not None and request.headers.get("If-Range", tag) == tag:
            found = _parse_range(wanted, size)
            if found is None:
                return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
            start, end = found
            if (start, end) != (0, size) or wanted.startswith("bytes=0-"):
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            await self._write(response, stream, start, end)
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, stream: BinaryIO, start: int, end: int) -> None:
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        stream.seek(start)
        while start + sent < end:
            chunk = await asyncio.to_thread(stream.read, min(_CHUNK, end - start - sent))
            if not chunk:
                raise ConnectionResetError("the image became shorter while it was sent")
            await response.write(chunk)
            sent += len(chunk)
            if self._rate is not None:
                ahead = sent / self._rate - (loop.time() - begun)
                if ahead > 0:
                    await asyncio.sleep(ahead)


def _open(path: Path) -> BinaryIO:
    stream = path.open("rb")
    if not stat.S_ISREG(path.stat().st_mode):
        stream.close()
        raise OSError(f"{path} is no plain file")
    return stream


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return begin and end (exclusive) of one range; the whole for what is no single range; ``None``: out of range.

    Clause: RFC 9110 14.2: a server may ignore a Range that it does not like.
    """
    match = _RANGE.match(text.strip())
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        length = int(match[2])
        return (max(size - length, 0), size) if length and size else None
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return 0, size
    return (first, last + 1) if first < size else None


def _gone(what: str) -> OcppRefusal:
    return OcppRefusal(what, answer=StatusAnswer("Rejected"))
