"""Fuzz the reader of EXI for a given processor time, and print the figures.

python tools/fuzz_exi.py --cpu-seconds 600 --seed 1
python tools/fuzz_exi.py --seed 1 --number 4711 --out mutant.exi    one mutant again
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
    parser.add_argument("--out", type=Path, default=Path("mutant.exi"))
    options = parser.parse_args(arguments)
    fuzz: Any = importlib.import_module("testkit.exi_fuzz")
    if options.number is not None:
        options.out.write_bytes(fuzz.make_mutant(options.seed, options.number))
        return 0
    campaign = fuzz.ExiCampaign()
    tried = campaign.run(seed=options.seed, cpu_seconds=options.cpu_seconds)
    print(f"{tried} mutants: {campaign.report()}")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
