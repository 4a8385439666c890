"""Carry out operations on the stations that are connected here, one at a time each, under leases."""

from __future__ import annotations

from collections.abc import Iterable

from chargepki.ocpp_security.csms.services import Services

__all__ = ["OperationRunner"]


class OperationRunner:
    """Takes open operations of connected stations."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def kick(self, station: str) -> None:
        """Look for open operations of *station*."""

    async def look(self, operations: Iterable[str]) -> None:
        """Look at operations that were created or changed."""

    async def sweep(self) -> None:
        """Look for what nobody announced."""

    async def stop(self) -> None:
        """Stop."""
