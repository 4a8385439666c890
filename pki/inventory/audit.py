"""The audit log as the rest of the program sees it: keys, heads, checkpoints, verification.

Names are loaded when they are first asked for: who only needs the log key does not wait for the verification.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.pki.inventory.audit_chain import LogHead
    from chargepki.pki.inventory.audit_checkpoint import Checkpoint
    from chargepki.pki.inventory.audit_key import AuditKey, AuditPublicKey
    from chargepki.pki.inventory.audit_verify import AuditFinding, AuditReport, verify_log

__all__ = ["AuditFinding", "AuditKey", "AuditPublicKey", "AuditReport", "Checkpoint", "LogHead", "verify_log"]

_HOMES = {
    "AuditFinding": "audit_verify",
    "AuditKey": "audit_key",
    "AuditPublicKey": "audit_key",
    "AuditReport": "audit_verify",
    "Checkpoint": "audit_checkpoint",
    "LogHead": "audit_chain",
    "verify_log": "audit_verify",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"chargepki.pki.inventory.{_HOMES[name]}"), name)
