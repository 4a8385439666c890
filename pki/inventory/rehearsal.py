"""An inventory for dry runs: every write is carried out in full, and then undone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from chargepki.pki.inventory.store import Inventory
from chargepki.pki.inventory.transaction import Transaction

__all__ = ["RehearsalInventory"]

_T = TypeVar("_T")


class _Undone(Exception):
    """Rolls a rehearsed work back; never leaves `RehearsalInventory.write`."""


class RehearsalInventory(Inventory):
    """Answers every write as the real inventory would, and commits none.

    What one write did is gone for the next one, so only acts of a single write can be rehearsed.
    """

    __slots__ = ()

    def _prepare_key(self) -> None:
        """Sign nothing: no head is written."""

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """Run *work* in a transaction, undo it, and return its result."""
        results: list[_T] = []

        def rehearse(tx: Transaction) -> None:
            results.append(work(tx))
            raise _Undone

        with contextlib.suppress(_Undone):
            super().write(rehearse)
        return results[-1]
