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
    _create_event_tables()


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


def _create_event_tables() -> None:
    op.create_index("ix_security_event_received", "security_event", ["station", "received_at"], unique=False)
    op.create_table(
        "event_series",
        sa.Column("event", WHOLE, autoincrement=False, nullable=False),
        sa.Column("count", WHOLE, nullable=False),
        sa.Column("last_at", TEXT, nullable=False),
        sa.Column("last_received_at", TEXT, nullable=False),
        sa.Column("recent", TEXT, nullable=False),
        sa.Column("changed", WHOLE, nullable=False),
        sa.ForeignKeyConstraint(["event"], ["security_event.id"], name="fk_event_series_event"),
        sa.PrimaryKeyConstraint("event"),
    )
    op.create_index("ix_event_series_changed", "event_series", ["changed"], unique=True)
    op.create_index("ix_event_series_received", "event_series", ["last_received_at"], unique=False)
    op.create_table(
        "alert",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("rule", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("cause", WHOLE, nullable=False),
        sa.Column("summary", TEXT, nullable=False),
        sa.Column("details", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("raised_at", TEXT, nullable=False),
        sa.Column("acknowledged_at", TEXT, nullable=True),
        sa.Column("acknowledged_by", TEXT, nullable=True),
        sa.Column("note", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule", "scope", "cause", name="uq_alert_cause"),
    )
    op.create_index("ix_alert_rule", "alert", ["rule", "scope", "raised_at"], unique=False)
    op.create_table(
        "alert_delivery",
        sa.Column("alert", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("next_at", TEXT, nullable=False),
        sa.Column("done_at", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["alert"], ["alert.id"], name="fk_alert_delivery_alert"),
        sa.PrimaryKeyConstraint("alert", "target"),
    )
    op.create_index("ix_alert_delivery_state", "alert_delivery", ["state", "next_at"], unique=False)
    op.create_table(
        "alert_cursor",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "requested_log",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("station", TEXT, nullable=False),
        sa.Column("request_id", WHOLE, nullable=False),
        sa.Column("log_type", TEXT, nullable=False),
        sa.Column("token_sha256", TEXT, nullable=False),
        sa.Column("max_bytes", WHOLE, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("expires_at", TEXT, nullable=False),
        sa.Column("filename", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=True),
        sa.Column("status_at", TEXT, nullable=True),
        sa.Column("received_at", TEXT, nullable=True),
        sa.Column("size", WHOLE, nullable=True),
        sa.Column("sha256", TEXT, nullable=True),
        sa.Column("file", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_requested_log_station"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("station", "request_id", name="uq_requested_log_request"),
    )
    op.create_index("ix_requested_log_token", "requested_log", ["token_sha256"], unique=True)
