"""A station is moved to another CSMS with another root, over TLS: it arrives, or it comes back (B10, M05.FR.13-16)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from websockets.asyncio.server import serve
from websockets.typing import Subprotocol

from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.tls import TlsIdentity, server_context
from chargepki.ocpp_security.trust_store import TrustPolicy
from testkit.csms_rig import PASSWORD, run_on, wait_for
from testkit.desk import Desk
from testkit.hierarchy import Node, make_node

FAST = RetryPolicy(timedelta(seconds=0.02), timedelta(seconds=0.02))
OLD = make_node("old root", None, ca=True)
NEW = make_node("new root", OLD, ca=True)
"""Signed by the old one, as AdditionalRootCertificateCheck demands: no self-signed certificate."""
NAME = x509.SubjectAlternativeName([x509.DNSName("localhost")])


def pem(node: Node) -> str:
    return node.certificate.public_bytes(Encoding.PEM).decode()


@contextlib.asynccontextmanager
async def csms(root: Node) -> AsyncIterator[tuple[Desk, str]]:
    """A CSMS whose certificate is under *root*."""
    desk, leaf = Desk(), make_node("localhost", root, ca=False, extensions=[(NAME, False)])
    context = server_context({SecurityProfile(2)}, [TlsIdentity((leaf.der,), leaf.key)])
    versions = [Subprotocol("ocpp2.0.1")]
    async with serve(desk.handle, "127.0.0.1", 0, ssl=context, subprotocols=versions, compression=None) as server:
        yield desk, f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}"


def slot(url: str) -> dict[str, Any]:
    data = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": url, "messageTimeout": 30,
        "securityProfile": 2, "ocppInterface": "Wired0",
    }  # fmt: skip
    return {"configurationSlot": 2, "connectionData": data}


def order(value: str) -> dict[str, Any]:
    where = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "NetworkConfigurationPriority"}}
    return {"setVariableData": [{**where, "attributeValue": value}]}


async def send_away(desk: Desk, url: str) -> None:
    """Install the new root, name the new CSMS and reset the station."""
    await desk.expect("StatusNotification")
    root = {"certificateType": "CSMSRootCertificate", "certificate": pem(NEW)}
    assert (await desk.call("InstallCertificate", root))["status"] == "Accepted"
    assert (await desk.call("SetNetworkProfile", slot(url)))["status"] == "Accepted"
    answer = await desk.call("SetVariables", order("2,1"))
    assert answer["setVariableResult"][0]["attributeStatus"] == "Accepted"
    assert (await desk.call("Reset", {"type": "OnIdle"}))["status"] == "Accepted"


@contextlib.asynccontextmanager
async def station_at(folder: Path, url: str) -> AsyncIterator[tuple[StationSimulator, list[Progress]]]:
    told: list[Progress] = []
    store = StationStore(folder)
    store.set_trust(pem(OLD).encode())
    store.set_password(PASSWORD)
    station = StationSimulator(
        url, "MOVES", store, "ocpp2.0.1", enrol=False, retry=FAST, progress=told.append,
        trust_policy=TrustPolicy(additional_check=True),
    )  # fmt: skip
    task = asyncio.create_task(station.run())
    try:
        yield station, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_tc_b_50_cs_it_arrives_at_a_csms_under_the_new_root_and_gives_the_old_one_up(tmp_path: Path) -> None:
    """B10.FR.01, FR.04, FR.06; M05.FR.12, FR.13."""

    async def story() -> None:
        async with csms(OLD) as (here, old_url), csms(NEW) as (there, new_url):
            async with station_at(tmp_path, old_url) as (station, _):
                await send_away(here, new_url)
                assert station.roots.csms(fallback=True) == (OLD.der,)
                await there.expect("BootNotification")
                await wait_for(lambda: station.roots.csms(fallback=True) == ())
                assert station.roots.csms() == (NEW.der,)
                assert station.network.active == 2
            assert len(there.arrivals) == 1

    run_on("asyncio", story())


def test_tc_b_47_cs_a_csms_that_does_not_verify_under_the_new_root_costs_attempts_and_it_comes_back(
    tmp_path: Path,
) -> None:
    """M05.FR.15: the fallback root opens nothing on the way; M05.FR.16: it does, back on the old profile."""

    async def story() -> None:
        # The other CSMS shows a certificate under the old root: with the fallback root it would be let in.
        async with csms(OLD) as (here, old_url), csms(OLD) as (there, new_url):
            async with station_at(tmp_path, old_url) as (station, told):
                await send_away(here, new_url)
                await here.expect("BootNotification")
                refused = [one for one in told if one.milestone is Milestone.REFUSED]
                assert len(refused) >= 3, "NetworkProfileConnectionAttempts is 3"
                assert station.network.active == 1
                assert station.roots.csms(fallback=True) == (OLD.der,)
            assert there.arrivals == []

    run_on("asyncio", story())


def test_m05_fr_03_a_root_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed, not Rejected; and nothing has changed (1.6 M05.FR.04; row 31 of ocpp-security 12)."""

    async def story() -> None:
        async with csms(OLD) as (desk, url), station_at(tmp_path, url) as (station, _):
            await desk.expect("StatusNotification")
            # What stands in the way of the new file cannot be replaced by one.
            (tmp_path / "roots-mo.pem").mkdir()
            (tmp_path / "roots-mo.pem" / "x").touch()
            monkeypatch.setattr(station.roots, "_read", lambda name: ())
            root = {"certificateType": "MORootCertificate", "certificate": pem(OLD)}
            assert (await desk.call("InstallCertificate", root))["status"] == "Failed"

    run_on("asyncio", story())
