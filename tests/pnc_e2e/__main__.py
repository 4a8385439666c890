"""``make pnc-e2e``: Plug & Charge with unmodified simulators of PyPI's iso15118, in order and with each defect."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from testkit.layout import ROOT
from tests.pnc_e2e import namespaces
from tests.pnc_e2e.defects import BY_NAME, DEFECTS
from tests.pnc_e2e.report import Row, judge, table
from tests.pnc_e2e.session import Rig
from tests.pnc_e2e.world import make_world

PAGE = ROOT / "docs" / "reference" / "plug-and-charge-sessions.md"
BEGIN, END = "<!-- written by make pnc-e2e PNC_ARGS=--write -->", "<!-- end -->"


def main() -> int:
    """Run the sessions that are asked for; 0 when each went as foreseen, or none could run."""
    parser = argparse.ArgumentParser(prog="python -m tests.pnc_e2e")
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME), help="run these alone; repeatable")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--write", action="store_true", help="write the table of the documentation anew")
    parser.add_argument("--keep", type=Path, help="leave folders and logs there")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        reason = namespaces.hindrance()
        if reason is not None:
            print(f"SKIPPED make pnc-e2e: {reason}")
            return 0
        namespaces.enter(sys.argv[1:])
    namespaces.own_loopback()
    begun = time.monotonic()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        rows = asyncio.run(run(options.keep.absolute(), options.only))
    else:
        with tempfile.TemporaryDirectory(prefix="chargepki-pnc-") as folder:
            rows = asyncio.run(run(Path(folder), options.only))
    text = table(rows)
    print(text)
    wrong = [f"{row.name}: {row.wrong}" for row in rows if row.wrong]
    if options.write and not wrong:
        write_page(text)
    elif not options.only and not wrong and text not in PAGE.read_text():
        wrong.append(f"{PAGE.name} has another table; run: make pnc-e2e PNC_ARGS=--write")
    for each in wrong:
        print(f"error: {each}", file=sys.stderr)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")
    print(f"{len(rows)} sessions, {len(wrong)} not as foreseen, {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


def write_page(text: str) -> None:
    """Put the table where the documentation has the one of before."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


async def run(folder: Path, only: list[str] | None) -> list[Row]:
    """Build the world, and run the sessions one after the other."""
    world = make_world(folder)
    rows = []
    try:
        async with Rig(world, folder) as rig:
            for defect in DEFECTS:
                if not only or defect.name in only:
                    begun = time.monotonic()
                    plan = defect.plan(world)
                    row = await judge(defect, plan, world, rig)
                    rows.append(row)
                    print(f"{defect.name}: {row.happened} ({time.monotonic() - begun:.1f} s)", file=sys.stderr)
    finally:
        world.close()
    return rows


if __name__ == "__main__":
    sys.exit(main())
