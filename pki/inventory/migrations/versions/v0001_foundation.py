"""The foundation: CAs, certificates, CRLs, stations, queued work, events and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A migration states its types itself: it must do the same for ever, whatever the model becomes.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "audit_entry",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("actor_name", TEXT, nullable=False),
        sa.Column("actor_kind", TEXT, nullable=False),
        sa.Column("actor_authenticated", sa.Boolean(), nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("artefact_sha256", TEXT, nullable=True),
        sa.Column("details", TEXT, nullable=False),
        sa.Column("effects", TEXT, nullable=False),
        sa.Column("preconditions", TEXT, nullable=False),
        sa.Column("previous_hash", TEXT, nullable=False),
        sa.Column("entry_hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("log_id", TEXT, nullable=False),
        sa.Column("count", WHOLE, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=True),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("signature", TEXT, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_audit_head_single"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "ca",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("generation", WHOLE, nullable=False),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("issuer", TEXT, nullable=True),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("subject_der", sa.LargeBinary(), nullable=False),
        sa.Column("key_uri", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("public_url", TEXT, nullable=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("spki_sha256", TEXT, nullable=True),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=True),
        sa.Column("not_before", TEXT, nullable=True),
        sa.Column("not_after", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["issuer"], ["ca.id"], name="fk_ca_issuer"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", "generation", name="uq_ca_name"),
    )
    op.create_table(
        "lease",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=True),
        sa.Column("until", TEXT, nullable=True),
        sa.Column("fence", WHOLE, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("kind", "item"),
    )
    op.create_table(
        "presence",
        sa.Column("station", TEXT, nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("connection", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("security_profile", WHOLE, nullable=False),
        sa.Column("certificate", TEXT, nullable=True),
        sa.Column("peer", TEXT, nullable=False),
        sa.Column("connected_at", TEXT, nullable=False),
        sa.Column("last_seen_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("station"),
    )
    op.create_table(
        "security_event",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("station", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("critical", sa.Boolean(), nullable=False),
        sa.Column("tech_info", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("received_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_security_event_station", "security_event", ["station", "id"], unique=False)
    op.create_table(
        "station",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("serial_number", TEXT, nullable=False),
        sa.Column("organization", TEXT, nullable=True),
        sa.Column("security_profile", WHOLE, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=True),
        sa.Column("pending_password_hash", TEXT, nullable=True),
        sa.Column("password_changed_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_station_serial_number", "station", ["serial_number"], unique=False)
    op.create_table(
        "certificate",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("serial", TEXT, nullable=False),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("subject_der", sa.LargeBinary(), nullable=False),
        sa.Column("spki_sha256", TEXT, nullable=False),
        sa.Column("not_before", TEXT, nullable=False),
        sa.Column("not_after", TEXT, nullable=False),
        sa.Column("request_key", TEXT, nullable=False),
        sa.Column("requester", TEXT, nullable=False),
        sa.Column("reserved_at", TEXT, nullable=False),
        sa.Column("tbs", sa.LargeBinary(), nullable=True),
        sa.Column("der", sa.LargeBinary(), nullable=True),
        sa.Column("sha256", TEXT, nullable=True),
        sa.Column("station", TEXT, nullable=True),
        sa.Column("csr", sa.LargeBinary(), nullable=True),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("issued_at", TEXT, nullable=True),
        sa.Column("revoked_at", TEXT, nullable=True),
        sa.Column("revocation_reason", TEXT, nullable=True),
        sa.Column("delivery", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_certificate_ca"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ca", "serial", name="uq_certificate_serial"),
    )
    op.create_index("ix_certificate_request_key", "certificate", ["request_key"], unique=False)
    op.create_index(
        "ix_certificate_reserved",
        "certificate",
        ["ca"],
        unique=False,
        sqlite_where=sa.text("state = 'reserved'"),
        postgresql_where=sa.text("state = 'reserved'"),
    )
    op.create_index(
        "ix_certificate_revoked",
        "certificate",
        ["ca"],
        unique=False,
        sqlite_where=sa.text("state = 'revoked'"),
        postgresql_where=sa.text("state = 'revoked'"),
    )
    op.create_index(
        "ix_certificate_revoked_key",
        "certificate",
        ["spki_sha256"],
        unique=False,
        sqlite_where=sa.text("state = 'revoked'"),
        postgresql_where=sa.text("state = 'revoked'"),
    )
    op.create_index("ix_certificate_serial", "certificate", ["serial"], unique=False)
    op.create_index("ix_certificate_sha256", "certificate", ["sha256"], unique=False)
    op.create_index(
        "ix_certificate_station",
        "certificate",
        ["station"],
        unique=False,
        sqlite_where=sa.text("station IS NOT NULL"),
        postgresql_where=sa.text("station IS NOT NULL"),
    )
    op.create_table(
        "crl",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("this_update", TEXT, nullable=False),
        sa.Column("next_update", TEXT, nullable=False),
        sa.Column("entries", WHOLE, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_ca"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ca", "number", name="uq_crl_number"),
    )
    op.create_table(
        "issuance",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("options", TEXT, nullable=False),
        sa.Column("request_key", TEXT, nullable=False),
        sa.Column("requester", TEXT, nullable=False),
        sa.Column("station", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("certificate", TEXT, nullable=True),
        sa.Column("refusal", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_issuance_ca"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_issuance_queued",
        "issuance",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_issuance_request_key", "issuance", ["request_key"], unique=False)
    op.create_table(
        "operation",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("station", TEXT, nullable=False),
        sa.Column("parameters", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("requester", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("deadline", TEXT, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("outcome", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_operation_station"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_operation_queued",
        "operation",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_operation_station", "operation", ["station", "created_at"], unique=False)
    op.create_table(
        "attempt",
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("number", WHOLE, autoincrement=False, nullable=False),
        sa.Column("sent_at", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("answered_at", TEXT, nullable=True),
        sa.Column("answer", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_attempt_operation"),
        sa.PrimaryKeyConstraint("operation", "number"),
    )
