"""The lists of two generations tell the same: software that picks lists by the issuer's name misses no revocation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.generations import CrlGenerations
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CrlSegmentRecord
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, log_findings, make_csr, ocpp_authority, open_inventory


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    """Two generations of t-sub, each with a certificate; the clock stands at `NOW` until a test moves it."""
    with open_inventory(f"sqlite:///{tmp_path / 'i.db'}", tmp_path) as inventory:
        made = ocpp_authority(inventory, keystore=MemoryKeyStore())
        issue(made, "CS-1")
        roll_over(made, RolloverOrder("t-sub"))
        issue(made, "CS-2")
        yield made
        assert log_findings(inventory, tmp_path) == []


def issue(authority: Authority, name: str) -> str:
    return authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name))).record.id


def leaf_of(authority: Authority, generation: int) -> str:
    found = authority.inventory.list_certificates(ca=f"t-sub@{generation}", profile="ocpp/charging-station")
    return next(iter(found)).id


def named(authority: Authority, ca: str) -> set[str]:
    """Return the ids of the certificates that the newest list of *ca* names."""
    crl = authority.inventory.latest_crl(ca)
    assert crl is not None
    serials = {f"{each.serial_number:x}" for each in x509.load_der_x509_crl(crl.der)}
    assert len(serials) == crl.entries
    return {each.id for serial in serials for each in authority.inventory.find_certificates_by_serial(serial)}


def test_whichever_list_is_taken_tells_of_all_generations(authority: Authority) -> None:
    authority.refresh_crls()
    old, new = leaf_of(authority, 1), leaf_of(authority, 2)
    authority.revoke(old, "superseded")
    # The list of the other generation is due as well, and once it was signed no more.
    assert {each.ca for each in authority.refresh_crls()} == {"t-sub@1", "t-sub@2"}
    assert named(authority, "t-sub@1") == named(authority, "t-sub@2") == {old}
    assert authority.refresh_crls() == []
    authority.revoke(new, "certificateHold")
    authority.refresh_crls()
    assert named(authority, "t-sub@1") == named(authority, "t-sub@2") == {old, new}
    authority.release(new)
    assert {each.ca for each in authority.refresh_crls()} == {"t-sub@1", "t-sub@2"}
    assert named(authority, "t-sub@1") == named(authority, "t-sub@2") == {old}
    assert all(authority.check_lists(each) == () for each in ("t-sub@1", "t-sub@2", "t-root"))


def test_lists_are_compared_once_for_each_change(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have a million entries, and a service asks every few seconds whether one is due."""
    authority.revoke(leaf_of(authority, 1), "superseded")
    authority.refresh_crls()
    assert authority.refresh_crls() == []
    read: list[str] = []
    kind = type(authority.inventory)
    segments = kind.list_crl_segments

    def watched(self: Inventory, ca: str, shard: int | None = None) -> Iterator[CrlSegmentRecord]:
        read.append(ca)
        return segments(self, ca, shard)

    monkeypatch.setattr(kind, "list_crl_segments", watched)
    assert authority.refresh_crls() == [] and read == []
    authority.revoke(leaf_of(authority, 2), "superseded")
    assert len(authority.refresh_crls()) == 2 and read


def test_one_revoked_and_one_released_between_two_lists_is_seen(authority: Authority) -> None:
    """The number of entries stays the same; it is their bytes that tell."""
    old, held = leaf_of(authority, 1), issue(authority, "CS-3")
    authority.revoke(held, "certificateHold")
    authority.refresh_crls()
    authority.release(held)
    authority.revoke(leaf_of(authority, 2), "superseded")
    authority.refresh_crls()
    assert named(authority, "t-sub@1") == named(authority, "t-sub@2") == {leaf_of(authority, 2)} != {old}


def test_an_expired_generation_is_left_out_and_so_are_those_of_a_ca_with_deltas(authority: Authority) -> None:
    authority.revoke(leaf_of(authority, 1), "superseded")
    authority.configure_crls("t-sub@2", CrlSettings(None, 24))
    authority.refresh_crls()
    assert named(authority, "t-sub@2") == set() and len(named(authority, "t-sub@1")) == 1
    authority.configure_crls("t-sub@2", CrlSettings())
    end = authority.inventory.get_ca("t-sub@1").not_after
    assert end is not None
    late = Authority(authority.inventory, authority.keystore, actor=ACTOR, clock=lambda: end + timedelta(seconds=1))
    if end < (authority.inventory.get_ca("t-sub@2").not_after or end):
        late.publish_crl("t-sub@2")
        assert named(authority, "t-sub@2") == set()
    authority.publish_crl("t-sub@2")
    assert len(named(authority, "t-sub@2")) == 1


def test_own_lists_are_to_be_had(authority: Authority) -> None:
    only = Authority(
        authority.inventory, authority.keystore, actor=ACTOR, clock=lambda: NOW, crl_generations=CrlGenerations.OWN
    )
    only.revoke(leaf_of(authority, 1), "superseded")
    only.refresh_crls()
    assert named(only, "t-sub@2") == set() and len(named(only, "t-sub@1")) == 1
    assert only.refresh_crls() == [] and only.check_lists("t-sub@2") == ()


def test_a_serial_number_that_two_generations_share_is_found(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = leaf_of(authority, 1)
    monkeypatch.setattr("chargepki.pki.authority.issuance.new_serial", lambda: int(old.partition(":")[2], 16))
    twin = issue(authority, "CS-TWIN")
    assert twin.partition(":")[2] == old.partition(":")[2]
    authority.revoke(old, "superseded")
    authority.refresh_crls()
    assert any(twin in each and "one name" in each for each in authority.check_lists("t-sub@1"))
