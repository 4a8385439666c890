"""Cells of comma-separated values that no spreadsheet runs."""

from __future__ import annotations

from typing import Final

__all__ = ["FORMULA_STARTS", "quoted_cell"]

FORMULA_STARTS: Final = frozenset("=+-@\t\r")
"""A spreadsheet takes a cell that begins so for a formula, and runs it."""


def quoted_cell(text: str) -> str:
    """Return *text* with an apostrophe before it where a spreadsheet would run it.

    >>> quoted_cell("=1+1"), quoted_cell("1+1"), quoted_cell("")
    ("'=1+1", '1+1', '')
    """
    return f"'{text}" if text and text[0] in FORMULA_STARTS else text
