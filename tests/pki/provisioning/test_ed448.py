"""ISO 15118-20 with the secondary algorithms: an Ed448 vehicle with a second key for X448 gets an Ed448 contract."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from chargepki.pki.authority import CaOrder
from chargepki.pki.contract_keys import WrapForm, find_wrapped_key
from chargepki.pki.edwards448 import public_key_of
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from chargepki.pki.exi import MessageSet, decode, encode
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.provisioning import (
    Channel,
    IssuedCps,
    Provisioner,
    RoleRoot,
    add_root,
    admit_vehicle,
    create_contract,
    store_vehicle,
)
from chargepki.pki.provisioning.vehicle_side import Wishes, build_request, open_response
from testkit.authorities import ACTOR
from testkit.contracts import ACCOUNT, ContractWorld, make_world
from testkit.hierarchy import Node, make_node

PCID = "WAUED448345678901D"


@dataclass(frozen=True)
class Car:
    """An Ed448 vehicle."""

    chain: tuple[bytes, ...]
    key: ed448.Ed448PrivateKey
    agreement: x448.X448PrivateKey

    def request(self, world: ContractWorld) -> bytes:
        wishes = Wishes(roots=[world.root(MessageSet.ISO15118_20)])
        return build_request(self.chain, self.key, wishes, session_id=b"sessione", now=world.clock.now)


def make_car(root: Node, *, with_second_key: bool = True) -> Car:
    key, agreement, old = ed448.Ed448PrivateKey.generate(), x448.X448PrivateKey.generate(), root.certificate
    parts = {NameOID.COMMON_NAME: PCID, NameOID.ORGANIZATION_NAME: "O"}
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items()])
    usage = dict.fromkeys(
        ("key_cert_sign", "crl_sign", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(old.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
    )
    if with_second_key:
        spki = agreement.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        second = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.72"), spki)
        builder = builder.add_extension(second, critical=False)
    leaf = builder.sign(root.key, hashes.SHA512()).public_bytes(Encoding.DER)
    return Car((leaf,), key, agreement)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ContractWorld:
    """Hierarchies of -20, and mobility operators' CAs on Ed448 beside them."""
    folder: Path = tmp_path_factory.mktemp("ed448")
    world = make_world(folder)
    world.build(MessageSet.ISO15118_20)
    issuer = None
    for role in ("emsp-root", "emsp-sub1", "emsp-sub2"):
        subject = (("CN", f"Ed {role}"), ("O", "Test"), ("C", "DE"))
        order = CaOrder(
            f"ed-{role}", f"iso15118-20/{role}", issuer=issuer, subject=subject, key_algorithm=KeyAlgorithm.ED448
        )
        world.authority.create_ca(order)
        issuer = f"ed-{role}"
    return world


@pytest.fixture(scope="module")
def root(world: ContractWorld) -> Node:
    made = make_node("Ed OEM", None, ca=True, curve=ec.SECP521R1())
    world.clock.now = made.certificate.not_valid_before_utc + timedelta(hours=1)
    confirmed = RoleRoot(made.der, "oem", hashlib.sha256(made.der).hexdigest(), "letter")
    add_root(world.authority.inventory, confirmed, actor=ACTOR, now=world.clock.now)
    return made


def provisioner(world: ContractWorld, *cas: str) -> Provisioner:
    return Provisioner(world.authority, cas, [IssuedCps(world.authority, "twenty-cps-sub2")])


def test_an_ed448_contract_is_wrapped_for_the_second_key_and_opened_with_every_check(
    world: ContractWorld, root: Node
) -> None:
    """V2G20-2500 to 2510, 2534, 2709; X448_EncryptedPrivateKey of 84 bytes, DHPublicKey of 56 (V2G20-2495)."""
    car, now, inventory = make_car(root), world.clock.now, world.authority.inventory
    admission = admit_vehicle(inventory, car.chain, actor=ACTOR, now=now)
    assert admission.notices == ()
    store_vehicle(inventory, admission, actor=ACTOR, now=now)
    create_contract(inventory, ACCOUNT, vehicles=[PCID], actor=ACTOR, now=now)
    request = car.request(world)
    only_primary = provisioner(world, "twenty-emsp-sub2")
    with pytest.raises(StateError, match="keys of ed448"):
        only_primary.provision(only_primary.examine(request))
    both = provisioner(world, "twenty-emsp-sub2", "ed-emsp-sub2")
    answer = both.provision(both.examine(request), channel=Channel(characters=17_000))
    data = decode(answer.exi).tree["SignedInstallationData"]
    assert isinstance(data, dict) and data["ECDHCurve"] == "X448"
    wrapped = find_wrapped_key(data)
    assert (wrapped.form, len(wrapped.public), len(wrapped.encrypted)) == (WrapForm.X448, 56, 84)
    assert encode(decode(answer.exi)) == answer.exi
    roots = [world.root(MessageSet.ISO15118_20)]
    got = open_response(answer.exi, car.chain[0], car.agreement, roots=roots, now=now)
    leaf = x509.load_der_x509_certificate(got.chain[0]).public_key()
    assert isinstance(leaf, ed448.Ed448PublicKey) and isinstance(got.secret, int)
    assert (got.emaid, got.curve, public_key_of(got.secret)) == (ACCOUNT, "ed448", leaf.public_bytes_raw())
    # The same request brings the same certificate, and another vehicle's key opens nothing.
    assert both.provision(both.examine(request)).repeated
    with pytest.raises(InputError, match="not for this vehicle"):
        open_response(answer.exi, car.chain[0], x448.X448PrivateKey.generate(), roots=roots, now=now)
    with pytest.raises(InputError, match="different kinds"):
        other = ec.generate_private_key(ec.SECP521R1())
        open_response(answer.exi, car.chain[0], other, roots=roots, now=now)


def test_without_a_second_key_nothing_can_be_wrapped(world: ContractWorld, root: Node) -> None:
    car, now = make_car(root, with_second_key=False), world.clock.now
    admission = admit_vehicle(world.authority.inventory, car.chain, actor=ACTOR, now=now)
    assert "no second one for X448" in admission.notices[0]
    with pytest.raises(PolicyRefusal, match="Ed448 key alone"):
        provisioner(world, "ed-emsp-sub2").examine(car.request(world))


def test_contract_cas_are_one_of_each_algorithm(world: ContractWorld) -> None:
    with pytest.raises(PolicyRefusal, match="both for ed448"):
        provisioner(world, "ed-emsp-sub2", "ed-emsp-sub2")
