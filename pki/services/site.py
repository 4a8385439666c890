"""All endpoints behind one handler: which path goes where, and that nothing is answered from stale memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.artefacts import Artefacts
from chargepki.pki.services.gate import ChangeGate
from chargepki.pki.services.health import Health
from chargepki.pki.services.http import Handler, Request, Response, plain
from chargepki.pki.services.ocsp import OcspResponder, Signers
from chargepki.pki.services.ocsp_memory import DEFAULT_MEMORY_BYTES
from chargepki.pki.services.staples import Staples
from chargepki.pki.services.tally import Tally

__all__ = ["PkiSite"]

_log = logging.getLogger(__name__)

_TOGETHER = 16
"""Requests that are answered one after the other and then sent."""

Answer = Callable[[Response], None]


class PkiSite:
    """Answers the requests of interfaces.md, "Endpoints of `serve`"; for one event loop.

    Example:
        site = PkiSite(inventory)
        response = await site.handle(Request("GET", b"/healthz"))

    Args:
        signers: see `OcspResponder`.
        public_url: what certificates point to; a path in it may stand before every path of a request.
        routes: further handlers by path prefix, for example ``/.well-known/est/``.
        answer_bytes: what prepared OCSP answers may take in memory.
        staple_tokens: returns what opens batches of prepared responses, see `Staples`.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        signers: Signers | None = None,
        public_url: str | None = None,
        tally: Tally | None = None,
        health: Health | None = None,
        routes: Mapping[bytes, Handler] | None = None,
        answer_bytes: int = DEFAULT_MEMORY_BYTES,
        staple_tokens: Callable[[], Sequence[bytes]] | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self.health = health or Health(self.tally)
        self.responder = OcspResponder(inventory, signers=signers, tally=self.tally, memory_bytes=answer_bytes)
        self.artefacts = Artefacts(inventory)
        self.staples = Staples(inventory, tokens=staple_tokens)
        self.gate = ChangeGate(inventory, self._apply, lambda: self.responder.apply(None))
        self._prefix = urlsplit(public_url).path.rstrip("/").encode() if public_url else b""
        self._routes = dict(routes or {})
        self._pending: list[tuple[Request, Answer]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _apply(self, entries: Sequence[AuditEntry] | None) -> None:
        self.responder.apply(entries)
        self.artefacts.apply(entries)

    async def handle(self, request: Request) -> Response:
        """Answer one request; for servers of your own."""
        is_current = await self.gate.pass_through() if self._needs_gate(request) else True
        return self._quickly(request, is_current) or await self._answer(request, is_current=is_current)

    # -- many requests at once ------------------------------------------------------------------------------------

    def submit(self, request: Request, answer: Answer) -> None:
        """Answer *request* by calling *answer*, in this loop."""
        if not self._needs_gate(request):
            self._start(self._finish(request, answer, True))
            return
        self._pending.append((request, answer))
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Look once on behalf of all requests that came in with this turn of the loop."""
        pending, self._pending = self._pending, []
        if self.gate.is_quick:
            self._answer_all(pending, self.gate.look())
        else:
            self._start(self._flush_later(pending))

    async def _flush_later(self, pending: list[tuple[Request, Answer]]) -> None:
        self._answer_all(pending, await self.gate.pass_through())

    def _answer_all(self, pending: list[tuple[Request, Answer]], is_current: bool) -> None:
        # Some are made ready before the first is sent: a peer that each answer wakes, to fall asleep again while the
        # next one is signed, costs more than the signature.
        for start in range(0, len(pending), _TOGETHER):
            portion = pending[start : start + _TOGETHER]
            responses = [self._quickly(request, is_current) for request, _ in portion]
            for (request, answer), response in zip(portion, responses, strict=True):
                if response is not None:
                    answer(response)
                else:
                    self._start(self._finish(request, answer, is_current))

    async def _finish(self, request: Request, answer: Answer, is_current: bool) -> None:
        try:
            response = await self._answer(request, is_current=is_current)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever a handler raises is a bug: this request fails, the next ones are answered
            _log.exception("a request failed", extra={"request_id": request.id})
            response = plain(500, f"internal error; the log tells more under request id {request.id}")
        answer(response)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- routes ---------------------------------------------------------------------------------------------------

    def _local(self, target: bytes) -> bytes:
        if self._prefix and target.startswith(self._prefix + b"/"):
            return target[len(self._prefix) :]
        return target

    def _needs_gate(self, request: Request) -> bool:
        return self._local(request.target).startswith((b"/ocsp", b"/crl/", b"/ca/"))

    def _quickly(self, request: Request, is_current: bool) -> Response | None:
        if request.method == "POST":
            if self._local(request.target) in (b"/ocsp", b"/ocsp/"):
                return self.responder.find(request, request.body, is_current=is_current)
        elif request.method == "GET" and self._local(request.target).startswith(b"/ocsp/"):
            return self.responder.find(request, request.target, is_current=is_current)
        return None

    async def _answer(self, request: Request, *, is_current: bool) -> Response:
        target = self._local(request.target)
        if target == b"/ocsp" or target.startswith((b"/ocsp/", b"/ocsp?")):
            return await self.responder.answer(request, is_current=is_current)
        path = self._local(request.path)
        if path.startswith((b"/crl/", b"/ca/")):
            return await self.artefacts.answer(request, path, is_current=is_current)
        if path.startswith(b"/staples/"):
            return await self.staples.answer(request, path)
        if path in (b"/healthz", b"/readyz", b"/metrics"):
            return self.health.answer(request, path)
        for prefix, handler in self._routes.items():
            if path.startswith(prefix):
                return await handler(request)
        return plain(404, "there is nothing here; see /ocsp, /crl/, /ca/, /staples/, /healthz, /readyz, /metrics")

    async def close(self) -> None:
        """Give up what is under way and let go of the inventory."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.gate.close()
        self.responder.close()
