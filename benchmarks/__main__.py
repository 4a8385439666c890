"""Run every benchmark, or those named, each in a process of its own; print one table and name the missed limits."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import RESULTS, SIZED, Comparison, Limit, Timing, result_name, table
from benchmarks.publish import publish

FOLDER = Path(__file__).resolve().parent
NOT_BENCHMARKS = {
    "__init__",
    "__main__",
    "bulk",
    "estate",
    "fleet",
    "fleet_servers",
    "harness",
    "issuance_django_ca",
    "issuance_peers",
    "issuance_processes",
    "material",
    "publish",
    "renewals",
}


def names() -> list[str]:
    """Return the benchmark modules, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def sized() -> list[str]:
    """Return the names of the results that are there of inventories of other sizes than usual."""
    return sorted(path.stem for name in SIZED for path in RESULTS.glob(f"{name}-*.json"))


def read(path: Path) -> list[Comparison]:
    """Return the comparisons of one results file."""
    comparisons = []
    for entry in json.loads(path.read_text(encoding="utf-8"))["comparisons"]:
        entry.pop("met")
        limit = entry.pop("limit")
        comparisons.append(
            Comparison(
                subject=Timing(**entry.pop("subject")),
                reference=Timing(**entry.pop("reference")),
                limit=None if limit is None else Limit(**limit),
                **entry,
            )
        )
    return comparisons


def main() -> int:
    """Run them in turn: two at once would measure each other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(names())}; all without a name")
    parser.add_argument(
        "--publish", action="store_true", help="write the figures into the README; without names this is done anyway"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names()))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    comparisons: list[Comparison] = []
    broken = []
    for name in arguments.names or names():
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        # Without this a benchmark that breaks would be reported with the figures of an earlier run.
        results = RESULTS / f"{result_name(name)}.json"
        results.unlink(missing_ok=True)
        with tempfile.TemporaryFile() as output:
            # Its own table is left out: the one below covers all.
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=FOLDER.parent, stdout=output, check=False)
        if results.exists():
            comparisons += read(results)
        else:
            broken.append(name)
    print(table(comparisons))
    if arguments.publish or not arguments.names:
        publish([result_name(name) for name in arguments.names] or [*names(), *sized()])
    print(f"\nwritten to {RESULTS.relative_to(FOLDER.parent)}/", file=sys.stderr)
    for name in broken:
        print(f"error: benchmark {name} did not run to its end; its message is above", file=sys.stderr)
    missed = [comparison.question for comparison in comparisons if not comparison.met]
    for question in missed:
        print(f"missed: {question}", file=sys.stderr)
    return 1 if missed or broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
