"""Say something to a person on stderr; that nobody can be told is no reason to stop what is being done."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

__all__ = ["tell"]


def tell(text: str) -> None:
    """Write *text* as one line to stderr, in one piece, so that lines of several processes do not mix."""
    # None when the caller has closed it; print() would then write to stdout, among the data.
    stream: TextIO | None = sys.stderr
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.write(f"{text}\n")
            stream.flush()
