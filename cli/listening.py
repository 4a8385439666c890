"""What every command that serves needs: the address to listen on, and an event loop."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["event_loop_factory", "parse_listen"]


def parse_listen(text: str, *, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    >>> parse_listen("127.0.0.1:8443"), parse_listen("[::1]:0")
    (('127.0.0.1', 8443), ('::1', 0))
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise click.UsageError(f"{option} {text!r} is not HOST:PORT, for example 127.0.0.1:8443")
    return host, int(port)


def event_loop_factory() -> Any:
    """Return what makes event loops: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
