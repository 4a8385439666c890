"""One authority on each database, its certificates signed for, shared by the tests of a module where they only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority, IssueOrder, utc_now
from chargepki.pki.authority.ocsp import OcspAuthority, ocsp_cas
from chargepki.pki.inventory import Inventory
from testkit.authorities import MemoryKeyStore, make_csr, ocpp_authority, open_inventory
from testkit.databases import postgresql_server, postgresql_url, sqlite_url

__all__ = ["authority", "inventory", "leaf", "postgresql_server", "postgresql_url", "sqlite_url"]


@pytest.fixture
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inventory]:
    """An empty inventory on SQLite, unless a test is parametrised with the kinds of database."""
    kind = getattr(request, "param", "sqlite")
    opened = open_inventory(request.getfixturevalue(f"{kind}_url"), tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def authority(inventory: Inventory) -> Authority:
    """The CAs t-root and t-sub, at the present time: clients of HTTP have no other clock."""
    made = ocpp_authority(inventory, keystore=MemoryKeyStore(), clock=utc_now)
    for ca in ("t-root", "t-sub"):
        made.publish_crl(ca)
    return made


@pytest.fixture
def leaf(authority: Authority) -> str:
    """A certificate of t-sub with prepared answers."""
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr())
    certificate = authority.issue(order).record.id
    for ca in ocsp_cas(authority.inventory, authority.now()):
        OcspAuthority(authority).presign(ca)
    return certificate
