"""OCSP: signers, prepared responses and the leadership of background work."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nothing yet."""
