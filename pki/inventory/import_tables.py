"""The tables of imports."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Words, WordsKey, WordsOrNull

__all__ = ["ImportRunRow", "ProvenanceRow"]


class ImportRunRow(SQLModel, table=True):
    """One import (`ImportRunRecord`)."""

    __tablename__ = "import_run"

    id: WordsKey
    source: Words
    command: Words
    imported_by: Words
    started_at: Words


class ProvenanceRow(SQLModel, table=True):
    """One place of a certificate (`ProvenanceRecord`)."""

    __tablename__ = "provenance"
    __table_args__ = (
        ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_provenance_certificate"),
        ForeignKeyConstraint(["run"], ["import_run.id"], name="fk_provenance_run"),
    )

    certificate: WordsKey
    place: WordsKey
    run: Words
    file_sha256: Words
    role: WordsOrNull
