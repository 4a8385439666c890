"""Make an existing CA ours: its key, what it issued, what it revoked, and the numbers of its lists."""

from __future__ import annotations

from chargepki.pki.adopting.adopt import Adopted, AdoptOrder, adopt_ca, check_keeping, check_order
from chargepki.pki.adopting.estate import CaEstate, read_estate
from chargepki.pki.adopting.verdict import EstateVerdict, judge_estate

__all__ = [
    "AdoptOrder",
    "Adopted",
    "CaEstate",
    "EstateVerdict",
    "adopt_ca",
    "check_keeping",
    "check_order",
    "judge_estate",
    "read_estate",
]
