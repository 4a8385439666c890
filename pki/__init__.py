"""X.509 core, inventory and certificate authority for EV charging; knows nothing of OCPP or of a terminal.

The public names are loaded when they are first used, so that a command which needs one module pays for one module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chargepki.pki import lint
    from chargepki.pki.authority import Authority, CaOrder, IssuedCertificate, IssueOrder
    from chargepki.pki.chain import Purpose, VerifiedChain, verify_chain
    from chargepki.pki.config import Settings, load_settings
    from chargepki.pki.errors import ChargePkiError
    from chargepki.pki.hashdata import CertificateHashData
    from chargepki.pki.hashdata_defects import HashDefect
    from chargepki.pki.hashdata_oracle import KnownCertificate, diagnose_hash_data
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.profiles import get_profile, list_profiles
    from chargepki.pki.profiles.base import Profile
    from chargepki.pki.workspace import Workspace

__all__ = [
    "Authority",
    "CaOrder",
    "CertificateHashData",
    "ChargePkiError",
    "HashDefect",
    "Inventory",
    "IssueOrder",
    "IssuedCertificate",
    "KnownCertificate",
    "Profile",
    "Purpose",
    "Settings",
    "VerifiedChain",
    "Workspace",
    "diagnose_hash_data",
    "get_profile",
    "lint",
    "list_profiles",
    "load_settings",
    "verify_chain",
]

_HOMES = {
    "Authority": "authority",
    "CaOrder": "authority",
    "CertificateHashData": "hashdata",
    "ChargePkiError": "errors",
    "HashDefect": "hashdata_defects",
    "Inventory": "inventory",
    "IssueOrder": "authority",
    "IssuedCertificate": "authority",
    "KnownCertificate": "hashdata_oracle",
    "Profile": "profiles.base",
    "Purpose": "chain",
    "Settings": "config",
    "VerifiedChain": "chain",
    "Workspace": "workspace",
    "diagnose_hash_data": "hashdata_oracle",
    "get_profile": "profiles",
    "list_profiles": "profiles",
    "load_settings": "config",
    "verify_chain": "chain",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use (PEP 562)."""
    if name == "lint":  # the package itself: lint.lint_certificate, lint.lint_crl, lint.list_rules
        return importlib.import_module(f"{__name__}.lint")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
