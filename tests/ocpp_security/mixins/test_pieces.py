"""Each piece alone on somebody's own `websockets` server: authentication, cut-off, one connection for each station."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from chargepki.ocpp_security import CutOff, DuplicatePolicy, InventoryStations, OneConnection, StationGate
from chargepki.pki.errors import StateError
from chargepki.pki.inventory.records import StationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, open_socket


def url_of(server: Any, scheme: str = "wss") -> str:
    return f"{scheme}://localhost:{next(iter(server.sockets)).getsockname()[1]}"


def test_the_gate_alone_answers_as_the_endpoint_does(rig: Rig) -> None:
    rig.add_station("GATE")
    rig.add_station("GATE-OTHER")

    async def story() -> None:
        refused: list[tuple[str, str]] = []
        gate = StationGate(
            InventoryStations(rig.inventory), refused=lambda no, peer: refused.append((str(no.reason), peer))
        )
        served: list[Any] = []

        async def handler(socket: ServerConnection) -> None:
            served.append((gate.station(socket), socket.subprotocol))
            await socket.close()

        async def attempt(identity: str, **options: Any) -> int:
            try:
                socket = await open_socket(url, identity, **options)
            except websockets.InvalidStatus as error:
                return error.response.status_code
            await socket.wait_closed()
            return 101

        async with serve(handler, "127.0.0.1", 0, ssl=rig.tls(frozenset({2, 3})), **gate.options()) as server:
            url = url_of(server)
            credential, _ = await asyncio.to_thread(rig.credential, "GATE")
            plain, with_key = rig.client_tls(), rig.client_tls(credential)
            assert await attempt("GATE", password=PASSWORD, tls=plain) == 101
            assert await attempt("GATE", tls=with_key, protocols=("ocpp1.6", "ocpp2.1")) == 101
            assert await attempt("GATE", password=b"wrong-password-1", tls=plain) == 401
            assert await attempt("NOBODY", password=PASSWORD, tls=plain) == 401
            assert await attempt("GATE-OTHER", tls=with_key) == 403
            assert await attempt("GATE", tls=plain, path="/other") == 404
        gate.close()
        assert [(one.station.identity, int(one.profile), version) for one, version in served] == [
            ("GATE", 2, "ocpp2.0.1"), ("GATE", 3, "ocpp2.1"),
        ]  # fmt: skip
        assert [reason for reason, _ in refused] == [
            "wrong-password", "unknown-station", "certificate-of-another-station", "no-endpoint",
        ]  # fmt: skip
        assert all(peer.startswith("127.0.0.1:") for _, peer in refused)
        with pytest.raises(StateError, match="was not authenticated here"):
            gate.station(gate)  # type: ignore[arg-type]  # any object that no hook has seen

    run_on("asyncio", story())


def test_the_gate_alone_looks_at_revocation_lists_that_replace_each_other_and_bounds_pings(rig: Rig) -> None:
    rig.add_station("GATE-CRL", profile=3)
    credential, certificate = rig.credential("GATE-CRL")

    class OwnTable(InventoryStations):
        """A table that knows stations, and leaves revocation to the lists of somebody else's CA."""

        async def check_certificate(self, station: Any, chain_der: Any, now: Any) -> Any:
            return None

    async def story() -> None:
        before = rig.authority.publish_crl("t-cso-sub").der
        rig.authority.publish_crl("t-cso-root")
        refused: list[str] = []
        gate = StationGate(
            OwnTable(rig.inventory), profiles=(3,), trust=(rig.root_der,), crls=(before,),
            refused=lambda no, _: refused.append(str(no.reason)),
        )  # fmt: skip

        async def handler(socket: ServerConnection) -> None:
            await socket.wait_closed()

        async with serve(handler, "127.0.0.1", 0, ssl=rig.tls(frozenset({3})), **gate.options()) as server:
            url, tls = url_of(server), rig.client_tls(credential)
            socket = await open_socket(url, "GATE-CRL", tls=tls)
            with pytest.raises(websockets.ConnectionClosed):
                for _ in range(700):
                    await socket.ping()
                await asyncio.wait_for(socket.wait_closed(), 60)
                await socket.ping()
            assert socket.close_code == 1008
            rig.authority.revoke(certificate, "keyCompromise")
            gate.crls = (rig.authority.publish_crl("t-cso-sub").der,)
            with pytest.raises(websockets.InvalidStatus) as answer:
                await open_socket(url, "GATE-CRL", tls=tls)
            assert answer.value.response.status_code == 403
        gate.close()
        assert refused == ["certificate-revoked"]

    run_on("asyncio", story())


def remove(rig: Rig, station: str) -> None:
    def work(tx: Any) -> None:
        tx.update_station(station, state=StationState.REMOVED)
        tx.audit(ACTOR, "station.remove", station, now=rig.inventory.get_station(station).created_at)

    rig.inventory.write(work)


def test_the_cut_off_alone_closes_exactly_the_connections_that_lost_their_right(rig: Rig) -> None:
    for identity in ("CUT-1", "CUT-2", "CUT-3", "CUT-4"):
        rig.add_station(identity)
    credentials: dict[str, tuple[Credential, str]] = {
        name: rig.credential(name) for name in ("CUT-1", "CUT-2", "CUT-4")
    }
    rig.authority.revoke(credentials["CUT-4"][1], "keyCompromise")

    async def story() -> None:
        async with CutOff(rig.inventory) as cut_off:

            async def handler(socket: ServerConnection) -> None:
                assert socket.request is not None
                identity = socket.request.path.rpartition("/")[2]
                certificate = credentials[identity][1] if identity in credentials else None
                with cut_off.guard(socket, station=identity, certificate=certificate):
                    await socket.wait_closed()

            async with serve(handler, "127.0.0.1", 0) as server:
                sockets = {
                    name: await open_socket(url_of(server, "ws"), name, protocols=())
                    for name in ("CUT-1", "CUT-2", "CUT-3", "CUT-4")
                }
                # Revoked before the guard began, so nothing will announce it again.
                await asyncio.wait_for(sockets["CUT-4"].wait_closed(), 60)
                await asyncio.to_thread(rig.authority.revoke, credentials["CUT-1"][1], "keyCompromise")
                await asyncio.wait_for(sockets["CUT-1"].wait_closed(), 60)
                await asyncio.to_thread(remove, rig, "CUT-3")
                await asyncio.wait_for(sockets["CUT-3"].wait_closed(), 60)
                assert [sockets[name].close_reason for name in ("CUT-1", "CUT-3", "CUT-4")] == [
                    "certificate revoked", "station removed", "certificate revoked",
                ]  # fmt: skip
                assert sockets["CUT-2"].close_code is None
                await sockets["CUT-2"].close()

    run_on("asyncio", story())


@pytest.mark.parametrize("policy", list(DuplicatePolicy))
def test_one_connection_for_each_station(policy: DuplicatePolicy) -> None:
    async def story() -> None:
        one = OneConnection(policy)
        admitted: list[bool] = []
        live: list[ServerConnection] = []

        async def handler(socket: ServerConnection) -> None:
            admitted.append(await one.admits("CS"))
            if not admitted[-1]:
                return
            async with one.of("CS", socket):
                live.append(socket)
                await socket.wait_closed()
            live.remove(socket)

        async with serve(handler, "127.0.0.1", 0) as server:
            first = await open_socket(url_of(server, "ws"), "CS", protocols=())
            await wait_for(lambda: live)
            second = await open_socket(url_of(server, "ws"), "CS", protocols=())
            if policy is DuplicatePolicy.NEWEST:
                await asyncio.wait_for(first.wait_closed(), 60)
                assert first.close_code == 1008 and second.close_code is None
                await wait_for(lambda: len(live) == 1)
                await second.close()
            else:
                await asyncio.wait_for(second.wait_closed(), 60)
                assert first.close_code is None and admitted == [True, False]
                await first.close()
            await wait_for(lambda: not live)
            assert await one.admits("CS")

    run_on("asyncio", story())
