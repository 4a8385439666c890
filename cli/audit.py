"""``chargepki audit``: show and verify the tamper-evident log of every act."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from chargepki.pki.inventory.audit import AuditFinding, AuditReport
    from chargepki.pki.inventory.records import AuditEntry

__all__ = ["audit"]

_MAX_CHECKPOINT_BYTES = 65536


@group("audit", example="chargepki audit verify --checkpoint audit-2026-03.json")
def audit() -> None:
    """Show and verify the log: who did what, when, on what, with which outcome."""


@audit.command("show", example="chargepki audit show --last 20")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N entries.")
@pass_state
def show(state: GlobalState, last: int | None) -> None:
    """Print the entries, oldest first; with -v also their details.

    An actor is marked as unauthenticated when nothing but the operating system vouches for the name.
    """
    inventory = state.workspace.inventory
    head = inventory.audit_head()
    after = max((head.count if head else 0) - last, 0) if last else 0
    rows = (_row(entry) for entry in _entries(state, after))
    columns = ("seq", "at", "actor", "action", "subject", "outcome", *(("details",) if state.verbose else ()))
    if not state.output.for_machines:
        rows = (_shown(row) for row in rows)
    state.output.rows("chargepki/audit-entry-list", columns, rows, key="entries")


@audit.command("verify", verdict=True, example="chargepki audit verify --checkpoint audit-2026-03.json")
@click.option("--checkpoint", metavar="F", help="Exported head: also finds truncation and complete rewriting.")
@click.option("--log-key", metavar="F", help="Public log key (`audit log-key`), for who has not this workspace.")
@pass_state
def verify(state: GlobalState, checkpoint: str | None, log_key: str | None) -> None:
    """Check every entry, the chain, the signed head and every row that the log speaks of; exit 1 on tampering."""
    from chargepki.cli.progress import progress
    from chargepki.pki import files
    from chargepki.pki.inventory.audit import AuditPublicKey, Checkpoint, verify_log

    workspace = state.workspace
    seal = Checkpoint.parse(files.read_limited(checkpoint, _MAX_CHECKPOINT_BYTES, "checkpoint")) if checkpoint else None
    pinned = workspace.audit_key.public if log_key is None else AuditPublicKey.parse(_read_key(log_key))
    with progress(state, "verifying the log"):
        report = verify_log(workspace.inventory, checkpoint=seal, pinned_keys=[pinned])
    findings = sorted(report.findings, key=_weight)
    tested = "not tested" if seal is None else "agreed" if not _contradicts(findings) else "contradicted"
    if state.output.for_machines:
        state.output.document(
            "chargepki/audit-report",
            {
                "entries": report.entries,
                "rows": report.rows,
                "head": report.head.count if report.head else None,
                "key_id": report.head.key_id if report.head else None,
                "checkpoint": tested,
                "key_changes": [
                    {"entry": item.seq, "old_key_id": item.old.key_id, "new_key_id": item.new.key_id}
                    for item in report.key_changes
                ],
                "findings": [{"code": item.code, "seq": item.seq, "what": item.what} for item in findings],
                "omitted": report.omitted,
            },
        )
    else:
        for finding in findings:
            state.output.text(f"{finding.code}: {_place(finding)}{finding.what}")
        for change in report.key_changes:
            old, new = change.old.key_id[:16], change.new.key_id[:16]
            state.output.text(f"entry {change.seq} changed the log key from {old} to {new}, signed by the old one")
        state.output.text(_verdict(report))
        if seal is None:
            state.output.text("truncation was not tested: pass --checkpoint")
        else:
            state.output.text(f"the checkpoint of entry {seal.head.count} {tested}")
    if findings:
        state.output.say("next: keep a copy of the database as it is now; then find out who could write to it,")
        state.output.say("and compare it with your last backup and with what `chargepki audit export` once wrote")
        raise click.exceptions.Exit(1)


def _read_key(path: str) -> bytes:
    from chargepki.pki import files

    return files.read_limited(path, _MAX_CHECKPOINT_BYTES, "public log key")


@audit.command("log-key", example="chargepki audit log-key --out log-key.pem")
@click.option("--out", "-o", metavar="F", help="File for it; standard output otherwise.")
@pass_state
def write_log_key(state: GlobalState, out: str | None) -> None:
    """Write the public half of the log key: what an auditor without this workspace verifies the log with."""
    from chargepki.cli.results import write_result

    write_result(state, state.workspace.audit_key.public.to_pem().encode(), out)


def _weight(finding: AuditFinding) -> tuple[int, int]:
    """Order what an auditor reads first: the head and the checkpoint, the entries, then the rows."""
    code = finding.code.value
    is_seal = code.startswith(("head-", "checkpoint-", "table-", "tail-"))
    return 0 if is_seal else 2 if code.startswith("row-") else 1, finding.seq or 0


def _contradicts(findings: Iterable[AuditFinding]) -> bool:
    return any(finding.code.value.startswith("checkpoint-") for finding in findings)


def _place(finding: AuditFinding) -> str:
    """Return where a finding is, unless it says so itself."""
    if finding.seq is None or re.search(rf"\b(entry|entries) {finding.seq}\b", finding.what):
        return ""
    return f"entry {finding.seq}: "


def _verdict(report: AuditReport) -> str:
    from chargepki.cli.output import counted

    seen = f"{counted(report.entries, 'entry', 'entries')}, {counted(report.rows, 'row')}"
    found = counted(len(report.findings) + report.omitted, "finding")
    if report.findings:
        return f"{seen}, {found}: log and inventory contradict each other"
    head = f"head {report.head.count} signed by log key {report.head.key_id[:16]}" if report.head else "no head"
    return f"{seen}, {found}: log and inventory are whole; {head}"


@audit.command("rotate-log-key", writes="change", example="chargepki audit rotate-log-key")
@click.option("--dry-run", is_flag=True, help="Only see whether the log could be given a new key here.")
@pass_state
def rotate(state: GlobalState, dry_run: bool) -> None:
    """Give the log a new key, in the token where `key_token` is set; the old key signs in the log which one follows.

    With the old public key `audit verify` follows the log to the new one, and with the new one it believes what the
    old one signed before. Services that run go on with the new key. Interrupted, the same command goes on.
    """
    from chargepki.pki.authority.core import utc_now

    if dry_run:
        state.rehearse()
    done = state.workspace.rotate_log_key(now=utc_now())
    place = done.key.uri or str(state.settings.home / "audit.key")
    if dry_run:
        place = state.settings.key_token or place
    change = done.change
    old = done.key.key_id if dry_run else change.old.key_id if change else None
    new = None if dry_run else done.key.key_id
    if state.output.for_machines:
        row = {"entry": change.seq if change else None, "old_key_id": old, "key_id": new, "place": place}
        state.output.document("chargepki/audit-log-key", {**row, "completed": done.completed})
        return
    if dry_run:
        state.output.text(f"the log key {str(old)[:16]} would be followed by a new one: {place}")
        return
    if change is None:
        state.output.text(f"an interrupted change is complete: the log key is {str(new)[:16]}, {place}")
    else:
        state.output.text(f"entry {change.seq}: the log key is {str(new)[:16]}, {place}; before it was {str(old)[:16]}")
    state.output.say("next: give auditors the new one (chargepki audit log-key), and make a backup: those from before")
    state.output.say("need the old key, so one in a token must stay there as long as they are kept")


@audit.command("checkpoint", example="chargepki audit checkpoint --out audit-2026-03.json")
@click.option("--out", "-o", required=True, metavar="F", help="File for the signed head; keep it elsewhere.")
@pass_state
def checkpoint(state: GlobalState, out: str) -> None:
    """Export the signed head of the log. Keep it where an attacker on this machine cannot change it."""
    from chargepki.cli.results import write_result
    from chargepki.pki.inventory.audit import Checkpoint

    workspace = state.workspace
    write_result(state, Checkpoint.of(workspace.inventory).to_json().encode(), out)


@audit.command("export", example="chargepki audit export --json-lines > audit.ndjson")
@click.option("--out", "-o", metavar="F", help="File to write instead of stdout.")
@pass_state
def export(state: GlobalState, out: str | None) -> None:
    """Write every entry with all its fields, one JSON object a line."""
    import json

    from chargepki.cli.output import jsonable
    from chargepki.cli.results import write_result

    if out is None:
        for entry in _entries(state, 0):
            state.output.text(json.dumps(jsonable(_row(entry)), ensure_ascii=False))
        return
    lines = "".join(json.dumps(jsonable(_row(entry)), ensure_ascii=False) + "\n" for entry in _entries(state, 0))
    write_result(state, lines.encode(), str(Path(out)))


def _entries(state: GlobalState, after: int) -> Any:
    page = 1000
    while True:
        entries = state.workspace.inventory.list_audit(after_seq=after, limit=page)
        yield from entries
        if len(entries) < page:
            return
        after = entries[-1].seq


def _row(entry: AuditEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": entry.at,
        "actor": f"{entry.actor.kind.value}:{entry.actor.name}",
        "actor_authenticated": entry.actor.authenticated,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome,
        "artefact_sha256": entry.artefact_sha256,
        "details": entry.details,
        "effects": entry.effects,
        "previous_hash": entry.previous_hash,
        "entry_hash": entry.entry_hash,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* for a table: the mark beside the actor, the details on one line."""
    mark = "" if row["actor_authenticated"] else " (unauthenticated)"
    details = "; ".join(f"{name} {value}" for name, value in row["details"].items() if value is not None)
    return {**row, "actor": f"{row['actor']}{mark}", "details": details or None}
