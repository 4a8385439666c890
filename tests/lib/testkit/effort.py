"""How hard to try: a property test looks at more examples under `make campaign` than in CI."""

from __future__ import annotations

import os

__all__ = ["CAMPAIGN", "examples"]

CAMPAIGN = os.environ.get("CHARGEPKI_CAMPAIGN", "") not in {"", "0"}


def examples(in_ci: int) -> int:
    """Return *in_ci*, or fifty times as many examples in a campaign; for ``@settings(max_examples=examples(100))``."""
    return in_ci * 50 if CAMPAIGN else in_ci
