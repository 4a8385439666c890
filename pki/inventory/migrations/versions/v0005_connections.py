"""Connections: onboarding, alert rules and requested logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# A migration states its types itself: it must do the same for ever, whatever the model becomes.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; each in a function of its own."""
    _create_station_terms()


def _create_station_terms() -> None:
    op.create_table(
        "station_terms",
        sa.Column("station", TEXT, nullable=False),
        sa.Column("onboarding_ca", TEXT, nullable=True),
        sa.Column("onboarding_anchors", sa.LargeBinary(), nullable=True),
        sa.Column("accept_expired", sa.Boolean(), nullable=False),
        sa.Column("password_grace_seconds", WHOLE, nullable=True),
        sa.Column("previous_password_hash", TEXT, nullable=True),
        sa.Column("previous_password_until", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_terms_station"),
        sa.PrimaryKeyConstraint("station"),
    )
