"""CRLs and CA certificates as clients fetch them (RFC 5280 4.2.1.13, 4.2.2.1; RFC 2585 media types)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chargepki.pki.authority.artefacts import find_artefact
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.http import Request, Response, http_date, plain, refuse_method

__all__ = ["Artefacts"]

_MAX_AGE: Final = 3600
_MAX_MEMORY: Final = 64 << 20


@dataclass(slots=True, eq=False)
class _Kept:
    response: Response
    until: float
    """POSIX seconds: nextUpdate of a list; infinite for a certificate."""


class Artefacts:
    """Serves what is published, from memory where it can; for one event loop."""

    def __init__(self, inventory: Inventory, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._inventory = inventory
        self._clock = clock
        self._kept: dict[bytes, _Kept] = {}
        self._memory = 0
        self._generation = 0

    def apply(self, entries: Sequence[AuditEntry] | None) -> None:
        """Forget what these changes replaced."""
        if entries is None or any(
            table == "ca" or table.startswith("crl") for entry in entries for table, _, _ in entry.effects
        ):
            self._generation += 1
            self._kept.clear()
            self._memory = 0

    async def answer(self, request: Request, path: bytes, *, is_current: bool) -> Response:
        """Answer a request below ``/crl/`` or ``/ca/``."""
        endpoint = "ca" if path.startswith(b"/ca/") else "crl"
        if request.method not in ("GET", "HEAD"):
            return refuse_method("GET", endpoint)
        kept = self._kept.get(path)
        if kept is None:
            if not is_current:
                return _away(endpoint)
            generation = self._generation
            try:
                kept = await asyncio.get_running_loop().run_in_executor(None, self._read, path)
            except UnavailableError:
                return _away(endpoint)
            if kept is None:
                return plain(404, "there is nothing of that name", endpoint=endpoint)
            if generation == self._generation and len(kept.response.body) <= _MAX_MEMORY // 4:
                self._keep(path, kept)
        if time.time() >= kept.until:
            # Whoever gets a list believes it, so an expired one is not handed out.
            self._kept.pop(path, None)
            return plain(
                503, "the list has expired and no newer one was signed", endpoint=endpoint,
                headers=(("Retry-After", "60"),),
            )  # fmt: skip
        return _conditional(request, kept.response)

    def _keep(self, path: bytes, kept: _Kept) -> None:
        if self._memory + len(kept.response.body) > _MAX_MEMORY:
            self._kept.clear()
            self._memory = 0
        self._kept[path] = kept
        self._memory += len(kept.response.body)

    def _read(self, path: bytes) -> _Kept | None:
        found = find_artefact(self._inventory, path.decode("latin-1"), None)
        if found is None:
            return None
        if found.this_update is None or found.next_update is None:
            headers = (("Cache-Control", "max-age=86400, public"), *_tag(found.data))
            return _Kept(_file(found.data, found.media_type, headers, "ca"), float("inf"))
        left = int((found.next_update - self._clock()).total_seconds())
        headers = (
            ("Cache-Control", f"max-age={max(0, min(_MAX_AGE, left))}, public, no-transform, must-revalidate"),
            ("Expires", http_date(found.next_update)),
            ("Last-Modified", http_date(found.this_update)),
            *_tag(found.data),
        )
        return _Kept(_file(found.data, found.media_type, headers, "crl"), found.next_update.timestamp())


def _tag(content: bytes) -> tuple[tuple[str, str], ...]:
    return (("ETag", f'"{hashlib.sha256(content).hexdigest()}"'),)


def _file(content: bytes, kind: str, headers: tuple[tuple[str, str], ...], endpoint: str) -> Response:
    return Response(200, content, (("Content-Type", kind), *headers), endpoint)


def _conditional(request: Request, response: Response) -> Response:
    wanted = request.header(b"if-none-match")
    tag = dict(response.headers)["ETag"].encode()
    if wanted is not None and (tag in wanted or wanted.strip() == b"*"):
        return Response(304, b"", response.headers[1:], response.endpoint)
    return response


def _away(endpoint: str) -> Response:
    return plain(503, "the inventory cannot be reached", endpoint=endpoint, headers=(("Retry-After", "5"),))
