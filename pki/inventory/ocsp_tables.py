"""The table of prepared OCSP responses."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Words, WordsKey

__all__ = ["OcspResponseRow"]


class OcspResponseRow(SQLModel, table=True):
    """One signed OCSP response (`OcspResponseRecord`); not audited: its certificate's row says the same.

    It lives and dies with the status that it states: `Transaction` drops it with every change of that status.
    """

    __tablename__ = "ocsp_response"
    __table_args__ = (
        ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_ocsp_response_certificate"),
        Index("ix_ocsp_response_signer", "signer"),
        Index("ix_ocsp_response_this_update", "this_update"),
        Index("ix_ocsp_response_next_update", "next_update"),
    )

    certificate: WordsKey
    hash: WordsKey
    ca: Words
    status: Words
    signer: Words
    this_update: Words
    next_update: Words
    refresh_at: Words
    der: bytes
