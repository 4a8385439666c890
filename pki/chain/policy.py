"""What a path is validated for: purposes, their demands on the leaf, and how much work may be spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from chargepki.pki import oids
from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["POLICIES", "ChainPolicy", "Purpose", "WorkBudget"]


class Purpose(StrEnum):
    """What the leaf is about to be used for, with the names of the command line."""

    ANY = "any"
    """Plain RFC 5280: nothing is demanded of the leaf, which may itself be a CA."""
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
    certificates: int = 256
    """Distinct ones, anchors included."""
    depth: int = 10
    """Certificates between leaf and anchor, both excluded."""
    certificate_bytes: int = 65536
    steps: int = 20_000
    """Pairs of certificates looked at; CAs that certified each other give many paths."""


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """Demands of one purpose on the leaf. That the anchor belongs to the purpose is for the caller: it chooses them."""

    purpose: Purpose
    clause: str
    key_usage: frozenset[KeyUsageBit] = frozenset()
    """Bits that must be set when the leaf has a KeyUsage extension."""
    extended_key_usage: frozenset[str] = frozenset()
    """OIDs of which one (or anyExtendedKeyUsage) must be there when the leaf has the extension; empty: no demand."""
    allow_ca: bool = False
    domain_component: str | None = None
    """Demanded of ISO 15118-2 leaves below a sub-CA; no public text settles -20 and private environments."""


_SIGNS: Final = frozenset({KeyUsageBit.DIGITAL_SIGNATURE})
_CLIENT: Final = frozenset({oids.EKU_CLIENT_AUTH})
_SERVER: Final = frozenset({oids.EKU_SERVER_AUTH})

POLICIES: Final[Mapping[Purpose, ChainPolicy]] = MappingProxyType(
    {
        policy.purpose: policy
        for policy in (
            ChainPolicy(Purpose.ANY, "RFC 5280 6.1", allow_ca=True),
            ChainPolicy(Purpose.SECC, "ISO 15118-2 [V2G2-875], [V2G2-925]", _SIGNS, _SERVER, domain_component="CPO"),
            ChainPolicy(Purpose.CONTRACT, "ISO 15118-2 Table F.4; ISO 15118-20 Table B.9", _SIGNS),
            ChainPolicy(Purpose.OEM_PROVISIONING, "ISO 15118-2 Table F.5; ISO 15118-20 B.7", _SIGNS),
            ChainPolicy(Purpose.CPS, "ISO 15118-2 [V2G2-891], [V2G2-925]", _SIGNS, domain_component="CPS"),
            ChainPolicy(Purpose.VEHICLE, "ISO 15118-20 B.8", _SIGNS, _CLIENT),
            ChainPolicy(Purpose.CHARGING_STATION, "OCPP A00", _SIGNS, _CLIENT),
            ChainPolicy(Purpose.CSMS, "OCPP A00", _SIGNS, _SERVER),
            ChainPolicy(Purpose.FIRMWARE_SIGNING, "OCPP L01", _SIGNS, frozenset({oids.EKU_CODE_SIGNING})),
        )
    }
)
"""The demands of every purpose."""
