"""OCPP connections, security profiles and certificate flows on top of `chargepki.pki`.

The public names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.ocpp_security.attempts import AttemptLimits, AuthenticationGuard
    from chargepki.ocpp_security.authentication import (
        AuthenticatedStation,
        RefusedConnection,
        Restriction,
        UpgradeRequest,
        authenticate,
    )
    from chargepki.ocpp_security.csms import (
        CertificateFate,
        CertificateNews,
        CsmsConfig,
        CsmsLimits,
        CsmsSecurity,
        CsmsServer,
        CutOff,
        DuplicatePolicy,
        OneConnection,
        SecurityEventNews,
    )
    from chargepki.ocpp_security.errors import OcppRefusal
    from chargepki.ocpp_security.firmware import VerifiedFirmware, verify_firmware
    from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
    from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal
    from chargepki.ocpp_security.gate import StationGate
    from chargepki.ocpp_security.identity import check_boot_serial_number
    from chargepki.ocpp_security.redacting import RedactingFilter
    from chargepki.ocpp_security.rpc import RpcSession
    from chargepki.ocpp_security.security_profile import SecurityProfile
    from chargepki.ocpp_security.sign_certificate import CertificateUse, IssuePlan
    from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
    from chargepki.ocpp_security.sign_certificate_station import StationCertificateFlow
    from chargepki.ocpp_security.station import StationSimulator, StationStore
    from chargepki.ocpp_security.station_source import InventoryStations, StationEntry, StationSource
    from chargepki.ocpp_security.tls import TlsIdentity, client_context, reload_identity, server_context
    from chargepki.ocpp_security.versions import OcppVersion

__all__ = [
    "AttemptLimits",
    "AuthenticatedStation",
    "AuthenticationGuard",
    "CertificateFate",
    "CertificateNews",
    "CertificateUse",
    "CsmsCertificateFlow",
    "CsmsConfig",
    "CsmsLimits",
    "CsmsSecurity",
    "CsmsServer",
    "CutOff",
    "DuplicatePolicy",
    "FirmwareHash",
    "FirmwareQuirk",
    "FirmwareRefusal",
    "FirmwareTrust",
    "InventoryStations",
    "IssuePlan",
    "OcppRefusal",
    "OcppVersion",
    "OneConnection",
    "RedactingFilter",
    "RefusedConnection",
    "Restriction",
    "RpcSession",
    "SecurityEventNews",
    "SecurityProfile",
    "StationCertificateFlow",
    "StationEntry",
    "StationGate",
    "StationSimulator",
    "StationSource",
    "StationStore",
    "TlsIdentity",
    "UpgradeRequest",
    "VerifiedFirmware",
    "authenticate",
    "check_boot_serial_number",
    "client_context",
    "reload_identity",
    "server_context",
    "verify_firmware",
]

_HOMES = {
    "AttemptLimits": "attempts",
    "AuthenticatedStation": "authentication",
    "AuthenticationGuard": "attempts",
    "CertificateFate": "csms",
    "CertificateNews": "csms",
    "CertificateUse": "sign_certificate",
    "CsmsCertificateFlow": "sign_certificate_csms",
    "CsmsConfig": "csms",
    "CsmsLimits": "csms",
    "CsmsSecurity": "csms",
    "CsmsServer": "csms",
    "CutOff": "csms",
    "DuplicatePolicy": "csms",
    "FirmwareHash": "firmware_verdict",
    "FirmwareQuirk": "firmware_verdict",
    "FirmwareRefusal": "firmware_verdict",
    "FirmwareTrust": "firmware_certificate",
    "InventoryStations": "station_source",
    "IssuePlan": "sign_certificate",
    "OcppRefusal": "errors",
    "OcppVersion": "versions",
    "OneConnection": "csms",
    "RedactingFilter": "redacting",
    "RefusedConnection": "authentication",
    "Restriction": "authentication",
    "RpcSession": "rpc",
    "SecurityEventNews": "csms",
    "SecurityProfile": "security_profile",
    "StationCertificateFlow": "sign_certificate_station",
    "StationEntry": "station_source",
    "StationGate": "gate",
    "StationSimulator": "station",
    "StationSource": "station_source",
    "StationStore": "station",
    "TlsIdentity": "tls",
    "UpgradeRequest": "authentication",
    "VerifiedFirmware": "firmware",
    "authenticate": "authentication",
    "check_boot_serial_number": "identity",
    "client_context": "tls",
    "reload_identity": "tls",
    "server_context": "tls",
    "verify_firmware": "firmware",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
