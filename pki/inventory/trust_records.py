"""Root certificates that we know, what ought to be installed where, and what each station says is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["StationRootRecord", "StationRootReportRecord", "StationRootState", "TrustRootRecord"]


class StationRootState(StrEnum):
    """What ought to be true of a root on a station."""

    INSTALLED = "installed"
    """The station took it (M05)."""
    DELETED = "deleted"
    """The station deleted it (M04)."""


@dataclass(frozen=True, slots=True)
class TrustRootRecord:
    """A CA certificate that somebody wanted on a station; CAs of ours need no row."""

    id: str
    """SHA-256 of the DER, lower-case hex."""
    der: bytes
    issuer_der: bytes | None
    """Certificate of the CA that signed it; itself for a self-signed one."""
    subject: str
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class StationRootRecord:
    """What we did last to one root on one station."""

    station: str
    use: str
    """``csms``, ``manufacturer``, ``v2g``, ``mo`` or ``oem``."""
    certificate: str
    """SHA-256 of its DER."""
    state: StationRootState
    operation: str
    """Which did it."""
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class StationRootReportRecord:
    """What a station listed last for one use (GetInstalledCertificateIds)."""

    station: str
    use: str
    """As in `StationRootRecord`, and ``v2g-chain``."""
    listed: Mapping[str, Any]
    """``entries``: one object each with ``hash``, the station's own strings, and ``children`` where it told some."""
    reported_at: datetime
