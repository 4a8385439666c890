"""``chargepki query``: filters that have a name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.filtering import CERTIFICATE, read_filter, read_rows_filter
from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from chargepki.pki.inventory import Transaction
    from chargepki.pki.inventory.filters import Filter
    from chargepki.pki.inventory.query_records import SavedQueryRecord

__all__ = ["query"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_COLUMNS = ("name", "kind", "filter", "saved_by", "saved_at")
_KINDS = (CERTIFICATE, "ca", "station", "operation", "security-event", "firmware-release")
"""A test compares them with `ListedKind`, which no command need load for its help."""


@group("query", example="chargepki query save soon \"state = 'issued' and not_after < now + 30d\"")
def query() -> None:
    """Save filters under a name, for --query NAME, which stands wherever --where does."""


@query.command(
    "save",
    writes="change",
    example="chargepki query save soon \"state = 'issued' and not_after < now + 30d\"\n"
    'chargepki query save silent --kind station "last_seen_at < now - 30d or last_seen_at is null"',
)
@click.argument("name", metavar="NAME")
@click.argument("text", metavar="FILTER")
@click.option("--kind", type=click.Choice(_KINDS), default=CERTIFICATE, show_default=True, help="What it asks for.")
@click.option("--replace", is_flag=True, help="Put it in the place of the filter of that name.")
@click.option("--dry-run", is_flag=True, help="Read the filter, change nothing.")
@pass_state
def save(state: GlobalState, name: str, text: str, kind: str, replace: bool, dry_run: bool) -> None:
    """Save a filter; `now` in it is the instant at which it is asked."""
    from chargepki.pki.inventory.query_records import SavedQueryRecord

    if dry_run:
        state.rehearse()
    if not _NAME.match(name):
        raise click.UsageError("a name has letters, digits, dot, underscore and hyphen, at most 64, no sign in front")
    listed = None if kind == CERTIFICATE else kind
    _parsed(state, text, listed)
    workspace = state.workspace
    now = datetime.now(UTC)

    def work(tx: Transaction) -> SavedQueryRecord:
        before = tx.find_query(name)
        saved = tx.save_query(SavedQueryRecord(name, text, workspace.actor.name, now, listed), replace=replace)
        if saved != before:
            tx.audit(workspace.actor, "query.save", name, now=now, details=_details(saved))
        return saved

    state.output.fields("chargepki/query", query_row(workspace.inventory.write(work)))


@query.command("list", example="chargepki query list --json")
@pass_state
def list_all(state: GlobalState) -> None:
    """List the saved queries."""
    rows = map(query_row, state.workspace.inventory.list_queries())
    state.output.rows("chargepki/query-list", _COLUMNS, rows, key="queries")


@query.command("show", example="chargepki query show soon")
@click.argument("name", metavar="NAME")
@pass_state
def show(state: GlobalState, name: str) -> None:
    """Show a saved query, and how many certificates, or others of its kind, it asks for now."""
    from chargepki.cli.row_filtering import all_rows
    from chargepki.pki.inventory.row_fields import ListedKind, keep_rows

    inventory = state.workspace.inventory
    record = inventory.get_query(name)
    wanted = _parsed(state, record.filter or "", record.kind)
    row = query_row(record)
    if record.kind is None:
        row["certificates"] = inventory.count_matching(wanted)
    else:
        row["matches"] = sum(1 for _ in keep_rows(all_rows(inventory, ListedKind(record.kind)), wanted))
    state.output.fields("chargepki/query", row)


@query.command("delete", writes="change", example="chargepki query delete soon")
@click.argument("name", metavar="NAME")
@click.option("--dry-run", is_flag=True, help="Look for it, change nothing.")
@pass_state
def delete(state: GlobalState, name: str, dry_run: bool) -> None:
    """Forget a saved query."""
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    now = datetime.now(UTC)

    def work(tx: Transaction) -> SavedQueryRecord:
        found = tx.delete_query(name, actor=workspace.actor.name, now=now)
        tx.audit(workspace.actor, "query.delete", name, now=now, details=_details(found))
        return found

    state.output.fields("chargepki/query", query_row(workspace.inventory.write(work)))


def query_row(record: SavedQueryRecord) -> dict[str, Any]:
    """Return *record* as ``--json`` prints it."""
    return {
        "name": record.id,
        "kind": record.kind or CERTIFICATE,
        "filter": record.filter,
        "saved_by": record.saved_by,
        "saved_at": record.saved_at,
    }


def _details(record: SavedQueryRecord) -> dict[str, str | None]:
    """Return what the audit log tells of it; a query about certificates names no kind."""
    return {"filter": record.filter} | ({} if record.kind is None else {"kind": record.kind})


def _parsed(state: GlobalState, text: str, kind: str | None) -> Filter:
    if kind is None:
        return read_filter(state, text, None)
    from chargepki.pki.inventory.row_fields import ListedKind

    return read_rows_filter(state, text, ListedKind(kind), None)
