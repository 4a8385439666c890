"""GetLog from request to file: N01 and TC_079 with our own station, and with scripted ones that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import websockets

from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.csms.uploads import UploadConfig, UploadServer
from chargepki.ocpp_security.log_store import register_log
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.tls import server_context
from chargepki.pki.inventory.event_records import LogRequestState, RequestedLogRecord
from chargepki.pki.inventory.records import OperationRecord, OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]


def order(
    rig: Rig, station: str, kind: str = "SecurityLog", times: dict[str, str] | None = None, *, seconds: float = 120
) -> str:
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    now = datetime.now(UTC)
    record = store.create(
        OperationKind.GET_LOG,
        station,
        {"type": kind, **(times or {})},
        operation_id=new_operation_id(),
        actor=ACTOR,
        now=now,
        deadline=now + timedelta(seconds=seconds),
        within=register_log(rig.sealing_key, max_bytes=1_000_000),
    )
    return record.id


def operation(rig: Rig, name: str) -> OperationRecord:
    return rig.inventory.get_operation(name)


def log_of(rig: Rig, name: str) -> RequestedLogRecord:
    return rig.inventory.get_requested_log(name)


def content(rig: Rig, name: str) -> bytes:
    file = log_of(rig, name).file
    assert file is not None
    return (rig.folder / "logs" / file).read_bytes()


@contextlib.asynccontextmanager
async def csms(rig: Rig, *profiles: int) -> AsyncIterator[CsmsServer]:
    tls = None
    if profiles != (1,):
        tls = server_context([SecurityProfile(2)], [rig.server_identity])
    async with UploadServer(UploadConfig(folder=rig.folder / "logs", tls=tls), rig.inventory) as uploads:
        url = f"{'http' if tls is None else 'https'}://localhost:{uploads.port}"
        async with rig.server(*profiles, upload_url=url) as server:
            yield server


@contextlib.asynccontextmanager
async def our_station(rig: Rig, server: CsmsServer, name: str, version: str) -> AsyncIterator[StationSimulator]:
    store = StationStore(rig.folder / "stations" / name)
    store.set_trust(rig.root_pem.encode())
    store.set_password(PASSWORD)
    told: list[Progress] = []
    station = StationSimulator(
        rig.url_of(server), name, store, version, organization="Example CSO", enrol=False, progress=told.append,
        retry=RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2)),
    )  # fmt: skip
    running = asyncio.create_task(station.run())
    try:
        await wait_for(lambda: any(event.milestone is Milestone.BOOTED for event in told))
        yield station
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_tc_079_and_tc_n_35_a_security_log_is_uploaded_and_recorded(rig: Rig, version: str) -> None:
    name = f"LOG-{version}"
    rig.add_station(name)
    wanted = order(rig, name)

    async def story() -> None:
        async with csms(rig, 2) as server, our_station(rig, server, name, version):
            await wait_for(lambda: operation(rig, wanted).state is OperationState.DONE, seconds=60)

    run_on("uvloop", story())
    log = log_of(rig, wanted)
    data = content(rig, wanted)
    assert (log.state, log.status) == (LogRequestState.RECEIVED, "Uploaded")
    assert (log.size, log.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert json.loads(data.splitlines()[0])["type"] == "StartupOfTheDevice"
    assert log.filename == f"{name}-SecurityLog-1.log"
    assert operation(rig, wanted).outcome == {
        "log": wanted, "size": len(data), "sha256": log.sha256, "status": "Uploaded",
    }  # fmt: skip
    acts = [entry for entry in rig.inventory.list_audit(limit=10_000) if entry.subject == wanted]
    received = next(entry for entry in acts if entry.action == "log.receive")
    assert received.artefact_sha256 == log.sha256
    # N01.FR.08 and N01.FR.09: in this order.
    assert [entry.details["status"] for entry in acts if entry.action == "log.status"] == ["Uploading", "Uploaded"]
    mode = (rig.folder / "logs" / str(log.file)).stat().st_mode & 0o777
    assert (mode, (rig.folder / "logs").stat().st_mode & 0o777) == (0o600, 0o700)


def test_tc_n_25_a_diagnostics_log_of_an_interval(rig: Rig) -> None:
    rig.add_station("DIAG")
    before = order(rig, "DIAG", "DiagnosticsLog", {"to": "2026-01-01T00:00:00Z"})
    after = order(rig, "DIAG", "DiagnosticsLog", {"from": "2026-01-01T00:00:00Z"})

    async def story() -> None:
        async with csms(rig, 2) as server, our_station(rig, server, "DIAG", "ocpp2.0.1"):
            await wait_for(lambda: operation(rig, after).state is OperationState.DONE, seconds=60)
            await wait_for(lambda: operation(rig, before).state.is_final, seconds=60)

    run_on("asyncio", story())
    assert b"connected on security profile 2" in content(rig, after)
    if log_of(rig, before).file is not None:  # the newer request may have replaced it
        assert content(rig, before) == b""


class Scripted:
    """A station that answers GetLog as it is told and does the rest by hand."""

    def __init__(self, socket: websockets.ClientConnection, answers: list[dict[str, Any]]) -> None:
        self.socket, self.answers = socket, answers
        self.requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answered: dict[str, asyncio.Future[Any]] = {}
        self.reading = asyncio.create_task(self._read())
        self._count = 0

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                if frame[0] == 2:
                    answer = self.answers.pop(0) if self.answers else {"status": "Accepted"}
                    await self.socket.send(json.dumps([3, frame[1], answer]))
                    self.requests.put_nowait(frame[3])
                elif frame[1] in self.answered:
                    self.answered.pop(frame[1]).set_result(frame[2:])

    async def call(self, action: str, payload: dict[str, Any]) -> Any:
        self._count += 1
        number = f"s{self._count}"
        self.answered[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps([2, number, action, payload]))
        return await asyncio.wait_for(self.answered[number], 60)

    async def status(self, status: str, request: int | None) -> None:
        payload: dict[str, Any] = {"status": status}
        if request is not None:
            payload["requestId"] = request
        assert await self.call("LogStatusNotification", payload) == [{}]


@contextlib.asynccontextmanager
async def scripted(
    rig: Rig, server: CsmsServer, name: str, *answers: dict[str, Any], version: str = "ocpp2.0.1"
) -> AsyncIterator[Scripted]:
    socket = await open_socket(rig.url_of(server), name, protocols=(version,), password=PASSWORD)
    station = Scripted(socket, list(answers))
    try:
        yield station
    finally:
        await socket.close()
        await asyncio.gather(station.reading, return_exceptions=True)


async def put(url: str, data: bytes, *, method: str = "PUT", **options: Any) -> int:
    async with aiohttp.ClientSession() as session, session.request(method, url, data=data, **options) as answer:
        return answer.status


@pytest.mark.parametrize("version", VERSIONS)
def test_n01_fr_01_the_request_names_type_id_and_a_one_time_address(rig: Rig, version: str) -> None:
    name = f"ASKED-{version}"
    rig.add_station(name, profile=1)
    wanted = order(rig, name, times={"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"})

    async def story() -> None:
        async with csms(rig, 1) as server, scripted(rig, server, name, version=version) as station:
            request = await asyncio.wait_for(station.requests.get(), 60)
            assert (request["logType"], request["requestId"]) == ("SecurityLog", 1)
            place = request["log"]
            assert place["oldestTimestamp"] == "2026-01-01T00:00:00.000Z"
            assert place["latestTimestamp"] == "2026-02-01T00:00:00.000Z"
            assert len(place["remoteLocation"]) <= 512
            await station.status("Uploading", 1)
            assert await put(place["remoteLocation"], b"a log") == 201
            # Replayed: the address is used up, and the log stays what it was.
            assert await put(place["remoteLocation"], b"another log") == 410
            await station.status("Uploaded", 1)
            await wait_for(lambda: operation(rig, wanted).state is OperationState.DONE)

    run_on("asyncio", story())
    assert content(rig, wanted) == b"a log"
    token = rig.folder / "inventory.db"
    assert b"/logs/" not in token.read_bytes()  # no database holds the address


def test_tc_n_34_n01_fr_05_a_station_without_that_log_ends_the_request(rig: Rig) -> None:
    rig.add_station("NOLOG", profile=1)
    wanted = order(rig, "NOLOG")

    async def story() -> None:
        async with csms(rig, 1) as server, scripted(rig, server, "NOLOG", {"status": "Rejected"}) as station:
            request = await asyncio.wait_for(station.requests.get(), 60)
            await wait_for(lambda: operation(rig, wanted).state is OperationState.FAILED)
            assert await put(request["log"]["remoteLocation"], b"late") == 410

    run_on("asyncio", story())
    assert "Rejected" in str(operation(rig, wanted).outcome)
    assert log_of(rig, wanted).state is LogRequestState.CLOSED


@pytest.mark.parametrize("status", ["UploadFailure", "BadMessage", "PermissionDenied", "NotSupportedOperation"])
def test_tc_n_26_n01_fr_10_a_failed_upload_ends_the_request(rig: Rig, status: str) -> None:
    name = f"FAILS-{status}"
    rig.add_station(name, profile=1)
    wanted = order(rig, name)

    async def story() -> None:
        async with csms(rig, 1) as server, scripted(rig, server, name) as station:
            await asyncio.wait_for(station.requests.get(), 60)
            await station.status("Uploading", 1)
            await station.status(status, 1)
            await wait_for(lambda: operation(rig, wanted).state is OperationState.FAILED)
            # It cannot be talked back to life.
            await station.status("Uploading", 1)
            await station.status("Uploaded", 1)

    run_on("asyncio", story())
    assert status in str(operation(rig, wanted).outcome)
    assert log_of(rig, wanted).status == status


def test_tc_n_36_n01_fr_12_a_second_request_replaces_the_first(rig: Rig) -> None:
    rig.add_station("TWICE", profile=1)
    first = order(rig, "TWICE")

    async def story() -> str:
        async with csms(rig, 1) as server, scripted(
            rig, server, "TWICE", {"status": "Accepted"}, {"status": "AcceptedCanceled"}
        ) as station:  # fmt: skip
            old = await asyncio.wait_for(station.requests.get(), 60)
            await station.status("Uploading", 1)
            second = await asyncio.to_thread(order, rig, "TWICE")
            request = await asyncio.wait_for(station.requests.get(), 60)
            assert request["requestId"] == 2
            await station.status("AcceptedCanceled", 1)
            assert await put(old["log"]["remoteLocation"], b"old") == 410
            await station.status("Uploading", 2)
            assert await put(request["log"]["remoteLocation"], b"new") == 201
            await station.status("Uploaded", 2)
            await wait_for(lambda: operation(rig, second).state is OperationState.DONE)
            return second

    second = run_on("asyncio", story())
    assert "replaced" in str(operation(rig, first).outcome)
    assert log_of(rig, first).status == "AcceptedCanceled"
    assert content(rig, second) == b"new"


def test_n01_fr_07_statuses_about_nothing_are_noted_and_change_nothing(rig: Rig) -> None:
    rig.add_station("ODD", profile=1)
    wanted = order(rig, "ODD")

    async def story() -> None:
        async with csms(rig, 1) as server, scripted(rig, server, "ODD") as station:
            request = await asyncio.wait_for(station.requests.get(), 60)
            await station.status("Uploaded", 1)  # before Uploading
            await station.status("Uploading", 77)  # of another request
            await station.status("Idle", None)
            assert log_of(rig, wanted).status is None
            await station.status("Uploading", None)  # N01.FR.13: it can only be about one
            assert log_of(rig, wanted).status == "Uploading"
            assert await put(request["log"]["remoteLocation"], b"x") == 201
            await station.status("Uploaded", 1)
            await wait_for(lambda: operation(rig, wanted).state is OperationState.DONE)

    run_on("asyncio", story())
    odd = [e for e in rig.inventory.list_event_series(station="ODD") if "odd-log-status" in e.event.tech_info]
    assert len(odd) == 1


def test_an_upload_that_is_announced_and_never_comes_is_a_failure(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.operations_log._LAST_WORD", timedelta(seconds=0.5))
    rig.add_station("LIAR", profile=1)
    wanted = order(rig, "LIAR")

    async def story() -> None:
        async with csms(rig, 1) as server, scripted(rig, server, "LIAR") as station:
            await asyncio.wait_for(station.requests.get(), 60)
            await station.status("Uploading", 1)
            await station.status("Uploaded", 1)
            await wait_for(lambda: operation(rig, wanted).state is OperationState.FAILED)

    run_on("asyncio", story())
    assert "nothing has arrived" in str(operation(rig, wanted).outcome)


def test_without_an_endpoint_for_uploads_the_request_says_how_to_get_one(rig: Rig) -> None:
    rig.add_station("NOWHERE", profile=1)
    wanted = order(rig, "NOWHERE")

    async def story() -> None:
        async with rig.server(1) as server, scripted(rig, server, "NOWHERE"):
            await wait_for(lambda: operation(rig, wanted).state is OperationState.FAILED)

    run_on("asyncio", story())
    assert "--upload-listen" in str(operation(rig, wanted).outcome)


def test_a_request_for_a_station_that_never_comes_expires_and_takes_nothing(rig: Rig) -> None:
    rig.add_station("ABSENT", profile=1)
    wanted = order(rig, "ABSENT", seconds=0.5)

    async def story() -> None:
        async with csms(rig, 1):
            await wait_for(lambda: operation(rig, wanted).state is OperationState.EXPIRED)

    run_on("asyncio", story())
    assert log_of(rig, wanted).state is LogRequestState.CLOSED
