"""A CSMS of a few lines, in clear text: it answers what a station needs, and a test speaks through it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from chargepki.ocpp_security.station import Progress, RetryPolicy, StationSimulator, StationStore, parse_conduct
from chargepki.ocpp_security.trust_store import TrustPolicy
from testkit.csms_rig import PASSWORD

__all__ = ["Desk", "desk_with"]

FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.05))


class Desk:
    """A CSMS on profile 1 that answers what a station needs and records every call."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.arrivals: list[str] = []
        self.sockets: list[ServerConnection] = []
        self.boot_status = "Accepted"
        self.boot_interval = 300
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.arrivals.append(socket.request.headers.get("Authorization", ""))
        self.sockets.append(socket)
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                kind, number, *rest = orjson.loads(text)
                if kind == 2:
                    self.calls.put_nowait((rest[0], rest[1]))
                    await socket.send(orjson.dumps([3, number, self._reply(rest[0])]).decode())
                elif number in self._answers:
                    self._answers.pop(number).set_result(rest[0] if kind == 3 else {"error": rest[0]})

    async def expect(self, action: str) -> dict[str, Any]:
        while True:
            found, payload = await asyncio.wait_for(self.calls.get(), 60)
            if found == action:
                return payload

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        number = f"{action}-{len(self._answers)}-{self.calls.qsize()}"
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self.sockets[-1].send(orjson.dumps([2, number, action, payload]).decode())
        return await asyncio.wait_for(asyncio.shield(self._answers[number]), 60)

    def _reply(self, action: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        if action == "BootNotification":
            return {"status": self.boot_status, "currentTime": now, "interval": self.boot_interval}
        if action == "Heartbeat":
            return {"currentTime": now}
        return {"status": "Accepted"} if action == "SignCertificate" else {}


@contextlib.asynccontextmanager
async def desk_with(
    folder: Path,
    *names: str,
    version: str = "ocpp2.0.1",
    enrol: bool = False,
    roots: dict[str, bytes] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Desk, StationSimulator, list[Progress]]]:
    desk, told = Desk(), list[Progress]()
    # The desk has no TLS; what a station does with that has a test of its own.
    options.setdefault("trust_policy", TrustPolicy(needs_tls=False))
    store = StationStore(folder)
    store.set_password(PASSWORD)
    for use, pem in (roots or {}).items():
        store.set_roots(use, pem) if use != "csms" else store.set_trust(pem)
    async with serve(desk.handle, "127.0.0.1", 0, subprotocols=[Subprotocol(version)], compression=None) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        station = StationSimulator(
            url, "CS-1", store, version, organization="Acme", enrol=enrol, retry=FAST,
            conduct=parse_conduct(names), progress=told.append, **options,
        )  # fmt: skip
        task = asyncio.create_task(station.run())
        try:
            yield desk, station, told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
