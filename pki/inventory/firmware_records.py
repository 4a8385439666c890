"""Firmware: releases, who may approve them and did, and what each station runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = [
    "FirmwareApprovalRecord",
    "FirmwareApproverRecord",
    "FirmwareReleaseRecord",
    "FirmwareReleaseState",
    "FirmwareStatusRecord",
    "StationFirmwareRecord",
]


class FirmwareReleaseState(StrEnum):
    """Life of a release."""

    PROPOSED = "proposed"
    """Added, and not approved by a second person yet."""
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"
    """Never sent again; for good."""


@dataclass(frozen=True, slots=True)
class FirmwareReleaseRecord:
    """One image for one kind of station."""

    id: str
    """Its name."""
    vendor: str
    model: str
    hardware: str
    """Each of them is empty when the release is for any."""
    version: str
    size: int
    """Octets."""
    sha256: str
    """Of the image, lower-case hex."""
    signature: str
    """Base64, as it is sent."""
    certificate_pem: str
    """Of the signer, as it is sent."""
    root_der: bytes
    """The manufacturer root that the stations have."""
    quirks: str
    """Deviations that verifying the signature needs, separated by blanks."""
    location: str | None
    """URL from which stations fetch it; ``None``: from us."""
    notes: str
    state: FirmwareReleaseState
    added_by: str
    """Name of the actor."""
    added_at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FirmwareApproverRecord:
    """Somebody who may approve releases, known by a key."""

    id: str
    """Name of the person."""
    spki: bytes
    """SubjectPublicKeyInfo, DER."""
    spki_sha256: str
    active: bool
    registered_by: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class FirmwareApprovalRecord:
    """One approval; evidence that anybody can verify with the approver's public key."""

    release: str
    approver: str
    digest: str
    """Of the release's description, lower-case hex: what was approved."""
    signature: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class StationFirmwareRecord:
    """What a station said of itself when it booted."""

    station: str
    vendor: str
    model: str
    version: str
    """Empty when it tells none."""
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class FirmwareStatusRecord:
    """One status that a station reported about an update."""

    operation: str
    number: int
    """From 1 on, in the order of arrival."""
    status: str
    at: datetime
    """When it arrived."""
