"""What leaves the inventory: frozen dataclasses; never a database row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

__all__ = [
    "FOREIGN",
    "Actor",
    "ActorKind",
    "AttemptRecord",
    "AuditEntry",
    "CaRecord",
    "CaState",
    "CertificateRecord",
    "CertificateState",
    "CrlDeltaRecord",
    "CrlRecord",
    "CrlSegmentRecord",
    "CrlShardRecord",
    "Delivery",
    "EstAccountRecord",
    "EstAccountState",
    "EstRequestRecord",
    "EstRequestState",
    "IssuanceRecord",
    "IssuanceState",
    "OperationRecord",
    "OperationState",
    "PresenceRecord",
    "RevocationChangeRecord",
    "SecurityEventRecord",
    "StationRecord",
    "StationState",
]


class ActorKind(StrEnum):
    """How an actor is known."""

    OPERATOR = "operator"
    OS_USER = "os-user"
    STATION = "station"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it. An operating-system user is recorded as unauthenticated: a local name proves little."""

    name: str
    kind: ActorKind
    authenticated: bool


class CaState(StrEnum):
    """Life of one generation of a CA."""

    PENDING = "pending"
    """Reserved: the key may exist, the certificate is not signed yet."""
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"
    FOREIGN = "foreign"
    """Somebody else's, known as the issuer of imported certificates; it is trusted for nothing."""


class CertificateState(StrEnum):
    """Life of one certificate. Only `RESERVED` may become `ISSUED` or `VOIDED`; a serial is never reused."""

    RESERVED = "reserved"
    """Serial and to-be-signed bytes are durable; the key has not signed, or a crash hid whether it has."""
    ISSUED = "issued"
    REVOKED = "revoked"
    VOIDED = "voided"


class Delivery(StrEnum):
    """What became of a certificate that belongs to a station."""

    PENDING = "pending"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    IN_USE = "in-use"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class CaRecord:
    """One generation of a CA."""

    id: str
    """``NAME@GENERATION``, also the name in published URLs."""
    name: str
    generation: int
    profile: str
    issuer: str | None
    """Id of the issuing CA generation; ``None`` for a self-signed root."""
    subject: str
    subject_der: bytes
    key_uri: str
    state: CaState
    public_url: str | None
    """Base of the URLs written into certificates that this CA issues."""
    created_at: datetime
    spki_sha256: str | None = None
    certificate_der: bytes | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    crl_shard_size: int | None = None
    """Certificates to a CRL shard; ``None`` where new certificates point to the full list."""
    crl_delta_hours: int | None = None
    """For how long a delta CRL is valid; ``None`` where none are published."""

    @property
    def is_external(self) -> bool:
        """Whether somebody else has its key: a connected CA, one above it, or the issuer of what was imported."""
        return self.key_uri.startswith(("est:", "none:"))


FOREIGN: Final = "foreign"
"""Stands for the profile of what was imported: under which rule it was issued is not known."""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """One certificate, from the reservation of its serial on."""

    id: str
    """``CA_ID:SERIAL``, for example ``t-cso-sub@1:5f0c…``."""
    ca: str
    """Id of the issuing CA generation (its own for a root)."""
    serial: str
    """Lower-case hex without leading zeros (SQLite integers stop at 64 bits)."""
    profile: str
    state: CertificateState
    subject: str
    subject_der: bytes
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    request_key: str
    requester: str
    reserved_at: datetime
    tbs: bytes | None = None
    der: bytes | None = None
    sha256: str | None = None
    """Fingerprint of the whole DER, lower-case hex; ``None`` until issued."""
    station: str | None = None
    csr: bytes | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)
    issued_at: datetime | None = None
    revoked_at: datetime | None = None
    revocation_reason: str | None = None
    """RFC 5280 name, for example ``keyCompromise``."""
    delivery: Delivery | None = None
    """``None`` for a certificate that no station waits for."""
    shard: int | None = None
    """The CRL shard that its distribution point names, fixed at issuance; ``None`` for the full list."""
    invalidity_date: datetime | None = None
    """When the key is known or suspected to have been compromised (RFC 5280 5.3.2)."""

    @property
    def origin(self) -> str:
        """``imported``, or ``issued`` where a CA of ours (or a connected one, for us) made it."""
        return "imported" if self.profile == FOREIGN else "issued"


@dataclass(frozen=True, slots=True)
class CrlRecord:
    """One signed revocation list."""

    id: str
    """``CA_ID/NUMBER``."""
    ca: str
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    sha256: str
    der: bytes
    """Empty once a newer list of the same scope has taken its place."""
    shard: int | None = None
    """Which shard it is; ``None`` for the full list."""
    changes: int | None = None
    """`RevocationChangeRecord.seq` of the last change of its CA that it could tell of."""


@dataclass(frozen=True, slots=True)
class CrlDeltaRecord:
    """One signed delta list; its number is from the same sequence as those of complete lists (RFC 5280 5.2.4)."""

    id: str
    """``CA_ID/NUMBER``."""
    ca: str
    number: int
    base: int
    """The oldest complete list that it brings up to date."""
    this_update: datetime
    next_update: datetime
    entries: int
    sha256: str
    der: bytes
    """Empty once a newer one has taken its place."""
    changes: int


@dataclass(frozen=True, slots=True)
class CrlShardRecord:
    """One shard of a CA's list: the certificates whose distribution point is `url`."""

    id: str
    """``CA_ID/NUMBER``."""
    ca: str
    number: int
    """1, 2, 3 …"""
    base_url: str
    """The public URL that was configured when it was opened; another one opens another shard."""
    url: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class CrlSegmentRecord:
    """Encoded entries of a list, kept beside the certificates they are about, so that lists are joined, not made."""

    id: str
    """``CA_ID/SHARD/NUMBER``."""
    ca: str
    shard: int
    """0 for certificates that point to the full list."""
    number: int
    """1, 2, 3 …"""
    count: int
    newest: datetime | None
    """The latest revocation date that was ever in it."""
    sha256: str
    content: bytes
    """Entries of revokedCertificates (DER), one after the other."""


@dataclass(frozen=True, slots=True)
class RevocationChangeRecord:
    """A certificate was revoked, put on hold or released, or its entry was corrected."""

    id: str
    """``CA_ID/SEQ``."""
    ca: str
    seq: int
    """1, 2, 3 … for each CA."""
    shard: int
    """0 for a certificate that points to the full list."""
    certificate: str
    entry: bytes
    """The entry that lists have from now on (DER); empty when there is none any more."""


class StationState(StrEnum):
    """Whether a station may connect."""

    ACTIVE = "active"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class StationRecord:
    """One charging station as we expect it."""

    id: str
    """Identity in the connection URL and the Basic username."""
    serial_number: str
    organization: str | None
    security_profile: int
    """Expected profile: higher is let in, lower never."""
    state: StationState
    created_at: datetime
    password_hash: str | None = None
    pending_password_hash: str | None = None
    """Second accepted password while a change is on its way to the station (A01.FR.03, FR.04)."""
    password_changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PresenceRecord:
    """The live connection of a station, if any; not audited, it changes too often."""

    station: str
    connected: bool
    owner: str
    """Process that holds the connection."""
    connection: str
    protocol: str
    security_profile: int
    certificate: str | None
    """Id of the certificate that opened a profile-3 connection."""
    peer: str
    connected_at: datetime
    last_seen_at: datetime


class IssuanceState(StrEnum):
    """Life of a queued issuance request."""

    QUEUED = "queued"
    TAKEN = "taken"
    ISSUED = "issued"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class IssuanceRecord:
    """A request that another process queued for `authority serve`."""

    id: str
    ca: str
    profile: str
    csr: bytes
    options: Mapping[str, Any]
    """Subject overrides and validity, as `Authority.issue` takes them."""
    request_key: str
    requester: str
    station: str | None
    state: IssuanceState
    created_at: datetime
    lease_until: datetime | None = None
    fence: int = 0
    certificate: str | None = None
    refusal: Mapping[str, Any] | None = None
    """code, what, why, fix of the error."""


class OperationState(StrEnum):
    """Life of an operation on a station."""

    QUEUED = "queued"
    RUNNING = "running"
    UNKNOWN = "outcome-unknown"
    """An attempt was sent and stayed unanswered; the station is read back before anything is sent again."""
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether the operation will not change any more."""
        return self in (OperationState.DONE, OperationState.FAILED, OperationState.EXPIRED)


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """A durable operation on a station (interfaces, "Operations on stations")."""

    id: str
    kind: str
    """For example ``trigger-renewal`` or ``set-password``."""
    station: str
    parameters: Mapping[str, Any]
    """Never a secret; see `sealed`."""
    state: OperationState
    requester: str
    created_at: datetime
    deadline: datetime
    sealed: bytes | None = None
    """Secret parameters, encrypted under the workspace's sealing key; erased with the outcome."""
    lease_owner: str | None = None
    lease_until: datetime | None = None
    fence: int = 0
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try of an operation, recorded before anything is sent."""

    operation: str
    number: int
    sent_at: datetime
    action: str
    answered_at: datetime | None = None
    answer: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SecurityEventRecord:
    """A security event, reported by a station or raised by us about one."""

    id: int
    station: str | None
    source: str
    """``station`` or ``csms``."""
    type: str
    critical: bool
    tech_info: str
    at: datetime
    received_at: datetime


class EstAccountState(StrEnum):
    """Whether an account may enrol."""

    ACTIVE = "active"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class EstAccountRecord:
    """Who may enrol over EST (RFC 7030 3.2.3 and 3.3.2), under which labels and for which names."""

    id: str
    """Name of the account, and user name of HTTP Basic."""
    labels: Mapping[str, Any]
    """``{"names": [label, …]}``."""
    common_names: Mapping[str, Any]
    """``{"patterns": [shell pattern, …]}``: a request's CN must match one of them, letter case included."""
    state: EstAccountState
    created_at: datetime
    password_hash: str | None = None
    certificate_sha256: str | None = None
    """Fingerprint of the TLS client certificate that is this account, lower-case hex."""
    certificate_der: bytes | None = None
    """That certificate, for the list of those that a TLS listener accepts."""


class EstRequestState(StrEnum):
    """Life of an enrolment request that needs an approval."""

    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class EstRequestRecord:
    """An enrolment request under a label that demands an approval (RFC 7030 4.2.3, status 202)."""

    id: str
    """First 32 digits of the SHA-256 over label, account and the request's DER."""
    label: str
    account: str
    subject: str
    csr: bytes
    """DER of the PKCS#10 request."""
    state: EstRequestState
    created_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: who, what, when, on what, with which outcome. Every field is covered by `entry_hash`."""

    seq: int
    """1, 2, 3 … without a gap."""
    at: datetime
    actor: Actor
    action: str
    """``noun.verb``, for example ``certificate.revoke``."""
    subject: str
    """What it was done to: an id of the inventory."""
    outcome: str
    """``done`` or ``refused``."""
    artefact_sha256: str | None
    """Digest of the certificate, CRL … that the act made."""
    details: Mapping[str, Any]
    effects: tuple[tuple[str, str, str | None], ...]
    """(table, primary key, SHA-256 of the row afterwards or ``None`` when it was deleted)."""
    preconditions: tuple[tuple[str, str, str], ...]
    """(table, primary key, SHA-256 of the row that the act found); a row that the act created has none.

    Without it, a lawful change of a row that somebody had edited behind our back would whitewash the edit.
    """
    previous_hash: str
    entry_hash: str
