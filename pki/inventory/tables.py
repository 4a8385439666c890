"""The tables, as SQLModel rows: the model that migrations and compiled statements are made from.

Nothing imports this at run time but migrations and reporting: writes and reads go through statements compiled from
these tables beforehand (`statements`), since importing an ORM costs more than issuing a certificate.
A ``table=True`` model accepts any value unchecked, so rows are built from checked records only (`codec`).
"""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Integer, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

__all__ = [
    "AttemptRow",
    "AuditEntryRow",
    "AuditHeadRow",
    "CaRow",
    "CertificateRow",
    "CrlDeltaRow",
    "CrlRow",
    "CrlSegmentRow",
    "CrlShardRow",
    "EstAccountRow",
    "EstRequestRow",
    "IssuanceRow",
    "LeaseRow",
    "OperationRow",
    "PresenceRow",
    "RevocationChangeRow",
    "SecurityEventRow",
    "StationRow",
]

# Byte order on PostgreSQL too: identifiers and instants then sort alike on both, whatever the server's locale.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
# An INTEGER key is the row id itself on SQLite; on PostgreSQL it has 64 bits.
WHOLE = BigInteger().with_variant(Integer(), "sqlite")

Words = Annotated[str, Field(sa_type=TEXT)]
WordsOrNull = Annotated[str | None, Field(sa_type=TEXT)]
WordsKey = Annotated[str, Field(sa_type=TEXT, primary_key=True)]
Whole = Annotated[int, Field(sa_type=WHOLE)]
WholeOrNull = Annotated[int | None, Field(sa_type=WHOLE)]
WholeKey = Annotated[int, Field(sa_type=WHOLE, primary_key=True, sa_column_kwargs={"autoincrement": False})]


class CaRow(SQLModel, table=True):
    """One generation of a CA (`CaRecord`)."""

    __tablename__ = "ca"
    __table_args__ = (
        UniqueConstraint("name", "generation", name="uq_ca_name"),
        ForeignKeyConstraint(["issuer"], ["ca.id"], name="fk_ca_issuer"),
    )

    id: WordsKey
    name: Words
    generation: Whole
    profile: Words
    issuer: WordsOrNull
    subject: Words
    subject_der: bytes
    key_uri: Words
    state: Words
    public_url: WordsOrNull
    created_at: Words
    spki_sha256: WordsOrNull
    certificate_der: bytes | None
    not_before: WordsOrNull
    not_after: WordsOrNull
    crl_shard_size: WholeOrNull
    crl_delta_hours: WholeOrNull


class CertificateRow(SQLModel, table=True):
    """One certificate, from the reservation of its serial on (`CertificateRecord`)."""

    __tablename__ = "certificate"
    __table_args__ = (
        UniqueConstraint("ca", "serial", name="uq_certificate_serial"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_certificate_ca"),
        Index("ix_certificate_serial", "serial"),
        Index("ix_certificate_request_key", "request_key"),
        Index("ix_certificate_sha256", "sha256"),
        # Holds all that counting a CA's certificates by state asks for.
        Index("ix_certificate_ca_state", "ca", "state"),
        # The pages of a profile in their order, and all that asks which of them expire.
        Index("ix_certificate_profile", "profile", "id", "not_after", "state"),
        # Hold all that counting what expires asks for, and all that a census asks for: SQLite reads a certificate for
        # each entry otherwise. An entry of PostgreSQL has its limit, which a requester's name could exceed.
        Index("ix_certificate_expiry", "not_after", "state", "profile", "id", "traits").ddl_if("postgresql"),
        Index(
            "ix_certificate_census", "not_after", "state", "profile", "id", "traits", "requester", "issued_at"
        ).ddl_if("sqlite"),
        # The least that says what expires soon: a fraction of the one above, which PostgreSQL reads faster. SQLite
        # would choose it where the one above holds all that is asked for.
        Index("ix_certificate_issued", "not_after", postgresql_where=text("state = 'issued'")).ddl_if("postgresql"),
        Index("ix_certificate_key", "spki_sha256", "reserved_at"),
        Index(
            "ix_certificate_station",
            "station",
            sqlite_where=text("station IS NOT NULL"),
            postgresql_where=text("station IS NOT NULL"),
        ),
        Index(
            "ix_certificate_reserved",
            "ca",
            sqlite_where=text("state = 'reserved'"),
            postgresql_where=text("state = 'reserved'"),
        ),
        Index(
            "ix_certificate_revoked",
            "ca",
            sqlite_where=text("state = 'revoked'"),
            postgresql_where=text("state = 'revoked'"),
        ),
        Index(
            "ix_certificate_revoked_key",
            "spki_sha256",
            sqlite_where=text("state = 'revoked'"),
            postgresql_where=text("state = 'revoked'"),
        ),
        Index(
            "ix_certificate_shard",
            "ca",
            "shard",
            sqlite_where=text("shard IS NOT NULL"),
            postgresql_where=text("shard IS NOT NULL"),
        ),
    )

    id: WordsKey
    ca: Words
    serial: Words
    profile: Words
    state: Words
    subject: Words
    subject_der: bytes
    spki_sha256: Words
    not_before: Words
    not_after: Words
    request_key: Words
    requester: Words
    reserved_at: Words
    tbs: bytes | None
    der: bytes | None
    sha256: WordsOrNull
    station: WordsOrNull
    csr: bytes | None
    verdict: Words
    issued_at: WordsOrNull
    revoked_at: WordsOrNull
    revocation_reason: WordsOrNull
    delivery: WordsOrNull
    shard: WholeOrNull
    invalidity_date: WordsOrNull
    traits: WordsOrNull
    """Derived from the row (`traits`), and no part of the record."""


class CrlRow(SQLModel, table=True):
    """One signed revocation list (`CrlRecord`)."""

    __tablename__ = "crl"
    __table_args__ = (
        UniqueConstraint("ca", "number", name="uq_crl_number"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_ca"),
        # Holds all that is asked about the newest lists, whose rows are megabytes long.
        Index("ix_crl_scope", "ca", "shard", "number", "this_update", "next_update", "changes", "sha256"),
    )

    id: WordsKey
    ca: Words
    number: Whole
    this_update: Words
    next_update: Words
    entries: Whole
    sha256: Words
    der: bytes
    shard: WholeOrNull
    changes: WholeOrNull


class CrlDeltaRow(SQLModel, table=True):
    """One signed delta list (`CrlDeltaRecord`)."""

    __tablename__ = "crl_delta"
    __table_args__ = (
        UniqueConstraint("ca", "number", name="uq_crl_delta_number"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_delta_ca"),
    )

    id: WordsKey
    ca: Words
    number: Whole
    base: Whole
    this_update: Words
    next_update: Words
    entries: Whole
    sha256: Words
    der: bytes
    changes: Whole


class CrlShardRow(SQLModel, table=True):
    """One shard of a CA's revocation list (`CrlShardRecord`)."""

    __tablename__ = "crl_shard"
    __table_args__ = (
        UniqueConstraint("ca", "number", name="uq_crl_shard_number"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_shard_ca"),
    )

    id: WordsKey
    ca: Words
    number: Whole
    base_url: Words
    url: Words
    opened_at: Words


class CrlSegmentRow(SQLModel, table=True):
    """Encoded entries of a list (`CrlSegmentRecord`)."""

    __tablename__ = "crl_segment"
    __table_args__ = (
        UniqueConstraint("ca", "shard", "number", name="uq_crl_segment_number"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_segment_ca"),
    )

    id: WordsKey
    ca: Words
    shard: Whole
    number: Whole
    count: Whole
    newest: WordsOrNull
    sha256: Words
    content: bytes


class RevocationChangeRow(SQLModel, table=True):
    """What lists must tell anew (`RevocationChangeRecord`)."""

    __tablename__ = "revocation_change"
    __table_args__ = (
        UniqueConstraint("ca", "seq", name="uq_revocation_change_seq"),
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_revocation_change_ca"),
        Index("ix_revocation_change_shard", "ca", "shard", "seq"),
    )

    id: WordsKey
    ca: Words
    seq: Whole
    shard: Whole
    certificate: Words
    entry: bytes


class StationRow(SQLModel, table=True):
    """One charging station as we expect it (`StationRecord`)."""

    __tablename__ = "station"
    __table_args__ = (Index("ix_station_serial_number", "serial_number"),)

    id: WordsKey
    serial_number: Words
    organization: WordsOrNull
    security_profile: Whole
    state: Words
    created_at: Words
    password_hash: WordsOrNull
    pending_password_hash: WordsOrNull
    password_changed_at: WordsOrNull


class IssuanceRow(SQLModel, table=True):
    """A queued issuance request (`IssuanceRecord`); its lease is a `LeaseRow`."""

    __tablename__ = "issuance"
    __table_args__ = (
        ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_issuance_ca"),
        Index("ix_issuance_request_key", "request_key"),
        Index(
            "ix_issuance_queued",
            "created_at",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
    )

    id: WordsKey
    ca: Words
    profile: Words
    csr: bytes
    options: Words
    request_key: Words
    requester: Words
    station: WordsOrNull
    state: Words
    created_at: Words
    certificate: WordsOrNull
    refusal: WordsOrNull


class OperationRow(SQLModel, table=True):
    """A durable operation on a station (`OperationRecord`); its lease is a `LeaseRow`."""

    __tablename__ = "operation"
    __table_args__ = (
        ForeignKeyConstraint(["station"], ["station.id"], name="fk_operation_station"),
        Index("ix_operation_station", "station", "created_at"),
        Index(
            "ix_operation_queued",
            "created_at",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
    )

    id: WordsKey
    kind: Words
    station: Words
    parameters: Words
    state: Words
    requester: Words
    created_at: Words
    deadline: Words
    sealed: bytes | None
    outcome: WordsOrNull


class AttemptRow(SQLModel, table=True):
    """One try of an operation (`AttemptRecord`)."""

    __tablename__ = "attempt"
    __table_args__ = (ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_attempt_operation"),)

    operation: WordsKey
    number: WholeKey
    sent_at: Words
    action: Words
    answered_at: WordsOrNull
    answer: WordsOrNull


class SecurityEventRow(SQLModel, table=True):
    """A security event (`SecurityEventRecord`)."""

    __tablename__ = "security_event"
    __table_args__ = (
        Index("ix_security_event_station", "station", "id"),
        Index("ix_security_event_received", "station", "received_at"),
    )

    id: WholeKey
    station: WordsOrNull
    source: Words
    type: Words
    critical: bool
    tech_info: Words
    at: Words
    received_at: Words


class EstAccountRow(SQLModel, table=True):
    """Who may enrol over EST (`EstAccountRecord`)."""

    __tablename__ = "est_account"
    __table_args__ = (Index("ix_est_account_certificate", "certificate_sha256"),)

    id: WordsKey
    labels: Words
    common_names: Words
    state: Words
    created_at: Words
    password_hash: WordsOrNull
    certificate_sha256: WordsOrNull
    certificate_der: bytes | None


class EstRequestRow(SQLModel, table=True):
    """An enrolment request that waits for an approval, or had one (`EstRequestRecord`)."""

    __tablename__ = "est_request"

    id: WordsKey
    label: Words
    account: Words
    subject: Words
    csr: bytes
    state: Words
    created_at: Words
    decided_at: WordsOrNull
    decided_by: WordsOrNull
    reason: WordsOrNull


class PresenceRow(SQLModel, table=True):
    """The live connection of a station (`PresenceRecord`); not audited."""

    __tablename__ = "presence"

    station: WordsKey
    connected: bool
    owner: Words
    connection: Words
    protocol: Words
    security_profile: Whole
    certificate: WordsOrNull
    peer: Words
    connected_at: Words
    last_seen_at: Words


class LeaseRow(SQLModel, table=True):
    """Who works on an issuance or an operation, until when, under which fencing number; not audited.

    The number outlives the lease, so that a worker which lost it can never pass for its successor.
    """

    __tablename__ = "lease"

    kind: WordsKey
    item: WordsKey
    owner: WordsOrNull
    until: WordsOrNull
    fence: Whole
    state: Words


class AuditEntryRow(SQLModel, table=True):
    """One entry of the audit log (`AuditEntry`)."""

    __tablename__ = "audit_entry"

    seq: WholeKey
    at: Words
    actor_name: Words
    actor_kind: Words
    actor_authenticated: bool
    action: Words
    subject: Words
    outcome: Words
    artefact_sha256: WordsOrNull
    details: Words
    effects: Words
    preconditions: Words
    previous_hash: Words
    entry_hash: Words


class AuditHeadRow(SQLModel, table=True):
    """The signed head of the log: one row, the lock that all writers take."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("id = 1", name="ck_audit_head_single"),)

    id: WholeKey
    log_id: Words
    count: Whole
    hash: Words
    at: WordsOrNull
    key_id: Words
    signature: Words
