"""The table of verdict forms."""

from __future__ import annotations

from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Words, WordsKey

__all__ = ["VerdictFormRow"]


class VerdictFormRow(SQLModel, table=True):
    """What verdicts of one kind have in common (`VerdictFormRecord`)."""

    __tablename__ = "verdict_form"

    id: WordsKey
    text: Words
