"""Vehicles and roots: who is let in, and on whose word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.errors import ChainError, ChargePkiError, Conflict, InputError, NotFound, PolicyRefusal, StateError
from chargepki.pki.exi import MessageSet, decode, encode
from chargepki.pki.inventory.contract_records import ContractState, OfferState, VehicleState
from chargepki.pki.message_signature import sign_elements, signed_elements
from chargepki.pki.provisioning import (
    RoleRoot,
    add_root,
    admit_vehicle,
    create_contract,
    offer_contract,
    remove_vehicle,
    revoke_contract,
    store_vehicle,
    withdraw_root,
)
from testkit.authorities import ACTOR
from testkit.contracts import ContractWorld, Vehicle
from testkit.hierarchy import Node, make_crl, make_node

Make = Callable[..., Vehicle]


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def foreign(common_name: str, *, url: str | None = None, agrees: bool = True) -> tuple[Node, Node]:
    """Return a provisioning certificate of another house, and its root."""
    root = make_node("Other OEM", None, ca=True)
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        extensions.append((x509.CRLDistributionPoints([point]), False))
    leaf = make_node(common_name, root, ca=False, extensions=extensions)
    if agrees:
        leaf = Node(_with_key_agreement(leaf, root), leaf.key)
    return leaf, root


def _with_key_agreement(leaf: Node, root: Node) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    old = leaf.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(leaf.key.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            value = x509.KeyUsage(
                digital_signature=True, key_agreement=True, key_cert_sign=False, crl_sign=False,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                encipher_only=False, decipher_only=False,
            )  # fmt: skip
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(root.key, hashes.SHA256())


def test_a_root_is_believed_by_its_fingerprint_for_its_use_and_its_vehicles(world: ContractWorld) -> None:
    inventory = world.authority.inventory
    leaf, root = foreign("XYZABC12345678901D")
    now = leaf.certificate.not_valid_before_utc + timedelta(minutes=10)

    def admit() -> object:
        return admit_vehicle(inventory, (leaf.der,), actor=ACTOR, now=now)

    def add(use: str = "oem", digest: str | None = None, wmi: tuple[str, ...] = ()) -> object:
        order = RoleRoot(root.der, use, digest or fingerprint(root.der), "letter of the OEM", wmi)
        return add_root(inventory, order, actor=ACTOR, now=now)

    with pytest.raises(ChainError):
        admit()
    with pytest.raises(InputError, match="fingerprint is not that"):
        add(digest="00" * 32)
    with pytest.raises(InputError, match="no world manufacturer identifier"):
        add(wmi=("ABCD",))
    with pytest.raises(InputError, match="self-signed"):
        add_root(inventory, RoleRoot(leaf.der, "oem", fingerprint(leaf.der), ""), actor=ACTOR, now=now)
    shown = ":".join(fingerprint(root.der)[at : at + 2].upper() for at in range(0, 64, 2))
    add(digest=shown, wmi=("abc",))
    with pytest.raises(PolicyRefusal, match="may certify vehicles of ABC alone"):
        admit()
    with pytest.raises(Conflict, match="for another use"):
        add(use="v2g")
    withdraw_root(inventory, fingerprint(root.der), actor=ACTOR, now=now)
    with pytest.raises(ChainError):
        admit()
    add(wmi=("XYZ", "abc"))
    assert admit()
    withdraw_root(inventory, fingerprint(root.der), actor=ACTOR, now=now)
    with pytest.raises(NotFound):
        withdraw_root(inventory, "00" * 32, actor=ACTOR, now=now)


def test_certificates_that_name_a_list_need_one_that_covers_them(world: ContractWorld) -> None:
    inventory = world.authority.inventory
    leaf, root = foreign("QQQABC12345678901D", url="http://oem.example/crl")
    now = leaf.certificate.not_valid_before_utc + timedelta(minutes=10)
    add_root(inventory, RoleRoot(root.der, "oem", fingerprint(root.der), "x"), actor=ACTOR, now=now)
    with pytest.raises(ChargePkiError, match="not revoked") as refused:
        admit_vehicle(inventory, (leaf.der,), actor=ACTOR, now=now)
    assert "--crl" in refused.value.fix
    good, bad = make_crl(root), make_crl(root, [leaf])
    assert (
        admit_vehicle(inventory, (leaf.der,), actor=ACTOR, now=now, crls=(good,)).record.vehicle == "QQQABC12345678901D"
    )
    with pytest.raises(ChargePkiError, match="revoked"):
        admit_vehicle(inventory, (leaf.der,), actor=ACTOR, now=now, crls=(bad,))
    withdraw_root(inventory, fingerprint(root.der), actor=ACTOR, now=now)


def test_a_key_that_agrees_on_nothing_and_a_name_that_is_no_pcid_are_refused(world: ContractWorld) -> None:
    inventory, now = world.authority.inventory, world.clock.now
    leaf, _ = foreign("QQQABC12345678901D", agrees=False)
    with pytest.raises(PolicyRefusal, match="keyAgreement"):
        admit_vehicle(inventory, (leaf.der,), actor=ACTOR, now=now)
    with pytest.raises(InputError, match="not a PCID"):
        admit_vehicle(inventory, (foreign("OEMProvCert")[0].der,), actor=ACTOR, now=now)
    with pytest.raises(InputError, match="cannot be read"):
        admit_vehicle(inventory, (b"junk",), actor=ACTOR, now=now)


def test_an_expired_chain_is_refused(world: ContractWorld, vehicle: Vehicle) -> None:
    late = x509.load_der_x509_certificate(vehicle.chain[0]).not_valid_after_utc + timedelta(seconds=1)
    with pytest.raises(PolicyRefusal, match="has expired"):
        admit_vehicle(world.authority.inventory, vehicle.chain, actor=ACTOR, now=late)


def test_an_ed448_vehicle_is_told_that_no_contract_key_travels_to_it(world: ContractWorld) -> None:
    world.build(MessageSet.ISO15118_20)
    key, helper = ed448.Ed448PrivateKey.generate(), make_node("x", None, ca=False, curve=ec.SECP521R1())
    now = world.clock.now
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "WAUABC12345678901D")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    leaf = builder.sign(key, None).public_bytes(Encoding.DER)
    message = decode(Vehicle(world, "", helper.key, (leaf,)).request())
    header = message.tree["Header"]
    assert isinstance(header, dict)
    header["Signature"] = sign_elements(signed_elements(message), key)
    with pytest.raises(PolicyRefusal, match="Ed448 key"):
        world.provisioner.examine(encode(message))


def test_a_vehicle_with_a_tpm_is_told_that_its_form_is_not_made_here(world: ContractWorld) -> None:
    world.build(MessageSet.ISO15118_20)
    where = x509.UniformResourceIdentifier("http://oem.example/tpm")
    access = x509.AccessDescription(x509.ObjectIdentifier("1.0.15118.20.0.4"), where)
    extension = (x509.SubjectInformationAccess([access]), False)
    leaf = make_node("WAUABC12345678901D", None, ca=False, curve=ec.SECP521R1(), extensions=[extension])
    with pytest.raises(PolicyRefusal, match="for its TPM"):
        world.provisioner.examine(Vehicle(world, "", leaf.key, (leaf.der,)).request())


def test_an_imported_vehicle_stays_once_and_goes_with_its_offers(world: ContractWorld, vehicle: Vehicle) -> None:
    inventory, now = world.authority.inventory, world.clock.now
    entries = len(inventory.list_audit(limit=10_000))
    admission = admit_vehicle(inventory, vehicle.chain, actor=ACTOR, now=now)
    assert store_vehicle(inventory, admission, actor=ACTOR, now=now).state is VehicleState.ACTIVE
    assert len(inventory.list_audit(limit=10_000)) == entries
    assert remove_vehicle(inventory, vehicle.pcid.lower(), actor=ACTOR, now=now) == 1
    (removed,) = inventory.list_provisioning_certificates(vehicle.pcid)
    assert removed.state is VehicleState.REMOVED
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    assert offer.state is OfferState.WITHDRAWN
    with pytest.raises(StateError, match="no provisioning certificate of vehicle"):
        offer_contract(inventory, offer.contract, vehicle.pcid, actor=ACTOR, now=now)
    assert store_vehicle(inventory, admission, actor=ACTOR, now=now).state is VehicleState.ACTIVE
    offer_contract(inventory, offer.contract, vehicle.pcid, actor=ACTOR, now=now)
    with pytest.raises(NotFound):
        remove_vehicle(inventory, "WAUABC00000000XXX", actor=ACTOR, now=now)


def test_a_contract_is_created_once_and_ended_for_good(world: ContractWorld, vehicle: Vehicle) -> None:
    inventory, now = world.authority.inventory, world.clock.now
    made = create_contract(inventory, "de-8aa-a1b2c3d4e", actor=ACTOR, now=now)
    assert (made.id, made.emaid) == ("DE8AAA1B2C3D4E", "DE8AAA1B2C3D4E")
    with pytest.raises(Conflict, match="exists already"):
        create_contract(inventory, "DE8AAA1B2C3D4EX", actor=ACTOR, now=now)
    with pytest.raises(InputError, match="ended already"):
        create_contract(inventory, "DE8AAA1B2C3D4F", ends_at=now, actor=ACTOR, now=now)
    with pytest.raises(InputError, match="not an EMAID"):
        create_contract(inventory, "nonsense", actor=ACTOR, now=now)
    offer_contract(inventory, made.id, vehicle.pcid, actor=ACTOR, now=now)
    ended = revoke_contract(world.authority, made.id, "cessationOfOperation")
    assert (ended.contract.state, ended.certificates) == (ContractState.ENDED, ())
    assert revoke_contract(world.authority, made.id, "cessationOfOperation").contract == ended.contract
    with pytest.raises(StateError, match="has ended"):
        offer_contract(inventory, made.id, vehicle.pcid, actor=ACTOR, now=now)
    with pytest.raises(InputError, match="unknown revocation reason"):
        revoke_contract(world.authority, made.id, "whim")
    assert isinstance(vehicle.key, ec.EllipticCurvePrivateKey)
