"""Build and validate certification paths for a stated purpose and instant, with a work budget."""

from __future__ import annotations

from chargepki.pki.chain.order import order_chain
from chargepki.pki.chain.policy import ChainPolicy, Purpose, WorkBudget
from chargepki.pki.chain.verify import VerifiedChain, verify_chain

__all__ = ["ChainPolicy", "Purpose", "VerifiedChain", "WorkBudget", "order_chain", "verify_chain"]
