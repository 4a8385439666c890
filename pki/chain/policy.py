"""What a path is validated for: purposes and their demands on leaf and anchor, policies, and the work allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from chargepki.pki import oids
from chargepki.pki.key_usage import KeyUsageBit

__all__ = ["POLICIES", "AnchorUse", "ChainPolicy", "PolicyInputs", "Purpose", "TrustAnchor", "WorkBudget"]


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


class AnchorUse(StrEnum):
    """What a root is trusted for, with the names of the command line."""

    V2G = "v2g"
    MO = "mo"
    OEM = "oem"
    PRIVATE = "private"
    """The operator of a private environment, whose root the EV was taught."""
    CSO = "cso"
    CSMS = "csms"
    MANUFACTURER = "manufacturer"


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """A trusted certificate and what it is trusted for."""

    der: bytes
    uses: frozenset[AnchorUse] | None = None
    """``None``: the caller chose it for the purpose at hand, and answers for that."""


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """The inputs of RFC 5280 6.1.1 (c), (e), (f) and (g)."""

    acceptable: frozenset[str] = frozenset({oids.ANY_POLICY})
    """user-initial-policy-set, dotted."""
    explicit_policy: bool = False
    inhibit_any_policy: bool = False
    inhibit_mapping: bool = False


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
    """Demands of one purpose on leaf, anchor and length."""

    purpose: Purpose
    clause: str
    key_usage: frozenset[KeyUsageBit] = frozenset()
    """Bits that must be set when the leaf has a KeyUsage extension."""
    extended_key_usage: frozenset[str] = frozenset()
    """OIDs of which one (or anyExtendedKeyUsage) must be there when the leaf has the extension; empty: no demand."""
    allow_ca: bool = False
    domain_component: str | None = None
    """Demanded of ISO 15118-2 leaves below a sub-CA; no public text settles -20 and private environments."""
    anchors: frozenset[AnchorUse] = frozenset()
    """Uses of which the anchor must have one, if it is said what it is trusted for; empty: any."""
    max_below_anchor: int | None = None
    """Certificates below the anchor in ISO 15118-2; -20 allows one more, a cross-certificate."""
    key_usage_mask: int = field(init=False)
    """`key_usage` with bit n for KeyUsage bit n."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_usage_mask", sum(1 << bit.bit for bit in self.key_usage))


_SIGNS: Final = frozenset({KeyUsageBit.DIGITAL_SIGNATURE})
_CLIENT: Final = frozenset({oids.EKU_CLIENT_AUTH})
_SERVER: Final = frozenset({oids.EKU_SERVER_AUTH})


def _iso15118(
    purpose: Purpose, clause: str, *uses: str, eku: frozenset[str] = frozenset(), domain_component: str | None = None
) -> ChainPolicy:
    anchors = frozenset(map(AnchorUse, uses))
    return ChainPolicy(
        purpose,
        clause,
        _SIGNS,
        eku,
        domain_component=domain_component,
        anchors=anchors,
        max_below_anchor=3,
    )


def _ocpp(purpose: Purpose, clause: str, eku: frozenset[str], use: AnchorUse) -> ChainPolicy:
    return ChainPolicy(purpose, clause, _SIGNS, eku, anchors=frozenset({use}))


POLICIES: Final[Mapping[Purpose, ChainPolicy]] = MappingProxyType(
    {
        policy.purpose: policy
        for policy in (
            ChainPolicy(Purpose.ANY, "RFC 5280 6.1", allow_ca=True),
            _iso15118(
                Purpose.SECC,
                "ISO 15118-2 [V2G2-875], [V2G2-925]",
                "v2g",
                "private",
                eku=_SERVER,
                domain_component="CPO",
            ),
            _iso15118(Purpose.CONTRACT, "ISO 15118-2 Table F.4; ISO 15118-20 [V2G20-2329], Table B.9", "mo", "v2g"),
            _iso15118(Purpose.OEM_PROVISIONING, "ISO 15118-2 Table F.5; ISO 15118-20 [V2G20-2333], B.7", "oem", "v2g"),
            _iso15118(Purpose.CPS, "ISO 15118-2 [V2G2-891], [V2G2-925]", "v2g", domain_component="CPS"),
            _iso15118(Purpose.VEHICLE, "ISO 15118-20 [V2G20-2331], B.8", "oem", "v2g", eku=_CLIENT),
            _ocpp(Purpose.CHARGING_STATION, "OCPP A00", _CLIENT, AnchorUse.CSO),
            _ocpp(Purpose.CSMS, "OCPP A00", _SERVER, AnchorUse.CSMS),
            _ocpp(Purpose.FIRMWARE_SIGNING, "OCPP L01", frozenset({oids.EKU_CODE_SIGNING}), AnchorUse.MANUFACTURER),
        )
    }
)
"""The demands of every purpose."""
