"""The exceptions that an operator made for one station: how it may come in although the standard's rule says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["StationTermsRecord"]


@dataclass(frozen=True, slots=True)
class StationTermsRecord:
    """What is special about one station; a station without a row has no exception at all."""

    station: str
    onboarding_ca: str | None = None
    """Name of the manufacturer's CA that it may come in with for its first certificate (A00.FR.406), for people."""
    onboarding_anchors: bytes | None = None
    """The certificates of that CA in PEM; with the name, or not at all."""
    accept_expired: bool = False
    """Let in with an expired certificate, to renew it (A00.FR.429)."""
    password_grace_seconds: int | None = None
    """How long the password before stays accepted after a change: a deviation from A01.FR.03."""
    previous_password_hash: str | None = None
    """The password before, while its grace lasts."""
    previous_password_until: datetime | None = None
    """Last instant at which it is accepted."""
    issue: Mapping[str, Any] | None = None
    """What signs its requests where that differs from the endpoint: kind of certificate to ``CA`` or ``CA:PROFILE``."""
