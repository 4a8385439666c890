"""The hierarchy as a picture: CAs from left to right, each with what it issued folded into one box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chargepki.pki.reporting.markup import Markup, el, shortened
from chargepki.pki.reporting.model import CaNode, CaState, Hierarchy

__all__ = ["hierarchy_svg"]

_BOX: Final = 228
_HEIGHT: Final = 56
_COLUMN: Final = _BOX + 38
_GAP: Final = 12
_LINE: Final = 17
_PAD: Final = 9
_MARGIN: Final = 2
_TONES: Final[Mapping[CaState, str]] = {
    CaState.ACTIVE: "good",
    CaState.RETIRED: "quiet",
    CaState.REVOKED: "bad",
    CaState.EXPIRED: "bad",
    CaState.FOREIGN: "quiet",
    CaState.UNKNOWN: "warn",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """Where something is drawn; y is the middle."""

    x: int
    y: float
    height: int
    markup: Markup


class _Drawing:
    """Places boxes row by row, each parent at the middle of what hangs below it."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._nodes = hierarchy.nodes
        self._below: dict[int, list[CaNode]] = {}
        for node in hierarchy.nodes:
            if node.parents:
                self._below.setdefault(node.parents[0], []).append(node)
        self._row = float(_MARGIN)
        self._right = 0
        self._boxes: dict[int, _Box] = {}
        self._drawn: list[_Box] = []
        self._lines: list[Markup] = []
        for node in hierarchy.nodes:
            if not node.parents:
                self._place(node)
        for node in hierarchy.nodes:
            for number in node.parents[1:]:
                self._join(self._boxes[number], self._boxes[node.number], "cross")

    def _place(self, node: CaNode) -> _Box:
        x = _MARGIN + node.depth * _COLUMN
        start = self._row
        hung = [self._place(child) for child in self._below.get(node.number, ())]
        leaves = _leaf_lines(node)
        if leaves:
            hung.append(self._add(_MARGIN + (node.depth + 1) * _COLUMN, _leaf_height(leaves), _leaf_box(leaves)))
        if not hung:
            box = self._add(x, _HEIGHT, _ca_box(node))
        else:
            self._row = max(self._row, start + _HEIGHT + _GAP)
            box = self._put(x, (hung[0].y + hung[-1].y) / 2, _HEIGHT, _ca_box(node))
        for each in hung:
            self._join(box, each, "edge")
        self._boxes[node.number] = box
        return box

    def _add(self, x: int, height: int, markup: Markup) -> _Box:
        """Put a box into the next free row."""
        # No row is lower than a CA, so that the CA above a single box never leaves its own rows.
        row = max(height, _HEIGHT)
        box = self._put(x, self._row + row / 2, height, markup)
        self._row += row + _GAP
        return box

    def _put(self, x: int, y: float, height: int, markup: Markup) -> _Box:
        self._right = max(self._right, x + _BOX)
        box = _Box(x, y, height, markup)
        self._drawn.append(box)
        return box

    def _join(self, one: _Box, other: _Box, kind: str) -> None:
        left, right = one.x + _BOX, other.x
        middle = (left + right) / 2
        path = f"M{left} {one.y:g}C{middle:g} {one.y:g} {middle:g} {other.y:g} {right} {other.y:g}"
        self._lines.append(el("path", d=path, class_=kind))

    def svg(self, title: str) -> Markup:
        """Return the picture."""
        width, height = self._right + _MARGIN, int(self._row - _GAP) + _MARGIN
        boxes = [
            el(
                "svg",
                box.markup,
                x=box.x,
                y=f"{box.y - box.height / 2:g}",
                width=_BOX,
                height=box.height,
            )
            for box in self._drawn
        ]
        return el(
            "svg",
            *self._lines,
            *boxes,
            class_="graph",
            role="img",
            aria_label=title,
            width=width,
            height=height,
            viewBox=f"0 0 {width} {height}",
        )


def hierarchy_svg(hierarchy: Hierarchy) -> Markup:
    """Return the hierarchy as inline SVG; a table says the same to who cannot see it."""
    roots = sum(not node.parents for node in hierarchy.nodes)
    title = f"Graph of {len(hierarchy.nodes)} CAs below {roots} roots; the table below says the same."
    return _Drawing(hierarchy).svg(title)


def _ca_box(node: CaNode) -> Markup:
    until = f"until {node.not_after:%Y-%m-%d}" if node.not_after is not None else "certificate not here"
    state = "" if node.state is CaState.ACTIVE else f"{node.state.value} · "
    detail = " · ".join(each for each in (node.profile, node.key) if each) or shortened(node.subject, 40)
    return Markup(
        el("title", shortened(node.subject, 200))
        + el("rect", x="0.5", y="0.5", width=_BOX - 1, height=_HEIGHT - 1, rx=5, class_="ca")
        + el("rect", x=0, y=0, width=4, height=_HEIGHT, rx=2, class_=f"tone {_TONES[node.state]}")
        + el("text", shortened(node.label, 28), x=14, y=20, class_="name")
        + el("text", state + until, x=14, y=35)
        + el("text", shortened(detail, 36), x=14, y=48, class_="small")
    )


def _leaf_lines(node: CaNode) -> list[tuple[str, str]]:
    """Return numbers and profiles."""
    lines = [(f"{number:,}", profile) for profile, number in node.leaves]
    if node.more_leaves:
        lines.append((f"{node.more_leaves:,}", "of more profiles"))
    return lines


def _leaf_height(lines: Sequence[tuple[str, str]]) -> int:
    return len(lines) * _LINE + 2 * _PAD - 3


def _leaf_box(lines: Sequence[tuple[str, str]]) -> Markup:
    height = _leaf_height(lines)
    drawn = [
        el(
            "text",
            el("tspan", number, class_="count"),
            el("tspan", shortened(profile, 28), dx=6),
            x=12,
            y=_PAD + 11 + position * _LINE,
        )
        for position, (number, profile) in enumerate(lines)
    ]
    frame = el("rect", x="0.5", y="0.5", width=_BOX - 1, height=height - 1, rx=5, class_="leaves")
    return Markup(frame + "".join(drawn))
