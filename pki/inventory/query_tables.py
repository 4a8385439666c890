"""The table of saved queries."""

from __future__ import annotations

from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Words, WordsKey, WordsOrNull

__all__ = ["SavedQueryRow"]


class SavedQueryRow(SQLModel, table=True):
    """One saved query (`SavedQueryRecord`)."""

    __tablename__ = "saved_query"

    id: WordsKey
    filter: WordsOrNull
    saved_by: Words
    saved_at: Words
    kind: WordsOrNull
