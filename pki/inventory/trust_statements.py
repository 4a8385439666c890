"""The statements on roots of stations, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, bindparam
from sqlalchemy.sql.base import Executable

__all__ = ["trust_statements"]


def trust_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    root, installed, report = (tables[name] for name in ("trust_root", "station_root", "station_root_report"))
    return {
        "trust_roots": record("trust_root").order_by(root.c.id),
        "station_roots": record("station_root")
        .where(installed.c.station == bindparam("station"))
        .order_by(installed.c.use, installed.c.certificate),
        "station_root_holders": record("station_root")
        .where(installed.c.certificate == bindparam("certificate"))
        .order_by(installed.c.station, installed.c.use),
        "station_root_reports": record("station_root_report")
        .where(report.c.station == bindparam("station"))
        .order_by(report.c.use),
    }
