"""The inventory: the only code that knows SQL; frozen dataclasses leave it, rows never do.

Names are loaded when they are first asked for: the command line starts faster that way.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.pki.inventory.audit import (
        AuditFinding,
        AuditKey,
        AuditPublicKey,
        AuditReport,
        Checkpoint,
        LogHead,
        verify_log,
    )
    from chargepki.pki.inventory.sealing import SealingKey
    from chargepki.pki.inventory.store import Inventory
    from chargepki.pki.inventory.transaction import Transaction
    from chargepki.pki.inventory.watch import ChangeWatcher

__all__ = [
    "AuditFinding",
    "AuditKey",
    "AuditPublicKey",
    "AuditReport",
    "ChangeWatcher",
    "Checkpoint",
    "Inventory",
    "LogHead",
    "SealingKey",
    "Transaction",
    "verify_log",
]

_HOMES = {
    "AuditFinding": "audit",
    "AuditKey": "audit",
    "AuditPublicKey": "audit",
    "AuditReport": "audit",
    "ChangeWatcher": "watch",
    "Checkpoint": "audit",
    "Inventory": "store",
    "LogHead": "audit",
    "SealingKey": "sealing",
    "Transaction": "transaction",
    "verify_log": "audit",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
