"""The table of restorations."""

from __future__ import annotations

from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Whole, Words, WordsKey

__all__ = ["RestorationRow"]


class RestorationRow(SQLModel, table=True):
    """One restoration (`RestorationRecord`)."""

    __tablename__ = "restoration"

    id: WordsKey
    restored_at: Words
    restored_by: Words
    backup: Words
    backed_up_at: Words
    log_count: Whole
    crl_floor: Whole
