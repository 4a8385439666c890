"""``chargepki inventory check``: judge everything, and go on where a check was ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.filtering import combined, filter_options, wanted_of
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.output import counted

if TYPE_CHECKING:
    from chargepki.pki.checking import CheckReport, CheckRun, KeptCheck, RangeJudge
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.lint.settings import LintSettings

__all__ = ["LAST_FILE", "add_check", "check_everything", "check_settings"]

LAST_FILE = "inventory-check-last.json"
"""Of the workspace: what the last check of everything found."""
_KEPT_FILE = "inventory-check.json"
_SAVE_SECONDS = 5.0
_RANGES_A_PROCESS = 4
"""Fewer, and starting a process costs more than it saves."""


@filter_options
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif", "junit"]), help="What to print; text otherwise."
)
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Processes; as many as there are cores.")
@click.option(
    "--examples", type=click.IntRange(0, 1_000_000), default=20, show_default=True, help="Name so many of each finding."
)
@click.option("--fresh", is_flag=True, help="Begin anew, and forget where a check was ended.")
@click.option("--keep", metavar="F", help=f"File that keeps where it stands; {_KEPT_FILE} in the workspace by default.")
@pass_state
def check(
    state: GlobalState,
    /,
    where: str | None,
    query: str | None,
    at: datetime | None,
    form: str | None,
    jobs: int | None,
    examples: int,
    fresh: bool,
    keep: str | None,
) -> None:
    """Judge every certificate with the linter and by its path, and ask the questions about everything.

    Exit 1 when any finding is an error. Only what is valid is held against the clock; what has expired or was revoked
    is judged as it was made. A check that is killed goes on with the same command, at the same instant. Severities and
    data of the linter come from the table [lint] of chargepki.toml.
    """
    if form == "json":
        state.json = True
    wanted = combined(wanted_of(state, where, query, at))
    path = Path(keep) if keep is not None else state.settings.home / _KEPT_FILE
    question = f"{where!r} {query!r} {at!r}"
    report = check_everything(
        *(state, wanted),
        question=question,
        at=at,
        jobs=jobs,
        examples=examples,
        path=path,
        fresh=fresh,
        keep_result=where is None and query is None,
    )
    if form == "sarif":
        state.output.text(report.to_sarif(version("chargepki")))
    elif form == "junit":
        state.output.text(report.to_junit())
    elif state.output.for_machines:
        state.output.document("chargepki/inventory-check", report.to_json())
    else:
        _print(state, report)
    if not report.ok:
        raise click.exceptions.Exit(1)


def check_everything(
    state: GlobalState,
    wanted: Filter,
    *,
    question: str,
    at: datetime | None,
    jobs: int | None,
    examples: int,
    path: Path | None = None,
    fresh: bool = False,
    keep_result: bool,
) -> CheckReport:
    """Return what a check finds; where it stands is kept in *path* until it is done.

    Args:
        path: by default a file of the workspace.
        keep_result: keep what was found in the workspace, for reports: only where everything is checked.
    """
    from chargepki.ocpp_security.estate_findings import estate_findings
    from chargepki.pki import files
    from chargepki.pki.checking import CheckReport, CheckRun, KeptCheck, Tally, load_run, run_key
    from chargepki.pki.config import CONFIG_FILE
    from chargepki.pki.lint.settings import load_lint_settings
    from chargepki.pki.questions import CliffRule

    path = path or state.settings.home / _KEPT_FILE
    settings = load_lint_settings(state.settings.home / CONFIG_FILE)
    head = state.workspace.inventory.audit_head()
    key = run_key(head.log_id if head else "", check_settings(settings), question, str(examples))
    run = None if fresh else load_run(path, key, examples)
    if run is None:
        run = CheckRun(key, at or datetime.now(UTC), Tally(examples))
    else:
        state.output.say(
            f"goes on behind {run.judged} certificates, which were judged as of {run.at:%Y-%m-%d %H:%M} UTC"
        )
    _judge(state, run, wanted, settings, jobs, path)
    for name, finding in estate_findings(state.workspace.inventory, run.at, wanted=wanted, rule=CliffRule()):
        run.tally.add(name, finding)
    if path.exists():
        files.remove_durable(path)
    report = CheckReport(run.at, run.judged, run.paths, run.tally.groups())
    if keep_result and head is not None:
        count = None if run.resumed else head.count
        _keep_result(state, KeptCheck(report, head.log_id, count, check_settings(settings)))
    return report


def check_settings(settings: LintSettings) -> str:
    """Return a digest of all that decides what a check finds, besides the inventory."""
    from chargepki.pki.checking import run_key

    return run_key(
        version("chargepki"),
        *(repr(sorted(settings.severity.items())), repr(settings.unverified), repr(settings.data.available)),
    )


def _keep_result(state: GlobalState, kept: KeptCheck) -> None:
    from chargepki.pki.checking import keep_check
    from chargepki.pki.errors import ChargePkiError

    try:
        keep_check(state.settings.home / LAST_FILE, kept)
    except ChargePkiError as error:
        # An auditor may have no folder to write to: the check is no worse for it.
        state.output.reason(f"what the check found cannot be kept for reports: {error}")


def _judge(
    state: GlobalState, run: CheckRun, wanted: Filter, settings: LintSettings, jobs: int | None, path: Path
) -> None:
    """Judge the certificates that are left, and note every few seconds how far that is."""
    from contextlib import closing

    from chargepki.cli.progress import progress
    from chargepki.pki.checking import available_cores, judge_ranges, list_ranges
    from chargepki.pki.checking.run import RANGE

    workspace = state.workspace
    total = workspace.inventory.count_matching(wanted)
    left = max(0, total - run.judged)
    processes = min(jobs or available_cores(), max(1, left // (RANGE * _RANGES_A_PROCESS)))
    make: Callable[[], RangeJudge] = partial(_make_judge, state, run, wanted, settings)
    if processes > 1:
        # A connection that two processes share would mix their answers; each opens its own.
        workspace.forget_inventory()

    def ranges() -> Iterator[tuple[str | None, str]]:
        # Opened when the first range is asked for: the other processes have begun by then.
        yield from list_ranges(workspace.inventory, wanted, after=run.position)

    keeper = _Keeper(state, run, path)
    with closing(judge_ranges(make, ranges(), processes)) as results, keeper:
        first = next(results, None)  # the processes begin here, before there are threads
        with progress(state, "checking") as show:
            while first is not None:
                run.add(*first)
                show(run.judged, total)
                keeper.tick()
                first = next(results, None)


def _make_judge(state: GlobalState, run: CheckRun, wanted: Filter, settings: LintSettings) -> RangeJudge:
    from chargepki.pki.checking import RangeJudge

    return RangeJudge(state.workspace.inventory, settings, run.at, wanted, run.tally.most)


class _Keeper:
    """Keeps where a check stands: every few seconds, and when it is interrupted."""

    def __init__(self, state: GlobalState, run: CheckRun, path: Path) -> None:
        self._state, self._run, self._path = state, run, path
        self._kept_at = monotonic()
        self._works = True

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and self._run.position is not None:
            self._keep()

    def tick(self) -> None:
        """Keep it if the last time was long ago."""
        if monotonic() - self._kept_at >= _SAVE_SECONDS:
            self._keep()
            self._kept_at = monotonic()

    def _keep(self) -> None:
        from chargepki.pki.checking import save_run
        from chargepki.pki.errors import ChargePkiError

        if not self._works:
            return
        try:
            save_run(self._path, self._run)
        except ChargePkiError as error:
            # An auditor may have no folder to write to: the check is no worse for it.
            self._works = False
            self._state.output.say(f"where the check stands cannot be kept, so it cannot go on after a kill: {error}")


def _print(state: GlobalState, report: CheckReport) -> None:
    rows: list[dict[str, Any]] = [
        {
            "severity": each.severity,
            "rule": each.rule,
            "count": each.count,
            "first": f"{each.examples[0].name}: {each.examples[0].message}" if each.examples else "",
            "cure": f"{each.hint} ({each.clause})",
        }
        for each in report.findings
    ]
    state.output.rows("chargepki/inventory-check", ("severity", "rule", "count", "first", "cure"), rows)
    from chargepki.pki.checking.tally import tally_of

    counts = tally_of(report.findings)
    told = ", ".join(counted(number, name) for name, number in counts.items())
    state.output.say(
        f"{counted(report.judged, 'certificate')} judged, {counted(report.paths, 'path')} validated: {told}"
    )


def add_check(group: Any) -> None:
    """Register the command with the noun ``inventory``."""
    example = (
        "chargepki inventory check\nchargepki inventory check --format junit --where \"country = 'DE'\" > check.xml"
    )
    group.command("check", verdict=True, example=example)(check)
