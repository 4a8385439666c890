"""Fuzz everything that reads DER, for a given processor time, and print the figures.

python tools/fuzz_der.py --cpu-seconds 600 --seed 1
python tools/fuzz_der.py --seed 1 --number 4711 --out mutant.der    one mutant again
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lib")]


def main(arguments: list[str]) -> int:
    """Run the campaign; 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, help="write this mutant to --out, and run nothing")
    parser.add_argument("--out", type=Path, default=Path("mutant.der"))
    parser.add_argument("--failures", type=Path, help="folder that failing inputs are written to")
    parser.add_argument("--no-samples", action="store_true", help="leave the unchanged corpus out")
    options = parser.parse_args(arguments)
    run: Any = importlib.import_module("testkit.fuzz.run")
    if options.number is not None:
        mutant = run.make_mutant(options.seed, options.number)
        options.out.write_bytes(mutant.data)
        print(mutant)
        return 0
    with run.Campaign() as campaign:
        if not options.no_samples:
            for sample in importlib.import_module("testkit.fuzz.corpus").corpus():
                campaign.try_sample(sample, everywhere=True)
        campaign.run(seed=options.seed, cpu_seconds=options.cpu_seconds)
        print(campaign.report())
        if options.failures:
            options.failures.mkdir(parents=True, exist_ok=True)
            for number, failure in enumerate(campaign.failures):
                (options.failures / f"{number}.bin").write_bytes(failure.data)
        return 1 if campaign.failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
