"""Contracts over OCPP: a vehicle's request through our station and our CSMS, in every version and dialect."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.csms import CsmsConfig, CsmsServer, ev_answers
from chargepki.ocpp_security.csms.ev_answers import answer_ev_certificate
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.ev_certificate import (
    ContractAnswer,
    ContractProvider,
    ContractRequest,
    build_length_question,
    read_length_answer,
    response_characters,
)
from chargepki.ocpp_security.ev_provider import PkiContractProvider
from chargepki.ocpp_security.fetch import Fetcher, FetchPolicy
from chargepki.ocpp_security.passwords import hash_password
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.station import Milestone, Progress, StationSimulator, StationStore
from chargepki.ocpp_security.station.ev_contract import EvExchange
from chargepki.ocpp_security.status import StatusGateway
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import aio, keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.errors import InputError
from chargepki.pki.exi import MessageSet
from chargepki.pki.identifiers import Emaid
from chargepki.pki.inventory.records import StationRecord, StationState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.ocsp import build_single_request
from chargepki.pki.provisioning import RoleRoot, add_root, admit_vehicle, store_vehicle
from testkit.authorities import ACTOR, make_authority, open_inventory
from testkit.contracts import ContractWorld, Vehicle, make_world
from testkit.pki_server import cert_id_of, live_server

PASSWORD = b"correct-horse-16"
STATION = "CS-1"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractWorld]:
    made = make_world(tmp_path_factory.mktemp("ev"))
    made.clock.now = datetime.now(UTC).replace(microsecond=0)
    made.build(MessageSet.ISO15118_2)
    record = StationRecord(STATION, STATION, None, 1, StationState.ACTIVE, made.clock.now, hash_password(PASSWORD))

    def work(tx: Any) -> None:
        tx.add_station(record)
        tx.audit(ACTOR, "station.add", STATION, now=made.clock.now)

    made.authority.inventory.write(work)
    yield made
    made.authority.inventory.close()


def exchange(
    world: ContractWorld,
    folder: Path,
    version: OcppVersion,
    request: bytes,
    *,
    older: bool = False,
    configured: int = 7500,
    takes: int | None = None,
) -> tuple[list[bytes], list[Progress]]:
    """Run CSMS and station until the vehicle has its answers, or is refused them."""
    told: list[Progress] = []
    kept: list[bytes] = []
    own = PkiContractProvider(world.provisioner)

    async def run() -> None:
        config = CsmsConfig(
            host="127.0.0.1",
            security_profiles=frozenset({1}),
            provider=own,
            exi_response_characters=configured,
        )
        issuer = aio.Authority(world.authority)
        server = CsmsServer(config, world.authority.inventory, issuer)
        await server.start()
        try:
            store = StationStore(folder / "store")
            store.set_password(PASSWORD)
            station = StationSimulator(
                f"ws://127.0.0.1:{server.port}",
                STATION,
                store,
                version,
                enrol=False,
                ev=EvExchange(request, lambda exi, _number: kept.append(exi), takes=takes),
                dialect=Dialect.OLDER if older else Dialect.OCA,
                progress=told.append,
            )
            over = (Milestone.CONTRACT_REFUSED,)
            await asyncio.wait_for(
                station.run(
                    until=lambda event: (
                        event.milestone in over
                        or (event.milestone is Milestone.CONTRACT and "; 0 remain" in event.text)
                    )
                ),
                90,
            )
        finally:
            await server.stop()
            await issuer.aclose()

    asyncio.run(run())
    own.close()
    return kept, [each for each in told if each.milestone in (Milestone.CONTRACT, Milestone.CONTRACT_REFUSED)]


_numbers = iter(range(1, 1000))


def make_vehicle(world: ContractWorld, message_set: MessageSet = MessageSet.ISO15118_2, contracts: int = 1) -> Vehicle:
    number = next(_numbers)
    vehicle = world.vehicle(message_set, f"WAUOCP{number:011d}D")
    for index in range(contracts):
        world.contract(vehicle, f"DE8AO{number:05d}{index:04d}", priority=index)
    world._provisioner = None
    return vehicle


@pytest.mark.parametrize(
    ("version", "older"),
    [(OcppVersion.V201, False), (OcppVersion.V16, False), (OcppVersion.V16, True)],
    ids=["2.0.1", "1.6", "1.6-older"],
)
def test_a_vehicle_gets_its_contract_through_a_station(
    world: ContractWorld, tmp_path: Path, version: OcppVersion, older: bool
) -> None:
    vehicle = make_vehicle(world)
    kept, told = exchange(world, tmp_path, version, vehicle.request(), older=older)
    assert vehicle.open(kept[0]).emaid
    assert [each.milestone for each in told] == [Milestone.CONTRACT]
    (row,) = world.authority.inventory.list_provisionings(vehicle.open(kept[0]).emaid)
    assert row.station == STATION


def test_m02_fr_01_tc_m_28_a_vehicle_has_its_contract_updated_through_a_station(
    world: ContractWorld, tmp_path: Path
) -> None:
    """And TC_M_29: an update of a revoked contract is refused, which the station tells its vehicle."""
    vehicle = make_vehicle(world)
    first = vehicle.open(world.answer(vehicle.request()))
    holder = Vehicle(world, vehicle.pcid, first.key, first.chain)
    kept, told = exchange(world, tmp_path / "updated", OcppVersion.V201, holder.request(update=True))
    renewed = holder.open(kept[0])
    assert renewed.emaid == first.emaid and renewed.chain[0] != first.chain[0]
    assert [each.milestone for each in told] == [Milestone.CONTRACT]
    rows = world.authority.inventory.list_provisionings(Emaid.parse(first.emaid).account)
    assert [(row.kind, row.station) for row in rows] == [("install", None), ("update", STATION)]
    world.authority.revoke(rows[0].certificate or "", "keyCompromise")
    kept, told = exchange(world, tmp_path / "refused", OcppVersion.V21, holder.request(update=True))
    assert kept == []
    assert [each.milestone for each in told] == [Milestone.CONTRACT_REFUSED]


def test_tc_m_27_a_vehicle_without_a_contract_is_told_so_by_its_station(world: ContractWorld, tmp_path: Path) -> None:
    vehicle = make_vehicle(world, contracts=0)
    kept, told = exchange(world, tmp_path, OcppVersion.V21, vehicle.request())
    assert kept == []
    assert [each.milestone for each in told] == [Milestone.CONTRACT_REFUSED]


def test_a_vehicle_of_20_gets_all_its_contracts_over_2_1(world: ContractWorld, tmp_path: Path) -> None:
    vehicle = make_vehicle(world, MessageSet.ISO15118_20, contracts=3)
    offers = world.authority.inventory.list_offers_to(vehicle.pcid)
    request = vehicle.request(maximum_contracts=8, prioritized=(offers[1].contract,))
    kept, _ = exchange(world, tmp_path, OcppVersion.V21, request)
    got = [vehicle.open(exi) for exi in kept]
    assert [each.emaid for each in got] == [offers[1].contract, offers[0].contract, offers[2].contract]
    assert [each.remaining for each in got] == [2, 1, 0]


@pytest.mark.parametrize("takes", [None, 7000], ids=["does not tell", "tells"])
def test_what_a_station_says_it_takes_counts_and_not_what_is_configured(
    world: ContractWorld, tmp_path: Path, takes: int | None
) -> None:
    vehicle = make_vehicle(world)
    kept, told = exchange(world, tmp_path, OcppVersion.V201, vehicle.request(), configured=1000, takes=takes)
    if takes is None:
        assert [each.milestone for each in told] == [Milestone.CONTRACT_REFUSED]
        assert "TooLargeElement" in told[0].text
    else:
        assert vehicle.open(kept[0]).emaid


@pytest.mark.parametrize(
    ("version", "told", "characters"),
    [
        (OcppVersion.V201, None, 5600),
        (OcppVersion.V201, 9000, 9000),
        # What the schema grants is taken by every station.
        (OcppVersion.V201, 100, 5600),
        (OcppVersion.V21, None, 17_000),
        (OcppVersion.V21, 20_000, 20_000),
        (OcppVersion.V21, 9000, 17_000),
    ],
)
def test_length_of_an_answer_is_what_schema_and_station_grant(
    version: OcppVersion, told: int | None, characters: int
) -> None:
    assert response_characters(version, 5600, told) == characters


@pytest.mark.parametrize(
    ("change", "length"),
    [
        ({}, 6400),
        ({"attributeStatus": "UnknownVariable"}, None),
        ({"attributeValue": "-1"}, None),
        ({"attributeValue": "many"}, None),
        ({"attributeValue": "\u0663"}, None),
        ({"attributeValue": "999999999"}, 65_536),
        ({"variable": {"name": "FieldLength", "instance": "Another.field"}}, None),
    ],
)
def test_what_a_station_tells_of_its_field_is_read_with_care(change: dict[str, Any], length: int | None) -> None:
    asked = build_length_question()["getVariableData"][0]
    told = {**asked, "attributeStatus": "Accepted", "attributeValue": "6400", **change}
    assert read_length_answer({"getVariableResult": [told]}) == length


def ask(
    provider: ContractProvider, request: bytes, *, version: OcppVersion = OcppVersion.V201, characters: int = 5600
) -> dict[str, Any]:
    """Return what a station is answered, without a station."""
    payload = {
        "iso15118SchemaVersion": "urn:iso:15118:2:2013:MsgDef",
        "action": "Install",
        "exiRequest": base64.b64encode(request).decode(),
    }
    gateway: Any = None
    return asyncio.run(
        answer_ev_certificate(provider, gateway, version, payload, STATION, configured_characters=characters)
    )


@pytest.fixture
def own(world: ContractWorld) -> Iterator[PkiContractProvider]:
    provider = PkiContractProvider(world.new_provisioner())
    yield provider
    provider.close()


def test_what_does_not_fit_is_failed_and_the_operator_told_what_helps(
    world: ContractWorld, own: PkiContractProvider, caplog: pytest.LogCaptureFixture
) -> None:
    vehicle = make_vehicle(world)
    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        answer = ask(own, vehicle.request())
    assert answer == {"status": "Failed", "exiResponse": "", "statusInfo": {"reasonCode": "TooLargeElement"}}
    assert "carries 5600" in caplog.text and "OCPP 2.1" in caplog.text
    assert ask(own, vehicle.request(), characters=7500)["status"] == "Accepted"
    told = ask(own, vehicle.request(), version=OcppVersion.V21)
    assert set(told) == {"status", "exiResponse"}  # remainingContracts is of ISO 15118-20


def test_a_refused_vehicle_hears_no_reason_and_the_log_says_it(
    world: ContractWorld, own: PkiContractProvider, caplog: pytest.LogCaptureFixture
) -> None:
    vehicle = make_vehicle(world, contracts=0)
    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        answer = ask(own, vehicle.request())
    assert answer == {"status": "Failed", "exiResponse": "", "statusInfo": {"reasonCode": "NotFound"}}
    assert f"no contract for vehicle {vehicle.pcid}" in caplog.text
    for junk in (b"", b"junk", bytes(4000)):
        assert ask(own, junk)["statusInfo"] == {"reasonCode": "Unspecified"}


class Foreign:
    """A provider of somebody else's."""

    def __init__(self, answer: ContractAnswer | Exception) -> None:
        self.answer, self.asked = answer, list[ContractRequest]()

    async def provide(self, request: ContractRequest, status: StatusGateway) -> ContractAnswer:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_provider_of_somebody_else_stands_in_the_same_place() -> None:
    foreign = Foreign(ContractAnswer(b"\x80answer", 2))
    assert ask(foreign, b"\x80request") == {
        "status": "Accepted",
        "exiResponse": base64.b64encode(b"\x80answer").decode(),
    }
    assert ask(foreign, b"\x80request", version=OcppVersion.V21)["remainingContracts"] == 2
    asked = foreign.asked[0]
    assert (asked.station, asked.exi, asked.response_characters) == (STATION, b"\x80request", 5600)
    for answer in (RuntimeError("bug"), InputError("no"), ContractAnswer(bytes(4201))):
        assert ask(Foreign(answer), b"\x80request")["status"] == "Failed"


def test_a_provider_that_is_too_slow_goes_on_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.csms.ev_answers._SECONDS", 0.01)
    done: list[str] = []
    going: list[asyncio.Event] = []

    class Slow(Foreign):
        async def provide(self, request: ContractRequest, status: StatusGateway) -> ContractAnswer:
            await going[0].wait()
            done.append("done")
            return await super().provide(request, status)

    async def run() -> dict[str, Any]:
        going.append(asyncio.Event())
        payload = {"exiRequest": "gA==", "15118SchemaVersion": ""}
        gateway: Any = None
        slow = Slow(ContractAnswer(b"x"))
        first = await answer_ev_certificate(
            slow, gateway, OcppVersion.V16, payload, STATION, configured_characters=5600
        )
        going[0].set()
        while not done:
            await asyncio.sleep(0)
        return first

    assert asyncio.run(run())["statusInfo"] == {"reasonCode": "Timeout"}
    assert done == ["done"]


def test_an_action_that_is_not_the_requests_is_refused(world: ContractWorld) -> None:
    vehicle = make_vehicle(world)
    provider = PkiContractProvider(world.provisioner)
    from chargepki.ocpp_security.ev_certificate import EvAction

    request = ContractRequest(
        station=STATION,
        carrier="OCPP 2.1",
        action=EvAction.UPDATE,
        schema_version="",
        exi=vehicle.request(),
        response_characters=17_000,
    )
    with pytest.raises(InputError, match="the station says Update, the vehicle Install"):
        asyncio.run(provider.provide(request, status=None))  # type: ignore[arg-type]  # nobody is asked
    provider.close()


@pytest.mark.parametrize(
    "data", [None, 1, "", "[]", "{}", '{"exiRequest": 1}', '{"exiRequest": "", "15118SchemaVersion": 2}', "{" * 70_000]
)
def test_data_of_the_older_dialect_that_are_none_are_refused(data: object) -> None:
    transfer = {"vendorId": pnc_transfer.OLDER_VENDOR, "messageId": "Get15118EVCertificate", "data": data}
    with pytest.raises(InputError):
        pnc_transfer.read_transfer(transfer)
    assert pnc_transfer.read_transfer({**transfer, "vendorId": "other"}) is None
    asked = {"exiRequest": "gA==", "iso15118SchemaVersion": "urn:x", "action": "Install"}
    good = pnc_transfer.read_transfer(pnc_transfer.wrap("Get15118EVCertificate", asked, Dialect.OLDER))
    assert good is not None and good.payload == {"exiRequest": "gA==", "15118SchemaVersion": "urn:x"}


def test_an_update_goes_the_same_way_and_replaces_the_certificate(world: ContractWorld, tmp_path: Path) -> None:
    vehicle = make_vehicle(world)
    first = vehicle.open(exchange(world, tmp_path / "1", OcppVersion.V201, vehicle.request())[0][0])
    holder = Vehicle(world, vehicle.pcid, first.key, first.chain)
    asked = holder.request(update=True)
    (exi,), told = exchange(world, tmp_path / "2", OcppVersion.V21, asked)
    second = holder.open(exi)
    assert [each.milestone for each in told] == [Milestone.CONTRACT]
    assert second.emaid == first.emaid
    assert second.key.public_key().public_numbers() != first.key.public_key().public_numbers()
    (_, row) = world.authority.inventory.list_provisionings(first.emaid)
    assert (row.kind, row.vehicle, row.station) == ("update", vehicle.pcid, STATION)


# -- a vehicle of a manufacturer with a PKI of its own ---------------------------------------------------------------


@dataclass
class Manufacturer:
    """A manufacturer with a PKI and a responder of its own, and a vehicle of it that we have admitted."""

    authority: Authority
    url: str
    vehicle: Vehicle
    certificate: str

    def presign(self) -> None:
        for ca in self.authority.inventory.list_cas():
            OcspAuthority(self.authority).presign(ca)


@pytest.fixture
def manufacturer(world: ContractWorld, tmp_path: Path) -> Iterator[Manufacturer]:
    inventory = open_inventory(f"sqlite:///{tmp_path / 'far.db'}", tmp_path)
    with live_server(inventory, clock=world.clock) as server:
        url = f"http://127.0.0.1:{server.port}"
        far = make_authority(inventory, clock=world.clock, public_url=url)
        for name, issuer in (("oem-root", None), ("oem-sub2", "oem-root")):
            subject = (("CN", f"Far {name}"), ("O", "Far"))
            far.create_ca(CaOrder(name, f"iso15118-2/{name}", issuer=issuer, subject=subject))
        pcid = f"FAROCP{next(_numbers):011d}D"
        key = keys.generate_private_key(KeyAlgorithm.SECP256R1)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        subject = (("CN", pcid), ("O", "Far"))
        order = IssueOrder("oem-sub2", "iso15118-2/oem-provisioning", spki=keys.spki_der(key), subject=subject)
        issued = far.issue(order)
        vehicle = Vehicle(world, pcid, key, issued.chain)
        made = Manufacturer(far, url, vehicle, issued.record.id)
        made.presign()
        root, sub2 = inventory.get_ca("oem-root"), inventory.get_ca("oem-sub2")
        assert root.certificate_der is not None and sub2.certificate_der is not None
        ours, now = world.authority.inventory, world.clock.now
        digest = hashlib.sha256(root.certificate_der).hexdigest()
        add_root(ours, RoleRoot(root.certificate_der, "oem", digest, "letter", ("FAR",)), actor=ACTOR, now=now)
        serials = ((sub2, int(issued.record.serial, 16)), (root, view_certificate(sub2.certificate_der).serial))
        evidence = [server.ocsp(build_single_request(cert_id_of(*each))).body for each in serials]
        admission = admit_vehicle(ours, issued.chain, actor=ACTOR, now=now, ocsp_responses=tuple(evidence))
        store_vehicle(ours, admission, actor=ACTOR, now=now)
        world.contract(vehicle, f"DE8AF{next(_numbers):09d}")
        yield made
    inventory.close()


@pytest.mark.parametrize("ticks", range(6))
def test_who_is_cancelled_when_the_contract_comes_is_cancelled(monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """`asyncio.wait_for` of Python 3.11 took the answer, and forgot that the connection was to end."""

    async def story() -> None:
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def provide(*_: object) -> Any:
            return await found

        monkeypatch.setattr(ev_answers, "read_request", lambda *_: None)
        monkeypatch.setattr(ev_answers, "_provide", provide)
        monkeypatch.setattr(ev_answers, "accepted_payload", lambda *_: {})
        nothing = cast("Any", None)
        asking = asyncio.create_task(
            answer_ev_certificate(nothing, nothing, OcppVersion.V21, {}, STATION, configured_characters=5600)
        )
        for _ in range(3):
            await asyncio.sleep(0)
        found.set_result(SimpleNamespace(exi=b""))
        for _ in range(ticks):
            await asyncio.sleep(0)
        was_running = asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled() is was_running

    asyncio.run(story())


def ask_with_status(own: PkiContractProvider, world: ContractWorld, request: bytes, *allowed: str) -> str:
    """Return the status that a station is answered, with a gateway that may ask *allowed*."""
    payload = {"iso15118SchemaVersion": "", "action": "Install", "exiRequest": base64.b64encode(request).decode()}
    policy = FetchPolicy(allowed=allowed, networks=(ip_network("127.0.0.0/8"),))
    with contextlib.closing(Offload(threads=1)) as offload:
        gateway = StatusGateway(world.authority.inventory, offload, Fetcher(policy), clock=world.clock)
        answer = answer_ev_certificate(own, gateway, OcppVersion.V21, payload, STATION, configured_characters=5600)
        return str(asyncio.run(answer)["status"])


def test_the_responder_of_a_foreign_manufacturer_is_asked_where_that_is_allowed(
    world: ContractWorld, manufacturer: Manufacturer, own: PkiContractProvider
) -> None:
    request = manufacturer.vehicle.request()
    assert ask_with_status(own, world, request) == "Failed"
    assert ask_with_status(own, world, request, "http://127.0.0.1:1/") == "Failed"
    assert ask_with_status(own, world, request, manufacturer.url) == "Accepted"


def test_a_vehicle_that_its_manufacturer_has_revoked_gets_nothing(
    world: ContractWorld, manufacturer: Manufacturer, own: PkiContractProvider
) -> None:
    manufacturer.authority.revoke(manufacturer.certificate, "keyCompromise")
    manufacturer.presign()
    assert ask_with_status(own, world, manufacturer.vehicle.request(), manufacturer.url) == "Failed"
    assert world.authority.inventory.list_offers_to(manufacturer.vehicle.pcid)
