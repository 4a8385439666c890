"""Serve images to stations: Range, ETag, one URL per station, limits of bandwidth; a route of ``chargepki serve``."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.firmware_approval import find_approval
from chargepki.ocpp_security.firmware_catalogue import image_path
from chargepki.ocpp_security.firmware_urls import PATH, open_ticket
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory, SealingKey
from chargepki.pki.inventory.firmware_records import FirmwareReleaseState
from chargepki.pki.inventory.records import StationState
from chargepki.pki.services.http import Handler, Request, Response, plain, refuse_method

__all__ = ["FirmwareImages", "Pace"]

_log = logging.getLogger("chargepki.firmware")
_CHUNK: Final = 1 << 16
_RANGE: Final = re.compile(rb"bytes=(\d{0,15})-(\d{0,15})\Z")
_BUSY_SECONDS: Final = 30
_ENDPOINT: Final = "firmware"
_MOST_OF_ONE_STATION: Final = 4
"""Downloads at once: one, and those before it whose end we have not noticed yet. No station may take every place."""


class Pace:
    """Spreads octets over time; whoever shares one shares its rate, in the order of asking."""

    def __init__(self, bytes_per_second: int) -> None:
        self.rate = bytes_per_second
        self._free_at = 0.0

    def take(self, octets: int, now: float) -> float:
        """Return the seconds to wait before *octets* may be sent; they count as sent.

        Args:
            now: seconds of any clock that only goes forward, the same one each time.

        >>> pace = Pace(1000)
        >>> pace.take(500, 10.0), pace.take(500, 10.0), pace.take(500, 12.0)
        (0.0, 0.5, 0.0)
        """
        start = max(now, self._free_at)
        self._free_at = start + octets / self.rate
        return start - now


@dataclass(frozen=True, slots=True)
class _Found:
    """An image that may be sent."""

    path: Path
    size: int
    sha256: str
    station: str


class FirmwareImages:
    """The images of one workspace's releases.

    Example:
        images = FirmwareImages(inventory, home, sealing_key)
        site = PkiSite(inventory, routes=images.routes())
    """

    def __init__(
        self,
        inventory: Inventory,
        home: Path,
        sealing: SealingKey,
        *,
        bytes_per_second: int | None = None,
        total_bytes_per_second: int | None = None,
        max_downloads: int = 200,
        allow_plain: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up.

        Args:
            bytes_per_second: limit of each download; none by default.
            total_bytes_per_second: limit of all downloads together.
            max_downloads: at once; further ones are told to come back.
            allow_plain: also over HTTP without TLS, against L01.FR.08.
        """
        self._inventory, self._home, self._sealing, self._clock = inventory, home, sealing, clock
        self._rate = bytes_per_second
        self._total = Pace(total_bytes_per_second) if total_bytes_per_second else None
        self._allow_plain = allow_plain
        self.free = max_downloads
        """How many more downloads may begin."""
        self.taken: Counter[str] = Counter()
        """Downloads under way, by station."""

    def routes(self) -> Mapping[bytes, Handler]:
        """Return the handler by path prefix, for `PkiSite`."""
        return {PATH.encode("ascii"): self.answer}

    async def answer(self, request: Request) -> Response:
        """Answer ``/firmware/TOKEN/NAME``; whoever has no valid URL hears 404, whatever the reason."""
        if request.method not in ("GET", "HEAD"):
            return refuse_method("GET, HEAD", _ENDPOINT)
        if not request.is_tls and not self._allow_plain:
            return plain(403, "images are served over TLS only (OCPP L01.FR.08)", endpoint=_ENDPOINT)
        try:
            found = await asyncio.to_thread(self._find, request.path)
            stream = await asyncio.to_thread(_open, found)
        except OcppRefusal as refusal:
            _log.info("%s: %s", request.peer, refusal.what)
            return plain(404, "there is nothing here", endpoint=_ENDPOINT)
        except (ChargePkiError, OSError) as exc:
            _log.error("an image cannot be served: %s", exc)
            return _busy()
        too_many = self.free <= 0 or self.taken[found.station] >= _MOST_OF_ONE_STATION
        if too_many and request.method == "GET":
            stream.close()
            return _busy()
        return self._respond(request, stream, found)

    def _find(self, path: bytes) -> _Found:
        parts = path.removeprefix(PATH.encode("ascii")).split(b"/")
        if len(parts) != 2:
            raise _gone("no URL of an image")
        ticket = open_ticket(parts[0].decode("latin-1"), self._sealing, self._clock())
        station = self._inventory.find_station(ticket.station)
        if station is None or station.state is not StationState.ACTIVE:
            raise _gone(f"{ticket.station} is no active station")
        for record in self._inventory.list_releases():
            if record.sha256 != ticket.sha256 or record.state is not FirmwareReleaseState.APPROVED:
                continue
            if find_approval(self._inventory, record) is not None:
                return _Found(image_path(self._home, record), record.size, record.sha256, station.id)
        raise _gone(f"the image for {ticket.station} is of no approved release any more")

    def _respond(self, request: Request, stream: BinaryIO, image: _Found) -> Response:
        size, tag = image.size, f'"{image.sha256}"'
        headers = [
            ("Content-Type", "application/octet-stream"), ("ETag", tag), ("Accept-Ranges", "bytes"),
            ("Cache-Control", "private, no-store"),
        ]  # fmt: skip
        known = (request.header(b"if-none-match") or b"").decode("latin-1")
        status, start, end = HTTPStatus.OK, 0, size
        wanted = request.header(b"range")
        if tag in (item.strip() for item in known.split(",")):
            status = HTTPStatus.NOT_MODIFIED
        # A part of another image than the station has begun with would never verify.
        elif wanted is not None and (request.header(b"if-range") or tag.encode()) == tag.encode():
            found = _parse_range(wanted, size)
            if found is not None and found[0] == found[1]:
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                headers.append(("Content-Range", f"bytes */{size}"))
            elif found is not None:
                start, end = found
                status = HTTPStatus.PARTIAL_CONTENT
                headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            stream.close()
            return Response(status, headers=tuple(headers), endpoint=_ENDPOINT)
        stream.seek(start)
        body = _Image(self, image.station, stream, end - start, self._rate, self._total)
        return Response(status, headers=tuple(headers), endpoint=_ENDPOINT, stream=body)


class _Image:
    """A part of an image on its way; takes one place of the server's until it is closed."""

    def __init__(
        self, images: FirmwareImages, station: str, stream: BinaryIO, length: int, rate: int | None, total: Pace | None
    ) -> None:
        self._images, self._station = images, station
        self._stream, self.length, self._left = stream, length, length
        self._paces = [pace for pace in (Pace(rate) if rate else None, total) if pace is not None]
        # Small pieces at a low rate: the connection must not look dead in between.
        self._piece = min([_CHUNK, *(max(1024, pace.rate // 4) for pace in self._paces)])
        self._is_open = True
        images.free -= 1
        images.taken[station] += 1

    async def read(self) -> bytes:
        """Return the next piece when it may be sent."""
        octets = min(self._piece, self._left)
        if not octets:
            return b""
        piece = await asyncio.to_thread(self._stream.read, octets)
        if not piece:
            raise OSError("the image became shorter while it was sent")
        self._left -= len(piece)
        now = time.monotonic()
        wait = max((pace.take(len(piece), now) for pace in self._paces), default=0.0)
        if wait > 0:
            await asyncio.sleep(wait)
        return piece

    def close(self) -> None:
        """Give the place back."""
        if self._is_open:
            self._is_open = False
            self._images.free += 1
            self._images.taken[self._station] -= 1
            if not self._images.taken[self._station]:
                del self._images.taken[self._station]
            self._stream.close()


def _open(image: _Found) -> BinaryIO:
    """Open an image that is what was added, as far as its size tells; the station verifies all of it."""
    # A link or a pipe in its place is nobody's image, and must not hold this thread up either.
    stream = os.fdopen(os.open(image.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size != image.size:
        stream.close()
        raise OSError(f"{image.path} is no plain file of {image.size} bytes")
    return stream


def _parse_range(text: bytes, size: int) -> tuple[int, int] | None:
    """Return begin and end (exclusive) of one range, an empty one where nothing is there; ``None`` for anything else.

    Clause: RFC 9110 14.2: a server may ignore a Range that it does not like.
    """
    match = _RANGE.match(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(size - int(match[2]), 0), size
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    end = min(int(match[2]) + 1, size) if match[2] else size
    return first, max(first, end)


def _busy() -> Response:
    return plain(503, "come back later", endpoint=_ENDPOINT, headers=(("Retry-After", str(_BUSY_SECONDS)),))


def _gone(what: str) -> OcppRefusal:
    return OcppRefusal(what, answer=StatusAnswer("Rejected"))
