"""Check everything in the inventory: linter and path validation for each certificate, over all cores, resumable.

`chargepki.ocpp_security.estate_findings` adds what the questions about everything find.
"""

from __future__ import annotations

from chargepki.pki.checking.judge import RangeJudge, RangeResult
from chargepki.pki.checking.kept import KeptCheck, keep_check, load_kept
from chargepki.pki.checking.processes import available_cores, judge_ranges
from chargepki.pki.checking.report import CheckReport
from chargepki.pki.checking.run import CheckRun, list_ranges, load_run, run_key, save_run
from chargepki.pki.checking.tally import Example, FindingGroup, Tally

__all__ = [
    "CheckReport",
    "CheckRun",
    "Example",
    "FindingGroup",
    "KeptCheck",
    "RangeJudge",
    "RangeResult",
    "Tally",
    "available_cores",
    "judge_ranges",
    "keep_check",
    "list_ranges",
    "load_kept",
    "load_run",
    "run_key",
    "save_run",
]
