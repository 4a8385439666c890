"""Restorations: what of a backup took the place of which log, and from where its CRL numbers go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["RestorationRecord"]


@dataclass(frozen=True, slots=True)
class RestorationRecord:
    """One restoration of this inventory from a backup."""

    id: str
    """Made at random with it."""
    restored_at: datetime
    restored_by: str
    backup: str
    """Id of the backup."""
    backed_up_at: datetime
    log_count: int
    """Entries of the audit log in the backup; what came after them is not known here."""
    crl_floor: int
    """Every CRL number used from here on is above it, for all CAs."""
