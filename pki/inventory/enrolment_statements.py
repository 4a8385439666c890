"""The statements of enrolment over EST, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, bindparam
from sqlalchemy.sql.base import Executable

__all__ = ["enrolment_statements"]


def enrolment_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    account = tables["est_account"]
    mine = account.c.certificate_sha256 == bindparam("certificate_sha256")
    return {
        "est_account_by_certificate": record("est_account")
        .where(mine, account.c.state == "active")
        .order_by(account.c.id)
    }
