"""The tables of roots on stations."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Words, WordsKey

__all__ = ["StationRootReportRow", "StationRootRow", "TrustRootRow"]


class TrustRootRow(SQLModel, table=True):
    """One certificate (`TrustRootRecord`)."""

    __tablename__ = "trust_root"

    id: WordsKey
    der: bytes
    issuer_der: bytes | None
    subject: Words
    added_by: Words
    added_at: Words


class StationRootRow(SQLModel, table=True):
    """One root on one station (`StationRootRecord`)."""

    __tablename__ = "station_root"
    __table_args__ = (
        CheckConstraint("state IN ('installed', 'deleted')", name="ck_station_root_state"),
        ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_root_station"),
    )

    station: WordsKey
    use: WordsKey
    certificate: WordsKey
    state: Words
    operation: Words
    changed_at: Words


class StationRootReportRow(SQLModel, table=True):
    """One listing (`StationRootReportRecord`)."""

    __tablename__ = "station_root_report"
    __table_args__ = (ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_root_report_station"),)

    station: WordsKey
    use: WordsKey
    listed: Words
    reported_at: Words
