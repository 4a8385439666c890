"""Vehicle certificates of ISO 15118-20: who is let in with them, and that they stay until they are let go of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.pki import keys
from chargepki.pki.authority import CaOrder, IssueOrder
from chargepki.pki.chain import Revocation, RevocationMode
from chargepki.pki.errors import ChainError, ChargePkiError, InputError, NotFound, PolicyRefusal, RevocationError
from chargepki.pki.inventory.contract_records import VehicleCertificateRecord, VehicleState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.provisioning import (
    RoleRoot,
    add_root,
    admit_vehicle_certificate,
    is_vehicle_certificate,
    remove_vehicle,
    store_vehicle,
    withdraw_root,
)
from testkit.authorities import ACTOR, MemoryKeyStore, make_authority, open_inventory
from testkit.contracts import ContractWorld, make_world
from testkit.hierarchy import make_node

EVCCID = "WMIV1234567890ABCDEX"
NOTHING = Revocation(RevocationMode.IF_PRESENT)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractWorld]:
    """An authority with the CAs for vehicles, under an OEM root."""
    made = make_world(tmp_path_factory.mktemp("vehicles"))
    for name, issuer in (("oem-root", None), ("vehicle-sub1", "oem-root"), ("vehicle-sub2", "vehicle-sub1")):
        subject = (("CN", f"V {name}"), ("O", "Test"))
        made.authority.create_ca(CaOrder(name, f"iso15118-20/{name}", issuer=issuer, subject=subject))
    yield made
    made.authority.inventory.close()


def issue(
    world: ContractWorld, evccid: str = EVCCID, ca: str = "vehicle-sub2", profile: str = "iso15118-20/vehicle"
) -> tuple[bytes, ...]:
    curve = KeyAlgorithm.SECP521R1 if "-20/" in profile else KeyAlgorithm.SECP256R1
    spki = keys.spki_der(keys.generate_private_key(curve))
    subject = (("CN", evccid), ("O", "Test"))
    return world.authority.issue(IssueOrder(ca, profile, spki=spki, subject=subject)).chain


def admit(world: ContractWorld, chain: tuple[bytes, ...]) -> VehicleCertificateRecord:
    inventory, now = world.authority.inventory, world.clock.now
    admission = admit_vehicle_certificate(inventory, chain, actor=ACTOR, now=now, evidence=NOTHING)
    return store_vehicle(inventory, admission, actor=ACTOR, now=now)


def test_a_vehicle_certificate_of_ours_is_kept_by_its_evccid_until_it_is_let_go_of(world: ContractWorld) -> None:
    inventory = world.authority.inventory
    chain = issue(world, "WMIV1234567890ABCDE1")
    assert is_vehicle_certificate(chain[0])
    record = admit(world, chain)
    assert admit(world, chain) == record
    assert (record.evccid, record.state) == ("WMIV1234567890ABCDE1", VehicleState.ACTIVE)
    assert inventory.list_vehicle_certificates(record.evccid) == (record,)
    assert record in inventory.list_vehicle_certificates()
    assert remove_vehicle(inventory, "wmi-v1234567890abcde-1", actor=ACTOR, now=world.clock.now) == 1
    assert [each.state for each in inventory.list_vehicle_certificates(record.evccid)] == [VehicleState.REMOVED]
    assert admit(world, chain).state is VehicleState.ACTIVE
    with pytest.raises(NotFound):
        remove_vehicle(inventory, "WMIV000000000000000X", actor=ACTOR, now=world.clock.now)


def test_a_revoked_or_expired_vehicle_certificate_is_refused(world: ContractWorld) -> None:
    authority = world.authority
    chain = issue(world, "WMIV1234567890ABCDE2")
    serial = next(each for each in authority.inventory.list_certificates() if each.der == chain[0])
    authority.revoke(serial.id, "keyCompromise")
    with pytest.raises(RevocationError):
        admit(world, chain)
    fresh = issue(world, "WMIV1234567890ABCDE3")
    then = world.clock.now + timedelta(days=365 * 60)
    with pytest.raises(PolicyRefusal, match="has expired"):
        admit_vehicle_certificate(authority.inventory, fresh, actor=ACTOR, now=then, evidence=NOTHING)


def test_only_a_certificate_for_vehicles_under_a_root_for_them_is_let_in(world: ContractWorld, tmp_path: Path) -> None:
    authority = world.authority
    far = make_authority(
        open_inventory(f"sqlite:///{tmp_path / 'far.db'}", tmp_path), keystore=MemoryKeyStore(), clock=world.clock
    )
    for name, issuer in (("oem-root", None), ("vehicle-sub1", "oem-root"), ("vehicle-sub2", "vehicle-sub1")):
        far.create_ca(
            CaOrder(name, f"iso15118-20/{name}", issuer=issuer, subject=(("CN", f"Far {name}"), ("O", "Far")))
        )
    spki = keys.spki_der(keys.generate_private_key(KeyAlgorithm.SECP521R1))
    order = IssueOrder("vehicle-sub2", "iso15118-20/vehicle", spki=spki, subject=(("CN", EVCCID), ("O", "Far")))
    chain = far.issue(order).chain
    with pytest.raises(ChainError):
        admit(world, chain)
    root = far.inventory.get_ca("oem-root").certificate_der
    assert root is not None
    digest = hashlib.sha256(root).hexdigest()

    def believe(*manufacturers: str) -> None:
        order = RoleRoot(root, "oem", digest, "letter", manufacturers)
        add_root(authority.inventory, order, actor=ACTOR, now=world.clock.now)

    believe("WMI")
    # Its certificates name where their status is to be had, and nobody has asked.
    with pytest.raises(RevocationError, match="not revoked"):
        admit(world, chain)
    crls = tuple(far.publish_crl(each).der for each in ("oem-root", "vehicle-sub1", "vehicle-sub2"))
    evidence = Revocation(RevocationMode.IF_PRESENT, crls)
    now, inventory = world.clock.now, authority.inventory
    admission = admit_vehicle_certificate(inventory, chain, actor=ACTOR, now=now, evidence=evidence)
    assert admission.record.evccid == EVCCID
    withdraw_root(inventory, digest, actor=ACTOR, now=now)
    believe("XYZ")
    with pytest.raises(PolicyRefusal, match="may certify vehicles of XYZ alone"):
        admit_vehicle_certificate(inventory, chain, actor=ACTOR, now=now, evidence=evidence)
    far.inventory.close()


@pytest.mark.parametrize("name", ["WAUABC12345678901D", "Somebody"])
def test_a_name_that_is_no_evccid_is_no_vehicle_certificate(world: ContractWorld, name: str) -> None:
    root = make_node("Root", None, ca=True)
    leaf = make_node(name, root, ca=False)
    assert not is_vehicle_certificate(leaf.der)
    with pytest.raises(InputError, match="EVCCID"):
        admit(world, (leaf.der,))


def test_a_key_of_15118_2_is_refused(world: ContractWorld) -> None:
    root = make_node("Root", None, ca=True)
    with pytest.raises(PolicyRefusal, match=r"none of ISO 15118-20"):
        admit(world, (make_node(EVCCID, root, ca=False).der,))
    with pytest.raises(ChargePkiError):
        is_vehicle_certificate(b"junk")
