"""An inventory in the hands of somebody who can write its database but does not have the key of its log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from chargepki.pki.inventory import AuditKey, AuditReport, Checkpoint, Inventory, verify_log
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, entry_hash
from testkit.inventories import add_station

__all__ = ["KEY", "Victim"]

KEY = AuditKey.generate()


class Victim:
    """A filled inventory and the connection of somebody who can write its database but does not have the log key."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.path = path

    def sql(self, *statements: str) -> None:
        """Change the database behind our back; keys and checks are no hindrance to its owner."""
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def loosen(self, table: str) -> None:
        """Rebuild a table without constraints, so that anything can be stored in it."""
        self.sql(
            f"CREATE TABLE loose AS SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE loose RENAME TO {table}",
        )

    def read(self, query: str) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.path) as connection:
            rows = connection.execute(query).fetchall()
        connection.close()
        return rows

    def report(self, checkpoint: Checkpoint | None = None) -> AuditReport:
        with Inventory.open(self.url, log_key=None) as inventory:
            return verify_log(inventory, checkpoint=checkpoint, pinned_keys=[KEY.public])

    def codes(self, checkpoint: Checkpoint | None = None) -> set[str]:
        return {str(finding.code) for finding in self.report(checkpoint).findings}

    def checkpoint(self) -> Checkpoint:
        with Inventory.open(self.url, log_key=None) as inventory:
            return Checkpoint.parse(Checkpoint.of(inventory).to_json())

    def write_more(self, station: str) -> None:
        with Inventory.open(self.url, log_key=KEY) as inventory:
            add_station(inventory, station)

    def rehash(self, first: int) -> None:
        """Make the chain whole again from an entry on, as somebody can who knows how it is made."""
        columns = ", ".join(ENTRY_COLUMNS)
        rows = self.read(f"SELECT {columns} FROM audit_entry WHERE seq >= {first - 1} ORDER BY seq")
        previous = rows[0][-1]
        for row in rows[1:]:
            values = [*row[:-2], previous]
            previous = entry_hash(values)
            self.sql(
                f"UPDATE audit_entry SET previous_hash = '{values[-1]}', entry_hash = '{previous}' WHERE seq = {row[0]}"
            )
