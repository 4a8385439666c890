"""The statements of restorations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, func, select
from sqlalchemy.sql.base import Executable

__all__ = ["restoration_statements"]


def restoration_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return the statements by name; *record* selects the columns of a record in their order."""
    restoration = tables["restoration"]
    return {
        "restorations": record("restoration").order_by(restoration.c.restored_at, restoration.c.id),
        "restoration_floor": select(func.max(restoration.c.crl_floor)),
    }
