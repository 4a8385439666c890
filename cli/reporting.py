"""``chargepki inventory report``: what is there, what expires, what is wrong, and how each figure is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.filtering import combined, filter_options, read_filter, wanted_of
from chargepki.cli.globals import GlobalState, pass_state

if TYPE_CHECKING:
    from chargepki.pki.checking import KeptCheck
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.reporting import AuditPart, FindingsPart, Report, Scope

__all__ = ["add_report", "build_report", "report_forms"]

_FRESH = timedelta(days=1)
"""How long a check of an inventory that nobody has written to since is as good as a new one."""
_MAX_CHECKPOINT_BYTES = 65536


@filter_options
@click.option("--out", "-o", metavar="F", help="File to write instead of stdout.")
@click.option("--format", "form", type=click.Choice(["html", "json", "csv"]), help="html by default, json with --json.")
@click.option(
    "--findings",
    "source",
    type=click.Choice(["auto", "run", "last", "questions"]),
    default="auto",
    show_default=True,
    help="run: check everything now; last: take what the last check found; questions: judge no certificate by itself; "
    "auto: last, if it is of today and nothing was written since, else run.",
)
@click.option("--checkpoint", metavar="F", help="Hold the audit log against this exported head too.")
@click.option("--log-key", metavar="F", help="Public log key (`audit log-key`), for who has not this workspace.")
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Processes that check; one for each core.")
@pass_state
def report(
    state: GlobalState,
    /,
    where: str | None,
    query: str | None,
    at: datetime | None,
    out: str | None,
    form: str | None,
    source: str,
    checkpoint: str | None,
    log_key: str | None,
    jobs: int | None,
) -> None:
    """Write a report: hierarchy, expiry, breakdown, findings, revocations, audit log, and the command for each figure.

    One HTML file that needs no network and no script, for screen and paper. However large the inventory is, it stays
    small: lists end with how many more there are and the command that lists them. The fields of JSON and the columns
    of CSV are in docs/reference/report.md.
    """
    from chargepki.cli.results import check_folder, write_result

    check_folder("--out", out)
    made = build_report(
        state, where=where, query=query, at=at, source=source, checkpoint=checkpoint, log_key=log_key, jobs=jobs
    )
    chosen = form or ("json" if state.output.for_machines else "html")
    write_result(state, report_forms(made)[chosen], out)


def report_forms(made: Report) -> Mapping[str, bytes]:
    """Return a report in each of its forms, by the name of the form."""
    import orjson

    from chargepki.pki.reporting import report_csv, report_html, report_json

    return {
        "html": report_html(made).encode(),
        "json": orjson.dumps(report_json(made)) + b"\n",
        "csv": report_csv(made).encode(),
    }


def build_report(
    state: GlobalState,
    *,
    where: str | None = None,
    query: str | None = None,
    at: datetime | None = None,
    source: str = "auto",
    checkpoint: str | None = None,
    log_key: str | None = None,
    jobs: int | None = None,
) -> Report:
    """Ask everything and return what the report says.

    Args:
        source: as ``--findings``; besides, ``kept`` takes what the last check found, or else asks the questions alone.

    Raises:
        NotFound: the last check is asked for, and there is none.
    """
    from chargepki.pki.reporting import Scope, collect_report

    instant = (at or datetime.now(UTC)).replace(microsecond=0)
    scope = Scope(instant, where, query)
    wanted = combined(wanted_of(state, where, query, instant))
    audit = _audit(state, checkpoint, log_key)
    findings = _findings(state, scope, wanted, source, fixed=at, jobs=jobs)
    return collect_report(
        *(state.workspace.inventory, scope, wanted),
        lambda text: read_filter(state, text, instant),
        findings=findings,
        audit=audit,
        version=version("chargepki"),
    )


def _audit(state: GlobalState, checkpoint: str | None, log_key: str | None) -> AuditPart:
    from chargepki.cli.progress import progress
    from chargepki.pki import files
    from chargepki.pki.errors import ChargePkiError
    from chargepki.pki.inventory.audit import AuditPublicKey, Checkpoint, verify_log
    from chargepki.pki.reporting import audit_part

    seal = None
    if checkpoint is not None:
        seal = Checkpoint.parse(files.read_limited(checkpoint, _MAX_CHECKPOINT_BYTES, "checkpoint"))
    if log_key is not None:
        pinned = AuditPublicKey.parse(files.read_limited(log_key, _MAX_CHECKPOINT_BYTES, "public log key"))
    else:
        try:
            pinned = state.workspace.audit_key.public
        except ChargePkiError as error:
            # An auditor may have the inventory alone: all but this verdict can be told.
            reason = f"{error.what}. Pass --log-key, with the file that `chargepki audit log-key` wrote."
            return audit_part(None, reason=reason)
    with progress(state, "verifying the log"):
        verified = verify_log(state.workspace.inventory, checkpoint=seal, pinned_keys=[pinned])
    return audit_part(verified, checkpoint=checkpoint, log_key=log_key)


def _findings(
    state: GlobalState, scope: Scope, wanted: Filter, source: str, *, fixed: datetime | None, jobs: int | None
) -> FindingsPart:
    from chargepki.cli.checking import check_everything
    from chargepki.pki.reporting import CheckSource, findings_part

    if source == "questions":
        return _questions(state, scope, wanted)
    if source == "kept":
        return _last(state, scope, fixed, how=source) or _questions(state, scope, wanted)
    if source in ("auto", "last") and (part := _last(state, scope, fixed, how=source)) is not None:
        return part
    checked = check_everything(
        *(state, wanted),
        question=f"{scope.where!r} {scope.query!r} {fixed!r}",
        at=scope.at,
        jobs=jobs,
        examples=20,
        keep_result=scope.is_everything,
    )
    return findings_part(checked, scope, source=CheckSource.RUN)


def _questions(state: GlobalState, scope: Scope, wanted: Filter) -> FindingsPart:
    from chargepki.ocpp_security.estate_findings import estate_findings
    from chargepki.pki.checking import CheckReport, Tally
    from chargepki.pki.questions import CliffRule
    from chargepki.pki.reporting import CheckSource, findings_part

    tally = Tally(20)
    for name, finding in estate_findings(state.workspace.inventory, scope.at, wanted=wanted, rule=CliffRule()):
        tally.add(name, finding)
    return findings_part(CheckReport(scope.at, 0, 0, tally.groups()), scope, source=CheckSource.QUESTIONS)


def _last(state: GlobalState, scope: Scope, fixed: datetime | None, *, how: str) -> FindingsPart | None:
    """Return what the last check found.

    Args:
        how: ``last`` must have one, ``kept`` takes it if there is one, ``auto`` only if a new one would find the same.

    Raises:
        NotFound: it must be there, and is not.
    """
    from chargepki.cli.checking import LAST_FILE
    from chargepki.pki.checking import load_kept
    from chargepki.pki.errors import InputError, NotFound
    from chargepki.pki.reporting import CheckSource, findings_part

    kept = None
    try:
        kept = load_kept(state.settings.home / LAST_FILE) if scope.is_everything else None
    except InputError:
        if how == "last":
            raise  # otherwise a new check takes its place
    head = state.workspace.inventory.audit_head()
    if kept is not None and (head is None or kept.log_id != head.log_id):
        kept = None
    if kept is None:
        if how == "last":
            raise NotFound(
                "there is no result of a check of everything",
                why=f"{state.settings.home / LAST_FILE} keeps it, for reports on every certificate alone",
                fix="run: chargepki inventory check",
            )
        return None
    since = None if kept.count is None or head is None else max(0, head.count - kept.count)
    if how == "auto" and not _is_fresh(state, kept, scope, fixed, since):
        return None
    return findings_part(kept.report, scope, source=CheckSource.LAST, entries_since=since)


def _is_fresh(state: GlobalState, kept: KeptCheck, scope: Scope, fixed: datetime | None, since: int | None) -> bool:
    """Whether a new check would find the same but for the few hours that have passed."""
    from chargepki.cli.checking import check_settings
    from chargepki.pki.config import CONFIG_FILE
    from chargepki.pki.lint.settings import load_lint_settings

    # The report's instant is cut to the second in which the check may just have been made.
    age = scope.at - kept.at.replace(microsecond=0)
    is_of_then = kept.at == fixed if fixed is not None else timedelta(0) <= age < _FRESH
    settings = load_lint_settings(state.settings.home / CONFIG_FILE)
    return is_of_then and since == 0 and kept.settings == check_settings(settings)


def add_report(group: Any) -> None:
    """Register the command with the noun ``inventory``."""
    example = (
        "chargepki inventory report --out report.html\n"
        "chargepki inventory report --where \"country = 'DE'\" --format csv --out germany.csv"
    )
    group.command("report", example=example)(report)
