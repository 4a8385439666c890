"""The audit log as the rest of the program sees it: keys, heads, checkpoints, verification."""

from __future__ import annotations

from chargepki.pki.inventory.audit_chain import AuditKey, AuditPublicKey, LogHead
from chargepki.pki.inventory.audit_checkpoint import Checkpoint
from chargepki.pki.inventory.audit_verify import AuditFinding, AuditReport, verify_log

__all__ = ["AuditFinding", "AuditKey", "AuditPublicKey", "AuditReport", "Checkpoint", "LogHead", "verify_log"]
