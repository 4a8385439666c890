"""Two of our RPC links joined by queues in place of a network."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosedOK

from chargepki.ocpp_security.link import Reply, RpcLink
from chargepki.ocpp_security.rpc import CallReceived, ProtocolViolation, RpcSession
from chargepki.ocpp_security.versions import OcppVersion, Role
from testkit.ocpp_payloads import caller_of

__all__ = ["talk"]

_log = logging.getLogger("chargepki.test")


class _End:
    """As much of a WebSocket connection as a link uses."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self.peer: _End = self

    async def recv(self) -> str:
        frame = await self.inbox.get()
        if frame is None:
            raise ConnectionClosedOK(None, None)
        return frame

    async def send(self, text: str) -> None:
        self.peer.inbox.put_nowait(text)


def talk(
    version: OcppVersion, action: str, request: dict[str, Any], response: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call *action* over a pair of links; return the payloads as the two ends received them."""
    received: list[dict[str, Any]] = []

    async def answer(event: CallReceived) -> Reply:
        received.append(event.payload)
        return Reply(response)

    async def violated(event: ProtocolViolation) -> None:
        raise AssertionError(event.reason)

    def link(end: _End, role: Role) -> RpcLink:
        return RpcLink(
            cast("Connection", end),
            RpcSession(version, role=role),
            on_call=answer,
            on_violation=violated,
            clock=lambda: datetime.now(UTC),
            log=_log,
            name=role.value,
        )

    async def story() -> dict[str, Any]:
        caller, callee = _End(), _End()
        caller.peer, callee.peer = callee, caller
        role = caller_of(version, action)
        other = Role.CSMS if role is Role.STATION else Role.STATION
        calling, called = link(caller, role), link(callee, other)
        running = [asyncio.create_task(calling.run()), asyncio.create_task(called.run())]
        answered = await calling.call(action, request, timedelta(seconds=10))
        caller.inbox.put_nowait(None)
        callee.inbox.put_nowait(None)
        await asyncio.gather(*running)
        return answered

    answered = asyncio.run(story())
    return received[0], answered
