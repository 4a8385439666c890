"""Reads of restorations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.inventory.codec import RESTORATION
from chargepki.pki.inventory.restoration_records import RestorationRecord

__all__ = ["RestorationReads"]


class _Base(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class RestorationReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def list_restorations(self: _Base) -> list[RestorationRecord]:
        """Return every restoration that this inventory went through, oldest first."""
        return [RESTORATION.decode(row) for row in self._rows("restorations", {})]
