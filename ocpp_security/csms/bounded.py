"""A server connection that a peer cannot make us pay for without end: pings, and answers that it never reads."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

__all__ = ["BoundedConnection"]

_log = logging.getLogger("chargepki.csms")
_POLICY_VIOLATION: Final = 1008
_MAX_PINGS: Final = 600
"""Pings a minute; a station sends one every few seconds at most (WebSocketPingInterval)."""
_WINDOW_SECONDS: Final = 60.0
_MAX_UNREAD_BYTES: Final = 1 << 20
"""Octets that wait for a peer to read them. Pongs are written without waiting, so nothing else would bound them."""


class BoundedConnection(ServerConnection):
    """Closes on a flood of pings, and drops a peer that takes without end and reads nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pings = 0
        self._pings_since = asyncio.get_running_loop().time()

    def process_event(self, event: Event) -> None:
        """Count pings, then do as ever."""
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            now = asyncio.get_running_loop().time()
            if now - self._pings_since > _WINDOW_SECONDS:
                self._pings, self._pings_since = 0, now
            self._pings += 1
            if self._pings == _MAX_PINGS:
                _log.warning(
                    "%s: [ping-flood] %d pings within a minute; closed; to fix: see the station's firmware release",
                    self.remote_address, _MAX_PINGS,
                )  # fmt: skip
                self.protocol.fail(_POLICY_VIOLATION, "too many pings")
                self.send_data()
                return
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        """Read on only while the peer reads, too."""
        super().data_received(data)
        if self.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            _log.warning(
                "%s: [reads-nothing] more than %d octets wait for it; dropped; to fix: check the link to the station",
                self.remote_address, _MAX_UNREAD_BYTES,
            )  # fmt: skip
            self.transport.abort()
