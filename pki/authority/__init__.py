"""Issue, revoke and publish: the only code that orders judging, recording and signing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chargepki.pki.authority.core import Authority, utc_now
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder

if TYPE_CHECKING:
    from chargepki.pki.authority.creation import CaOrder

__all__ = ["Authority", "CaOrder", "IssueOrder", "IssuedCertificate", "utc_now"]


def __getattr__(name: str) -> object:
    """Load what creates CAs on first use (PEP 562): issuing a certificate needs none of it."""
    if name != "CaOrder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chargepki.pki.authority import creation

    return creation.CaOrder
