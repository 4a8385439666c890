"""Vocabulary of the certificate flows A02 and A03: uses, orders, and the effects that the two machines ask for.

The machines are in `sign_certificate_csms` and `sign_certificate_station`. Both are sans-IO: a method takes what
happened and the time, and returns what to do; the caller does it, in order, and reports back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.csr import CertificateRequest

__all__ = [
    "CertificateProven",
    "CertificateUse",
    "CsmsEffect",
    "DiscardCertificate",
    "DropRequests",
    "InstallCertificate",
    "InstalledCertificate",
    "Issue",
    "IssuePlan",
    "MakeKey",
    "MarkDelivered",
    "MarkSuperseded",
    "MarkUndelivered",
    "MarkUnknown",
    "Payload",
    "PendingDelivery",
    "PendingRequest",
    "Place",
    "RaiseEvent",
    "Reconnect",
    "RecordRefusal",
    "SendCall",
    "SendRequest",
    "SigningOrder",
    "StationEffect",
    "StoreRequest",
    "is_unprocessed",
    "opens_link",
    "place_of",
    "spki_of",
]

Payload = dict[str, object]
"""A message payload as JSON has it, camelCase; checked against its schema by the RPC layer."""


def opens_link(use: CertificateUse) -> bool:
    """Say whether a certificate of *use* is the TLS client certificate of the OCPP connection.

    >>> opens_link(CertificateUse.V2G)
    False
    """
    return use in (CertificateUse.CHARGING_STATION, CertificateUse.COMBINED)


Place = tuple[CertificateUse, str]
"""What a later request of the same station replaces: use, and SeccId of a V2G leaf."""


def place_of(use: CertificateUse, request: CertificateRequest) -> Place:
    """Return which earlier request of the station *request* replaces.

    A station has one certificate for the link to us, but a V2G leaf for each of its SECCs (A02, prerequisites).
    """
    return use, "" if opens_link(use) else names.get(request.subject_der, "CN") or ""


def spki_of(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo, DER."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_UNPROCESSED = frozenset(
    {
        "FormatViolation", "FormationViolation", "MessageTypeNotSupported", "NotImplemented", "NotSupported",
        "OccurenceConstraintViolation", "OccurrenceConstraintViolation", "PropertyConstraintViolation",
        "ProtocolError", "RpcFrameworkError", "SecurityError", "TypeConstraintViolation",
    }
)  # fmt: skip


def is_unprocessed(error: str) -> bool:
    """Say whether a CALLERROR code means that the peer certainly did not act on the CALL.

    >>> is_unprocessed("NotSupported"), is_unprocessed("InternalError")
    (True, False)
    """
    return error in _UNPROCESSED


# --- CSMS side -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssuePlan:
    """Which CA issues certificates of one use, under which profile."""

    ca: str
    profile: str
    """Profile id, for example ``ocpp/charging-station``."""
    subject_defaults: Mapping[str, str] = field(default_factory=dict)
    """Attributes (short names) for subject fields that a CSR leaves out and the station's record does not give."""
    organization: str | None = None
    """O that this use demands, where it is not the station record's (ISO15118Ctrlr.OrganizationName)."""


@dataclass(frozen=True, slots=True)
class SigningOrder:
    """A CSR that was accepted: what the CA is asked to sign, and how the answer finds its way back."""

    id: str
    """Unique within one flow object."""
    station: str
    use: CertificateUse
    plan: IssuePlan
    request: CertificateRequest
    subject_defaults: Mapping[str, str]
    """For `IssueOrder.subject_defaults`: the station's record, then the plan's."""
    received_at: datetime
    typed: bool
    """Whether the CSR named its certificateType; the answer names it exactly then (A02.FR.14)."""
    request_id: int | None = None
    """The station's requestId (2.1), copied into the answer (A02.FR.25)."""
    dialect: Dialect | None = None
    """1.6: of the DataTransfer that the CSR came in; the certificate goes in one as well."""


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A certificate that the inventory has for the station and that the station has not confirmed."""

    certificate_id: str
    use: CertificateUse
    plan: IssuePlan
    request: CertificateRequest
    """The CSR that it answers."""
    chain: tuple[bytes, ...]
    """DER, leaf first."""
    received_at: datetime
    typed: bool
    request_id: int | None = None
    dialect: Dialect | None = None
    attempts: int = 0
    """CALLs that were begun; after the first one the station may have it."""
    given_up: bool = False
    """Not to be sent again unless the station asks."""
    superseded_by: str | None = None
    """A certificate that answers a later CSR of the same use and subject."""


@dataclass(frozen=True, slots=True)
class Issue:
    """Have the CA sign; then call `CsmsCertificateFlow.issued` or `.refused`."""

    order: SigningOrder


@dataclass(frozen=True, slots=True)
class SendCall:
    """Send a CALL to the station.

    With an order, ask the inventory first whether the certificate may still be handed over (`.withdrawn` when not),
    and report its fate with `.answered` or `.not_sent`.
    """

    action: str
    payload: Payload = field(repr=False)
    order: SigningOrder | None = None
    certificate_id: str = ""
    resumed: bool = False
    """Sent because the inventory says that it is pending, not because the station has just asked."""


@dataclass(frozen=True, slots=True)
class MarkDelivered:
    """The station answered Accepted: record `Delivery.DELIVERED`."""

    order: SigningOrder
    certificate_id: str


@dataclass(frozen=True, slots=True)
class MarkUndelivered:
    """The station does not have it and will not: record `Delivery.UNDELIVERED`, and revoke when `revoke` is set."""

    order: SigningOrder
    certificate_id: str
    why: str
    """For the operator."""
    revoke: str | None = None
    """RFC 5280 reason name, or ``None`` to let it expire."""


@dataclass(frozen=True, slots=True)
class MarkUnknown:
    """No usable answer came: the delivery stays pending until the station shows up with it, or asks again."""

    order: SigningOrder
    certificate_id: str
    why: str
    final: bool = False
    """It is not sent again unless the station asks: the station may have it, and has refused it since."""


@dataclass(frozen=True, slots=True)
class MarkSuperseded:
    """The station asked for another one since, and may hold this one all the same: record `Delivery.SUPERSEDED`."""

    order: SigningOrder
    certificate_id: str


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """A CSR was refused, or the CA refused it after it had been accepted: for the log and the waiting operation."""

    use: CertificateUse | None
    what: str
    why: str = ""
    fix: str = ""
    order: SigningOrder | None = None


CsmsEffect = Issue | SendCall | MarkDelivered | MarkUndelivered | MarkUnknown | MarkSuperseded | RecordRefusal


# --- station side ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A CSR whose certificate may still come; survives a restart of the station together with its private key."""

    number: int
    """1, 2, 3 …; also the requestId of 2.1."""
    use: CertificateUse
    csr_pem: str
    spki_sha256: str
    """Lower-case hex; names the private key in the station's store."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class InstalledCertificate:
    """A certificate in the station's store."""

    use: CertificateUse
    chain_der: tuple[bytes, ...]
    """Leaf first, without the root."""
    sha256: str
    """Of the leaf's DER, lower-case hex."""
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    installed_at: datetime
    proven: bool = False
    """Whether a connection was opened with it; the old one is kept until then."""


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make a new key pair for *use*, then call `StationCertificateFlow.start` (A02.FR.02)."""

    use: CertificateUse


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """Keep the request and its private key durably, before the CSR is sent."""

    request: PendingRequest


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send a SignCertificate CALL; report the answer with `StationCertificateFlow.sign_answered`."""

    action: str
    payload: Payload
    request: PendingRequest


@dataclass(frozen=True, slots=True)
class InstallCertificate:
    """Store the chain durably, next to the private key that its request made, before the answer is sent."""

    certificate: InstalledCertificate


@dataclass(frozen=True, slots=True)
class CertificateProven:
    """A connection was opened with this certificate: remember it as proven."""

    certificate: InstalledCertificate


@dataclass(frozen=True, slots=True)
class DropRequests:
    """These requests will not be answered any more; their private keys may go, unless a certificate uses them."""

    requests: tuple[PendingRequest, ...]


@dataclass(frozen=True, slots=True)
class DiscardCertificate:
    """Remove a certificate and its private key from the store."""

    certificate: InstalledCertificate


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the WebSocket after the answer was sent, and connect again with `client_certificate(now)`."""

    why: str


@dataclass(frozen=True, slots=True)
class RaiseEvent:
    """Put a security event into the log, and send or queue it as the version demands."""

    event: SecurityEvent
    tech_info: str


StationEffect = (
    CertificateProven
    | MakeKey
    | StoreRequest
    | SendRequest
    | InstallCertificate
    | DropRequests
    | DiscardCertificate
    | Reconnect
    | RaiseEvent
)
