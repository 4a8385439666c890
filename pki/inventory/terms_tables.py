"""The table of the exceptions made for single stations."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import WholeOrNull, WordsKey, WordsOrNull

__all__ = ["StationTermsRow"]


class StationTermsRow(SQLModel, table=True):
    """The exceptions of one station (`StationTermsRecord`)."""

    __tablename__ = "station_terms"
    __table_args__ = (ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_terms_station"),)

    station: WordsKey
    onboarding_ca: WordsOrNull
    onboarding_anchors: bytes | None
    accept_expired: bool
    password_grace_seconds: WholeOrNull
    previous_password_hash: WordsOrNull
    previous_password_until: WordsOrNull
    issue: WordsOrNull
