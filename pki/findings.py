"""What a rule has to say about an object: the value type shared by lint, policy and errors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """How bad a finding is; only `ERROR` stops an issuance or fails a lint run."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule on one object."""

    rule: str
    """Stable rule id, for example ``e_serial_positive``."""
    severity: Severity
    message: str
    """What is wrong with this object, with the value at fault."""
    clause: str
    """The clause that demands it, for example ``RFC 5280 4.1.2.2``."""
    hint: str = ""
    """What to do about it."""
    where: str = ""
    """Field or byte offset at fault, for example ``tbsCertificate.serialNumber`` or ``offset 14``."""
