"""Revocation at scale: list shards, deltas, holds and invalidity dates."""

from __future__ import annotations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Nothing yet."""
