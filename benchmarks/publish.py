"""Write the figures of a run into the README, and into ``published.json``, with which a test compares the README.

The results of each run lie in ``results/``, which belongs to the machine. What is published is a copy of what the table
says, so that nobody can change the one without the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import RESULTS

__all__ = ["CLOSING", "OPENING", "PUBLISHED", "README", "between", "publish", "render"]

README: Final = Path(__file__).resolve().parents[1] / "README.md"
PUBLISHED: Final = Path(__file__).resolve().parent / "published.json"
OPENING: Final = "<!-- benchmarks: written by make bench -->\n"
CLOSING: Final = "<!-- end of benchmarks -->\n"
_KEPT: Final = ("question", "ratio", "ratio_low", "ratio_high", "wall_ratio", "rounds", "limit")


def publish(
    scripts: Iterable[str], *, results: Path = RESULTS, published: Path = PUBLISHED, readme: Path = README
) -> None:
    """Take over what *scripts* have measured last, and leave the figures of all others as they are.

    Raises:
        ValueError: the README has no place for the table.
    """
    known: dict[str, Any] = {}
    if published.exists():
        known = json.loads(published.read_text(encoding="utf-8"))["scripts"]
    for script in scripts:
        path = results / f"{script}.json"
        if path.exists():
            known[script] = _kept(json.loads(path.read_text(encoding="utf-8")))
    document = {"schema": "chargepki.benchmark-table", "schema_version": 1, "scripts": dict(sorted(known.items()))}
    text = readme.read_text(encoding="utf-8")
    between(text)
    before, after = text.partition(OPENING)[0], text.partition(CLOSING)[2]
    new = before + OPENING + render(document) + CLOSING + after
    published.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    readme.write_text(new, encoding="utf-8")


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table says of one script: its comparisons with a goal, rounded as they are shown."""
    comparisons = [
        {name: entry[name] for name in _KEPT} | {"reference": entry["reference"]["name"]}
        for entry in result["comparisons"]
        if entry["limit"] is not None
    ]
    for entry in comparisons:
        for name in ("ratio", "ratio_low", "ratio_high", "wall_ratio"):
            entry[name] = None if entry[name] is None else float(f"{entry[name]:.4g}")
    return {"measured_at": result["measured_at"], "machine": result["machine"], "comparisons": comparisons}


def between(text: str) -> str:
    """Return what stands between the two markers of the README.

    Raises:
        ValueError: it does not have each of them once, in their order.
    """
    if text.count(OPENING) != 1 or text.count(CLOSING) != 1 or text.index(CLOSING) < text.index(OPENING):
        raise ValueError("README.md needs the two markers of the benchmark table, once each")
    return text.partition(OPENING)[2].partition(CLOSING)[0]


def render(document: Mapping[str, Any]) -> str:
    """Return the table as Markdown, and under it on which machine and when it was measured."""
    lines = ["| What | against | median (spread) | goal | |", "|---|---|---|---|---|"]
    scripts = _largest(document["scripts"])
    for script, result in scripts.items():
        lines += [_row(script, entry) for entry in result["comparisons"]]
    lines.append("")
    lines += _where(scripts)
    return "\n".join(lines) + "\n"


def _largest(scripts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out of each script what it measured at a smaller size than another time (``reads``, ``reads-1000000``)."""
    sizes: dict[str, int] = {}
    for script in scripts:
        name, _, size = script.partition("-")
        sizes[name] = max(sizes.get(name, 0), int(size or 0))
    return {
        script: result
        for script, result in scripts.items()
        if int(script.partition("-")[2] or 0) == sizes[script.partition("-")[0]]
    }


def _row(script: str, entry: Mapping[str, Any]) -> str:
    limit = entry["limit"]
    goal = limit["ratio"] if limit.get("goal") is None else limit["goal"]
    by_clock = bool(limit["wall"])
    ratio = entry["wall_ratio"] if by_clock else entry["ratio"]
    met = ratio is not None and ratio <= goal
    # The spread is that of CPU time; of the time on the clock only the median is kept.
    spread = () if by_clock else (entry["ratio_low"], entry["ratio_high"])
    if goal < 1:
        shown, wanted = f"{_figure(1 / ratio)} times less", f"{_figure(1 / goal)} times less"
        spread = tuple(1 / each for each in reversed(spread))
    else:
        shown, wanted = f"{_figure(ratio)} times", f"at most {_figure(goal)} times"
    if spread:
        shown += f" ({_figure(spread[0])} to {_figure(spread[1])})"
    cells = (
        f"{entry['question']} (`{script}`)",
        entry["reference"],
        shown + (", by the clock" if by_clock else ""),
        wanted,
        "met" if met else "**missed**",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _where(scripts: Mapping[str, Any]) -> list[str]:
    """Return when and where: a line for each kind of machine, with the load that others put on it meanwhile."""
    groups: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for result in scripts.values():
        machine = result["machine"]
        groups.setdefault((machine["processor"], machine["cores"], machine["python"]), []).append(result)
    lines = []
    for (processor, cores, python), results in groups.items():
        days = sorted({result["measured_at"][:10] for result in results})
        loads = sorted(result["machine"]["load_1min"] for result in results)
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        lines.append(
            f"CPU time unless the line says otherwise; measured {when} on {cores} cores ({processor}), Python {python},"
            f" with a load of {loads[0]:.0f} to {loads[-1]:.0f} on the machine at the end of each."
        )
    return lines
