"""The change mark: what it says after its connection was ended by somebody else."""

from __future__ import annotations

import psycopg

from chargepki.pki.inventory import AuditKey, Inventory
from testkit.databases import postgresql_server, postgresql_url
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url"]


def test_a_connection_that_was_ended_does_not_hide_a_server_that_answers(postgresql_url: str) -> None:
    # A responder that took this for an absent database would go on saying `good` of what was revoked since.
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        mark = inventory.change_mark()
        before = mark.read()
        assert mark.read() == before
        with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as other:
            ended = other.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert ended is not None and ended[0] >= 1
        add_ca(inventory)
        assert mark.read()[1] > before[1]
        mark.close()
