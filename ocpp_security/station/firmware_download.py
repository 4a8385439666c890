"""Fetch an image over HTTP(S) and go on where a broken download stopped."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from chargepki.pki.errors import InputError, UnavailableError

__all__ = ["MAX_IMAGE_BYTES", "download"]

MAX_IMAGE_BYTES: Final = 4 << 30
_CHUNK: Final = 1 << 16
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=30)
_WHOLE: Final = re.compile(r"bytes \*/(\d{1,15})\Z")
_RANGE: Final = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)\Z")


async def download(
    location: str,
    part: Path,
    etag: str | None,
    *,
    tls: ssl.SSLContext | None,
    keep_etag: Callable[[str | None], None],
) -> None:
    """Download *location* into *part*, which may hold its beginning already.

    What is there is kept only when the server confirms, by its ETag, that it still serves the same image. Redirects
    are not followed: a station goes where it is told to go.

    Args:
        etag: of the image that *part* begins with.
        keep_etag: stores the ETag of what is being written, before anything is written.

    Raises:
        InputError: no http or https URL.
        UnavailableError: anything else; *part* keeps what arrived, unless the server began anew.
    """
    if urlsplit(location).scheme not in ("http", "https"):
        raise InputError("this station fetches over http and https alone")
    have = await asyncio.to_thread(_size, part) if etag else 0
    headers = {"Range": f"bytes={have}-", "If-Range": etag} if have and etag else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session,
            session.get(
                location, headers=headers, ssl=tls if tls is not None else True, allow_redirects=False
            ) as answer,
        ):
            if answer.status == 416 and have:
                _check_whole(answer, have, keep_etag)
                return
            start = _start(answer, have)
            if start == 0:
                keep_etag(answer.headers.get("ETag"))
            await _write(answer, part, start)
    except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as exc:
        raise UnavailableError("the image cannot be fetched", why=type(exc).__name__) from exc


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _check_whole(answer: aiohttp.ClientResponse, have: int, keep_etag: Callable[[str | None], None]) -> None:
    """Accept that nothing is left to fetch: the power went between the last octet and the note that it is there.

    Raises:
        UnavailableError: what is there is not as long as the image; the next attempt begins anew.
    """
    match = _WHOLE.match(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        keep_etag(None)
        raise UnavailableError("the server has another image than the one begun with")


def _start(answer: aiohttp.ClientResponse, have: int) -> int:
    """Return where the body begins in the image."""
    if answer.status == 206:
        match = _RANGE.match(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise UnavailableError("the server sent another part than was asked for")
        return have
    if answer.status != 200:
        raise UnavailableError(f"the server answered {answer.status}")
    return 0


async def _write(answer: aiohttp.ClientResponse, part: Path, start: int) -> None:
    size = start
    # Not a durable write: until it is whole and verified the file means nothing, and a lost tail is fetched again.
    with part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        stream.truncate()
        async for chunk in answer.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > MAX_IMAGE_BYTES:
                raise UnavailableError(f"the image is larger than {MAX_IMAGE_BYTES} bytes")
            stream.write(chunk)
        stream.flush()
        await asyncio.to_thread(os.fsync, stream.fileno())
    expected = answer.content_length
    if expected is not None and size - start != expected:
        raise UnavailableError("the download broke off")
