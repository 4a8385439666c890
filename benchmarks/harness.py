"""Measure an operation against a reference in the same run, so that the ratio outlives the machine.

Rounds of subject and reference alternate, so that a machine that slows down slows both. The figure is CPU time
(of this process and its finished children), because wall time on a shared machine says more about the neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "RESULTS",
    "Case",
    "Comparison",
    "Limit",
    "Timing",
    "command_case",
    "compare",
    "main",
    "result_name",
    "tell",
    "write_measured",
    "write_results",
]

RESULTS = Path(__file__).resolve().parent / "results"
SIZE = "CHARGEPKI_BENCH_CERTIFICATES"
"""How many certificates the inventory of a benchmark has, where it is not as many as usual."""
SIZED = frozenset({"reads", "takeover", "checking"})
_TELLS_FROM = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure: *run* does *operations* of them in one call."""

    name: str
    run: Callable[[], object]
    operations: int = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """What the ratio subject / reference must not exceed, and who says so."""

    ratio: float
    why: str
    wall: bool = False
    """Of the time on the clock, not of CPU time: for what is promised as a throughput. Wants a quiet machine."""
    goal: float | None = None
    """What is promised, where *ratio* only guards against getting slower; the table in the README holds it against
    this."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per operation over all rounds."""

    name: str
    operations: int
    cpu_median: float
    cpu_minimum: float
    wall_median: float

    @property
    def per_cpu_second(self) -> float:
        """Operations that one CPU-second pays for."""
        return 1 / self.cpu_median if self.cpu_median else float("inf")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question answered."""

    question: str
    subject: Timing
    reference: Timing
    ratio: float
    """Median over the rounds of subject / reference, CPU time per operation."""
    ratio_low: float
    ratio_high: float
    rounds: int
    limit: Limit | None = None
    note: str = ""
    wall_ratio: float | None = None
    """The same median of the time on the clock; ``None``: not measured."""

    @property
    def met(self) -> bool:
        """Whether the limit, if there is one, holds."""
        if self.limit is None:
            return True
        measured = self.wall_ratio if self.limit.wall else self.ratio
        return measured is not None and measured <= self.limit.ratio


def command_case(name: str, *arguments: str) -> Case:
    """Return a case that runs one command to its end; its CPU time is that of the child process.

    The command must succeed: measuring how fast something fails would mislead.
    """

    def run() -> None:
        subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

    return Case(name, run)


def tell(text: str) -> None:
    """Say on stderr how far a measurement is that takes minutes."""
    print(f"  {datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def result_name(script: str) -> str:
    """Return the name of a script's results: those of an inventory of another size than usual have their own."""
    certificates = os.environ.get(SIZE)
    return f"{script}-{int(certificates)}" if certificates and script in SIZED else script


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _round(case: Case, seconds: float) -> tuple[float, float, int]:
    """Repeat *case* for at least *seconds* of CPU time; return CPU and wall seconds per operation, and how many."""
    calls = 0
    wall, cpu = perf_counter(), _cpu()
    while True:
        case.run()
        calls += 1
        used = _cpu() - cpu
        if used >= seconds:
            operations = calls * case.operations
            if perf_counter() - wall > _TELLS_FROM:
                tell(f"{case.name}: {operations} in {perf_counter() - wall:.0f} s, {used:.0f} s of CPU")
            return used / operations, (perf_counter() - wall) / operations, operations


def compare(
    question: str,
    *,
    subject: Case,
    reference: Case,
    limit: Limit | None = None,
    rounds: int = 7,
    seconds: float = 0.4,
    warms_up: bool = True,
    note: str = "",
) -> Comparison:
    """Measure *subject* and *reference* in alternating rounds after one warm-up call of each.

    Args:
        question: what the figure answers, in a sentence.
        seconds: CPU seconds that each round of each case takes at least.
        warms_up: without, the first call counts: for what takes minutes.
    """
    if warms_up:
        subject.run()
        reference.run()
    samples: dict[str, list[tuple[float, float, int]]] = {"subject": [], "reference": []}
    for number in range(rounds):
        order = [("subject", subject), ("reference", reference)]
        # Every other round the reference goes first, so that neither always runs on the warmer machine.
        for role, case in order if number % 2 == 0 else reversed(order):
            samples[role].append(_round(case, seconds))
    ratios = [s[0] / r[0] for s, r in zip(samples["subject"], samples["reference"], strict=True)]
    return Comparison(
        question=question,
        subject=_timing(subject.name, samples["subject"]),
        reference=_timing(reference.name, samples["reference"]),
        ratio=_median_ratio(samples, 0),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=rounds,
        wall_ratio=_median_ratio(samples, 1),
        limit=limit,
        note=note,
    )


def _median_ratio(samples: dict[str, list[tuple[float, float, int]]], column: int) -> float:
    return statistics.median(
        s[column] / r[column] for s, r in zip(samples["subject"], samples["reference"], strict=True)
    )


def _timing(name: str, samples: Sequence[tuple[float, float, int]]) -> Timing:
    return Timing(
        name=name,
        operations=sum(operations for _, _, operations in samples),
        cpu_median=statistics.median(cpu for cpu, _, _ in samples),
        cpu_minimum=min(cpu for cpu, _, _ in samples),
        wall_median=statistics.median(wall for _, wall, _ in samples),
    )


def _machine() -> dict[str, object]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "processor": model,
        "load_1min": round(os.getloadavg()[0], 2),
    }


def write_results(script: str, comparisons: Sequence[Comparison], folder: Path = RESULTS) -> Path:
    """Write comparisons to ``results/<script>.json`` and return its path."""
    content = {
        "unit": "CPU seconds per operation",
        "comparisons": [asdict(comparison) | {"met": comparison.met} for comparison in comparisons],
    }
    return _write("chargepki.benchmark", script, content, folder)


def write_measured(script: str, measured: DataclassInstance, folder: Path = RESULTS) -> Path:
    """Write what was measured without a reference to ``results/<script>.json``: the fields that its repr shows."""
    shown = {field.name: getattr(measured, field.name) for field in fields(measured) if field.repr}
    return _write("chargepki.measured", script, {"measured": shown}, folder)


def _write(schema: str, script: str, content: Mapping[str, object], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{script}.json"
    document = {
        "schema": schema,
        "schema_version": 1,
        "script": script,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": _machine(),
        **content,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def _seconds(value: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _limit(limit: Limit, *, met: bool) -> str:
    return f"{limit.ratio:.4g}{' by clock' if limit.wall else ''} {'met' if met else 'MISSED'}"


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as aligned text, one row each."""
    heads = (
        "question",
        "ours (CPU)",
        "per CPU-second",
        "reference (CPU)",
        "reference is",
        "ratio",
        "spread",
        "by clock",
        "limit",
    )
    rows = [
        (
            comparison.question,
            _seconds(comparison.subject.cpu_median),
            f"{comparison.subject.per_cpu_second:,.3g}",
            _seconds(comparison.reference.cpu_median),
            comparison.reference.name,
            _ratio(comparison.ratio),
            f"{_ratio(comparison.ratio_low)}-{_ratio(comparison.ratio_high)}",
            "" if comparison.wall_ratio is None else _ratio(comparison.wall_ratio),
            "" if comparison.limit is None else _limit(comparison.limit, met=comparison.met),
        )
        for comparison in comparisons
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def main(script: str, measure: Callable[[], Sequence[Comparison]]) -> int:
    """Run one benchmark module as a program: measure, write the JSON, print the table.

    Returns:
        0, or 1 when a limit is missed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{script}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args(sys.argv[1:])
    comparisons = measure()
    write_results(result_name(script), comparisons, arguments.results)
    print(table(comparisons))
    return 0 if all(comparison.met for comparison in comparisons) else 1
