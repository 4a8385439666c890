"""Data to stdout, words to stderr: tables for people, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from chargepki.cli.telling import tell
from chargepki.pki.errors import printable

__all__ = ["Output", "counted", "jsonable", "rfc3339"]


def rfc3339(instant: datetime) -> str:
    """Return *instant* as RFC 3339 UTC with seconds, for example ``2026-03-01T00:00:00Z``."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return *number* with its noun in the right form.

    >>> counted(1, "object"), counted(0, "object"), counted(2, "entry", "entries")
    ('1 object', '0 objects', '2 entries')
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def jsonable(value: Any) -> Any:
    """Return *value* with times as RFC 3339, enums as their wire spelling and bytes as hex."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [jsonable(item) for item in items]
    return value


class Output:
    """One command's output.

    Example:
        output.rows("chargepki/ca-list", ("name", "profile"), [{"name": "t", "profile": "ocpp/cso-root"}])
    """

    def __init__(self, *, json: bool, json_lines: bool, quiet: bool, verbose: bool) -> None:
        self.is_json = json
        self.is_json_lines = json_lines
        self.quiet = quiet
        self.verbose = verbose

    @property
    def for_machines(self) -> bool:
        """Whether stdout carries JSON."""
        return self.is_json or self.is_json_lines

    def say(self, text: str) -> None:
        """Tell a person something (stderr); silent with ``--quiet``."""
        if not self.quiet:
            tell(text)

    def reason(self, text: str) -> None:
        """Tell a person why (stderr); only with ``--verbose``."""
        if self.verbose and not self.quiet:
            tell(text)

    def text(self, text: str) -> None:
        """Write plain data to stdout, with exactly one final newline."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def document(self, schema: str, content: Mapping[str, Any], *, version: int = 1) -> None:
        """Write one JSON object that names its schema."""
        head = {"schema": schema, "schema_version": version}
        self.text(json.dumps({**head, **jsonable(content)}, ensure_ascii=False))

    def rows(
        self,
        schema: str,
        columns: Sequence[str],
        rows: Iterable[Mapping[str, Any]],
        *,
        title: str = "",
        key: str = "items",
        version: int = 1,
        tail: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Write a list: a table, one JSON object, or (``--json-lines``) one object a row.

        A table shows *columns* only; JSON carries every field of each row.

        Args:
            tail: asked when the rows were read; the one JSON object ends with what it tells.
        """
        if self.is_json_lines:
            for row in rows:
                self.document(schema, row, version=version)
        elif self.is_json:
            content: dict[str, Any] = {key: [jsonable(row) for row in rows]}
            self.document(schema, content | (dict(tail()) if tail is not None else {}), version=version)
        else:
            self._table(columns, list(rows), title)

    def fields(self, schema: str, content: Mapping[str, Any], *, version: int = 1) -> None:
        """Write one thing: a JSON object, or a line a field."""
        if self.for_machines:
            self.document(schema, content, version=version)
            return
        shown = {name: _cell(value) for name, value in content.items() if value is not None}
        # PEM goes below, flush left: indented, it could not be copied into a file.
        blocks = [shown.pop(name) for name in list(shown) if shown[name].startswith("-----BEGIN ")]
        width = max((len(name) for name in shown), default=0)
        for name, value in shown.items():
            first, *rest = value.splitlines() or [""]
            self.text(f"{name.replace('_', ' '):<{width}}  {first}")
            for line in rest:
                self.text(f"{'':<{width}}  {line}")
        for block in blocks:
            self.text(block)

    def _table(self, columns: Sequence[str], rows: list[Mapping[str, Any]], title: str) -> None:
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        if not sys.stdout.isatty():
            # Aligned plain text: what a pipe or a file wants, without the cost of importing rich.
            heads = [column.replace("_", " ") for column in columns]
            widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]
            for line in [heads, *cells]:
                self.text("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for line in cells:
            # Text, not str: a subject such as "[red]" is data, not markup.
            table.add_row(*(Text(cell) for cell in line))
        Console(no_color="NO_COLOR" in os.environ).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    plain = jsonable(value)
    if isinstance(plain, str):
        # Stations and requests wrote some of this: it must not steer the terminal. PEM is ours, and has lines.
        return plain if plain.startswith("-----BEGIN ") else printable(plain)
    if isinstance(plain, list):
        return "\n".join(_inline(item) for item in plain) if plain else "-"
    if isinstance(plain, dict):
        return "\n".join(f"{name.replace('_', ' ')}: {_inline(item)}" for name, item in plain.items()) or "-"
    return str(plain)


def _inline(value: Any) -> str:
    """Return *value* on one line: the fields of an object that say something, separated by semicolons."""
    if isinstance(value, dict):
        said = {name: item for name, item in value.items() if item not in (None, "", [], {})}
        return "; ".join(f"{name.replace('_', ' ')} {_inline(item)}" for name, item in said.items())
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value) or "-"
    return _cell(value)
