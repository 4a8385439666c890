"""Which certificates are due for renewal, where dates alone would name those that were replaced already."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.renewal import due_at, find_due
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import CertificateRecord, Delivery
from chargepki.pki.keys import PrivateKey
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_csr, make_key, ocpp_authority, open_inventory

STATION = "ocpp/charging-station"


def due(authority: Authority, now: datetime) -> list[str]:
    return [record.id for record, _ in find_due(authority.inventory, now)]


def issue(authority: Authority, ca: str, key: PrivateKey) -> CertificateRecord:
    return authority.issue(IssueOrder(ca, STATION, csr=make_csr("CS-1", key=key))).record


def test_near_the_end_of_a_ca_the_younger_of_two_that_end_together_is_the_successor(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'i.db'}", tmp_path) as inventory:
        clock = [NOW]
        authority = ocpp_authority(inventory, keystore=MemoryKeyStore(), clock=lambda: clock[0])
        subject = (("CN", "Brief"), ("O", "Acme"))
        brief = CaOrder("brief", "ocpp/cso-sub", issuer="t-root", subject=subject, validity=timedelta(days=60))
        authority.create_ca(brief)
        key = make_key()
        old = issue(authority, "brief", key)
        clock[0] = due_at(old) + timedelta(seconds=1)
        assert [found for found in find_due(inventory, clock[0])] == [(old, None)]
        new = issue(authority, "brief", key)
        assert new.id != old.id and new.not_after == old.not_after == inventory.get_ca("brief").not_after
        assert [found for found in find_due(inventory, clock[0])] == [(old, new)]


def test_what_another_one_has_superseded_is_not_renewed(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'i.db'}", tmp_path) as inventory:
        authority = ocpp_authority(inventory, keystore=MemoryKeyStore())
        leaf = issue(authority, "t-sub", make_key())
        late = due_at(leaf) + timedelta(seconds=1)
        assert due(authority, late) == [leaf.id]

        def supersede(tx: Transaction) -> None:
            tx.set_delivery(leaf.id, Delivery.SUPERSEDED)
            tx.audit(ACTOR, "certificate.supersede", leaf.id, now=NOW)

        inventory.write(supersede)
        assert due(authority, late) == []
