"""Issue, revoke and publish: the only code that orders judging, recording and signing."""

from __future__ import annotations

from chargepki.pki.authority.core import Authority, utc_now
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder

__all__ = ["Authority", "CaOrder", "IssueOrder", "IssuedCertificate", "utc_now"]
