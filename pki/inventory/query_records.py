"""Saved queries: filters that have a name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["SavedQueryRecord"]


@dataclass(frozen=True, slots=True)
class SavedQueryRecord:
    """A filter under a name."""

    id: str
    """Its name."""
    filter: str | None
    """As it was typed: ``now`` is the instant at which it is asked. ``None`` once the query was deleted."""
    saved_by: str
    saved_at: datetime
    kind: str | None = None
    """What it asks for, of `row_fields.ListedKind`; ``None`` for certificates."""
