"""How long does a user wait for `chargepki --help`, compared with starting Python and importing click?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Comparison, Limit, command_case, compare, main


def measure() -> Sequence[Comparison]:
    """Compare whole processes, as a shell would start them."""
    command = Path(sys.executable).parent / "chargepki"
    return [
        compare(
            "chargepki --help",
            subject=command_case("chargepki --help", str(command), "--help"),
            reference=command_case("python -c 'import click'", sys.executable, "-c", "import click"),
            limit=Limit(1.5, "the command line must not feel slower than its own library"),
        )
    ]


if __name__ == "__main__":
    raise SystemExit(main("startup", measure))
