"""Bars: of a timeline as a picture, of a breakdown beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from chargepki.pki.questions import Cliff, Span
from chargepki.pki.reporting.markup import Markup, el
from chargepki.pki.reporting.model import TimelinePart

__all__ = ["bar_svg", "brief", "timeline_svg"]

_WIDTH: Final = 1000
_HEIGHT: Final = 236
_TOP: Final = 26
_BASE: Final = 188
_LATER_GAP: Final = 18


def bar_svg(share: float) -> Markup:
    """Return a bar of that share of the width that it is given; what is not nothing can be seen.

    >>> "50%" in bar_svg(0.5)
    True
    """
    percent = max(share * 100, 0.4) if share > 0 else 0
    return el(
        "svg",
        el("rect", width="100%", height=8, rx=2, class_="rail"),
        el("rect", width=f"{percent:.4g}%", height=8, rx=2, class_="fill"),
        class_="bar",
        width="100%",
        height=8,
        aria_hidden="true",
    )


def brief(number: int) -> str:
    """Return a number that fits above a column.

    >>> [brief(each) for each in (0, 999, 1500, 12345, 1234567)]
    ['0', '999', '1.5k', '12k', '1.2M']
    """
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            value = number / size
            return f"{value:.1f}".removesuffix(".0") + unit if value < 10 else f"{value:.0f}{unit}"
    return str(number)


def timeline_svg(part: TimelinePart) -> Markup:
    """Return the timeline as inline SVG; a table says the same to who cannot see it."""
    columns = part.columns
    most = max(*(each.certificates for each in columns), part.later, 1)
    step = (_WIDTH - _LATER_GAP) / (len(columns) + 1)
    drawn = [el("line", x1=0, x2=_WIDTH, y1=_BASE, y2=_BASE, class_="axis")]
    before: date | None = None
    for position, each in enumerate(columns):
        is_cliff = _is_cliff(each.begin, part)
        drawn.append(_column(position * step, step, each.certificates, most, "cliff" if is_cliff else "fill"))
        drawn += _labels(position * step + step / 2, each.begin, before, part.span)
        before = each.begin
    at = len(columns) * step + _LATER_GAP
    drawn.append(_column(at, step, part.later, most, "later"))
    drawn.append(_text(at + step / 2, _BASE + 18, "later"))
    told = f"{part.valid:,} valid certificates by the {part.span.value} in which they expire; the table says the same."
    return el(
        "svg",
        *drawn,
        class_="columns",
        role="img",
        aria_label=told,
        width=_WIDTH,
        height=_HEIGHT,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    )


def _is_cliff(begin: date, part: TimelinePart) -> bool:
    # A month later, or seven days, begins another span.
    end = part.span.begin(begin + timedelta(days=7 if part.span is Span.WEEK else 32))
    return any(_overlaps(each, begin, end) for each in part.cliffs)


def _overlaps(cliff: Cliff, begin: date, end: date) -> bool:
    return cliff.begin < end and cliff.end >= begin


def _column(x: float, step: float, number: int, most: int, kind: str) -> Markup:
    if not number:
        return Markup()
    height = max(2.0, (_BASE - _TOP) * number / most)
    width = min(step * 0.72, 44.0)
    left = x + (step - width) / 2
    return Markup(
        el(
            "rect",
            x=f"{left:.1f}",
            y=f"{_BASE - height:.1f}",
            width=f"{width:.1f}",
            height=f"{height:.1f}",
            rx=2,
            class_=kind,
        )
        + _text(x + step / 2, _BASE - height - 6, brief(number), "number")
    )


def _labels(middle: float, begin: date, before: date | None, span: Span) -> Sequence[Markup]:
    """Return what stands below a column; the year where it begins."""
    first = f"{begin:%d %b}".lstrip("0") if span is Span.WEEK else f"{begin:%b}"
    labels = [_text(middle, _BASE + 18, first)]
    if before is None or before.year != begin.year:
        labels.append(_text(middle, _BASE + 36, str(begin.year), "year"))
    return labels


def _text(x: float, y: float, text: str, kind: str | None = None) -> Markup:
    return el("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor="middle", class_=kind)
