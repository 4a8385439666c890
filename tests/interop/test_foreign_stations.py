"""Stations that are not ours at our endpoint, with wrong credentials and broken messages; right ones on profile 1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.node_station import need_node, node_station
from testkit.ocpp_peers import foreign_station, open_socket
from testkit.station_files import StationFiles

pytestmark = pytest.mark.foreign

VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("csms")) as opened:
        yield opened


# Who comes in does not depend on the version; the others run in `make campaign`.
@pytest.mark.parametrize(
    "version", ["ocpp2.0.1", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("ocpp1.6", "ocpp2.1"))]
)
def test_ocpp_rpc_comes_in_with_its_own_credentials_alone(rig: Rig, version: str, tmp_path: Path) -> None:
    need_node()
    identity, other = f"JS-{version}", f"JS-OTHER-{version}"
    for name in (identity, other):
        rig.add_station(name, profile=1)
    files = StationFiles(rig, tmp_path, identity)
    wrong = files.write("wrong", "wrong-password-01")
    foreign, _ = rig.credential(other)
    theirs = {
        "trust": files.trust, "cert": files.write("other.pem", foreign.chain_pem),
        "key": files.write("other.key", foreign.key_pem().decode()),
    }  # fmt: skip

    async def refused(url: str, options: dict[str, str | Path]) -> int:
        async with node_station(f"{url}/ocpp", identity, version, until="booted", options=options) as station:
            assert await station.exit_code() == 1
            assert not station.told("connected")
            assert station.told("refused"), station.events
            return int(station.told("refused")[0]["status"])

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2, 3) as secure:
            right: dict[str, str | Path] = {"password_file": files.password}
            async with node_station(
                f"{rig.url_of(plain)}/ocpp", identity, version, until="booted", options=right
            ) as station:
                assert await station.exit_code() == 0, station.events
                assert not station.told("invalid")
            assert await refused(rig.url_of(plain), {"password_file": wrong}) == 401
            assert await refused(rig.url_of(secure), {"password_file": wrong, "trust": files.trust}) == 401
            assert await refused(rig.url_of(secure), dict(theirs)) == 403

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plain_ocpp_package_comes_in_with_its_own_credentials_alone(rig: Rig, version: str) -> None:
    identity, other = f"PY-{version}", f"PY-OTHER-{version}"
    for name in (identity, other):
        rig.add_station(name, profile=1)
    foreign, _ = rig.credential(other)

    async def status(url: str, **options: Any) -> int:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await open_socket(url, identity, protocols=(version,), **options)
        return refused.value.response.status_code

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2, 3) as secure:
            async with foreign_station(rig.url_of(plain), identity, version, password=PASSWORD) as station:
                assert await station.boot(identity) == "Accepted"
            assert await status(rig.url_of(plain), password=b"wrong-password-01") == 401
            assert await status(rig.url_of(secure), password=b"wrong-password-01", tls=rig.client_tls()) == 401
            assert await status(rig.url_of(secure), tls=rig.client_tls(foreign)) == 403

    run_on("asyncio", story())


async def _until(socket: ClientConnection, message_id: str) -> list[Any]:
    """Return all frames up to the one that answers *message_id*."""
    frames: list[Any] = []
    while not frames or frames[-1][1] != message_id:
        frames.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
    return frames


@pytest.mark.parametrize("version", VERSIONS)
def test_a_station_that_breaks_the_protocol_is_answered_and_kept(rig: Rig, version: str) -> None:
    identity = f"BAD-{version}"
    rig.add_station(identity)

    async def story() -> None:
        async with (
            rig.server(2) as server,
            foreign_station(rig.url_of(server), identity, version, password=PASSWORD, tls=rig.client_tls()) as station,
        ):
            await station.boot(identity)
            socket = await open_socket(
                rig.url_of(server), identity, protocols=(version,), password=PASSWORD, tls=rig.client_tls()
            )
            for frame in ('[2,"1","NoSuchAction",{}]', '[2,"2","Heartbeat",{"extra":1}]', "garbage", '[2,["a"],[],1]'):
                await socket.send(frame)
            await socket.send('[2,"last","Heartbeat",{}]')
            answers = {frame[1]: frame for frame in await _until(socket, "last")}
            unknown = {"ocpp1.6": "FormationViolation"}.get(version, "ProtocolError")
            assert (answers["1"][2], answers["2"][2]) == ("NotImplemented", unknown)
            assert answers["1"][4] == answers["2"][4] == {} and answers["last"][0] == 3
            await socket.close()

    run_on("asyncio", story())
