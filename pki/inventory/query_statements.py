"""The statements of saved queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table
from sqlalchemy.sql.base import Executable

__all__ = ["query_statements"]


def query_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return the statements by name; *record* selects the columns of a record in their order."""
    query = tables["saved_query"]
    return {"saved_queries": record("saved_query").where(query.c.filter.is_not(None)).order_by(query.c.id)}
