"""HTML and SVG elements whose texts and attributes are escaped by construction."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from chargepki.pki.errors import printable

__all__ = ["Child", "Markup", "el", "join", "shortened", "words"]

_VOID: Final = frozenset({"meta", "link", "br", "col"})


class Markup(str):
    """Text that is markup already; whatever is only `str` is escaped."""

    __slots__ = ()


Child = str | int | None
"""A text, a number, markup, or nothing."""


def words(text: str) -> Markup:
    """Return a text as markup; control characters and those that turn the direction of writing become escapes.

    >>> words("<b>\\u202e&")
    '&lt;b&gt;\\\\u202e&amp;'
    """
    return Markup(escape(printable(text), quote=True))


def el(tag: str, *children: Child, **attributes: Child) -> Markup:
    """Return an element; attributes lose a final underscore, other underscores become hyphens.

    Args:
        attributes: ``None`` leaves one out, an empty text writes it without a value.

    >>> el("p", "a < b", class_="note", aria_hidden="true")
    '<p class="note" aria-hidden="true">a &lt; b</p>'
    """
    told = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value == "" else f'="{_attribute(value)}"')
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Return markup and texts one after the other."""
    return Markup("".join([_child(each) for each in children if each is not None]))


def shortened(text: str, most: int) -> str:
    """Return *text* with at most *most* characters.

    >>> shortened("abcdef", 4), shortened("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _child(child: str | int) -> str:
    return child if isinstance(child, Markup) else words(str(child))


def _attribute(value: str | int) -> str:
    return value if isinstance(value, Markup) else words(str(value))
