"""The statements on firmware, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, bindparam
from sqlalchemy.sql.base import Executable

__all__ = ["firmware_statements"]


def firmware_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    names = ("firmware_release", "firmware_approver", "firmware_approval", "firmware_status", "station_firmware")
    release, approver, approval, status, runs = (tables[name] for name in names)
    return {
        "firmware_releases": record("firmware_release").order_by(release.c.vendor, release.c.model, release.c.id),
        "firmware_approvers": record("firmware_approver").order_by(approver.c.id),
        "firmware_approvals": record("firmware_approval")
        .where(approval.c.release == bindparam("release"))
        .order_by(approval.c.approver),
        "firmware_statuses": record("firmware_status")
        .where(status.c.operation == bindparam("operation"))
        .order_by(status.c.number),
        "station_firmware_all": record("station_firmware").order_by(runs.c.station),
    }
