"""Validate a path from a leaf to one of the given anchors (RFC 5280 section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chargepki.pki.chain.policy import Purpose, WorkBudget
from chargepki.pki.errors import ChainError

__all__ = ["VerifiedChain", "verify_chain"]


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """Evidence of a validation; only `verify_chain` makes it."""

    certificates: tuple[bytes, ...]
    """DER, leaf first, anchor last."""
    purpose: Purpose
    at: datetime

    @property
    def leaf(self) -> bytes:
        """DER of the end entity."""
        return self.certificates[0]

    @property
    def anchor(self) -> bytes:
        """DER of the anchor."""
        return self.certificates[-1]


def verify_chain(
    leaf_der: bytes,
    intermediates: Sequence[bytes],
    anchors: Sequence[bytes],
    *,
    purpose: Purpose = Purpose.ANY,
    at: datetime,
    budget: WorkBudget | None = None,
) -> VerifiedChain:
    """Find and validate a path from the leaf to an anchor.

    Raises:
        ChainError: there is none; names the certificate at fault, its position, the clause and the cure.
    """
    raise ChainError("no path was found")
