"""The rows of an inventory as text that every database takes: out of one consistent state, into a new SQLite file.

A part is the lines of one table: the JSON array of the column names, then one array a row. Octets are
``{"b": base64}``, truth values 0 and 1. So an inventory may be dumped from one kind of database and loaded into the
other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from chargepki.pki.errors import Conflict, InputError
from chargepki.pki.inventory import migrate as migrations
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.engine import Database, Session
from chargepki.pki.inventory.faults import translate
from chargepki.pki.inventory.schema import NEWEST, VERSIONS, list_tables
from chargepki.pki.inventory.statements import TABLES

__all__ = ["dump_parts", "has_restoration", "is_empty", "load_parts"]

_PART_BYTES: Final = 1 << 20
_INTEGERS: Final = range(-(1 << 63), 1 << 63)


def dump_parts(session: Session) -> Iterator[tuple[str, bytes]]:
    """Yield table and text of every part of the state that *session* sees; a part is about 1 MiB, or one large row.

    Raises:
        UnavailableError: the database went away.
        InputError: it holds something that no writer of ours stores.
    """
    for name, table in TABLES.items():
        columns = [column.name for column in table.columns]
        head = orjson.dumps(columns) + b"\n"
        lines, size = [head], len(head)
        for row in session.stream(f"SELECT {', '.join(columns)} FROM {name}", size=200):  # noqa: S608  # our own names
            line = _line(row, name)
            if size + len(line) > _PART_BYTES and len(lines) > 1:
                yield name, b"".join(lines)
                lines, size = [head], len(head)
            lines.append(line)
            size += len(line)
        yield name, b"".join(lines)


def _line(row: Sequence[Any], table: str) -> bytes:
    values: list[object] = []
    for value in row:
        if isinstance(value, bytes):
            values.append({"b": base64.b64encode(value).decode()})
        elif isinstance(value, float):
            raise InputError(
                f"a row of {table} holds a real number",
                why="nothing of ours stores one",
                fix="run: chargepki audit verify",
            )
        else:
            values.append(int(value) if isinstance(value, bool) else value)
    try:
        return orjson.dumps(values) + b"\n"
    except TypeError as exc:
        raise InputError(f"a row of {table} cannot be written down", why=str(exc)) from exc


def load_parts(path: Path, version: str, parts: Iterable[tuple[str, bytes]]) -> None:
    """Make the SQLite file *path* of schema *version*, fill it with *parts*, and bring it to the newest schema.

    Everything is loaded in one transaction; references between rows are checked at its end.

    Raises:
        InputError: a part is malformed, of no table of ours, or rows contradict each other.
        StateError: a newer program has written it.
        UnavailableError: the disk is full.
    """
    if version not in VERSIONS:
        raise InputError(
            f"the backup has the schema {version[:20]!r}, which this program does not know",
            why=f"a newer chargepki has written it; this one knows up to {NEWEST}",
            fix="use the newer chargepki",
        )
    database = Database(DatabaseAddress.parse(f"sqlite:///{path.absolute()}"))
    try:
        database.create_file()
        if version == NEWEST:
            migrations.migrate(database)
        else:
            migrations.migrate_to(database, version)
        with database.session() as session:
            session.begin_write()
            try:
                _load(session, database, parts)
                session.commit()
            except Conflict as exc:
                session.rollback()
                raise InputError("rows of the backup contradict each other", why=exc.why) from exc
            except BaseException:
                session.rollback()
                raise
        if version != NEWEST:
            migrations.migrate(database)
    finally:
        database.close()


def _load(session: Session, database: Database, parts: Iterable[tuple[str, bytes]]) -> None:
    # Parts come in no order of their references.
    session.execute("PRAGMA defer_foreign_keys=ON")
    present = list_tables(session, database.dialect) - {"alembic_version"}
    known = {name: {str(row[1]) for row in session.execute(f"PRAGMA table_info({name})")} for name in present}
    for table, text in parts:
        if table not in known:
            raise InputError(f"the backup has rows of {table[:40]!r}, which is no table of ours")
        columns, rows = _parse(table, text)
        if not columns or not set(columns) <= known[table] or len(set(columns)) != len(columns):
            raise InputError(f"the backup has columns of {table} that are not ours")
        if not rows:
            continue
        names, places = ", ".join(columns), ", ".join("?" for _ in columns)
        try:
            session.connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)  # noqa: S608  # table and columns are known ones
        except database.errors as exc:
            raise translate(exc, database.address) from exc


def _parse(table: str, text: bytes) -> tuple[list[str], list[list[object]]]:
    try:
        found = [orjson.loads(line) for line in text.splitlines()]
        columns = found[0]
        rows = [[_value(value) for value in row] for row in found[1:]]
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, binascii.Error) as exc:
        raise InputError(f"rows of {table} cannot be read", why=str(exc)[:200]) from exc
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise InputError(f"rows of {table} name no columns")
    if any(len(row) != len(columns) for row in rows):
        raise InputError(f"a row of {table} has more or fewer values than there are columns")
    return columns, rows


def _value(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and value in _INTEGERS:
        return int(value)
    if isinstance(value, dict) and value.keys() == {"b"}:
        return base64.b64decode(value["b"], validate=True)
    raise ValueError(f"{type(value).__name__} is no value of ours")


def is_empty(database: Database) -> bool:
    """Whether the database has no table of ours, or none with a row; its schema may be there.

    Other tables of a PostgreSQL database are nobody's business, those of a file make it somebody else's.

    Raises:
        UnavailableError: it cannot be reached.
    """
    if not database.exists():
        return True
    with database.session() as session:
        present = list_tables(session, database.dialect)
        if database.dialect is Dialect.SQLITE and present - {*TABLES, "alembic_version"}:
            return False  # a file is moved as a whole: that of somebody else must stay
        return not any(
            session.execute(f"SELECT 1 FROM {name} LIMIT 1")  # noqa: S608  # our own names
            for name in TABLES
            if name in present
        )


def has_restoration(database: Database, restoration: str) -> bool:
    """Whether the inventory in *database* is the one of that restoration."""
    with database.session() as session:
        if "restoration" not in list_tables(session, database.dialect):
            return False
        return bool(session.run("restoration_get", {"id": restoration}))
