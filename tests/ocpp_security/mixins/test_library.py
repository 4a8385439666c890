"""What the `ocpp` package does badly with hostile or broken messages does not happen under the mixins."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import ocpp.exceptions
import ocpp.v16
import ocpp.v21
import ocpp.v201
import pytest
from ocpp.charge_point import camel_to_snake_case
from ocpp.routing import after, on
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chargepki.ocpp_security import schemas, v16, v21, v201
from chargepki.ocpp_security.csms import CsmsConfig, CsmsSecurity
from chargepki.ocpp_security.mixin import _camel
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.spelling import spell_members
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import aio
from chargepki.pki.errors import InputError, StateError
from testkit.csms_rig import ORGANIZATION, PASSWORD, Rig, run_on
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket
from testkit.own_csms import OwnCsms, Station16, Station21, Station201, own_csms

VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")
BOOT: dict[str, dict[str, Any]] = {
    "ocpp1.6": {"chargePointVendor": "V", "chargePointModel": "M"},
    "ocpp2.0.1": {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}},
    "ocpp2.1": {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}},
}


async def connect(rig: Rig, team: OwnCsms, identity: str, version: str) -> ClientConnection:
    return await open_socket(team.url, identity, protocols=(version,), password=PASSWORD, tls=rig.client_tls())


async def ask(socket: ClientConnection, *frame: Any) -> Any:
    await socket.send(json.dumps(frame))
    return json.loads(await asyncio.wait_for(socket.recv(), 60))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_is_answered_and_nothing_ends_the_connection(rig: Rig, version: str) -> None:
    identity = f"H-{version}"
    rig.add_station(identity)

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await connect(rig, team, identity, version)
            assert (await ask(socket, 2, "1", "NoSuchAction", {}))[:3] == [4, "1", "NotImplemented"]
            # A real action that this team has no handler for; the package says nothing at all in 2.1.
            assert (await ask(socket, 2, "2", "Authorize", {}))[0] == 4
            assert (await ask(socket, 2, "3", "StatusNotification", {}))[0] == 4
            for broken in ('[2,["a"],["b"],3]', "not json", "{}", "[]", '[9,"x"]', '[2,"1"]', '[2,"7",{"a":1},{}]'):
                await socket.send(broken)
            await socket.send(json.dumps([3, "unasked", {}]))
            await socket.send(json.dumps([2, "x" * 100, "Heartbeat", {}]))
            await socket.send(json.dumps([2, "last", "Heartbeat", {}]))
            answers: list[Any] = []
            while not (answers and answers[-1][1] == "last"):
                answers.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
            assert answers[-1][0] == 3
            assert all(answer[4] == {} for answer in answers if answer[0] == 4)
            await socket.close()

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broken_payload_is_refused_without_an_echo_and_without_a_trace(
    rig: Rig, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    identity = f"P-{version}"
    rig.add_station(identity)
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-hunter2-hunter2"

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await connect(rig, team, identity, version)
            payload = {**BOOT[version], "basicAuthPassword": secret}
            answer = await ask(socket, 2, "1", "BootNotification", payload)
            assert answer[0] == 4 and answer[4] == {} and secret not in json.dumps(answer)

            async def fail(_station: Any, fields: dict[str, Any]) -> Any:
                raise RuntimeError(f"cannot digest {fields}")

            team.data_transfer = fail
            data = {"vendorId": "v", "data": json.dumps({"password": secret})}
            answer = await ask(socket, 2, "2", "DataTransfer", data)
            assert answer == [4, "2", "InternalError", "", {}]
            await socket.close()

    run_on("asyncio", story())
    shown = "\n".join(
        logging.Formatter().format(record) for record in caplog.records if record.name.startswith(("team", "chargepki"))
    )
    assert "the handler of DataTransfer failed" in shown and "RuntimeError" in shown
    assert secret not in shown


@pytest.mark.parametrize("version", VERSIONS)
def test_a_handler_may_call_the_station_and_await_the_answer(rig: Rig, version: str) -> None:
    identity = f"C-{version}"
    rig.add_station(identity)
    module = {"ocpp1.6": ocpp.v16.call, "ocpp2.0.1": ocpp.v201.call, "ocpp2.1": ocpp.v21.call}[version]

    async def story() -> None:
        async with own_csms(rig) as team:

            async def call_back(station: Any, _fields: dict[str, Any]) -> Any:
                answer = await station.call(module.DataTransfer(vendor_id="back"), suppress=False, unique_id="mine")
                return station._call_result.DataTransfer(status=answer.status)

            team.data_transfer = call_back
            socket = await connect(rig, team, identity, version)
            called = await ask(socket, 2, "1", "DataTransfer", {"vendorId": "v"})
            assert called == [2, "mine", "DataTransfer", {"vendorId": "back"}]
            await socket.send(json.dumps([3, "mine", {"status": "Rejected"}]))
            assert json.loads(await socket.recv()) == [3, "1", {"status": "Rejected"}]
            await socket.close()

    run_on("asyncio", story())


def test_call_behaves_as_that_of_the_package(rig: Rig) -> None:
    rig.add_station("CALLS")

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await connect(rig, team, "CALLS", "ocpp2.0.1")
            await ask(socket, 2, "1", "Heartbeat", {})
            station = team.stations["CALLS"]
            request = ocpp.v201.call.ClearCache()

            async def answer(kind: int, *rest: Any) -> None:
                message = json.loads(await socket.recv())
                await socket.send(json.dumps([kind, message[1], *rest]))

            for suppress in (True, False):
                reply = asyncio.create_task(answer(4, "SecurityError", "no", {}))
                if suppress:
                    assert await station.call(request) is None
                else:
                    with pytest.raises(ocpp.exceptions.SecurityError):
                        await station.call(request, suppress=False)
                await reply
            reply = asyncio.create_task(answer(3, {"status": "Perhaps"}))
            with pytest.raises(ocpp.exceptions.OCPPError):
                await station.call(request)
            await reply
            reply = asyncio.create_task(answer(3, {"status": "Perhaps"}))
            assert (await station.call(request, skip_schema_validation=True)).status == "Perhaps"
            await reply
            with pytest.raises(ocpp.exceptions.OCPPError):
                await station.call(ocpp.v201.call.Reset(type="Softly"))
            station._response_timeout = 0.3
            with pytest.raises(TimeoutError):
                await station.call(request)
            waiting = asyncio.create_task(station.call(request))
            await socket.recv()
            await socket.close()
            with pytest.raises((ConnectionClosed, TimeoutError)):
                await waiting
            with pytest.raises(ConnectionClosed):
                await station.call(request)

    run_on("asyncio", story())


def test_a_team_changes_no_root_and_signs_no_csr_without_tls_unless_it_says_so(rig: Rig) -> None:
    """ocpp-security 12, row 32."""
    rig.add_station("TEAM-PLAIN", profile=1)
    install = ocpp.v201.call.InstallCertificate(certificate_type="CSMSRootCertificate", certificate=rig.root_pem)
    csr = build_station_csr(Credential().key, "TEAM-PLAIN", ORGANIZATION)

    async def story(allow: tuple[str, ...]) -> tuple[str, str]:
        async with (
            own_csms(rig, 1, allow_unsecured=allow) as team,
            foreign_station(team.url, "TEAM-PLAIN", "ocpp2.0.1", password=PASSWORD) as peer,
        ):
            await peer.boot("TEAM-PLAIN")
            try:
                installed = (await team.stations["TEAM-PLAIN"].call(install)).status
            except StateError as error:
                installed = str(error)
            return installed, await peer.send_csr(csr)

    refused, signed = run_on("asyncio", story(()))
    assert "InstallCertificate is not sent to TEAM-PLAIN over a connection without TLS" in refused
    assert signed == "Rejected"
    assert run_on("asyncio", story(("TEAM-*",))) == ("Accepted", "Accepted")


def test_a_handler_that_skips_validation_gets_what_breaks_the_schema_but_a_csr_is_always_checked(rig: Rig) -> None:
    rig.add_station("ODD")
    taken: list[Any] = []

    class Odd(Station16):
        @on("StatusNotification", skip_schema_validation=True)  # type: ignore[untyped-decorator]  # no types
        async def on_odd_status(self, **fields: Any) -> Any:
            taken.append(fields)
            return ocpp.v16.call_result.StatusNotification()

    async def story() -> None:
        async with own_csms(rig) as team:
            team.classes["ocpp1.6"] = Odd
            socket = await connect(rig, team, "ODD", "ocpp1.6")
            odd = {"connectorId": "one", "vendorThing": 1}
            assert await ask(socket, 2, "1", "StatusNotification", odd) == [3, "1", {}]
            assert taken == [{"connector_id": "one", "vendor_thing": 1}]
            assert (await ask(socket, 2, "2", "SignCertificate", {"csr": 5}))[2] == "TypeConstraintViolation"
            await socket.close()

    run_on("asyncio", story())


@pytest.mark.parametrize("version", list(OcppVersion), ids=str)
def test_every_member_name_survives_snake_case_at_its_place(version: OcppVersion) -> None:
    """43 names of 2.1 do not come back from the package's own conversion."""

    def sample(root: schemas.Schema, node: schemas.Schema, depth: int) -> Any:
        if "items" in node:
            return [sample(root, schemas.resolve(root, node["items"]), depth + 1)]
        if "properties" not in node or depth > 12:
            return 1
        return {
            name: sample(root, schemas.resolve(root, child), depth + 1)
            for name, child in node["properties"].items()
            if name != "customData"
        }

    for action in sorted(schemas.actions(version)):
        for kind in Kind:
            try:
                root = schemas.load_schema(version, action, kind)
            except Exception:
                assert kind is Kind.RESPONSE
                continue
            payload = sample(root, root, 0)
            snake = camel_to_snake_case(payload)
            assert spell_members(version, action, kind, snake, otherwise=_camel) == payload, (action, kind)


def test_prioritized_emaids_reach_a_handler_under_either_snake_case(rig: Rig) -> None:
    rig.add_station("EMAID")
    taken: list[Any] = []

    class Wallet(Station21):
        @on("Get15118EVCertificate")  # type: ignore[untyped-decorator]  # no types
        async def on_ev_certificate(self, prioritized_emaids: Any = None, **_: Any) -> Any:
            taken.append(prioritized_emaids)
            return ocpp.v21.call_result.Get15118EVCertificate(status="Failed", exi_response="")

    async def story() -> None:
        async with own_csms(rig) as team:
            team.classes["ocpp2.1"] = Wallet
            socket = await connect(rig, team, "EMAID", "ocpp2.1")
            request = {
                "iso15118SchemaVersion": "urn:iso:std:iso:15118:-20:AC", "action": "Install", "exiRequest": "AA==",
                "maximumContractCertificateChains": 1, "prioritizedEMAIDs": ["DEABC12345678X"],
            }  # fmt: skip
            answer = await ask(socket, 2, "1", "Get15118EVCertificate", request)
            assert answer == [3, "1", {"status": "Failed", "exiResponse": ""}], answer
            await socket.close()

    run_on("asyncio", story())
    assert taken == [["DEABC12345678X"]]


def test_a_class_that_would_not_be_protected_is_refused(rig: Rig) -> None:
    with pytest.raises(TypeError, match="put SecurityMixin before"):
        type("Wrong", (ocpp.v16.ChargePoint, v16.SecurityMixin), {})
    with pytest.raises(TypeError, match=r"its ChargePoint speaks 2\.0\.1, its mixin ocpp2\.1"):
        type("Wrong", (v21.SecurityMixin, ocpp.v201.ChargePoint), {})
    rig.add_station("WRONG")

    class Rival(v201.SecurityMixin, ocpp.v201.ChargePoint):  # type: ignore[misc]  # untyped base
        @on("SignCertificate")  # type: ignore[untyped-decorator]  # no types
        async def on_rival(self, **_: Any) -> Any:
            return None

    class Follower(v201.SecurityMixin, ocpp.v201.ChargePoint):  # type: ignore[misc]  # untyped base
        @after("SignCertificate")  # type: ignore[untyped-decorator]  # no types
        async def after_rival(self, **_: Any) -> None:
            return None

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await connect(rig, team, "WRONG", "ocpp2.0.1")
            await ask(socket, 2, "1", "Heartbeat", {})
            admitted = team.stations["WRONG"]._connection
            for kind in (Rival, Follower):
                with pytest.raises(TypeError, match="has a handler for SignCertificate"):
                    kind("WRONG", admitted, security=team.security)
            with pytest.raises(InputError, match="was given to a ChargePoint of 'OTHER'"):
                Station201("OTHER", admitted, security=team.security)
            with pytest.raises(StateError, match="was not authenticated here"):
                Station201("WRONG", socket, security=team.security)  # type: ignore[arg-type]  # a connection that no hook has seen
            await socket.close()

    run_on("asyncio", story())


def test_connection_that_nobody_serves_is_refused_and_the_cure_is_named(rig: Rig) -> None:
    """Operations and revocations would never reach it, and nothing else would tell the team."""
    rig.add_station("UNSERVED")
    refused: list[str] = []

    class OwnLoop(Station201):
        async def start(self) -> None:
            for work in (self.call(ocpp.v201.call.ClearCache()), self.route_message("[]")):
                with pytest.raises(StateError) as caught:
                    await work
                refused.append(str(caught.value))
            await self._connection.close()

    async def story() -> None:
        async with own_csms(rig) as team:
            team.classes["ocpp2.0.1"] = OwnLoop
            socket = await connect(rig, team, "UNSERVED", "ocpp2.0.1")
            await asyncio.wait_for(socket.wait_closed(), 60)
            with pytest.raises(StateError, match=r"without a CsmsSecurity.*fix: pass security="):
                Station201("UNSERVED", team.stations["UNSERVED"]._connection)

    run_on("asyncio", story())
    assert len(refused) == 2
    assert all("UNSERVED is not served" in text and "fix: await start()" in text for text in refused)


def test_security_that_was_not_started_lets_nobody_in(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_station("EARLY")

    async def story() -> None:
        security = CsmsSecurity(CsmsConfig(tls=rig.tls(frozenset({2, 3}))), rig.inventory, aio.Authority(rig.authority))

        async def handle(_socket: ServerConnection) -> None:
            raise AssertionError("nobody may get here")

        async with serve(handle, "127.0.0.1", 0, **security.serve_options()) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            credential, _ = rig.credential("EARLY")
            url, tls = f"wss://localhost:{port}", rig.client_tls(credential)
            with pytest.raises(InvalidStatus) as refused:
                await open_socket(url, "EARLY", protocols=("ocpp2.0.1",), tls=tls)
            assert refused.value.response.status_code == 503

    run_on("asyncio", story())
    assert "was not started; to fix: serve inside: async with CsmsSecurity" in caplog.text


def test_a_wrong_serial_number_and_a_second_connection_end_as_at_our_own_endpoint(rig: Rig) -> None:
    rig.add_station("TWICE")

    async def story() -> None:
        credential, _ = rig.credential("TWICE")
        tls = rig.client_tls(credential)
        async with own_csms(rig) as team:
            async with foreign_station(team.url, "TWICE", "ocpp2.0.1", tls=tls) as station:
                with pytest.raises(ocpp.exceptions.SecurityError):
                    await station.boot("ANOTHER-SERIAL")
                await asyncio.wait_for(station.socket.wait_closed(), 60)
                assert station.socket.close_code == 1008
            assert not team.boots, "no handler may see a station that is being closed"
            first = await connect_tls(team, "TWICE", tls)
            second = await connect_tls(team, "TWICE", tls)
            await asyncio.wait_for(first.wait_closed(), 60)
            assert first.close_code == 1008 and "replaced" in str(first.close_reason)
            assert (await ask(second, 2, "1", "Heartbeat", {}))[0] == 3
            await second.close()

    run_on("asyncio", story())


async def connect_tls(team: OwnCsms, identity: str, tls: Any) -> ClientConnection:
    return await open_socket(team.url, identity, protocols=("ocpp2.0.1",), tls=tls)
