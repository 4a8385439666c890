"""Contracts, the vehicles that they are for, the roots that vehicles are judged by, and what was provisioned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = [
    "ContractOfferRecord",
    "ContractRecord",
    "ContractState",
    "OfferState",
    "ProvisioningCertificateRecord",
    "ProvisioningRecord",
    "ProvisioningState",
    "RoleRootRecord",
    "RoleRootState",
    "VehicleCertificateRecord",
    "VehicleState",
]


class RoleRootState(StrEnum):
    """Whether a root is believed."""

    TRUSTED = "trusted"
    WITHDRAWN = "withdrawn"


class VehicleState(StrEnum):
    """Life of a provisioning certificate here."""

    ACTIVE = "active"
    REMOVED = "removed"
    """Its manufacturer took it back, or we did; nothing is provisioned to it."""


class ContractState(StrEnum):
    """Life of a contract."""

    ACTIVE = "active"
    ENDED = "ended"
    """For good; its certificates are revoked."""


class OfferState(StrEnum):
    """Whether a vehicle gets a contract when it asks."""

    OFFERED = "offered"
    WITHDRAWN = "withdrawn"


class ProvisioningState(StrEnum):
    """Life of an answer."""

    BEGUN = "begun"
    """Written before anything is made; what stays so was interrupted."""
    ANSWERED = "answered"
    VOID = "void"
    """Interrupted, or overtaken by another answer to the same request; its certificate, if any, is revoked."""


@dataclass(frozen=True, slots=True)
class RoleRootRecord:
    """A root certificate of somebody else; roots of ours need no row."""

    id: str
    """SHA-256 of the DER, lower-case hex."""
    use: str
    """``oem``, ``v2g`` or ``mo``."""
    der: bytes
    subject: str
    source: str
    """Where it came from, for people; its fingerprint was confirmed on a second channel."""
    manufacturers: str
    """World manufacturer identifiers that it may certify vehicles of, separated by blanks; empty: any."""
    state: RoleRootState
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class ProvisioningCertificateRecord:
    """An OEM provisioning certificate; a vehicle may have one of each standard, and renewed ones."""

    id: str
    """SHA-256 of the DER, lower-case hex."""
    vehicle: str
    """PCID, upper case."""
    standard: str
    """``iso15118-2`` or ``iso15118-20``."""
    der: bytes
    sub_cas: bytes
    """PEM, the issuer first; empty where the root signs itself."""
    subject: str
    not_after: datetime
    state: VehicleState
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class VehicleCertificateRecord:
    """A vehicle certificate of ISO 15118-20, the vehicle's TLS client certificate; one may have renewed ones."""

    id: str
    """SHA-256 of the DER, lower-case hex."""
    evccid: str
    """Upper case without separators."""
    der: bytes
    sub_cas: bytes
    """PEM, the issuer first; empty where the root signs itself."""
    subject: str
    not_after: datetime
    state: VehicleState
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class ContractRecord:
    """A contract of a driver with the mobility operator."""

    id: str
    """The 14 characters of its EMAID that identify it."""
    emaid: str
    """Upper case without separators, with its check digit if it was given one: CN of its certificates."""
    state: ContractState
    ends_at: datetime | None
    """No certificate is valid any longer; ``None``: open-ended."""
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None
    ended_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ContractOfferRecord:
    """What a vehicle gets when it asks."""

    contract: str
    vehicle: str
    """PCID, upper case."""
    state: OfferState
    priority: int
    """Lower numbers first."""
    offered_by: str
    offered_at: datetime
    """The last time; a request answered before it may be answered anew."""


@dataclass(frozen=True, slots=True)
class ProvisioningRecord:
    """One contract certificate for one signed request of a vehicle."""

    id: str
    """``CONTRACT/NUMBER``, counted from 000001."""
    request: str
    """SHA-256 over what the vehicle signed and its signature, lower-case hex; the header around it is not signed."""
    kind: str
    """``install`` or ``update``."""
    standard: str
    contract: str
    vehicle: str | None
    """PCID; of an update, that of the installation before it, as far as it is on record."""
    station: str | None
    """Over which it came."""
    state: ProvisioningState
    began_at: datetime
    told_at: datetime | None = None
    """When it was last given out."""
    round: int = 0
    """Counts how often the contracts of this request were told from the first one on (ISO 15118-20)."""
    certificate: str | None = None
    response: bytes | None = None
    """The response as EXI; the contract key in it is wrapped for the vehicle."""
