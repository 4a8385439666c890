"""What a path is validated for: purposes, their demands on the leaf, and how much work may be spent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["ChainPolicy", "Purpose", "WorkBudget"]


class Purpose(StrEnum):
    """What the leaf is about to be used for, with the names of the command line."""

    ANY = "any"
    SECC = "secc"
    CONTRACT = "contract"
    OEM_PROVISIONING = "oem-provisioning"
    CPS = "cps"
    VEHICLE = "vehicle"
    CHARGING_STATION = "charging-station"
    CSMS = "csms"
    FIRMWARE_SIGNING = "firmware-signing"


@dataclass(frozen=True, slots=True)
class WorkBudget:
    """Upper bounds of the work that one validation may cost; input decides neither time nor memory."""

    signatures: int = 64
    certificates: int = 64
    depth: int = 10
    """Certificates between leaf and anchor, both excluded."""
    certificate_bytes: int = 65536


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """Demands of one purpose on the leaf, with their clause."""

    purpose: Purpose
    key_usage: frozenset[KeyUsageBit] = frozenset()
    """Bits that must be set when the leaf has a KeyUsage extension."""
    extended_key_usage: tuple[str, ...] = ()
    """OIDs of which one (or anyExtendedKeyUsage) must be there when the leaf has the extension."""
    leaf_is_ca: bool | None = False
    domain_component: frozenset[str] = frozenset()
    clause: str = "RFC 5280 6.1"
