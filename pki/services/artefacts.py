"""CRLs and CA certificates as clients fetch them (RFC 5280 4.2.1.13, 4.2.2.1; RFC 2585 media types)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chargepki.pki.authority.artefacts import find_artefact, published_paths
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.http import Request, Response, http_date, if_none_match, plain, refuse_method, with_max_age

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
        self._filled = -1

    def apply(self, entries: Sequence[AuditEntry] | None) -> None:
        """Forget what these changes replaced."""
        replaced: set[bytes] = set()
        for entry in entries or ():
            for table, key, _ in entry.effects:
                if table in ("ca", "crl", "crl_delta"):
                    # Ids of lists are CA/NUMBER; which path a list has does not show, so all of its CA go.
                    replaced.add(key.partition("/")[0].encode())
        if entries is None:
            self._kept.clear()
            self._memory = 0
        for ca in replaced:
            for path in [path for path in self._kept if path.startswith((b"/crl/" + ca, b"/ca/" + ca))]:
                self._drop(path)
        if entries is None or replaced:
            self._generation += 1

    def _drop(self, path: bytes) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._memory -= len(kept.response.body)

    async def refill(self) -> int:
        """Take in what is published and not in memory: the inventory may be away the next moment; return how much.

        Raises:
            UnavailableError: it is away already.
        """
        generation = self._generation
        if generation == self._filled:
            return 0
        loop, taken = asyncio.get_running_loop(), 0
        for path in await loop.run_in_executor(None, published_paths, self._inventory, self._clock()):
            if path.encode() in self._kept:
                continue
            kept = await loop.run_in_executor(None, self._read, path.encode())
            if generation != self._generation:
                return taken  # what was read may be old already; the next call begins anew
            if kept is not None and self._memory + len(kept.response.body) <= _MAX_MEMORY * 9 // 10:
                self._keep(path.encode(), kept)
                taken += 1
        self._filled = generation
        return taken

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
        left = kept.until - time.time()
        if left <= 0:
            # Whoever gets a list believes it, so an expired one is not handed out.
            self._drop(path)
            return plain(
                503, "the list has expired and no newer one was signed", endpoint=endpoint,
                headers=(("Retry-After", "60"),),
            )  # fmt: skip
        response = kept.response if left >= _MAX_AGE else with_max_age(kept.response, int(left))
        return if_none_match(request, response)

    def _keep(self, path: bytes, kept: _Kept) -> None:
        self._drop(path)
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
        headers = (
            ("Cache-Control", f"max-age={_MAX_AGE}, public, no-transform, must-revalidate"),
            ("Expires", http_date(found.next_update)),
            ("Last-Modified", http_date(found.this_update)),
            *_tag(found.data),
        )
        return _Kept(_file(found.data, found.media_type, headers, "crl"), found.next_update.timestamp())


def _tag(content: bytes) -> tuple[tuple[str, str], ...]:
    return (("ETag", f'"{hashlib.sha256(content).hexdigest()}"'),)


def _file(content: bytes, kind: str, headers: tuple[tuple[str, str], ...], endpoint: str) -> Response:
    return Response(200, content, (("Content-Type", kind), *headers), endpoint)


def _away(endpoint: str) -> Response:
    return plain(503, "the inventory cannot be reached", endpoint=endpoint, headers=(("Retry-After", "5"),))
