"""Contracts provisioned to vehicles: what a vehicle gets, and what it does not get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.pki import keys
from chargepki.pki.authority import IssueOrder
from chargepki.pki.errors import ChainError, ChargePkiError, InputError, PolicyRefusal, RevocationError, StateError
from chargepki.pki.exi import Message, MessageSet, decode, encode
from chargepki.pki.identifiers import Emaid
from chargepki.pki.inventory.contract_records import ProvisioningState
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.message_signature import SignatureRefused
from chargepki.pki.provisioning import (
    AnswerTooLong,
    Channel,
    NoContract,
    Replayed,
    RequestKind,
    UnknownVehicle,
    create_contract,
    offer_contract,
    remove_vehicle,
    revoke_contract,
    verify_request,
    withdraw_offer,
)
from testkit.authorities import ACTOR, log_findings
from testkit.contracts import ContractWorld, Vehicle

Make = Callable[..., Vehicle]
BOTH = [MessageSet.ISO15118_2, MessageSet.ISO15118_20]
ORDER = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def loose(message: Message) -> Any:
    """Return what a message holds, as the test knows it to be."""
    return message.tree


def rows_of(world: ContractWorld, vehicle: Vehicle) -> list[str]:
    """Return the states of everything that was ever begun for a vehicle."""
    inventory = world.authority.inventory
    accounts = [each.contract for each in inventory.list_offers_to(vehicle.pcid)]
    return [row.state.value for account in accounts for row in inventory.list_provisionings(account)]


@pytest.mark.parametrize("message_set", BOTH)
def test_a_vehicle_opens_what_it_gets(world: ContractWorld, new_vehicle: Make, message_set: MessageSet) -> None:
    vehicle = new_vehicle(message_set)
    world._provisioner = None
    before = len(world.authority.inventory.list_audit(limit=10_000))
    got = vehicle.open(world.answer(vehicle.request()))
    leaf = x509.load_der_x509_certificate(got.chain[0])
    assert leaf.public_key() == got.key.public_key()
    assert leaf.not_valid_before_utc <= world.clock.now <= leaf.not_valid_after_utc
    account = Emaid.parse(got.emaid).account
    (row,) = world.authority.inventory.list_provisionings(account)
    record = world.authority.inventory.get_certificate(row.certificate or "")
    assert (record.der, record.state, row.vehicle) == (got.chain[0], CertificateState.ISSUED, vehicle.pcid)
    actions = [each.action for each in world.authority.inventory.list_audit(after_seq=before, limit=10_000)]
    ours = [each for each in actions if each.startswith("contract.") or each == "certificate.issue"]
    # The signer of the provisioning service comes before, where it is the first answer of its standard.
    assert ours[-3:] == ["contract.begin", "certificate.issue", "contract.provision"]
    assert not log_findings(world.authority.inventory, world.folder)


@pytest.mark.parametrize("message_set", BOTH)
def test_the_same_request_brings_the_same_certificate_for_any_session(
    world: ContractWorld, new_vehicle: Make, message_set: MessageSet
) -> None:
    vehicle = new_vehicle(message_set)
    world._provisioner = None
    request = vehicle.request()
    first = world.answer(request)
    assert world.answer(request) == first
    message = decode(request)
    header = loose(message)["Header"]
    assert isinstance(header, dict)
    elsewhere = encode(
        Message(message_set, message.name, {**message.tree, "Header": {**header, "SessionID": b"8bytes.."}})
    )
    again = world.new_provisioner().provision(world.provisioner.examine(elsewhere))
    assert again.repeated and b"8bytes.." in loose(decode(again.exi))["Header"].values()
    assert vehicle.open(again.exi).chain == vehicle.open(first).chain
    assert rows_of(world, vehicle) == ["answered"]


def test_a_request_signed_anew_brings_a_new_certificate(world: ContractWorld, vehicle: Vehicle) -> None:
    one, other = (vehicle.open(world.answer(vehicle.request())) for _ in range(2))
    assert one.emaid == other.emaid
    assert one.chain[0] != other.chain[0]


def test_a_signature_turned_into_its_twin_is_the_same_request(world: ContractWorld, vehicle: Vehicle) -> None:
    """From (r, s) anybody makes (r, n - s), which verifies as well; it must not pass for a new request."""
    request = vehicle.request()
    message = decode(request)
    value = loose(message)["Header"]["Signature"]["SignatureValue"]
    raw = value["value"]
    s = ORDER["secp256r1"] - int.from_bytes(raw[32:], "big")
    value["value"] = raw[:32] + s.to_bytes(32, "big")
    twin = encode(message)
    assert twin != request
    assert verify_request(twin).identity == verify_request(request).identity
    first = vehicle.open(world.answer(request))
    assert vehicle.open(world.answer(twin)).chain == first.chain


def test_any_flipped_byte_of_a_request_is_refused_and_nothing_is_made(world: ContractWorld, vehicle: Vehicle) -> None:
    request = vehicle.request()
    issued = len(list(world.authority.inventory.list_certificates()))
    # Header with session, then SignedInfo, signature and body; the session is not signed.
    passed = []
    for place in range(0, len(request), 29):
        changed = bytearray(request)
        changed[place] ^= 0x10
        try:
            world.provisioner.examine(bytes(changed))
        except ChargePkiError:
            continue
        passed.append(place)
    session = request.find(loose(decode(request))["Header"]["SessionID"][1:3])
    assert all(place <= 16 for place in passed), (passed, session)
    assert rows_of(world, vehicle) == []
    assert len(list(world.authority.inventory.list_certificates())) == issued


@pytest.mark.parametrize("message_set", BOTH)
def test_any_flipped_byte_of_a_response_is_refused_by_the_vehicle(
    world: ContractWorld, new_vehicle: Make, message_set: MessageSet
) -> None:
    vehicle = new_vehicle(message_set)
    world._provisioner = None
    response = world.answer(vehicle.request())
    good = vehicle.open(response)
    step = 131 if message_set is MessageSet.ISO15118_2 else 521
    for place in range(0, len(response), step):
        changed = bytearray(response)
        changed[place] ^= 0x10
        try:
            got = vehicle.open(bytes(changed))
        except (ChargePkiError, ValueError):
            continue
        # Session, time and number of remaining contracts are not signed, nor the code OK beside its relatives.
        assert got.chain == good.chain and got.emaid == good.emaid


def test_whatever_certificate_a_stranger_signs_with_is_refused_and_breaks_nothing(
    world: ContractWorld, vehicle: Vehicle
) -> None:
    """The request is signed with the key of its certificate, the rest of which is damaged."""
    der = vehicle.chain[0]
    key = vehicle.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    intact = range(der.find(key), der.find(key) + len(key))
    for place in range(0, len(der), 5):
        if place not in intact:
            damaged = der[:place] + bytes([der[place] ^ 0x05]) + der[place + 1 :]
            with pytest.raises(ChargePkiError):
                world.provisioner.examine(Vehicle(world, "", vehicle.key, (damaged,)).request())


def test_a_vehicle_that_nobody_imported_or_that_was_removed_gets_nothing(
    world: ContractWorld, new_vehicle: Make
) -> None:
    vehicle = new_vehicle()
    inventory, now = world.authority.inventory, world.clock.now
    remove_vehicle(inventory, vehicle.pcid, actor=ACTOR, now=now)
    with pytest.raises(UnknownVehicle, match="was removed"):
        world.answer(vehicle.request())
    key = keys.generate_private_key(KeyAlgorithm.SECP256R1)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    issued = world.authority.issue(
        IssueOrder(
            "two-oem-sub2",
            "iso15118-2/oem-provisioning",
            spki=keys.spki_der(key),
            subject=(("CN", vehicle.pcid), ("O", "Test")),
        )
    )
    with pytest.raises(UnknownVehicle, match="is not known here"):
        world.answer(Vehicle(world, vehicle.pcid, key, issued.chain).request())


def test_a_request_signed_with_another_key_is_refused(world: ContractWorld, vehicle: Vehicle) -> None:
    other = keys.generate_private_key(KeyAlgorithm.SECP256R1)
    assert isinstance(other, ec.EllipticCurvePrivateKey)
    thief = Vehicle(world, vehicle.pcid, other, vehicle.chain)
    with pytest.raises(SignatureRefused, match="not made with this key"):
        world.answer(thief.request())


def test_an_unsigned_or_other_message_is_refused(world: ContractWorld, vehicle: Vehicle) -> None:
    message = decode(vehicle.request())
    bare = Message(message.message_set, message.name, {**message.tree, "Header": {"SessionID": b"1"}})
    with pytest.raises(SignatureRefused, match="not signed"):
        verify_request(encode(bare))
    with pytest.raises(InputError, match="no request for a contract"):
        verify_request(world.answer(vehicle.request()))
    for junk in (b"", b"\x80", b"\x80" * 40, bytes(40)):
        with pytest.raises(InputError):
            verify_request(junk)


def test_a_revoked_provisioning_certificate_gets_nothing(world: ContractWorld, vehicle: Vehicle) -> None:
    serial = x509.load_der_x509_certificate(vehicle.chain[0]).serial_number
    world.authority.revoke(f"two-oem-sub2@1:{serial:x}", "keyCompromise")
    with pytest.raises(RevocationError, match="revoked"):
        world.answer(vehicle.request())


def test_a_vehicle_without_an_offer_gets_nothing(world: ContractWorld, new_vehicle: Make) -> None:
    inventory, now = world.authority.inventory, world.clock.now
    with pytest.raises(NoContract, match="no contract for vehicle"):
        world.answer(new_vehicle(contracts=0).request())
    vehicle = new_vehicle()
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    withdraw_offer(inventory, offer.contract, vehicle.pcid, actor=ACTOR, now=now)
    with pytest.raises(NoContract):
        world.answer(vehicle.request())
    offer_contract(inventory, offer.contract, vehicle.pcid, actor=ACTOR, now=now)
    vehicle.open(world.answer(vehicle.request()))
    revoke_contract(world.authority, offer.contract, "cessationOfOperation")
    with pytest.raises(NoContract):
        world.answer(vehicle.request())


def test_no_certificate_outlives_its_contract(world: ContractWorld, new_vehicle: Make) -> None:
    vehicle = new_vehicle(contracts=0)
    inventory, now = world.authority.inventory, world.clock.now
    end = now.replace(month=now.month + 2)
    create_contract(inventory, "DE8AAENDS00001", ends_at=end, actor=ACTOR, now=now)
    offer_contract(inventory, "DE8AAENDS00001", vehicle.pcid, actor=ACTOR, now=now)
    leaf = x509.load_der_x509_certificate(vehicle.open(world.answer(vehicle.request())).chain[0])
    assert leaf.not_valid_after_utc <= end


def test_a_vehicle_of_20_gets_one_contract_after_the_other(world: ContractWorld, new_vehicle: Make) -> None:
    vehicle = new_vehicle(MessageSet.ISO15118_20, contracts=3)
    world._provisioner = None
    offers = world.authority.inventory.list_offers_to(vehicle.pcid)
    last = f"{offers[2].contract[:2]}-{offers[2].contract[2:5]}-{offers[2].contract[5:].lower()}"
    request = vehicle.request(maximum_contracts=3, prioritized=(last, "nonsense", "DE8AAUNKNOWN01"))
    told = [vehicle.open(world.answer(request)) for _ in range(4)]
    wanted = [offers[2].contract, offers[0].contract, offers[1].contract, offers[2].contract]
    assert [each.emaid for each in told] == wanted
    assert [each.remaining for each in told] == [2, 1, 0, 2]
    assert told[3].chain == told[0].chain
    # After a pause the vehicle starts over, wherever it was.
    world.clock.move(minutes=11)
    assert vehicle.open(world.answer(request)).emaid == offers[2].contract
    # The station may say less than the vehicle.
    one = vehicle.open(world.answer(vehicle.request(maximum_contracts=3), maximum_contracts=1))
    assert (one.emaid, one.remaining) == (offers[0].contract, 0)
    with pytest.raises(NoContract, match="no room"):
        world.answer(vehicle.request(maximum_contracts=0))


def test_an_update_replaces_the_certificate_of_its_contract(world: ContractWorld, vehicle: Vehicle) -> None:
    got = vehicle.open(world.answer(vehicle.request()))
    holder = Vehicle(world, vehicle.pcid, got.key, got.chain)
    request = holder.request(update=True)
    assert verify_request(request).kind is RequestKind.UPDATE
    renewed = holder.open(world.answer(request))
    assert renewed.emaid == got.emaid and renewed.chain[0] != got.chain[0]
    name = next(iter(loose(decode(world.answer(request)))["Body"]))
    assert name == "CertificateUpdateRes"
    rows = world.authority.inventory.list_provisionings(Emaid.parse(got.emaid).account)
    assert [(row.kind, row.vehicle) for row in rows] == [("install", vehicle.pcid), ("update", vehicle.pcid)]
    # Neither a revoked certificate nor one of another house is replaced.
    world.authority.revoke(rows[0].certificate or "", "superseded")
    with pytest.raises(RevocationError, match="revoked"):
        world.answer(holder.request(update=True))
    with pytest.raises(UnknownVehicle, match="not issued here"):
        message = decode(holder.request(update=True))
        forged = loose(message)["Body"]["CertificateUpdateReq"]["ContractSignatureCertChain"]
        forged["Certificate"] = vehicle.chain[0]
        from chargepki.pki.message_signature import sign_elements, signed_elements

        loose(message)["Header"]["Signature"] = sign_elements(signed_elements(message), vehicle.key)
        world.answer(encode(message))


def test_an_update_for_another_contract_is_refused(world: ContractWorld, vehicle: Vehicle) -> None:
    from chargepki.pki.message_signature import sign_elements, signed_elements

    got = vehicle.open(world.answer(vehicle.request()))
    message = decode(Vehicle(world, vehicle.pcid, got.key, got.chain).request(update=True))
    loose(message)["Body"]["CertificateUpdateReq"]["eMAID"] = "DE8AA999999999"
    loose(message)["Header"]["Signature"] = sign_elements(signed_elements(message), got.key)
    with pytest.raises(PolicyRefusal, match="signed with a key of"):
        world.answer(encode(message))


def test_a_recorded_request_is_worth_nothing_once_its_certificate_has_ended(
    world: ContractWorld, vehicle: Vehicle
) -> None:
    request = vehicle.request()
    vehicle.open(world.answer(request))
    inventory = world.authority.inventory
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    (row,) = inventory.list_provisionings(offer.contract)
    world.authority.revoke(row.certificate or "", "keyCompromise")
    with pytest.raises(Replayed, match="was answered on"):
        world.answer(request)
    assert len(inventory.list_provisionings(offer.contract)) == 1
    # The vehicle signs anew; or an operator lets it have the contract once more.
    vehicle.open(world.answer(vehicle.request()))
    world.clock.move(seconds=1)
    offer_contract(inventory, offer.contract, vehicle.pcid, actor=ACTOR, now=world.clock.now)
    vehicle.open(world.answer(request))
    assert len(inventory.list_provisionings(offer.contract)) == 3


def test_what_a_station_cannot_carry_is_refused_before_anything_is_made(world: ContractWorld, vehicle: Vehicle) -> None:
    issued = len(list(world.authority.inventory.list_certificates()))
    world.provisioner.examine(vehicle.request())
    vehicle.open(world.answer(vehicle.request()))
    length = -(-len(world.answer(vehicle.request())) // 3) * 4
    with pytest.raises(AnswerTooLong, match=r"up to \d+ characters of base64; OCPP 2.0.1 carries 5600") as refused:
        world.answer(vehicle.request(), characters=5600, carrier="OCPP 2.0.1")
    told = int(refused.value.what.split("up to ")[1].split()[0])
    assert length <= told <= length + 40
    assert "OCPP 2.1" in refused.value.fix and "FieldLength" in refused.value.fix
    assert rows_of(world, vehicle) == ["answered", "answered"]
    assert len(list(world.authority.inventory.list_certificates())) <= issued + 3
    vehicle.open(world.answer(vehicle.request(), characters=told, carrier="OCPP 2.0.1"))


class Cut(BaseException):
    """The power goes."""


@pytest.mark.parametrize("where", ["issue", "_respond", "_release"])
def test_a_request_is_answered_anew_after_a_crash_and_nothing_of_the_first_attempt_lives_on(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    inventory = world.authority.inventory
    request = vehicle.request()
    dying = world.new_provisioner()
    dying.provision(dying.examine(vehicle.request()))  # so that sizes and signer are known
    world.clock.move(seconds=1)
    target: object = world.authority if where == "issue" else dying

    def cut(*_arguments: object, **_options: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(target, where, cut)
        with pytest.raises(Cut):
            dying.provision(dying.examine(request))
    world.clock.move(seconds=1)
    got = vehicle.open(world.answer(request))
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    states = [row.state for row in inventory.list_provisionings(offer.contract)]
    assert states == [ProvisioningState.ANSWERED, ProvisioningState.BEGUN, ProvisioningState.ANSWERED]
    world.clock.move(minutes=6)
    assert world.provisioner.recover() == 1
    rows = inventory.list_provisionings(offer.contract)
    assert rows[1].state is ProvisioningState.VOID
    if where == "issue":
        assert rows[1].certificate is None
    else:
        lost = inventory.get_certificate(rows[1].certificate or "")
        assert (lost.state, lost.revocation_reason) == (CertificateState.REVOKED, "cessationOfOperation")
    assert inventory.get_certificate(rows[2].certificate or "").der == got.chain[0]
    assert vehicle.open(world.answer(request)).chain == got.chain
    assert world.provisioner.recover() == 0


def test_a_refusal_in_the_middle_leaves_nothing_behind(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise StateError("no")

    with monkeypatch.context() as patch:
        patch.setattr(world.provisioner, "_respond", refuse)
        with pytest.raises(StateError):
            world.answer(vehicle.request())
    inventory = world.authority.inventory
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    (row,) = inventory.list_provisionings(offer.contract)
    assert row.state is ProvisioningState.VOID
    assert inventory.get_certificate(row.certificate or "").state is CertificateState.REVOKED


def test_two_processes_answer_one_request_with_one_certificate(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, slow, fast = vehicle.request(), world.new_provisioner(), world.new_provisioner()
    respond, told = slow._respond, []

    def overtaken(*arguments: object) -> bytes:
        told.append(fast.provision(fast.examine(request)))
        return respond(*arguments)  # type: ignore[arg-type]  # passed on

    with monkeypatch.context() as patch:
        patch.setattr(slow, "_respond", overtaken)
        late = slow.provision(slow.examine(request))
    assert late.certificate == told[0].certificate
    assert vehicle.open(late.exi).chain == vehicle.open(told[0].exi).chain
    inventory = world.authority.inventory
    (offer,) = inventory.list_offers_to(vehicle.pcid)
    rows = {row.state: row for row in inventory.list_provisionings(offer.contract)}
    assert set(rows) == {ProvisioningState.VOID, ProvisioningState.ANSWERED}
    assert inventory.get_certificate(rows[ProvisioningState.VOID].certificate or "").state is CertificateState.REVOKED


def test_a_vehicle_that_asks_without_end_is_stopped(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargepki.pki.provisioning.service._MOST_LIVE", 3)
    for _ in range(3):
        world.answer(vehicle.request())
    with pytest.raises(PolicyRefusal, match=r"3 certificates of contract .* are valid already"):
        world.answer(vehicle.request())
    (offer,) = world.authority.inventory.list_offers_to(vehicle.pcid)
    assert len(revoke_contract(world.authority, offer.contract, "superseded", superseded_only=True).certificates) == 2
    vehicle.open(world.answer(vehicle.request()))


def test_a_contract_key_with_leading_zeros_arrives(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer(vehicle.request())
    scalars = iter([7, 1 << 100])
    monkeypatch.setattr(
        "chargepki.pki.keys.generate_private_key",
        lambda _algorithm: ec.derive_private_key(next(scalars), ec.SECP256R1()),
    )
    assert vehicle.open(world.answer(vehicle.request())).key.private_numbers().private_value == 7


def test_a_pcid_of_17_characters_cannot_be_told_apart_in_20(world: ContractWorld) -> None:
    vehicle = world.vehicle(MessageSet.ISO15118_20, "WAUABC99999999999")
    world._provisioner = None
    world.contract(vehicle, "DE8AASEVENTEEN")
    with pytest.raises(PolicyRefusal, match="authenticates 18"):
        world.answer(vehicle.request())
    assert rows_of(world, vehicle) == []


def test_a_chain_of_another_root_is_refused(
    world: ContractWorld, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate on record and its key are right; only the root is believed no more."""
    fresh = world.new_provisioner()
    monkeypatch.setattr("chargepki.pki.role_roots.role_anchors", lambda _inventory: ())
    with pytest.raises(ChainError):
        fresh.examine(vehicle.request())


def test_the_standard_that_is_not_served_is_refused(world: ContractWorld, vehicle: Vehicle) -> None:
    from chargepki.pki.provisioning import Provisioner

    with pytest.raises(StateError, match="no contracts of iso15118-2 are provisioned here"):
        lone = Provisioner(world.authority, [], [])
        lone.provision(lone.examine(vehicle.request()), channel=Channel())
    with pytest.raises(PolicyRefusal, match="issues no contract certificates"):
        Provisioner(world.authority, ["two-oem-sub2"], [])
    with pytest.raises(PolicyRefusal, match="are both for"):
        Provisioner(world.authority, ["two-mo-sub2", "two-mo-sub2"], [])
    assert x509.load_der_x509_certificate(vehicle.chain[0]).public_bytes(Encoding.DER) == vehicle.chain[0]
