"""The change mark: what it says after its connection was ended by somebody else."""

from __future__ import annotations

from chargepki.pki.inventory import AuditKey, Inventory
from testkit.databases import end_all_connections, postgresql_server, postgresql_url
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url"]


def test_a_connection_that_was_ended_does_not_hide_a_server_that_answers(postgresql_url: str) -> None:
    # A responder that took this for an absent database would go on saying `good` of what was revoked since.
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        mark = inventory.change_mark()
        before = mark.read()
        assert mark.read() == before
        assert end_all_connections(postgresql_url) >= 1
        add_ca(inventory)
        assert mark.read()[1] > before[1]
        mark.close()
