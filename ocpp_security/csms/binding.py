"""Bind the addresses that a host name stands for, with one port for all of them."""

from __future__ import annotations

import asyncio
import socket

__all__ = ["bind"]


async def bind(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Return listening sockets that do not block.

    Args:
        host: a name, an address, or nothing for every address of the machine.
        port: 0 lets the kernel choose.

    Raises:
        OSError: one of the addresses cannot be bound; then none is.
    """
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    sockets: list[socket.socket] = []
    try:
        for family, _type, _proto, _name, address in dict.fromkeys(infos):
            # With port 0 the first family chooses, and the others follow it.
            bound = socket.create_server((str(address[0]), port), family=family, backlog=backlog)
            bound.setblocking(False)
            sockets.append(bound)
            port = port or bound.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
