"""The CSMS shell: an embeddable OCPP endpoint over one inventory."""

from __future__ import annotations

from chargepki.ocpp_security.csms.config import CsmsConfig, CsmsLimits, DuplicatePolicy
from chargepki.ocpp_security.csms.endpoint import CsmsServer

__all__ = ["CsmsConfig", "CsmsLimits", "CsmsServer", "DuplicatePolicy"]
