"""The CSMS shell: an embeddable OCPP endpoint over one inventory."""

from __future__ import annotations

from chargepki.ocpp_security.csms.config import ClientTrust, CsmsConfig, CsmsLimits, DuplicatePolicy
from chargepki.ocpp_security.csms.cut_off import CutOff, OneConnection
from chargepki.ocpp_security.csms.embedding import CertificateFate, CertificateNews, SecurityEventNews
from chargepki.ocpp_security.csms.endpoint import CsmsServer
from chargepki.ocpp_security.csms.security import CsmsSecurity

__all__ = [
    "CertificateFate",
    "CertificateNews",
    "ClientTrust",
    "CsmsConfig",
    "CsmsLimits",
    "CsmsSecurity",
    "CsmsServer",
    "CutOff",
    "DuplicatePolicy",
    "OneConnection",
    "SecurityEventNews",
]
