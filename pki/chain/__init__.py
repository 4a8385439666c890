"""Build and validate certification paths for a stated purpose and instant, with a work budget."""

from __future__ import annotations

from chargepki.pki.chain.evidence import CertificateStatus, Revocation, RevocationMode, Status
from chargepki.pki.chain.identity import Identity
from chargepki.pki.chain.order import order_chain
from chargepki.pki.chain.policy import AnchorUse, ChainPolicy, PolicyInputs, Purpose, TrustAnchor, WorkBudget
from chargepki.pki.chain.refusals import PathRefusal, RejectedPath, RevocationRefusal, SearchRecord
from chargepki.pki.chain.verify import ChainVerifier, VerifiedChain, verify_chain

__all__ = [
    "AnchorUse",
    "CertificateStatus",
    "ChainPolicy",
    "ChainVerifier",
    "Identity",
    "PathRefusal",
    "PolicyInputs",
    "Purpose",
    "RejectedPath",
    "Revocation",
    "RevocationMode",
    "RevocationRefusal",
    "SearchRecord",
    "Status",
    "TrustAnchor",
    "VerifiedChain",
    "WorkBudget",
    "order_chain",
    "verify_chain",
]
