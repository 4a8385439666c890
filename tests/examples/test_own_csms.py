"""docs/examples/own_csms.py, as it is, against our station, the plain `ocpp` package and npm's ocpp-rpc."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import websockets

from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.inventory.records import OperationState
from testkit.csms_rig import ORGANIZATION, PASSWORD, Rig, run_on, wait_for
from testkit.example_csms import EXAMPLE, RunningCsms, running_csms
from testkit.node_station import need_node, node_station
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket
from testkit.station_files import StationFiles, queue_operation, serial_of

FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))
RENEWAL = {"use": CertificateUse.CHARGING_STATION.value}
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("workspace")) as opened:
        yield opened


@pytest.fixture(scope="module")
def csms(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCsms]:
    with running_csms(rig, tmp_path_factory.mktemp("csms")) as running:
        yield running


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 120


def reaches(milestone: Milestone, *, profile: int | None = None) -> Any:
    return lambda event: event.milestone is milestone and profile in (None, event.profile)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_station_enrols_rotates_and_is_cut_off(rig: Rig, csms: RunningCsms, version: str, tmp_path: Path) -> None:
    identity, new_password = f"OWN-{version}", b"another-password-01"
    rig.add_station(identity, profile=1)
    store = StationStore(tmp_path / "store")
    store.set_trust(rig.root_pem.encode())
    store.set_password(PASSWORD)

    told: list[Progress] = []

    def station(profile: int, *, enrol: bool = True) -> StationSimulator:
        return StationSimulator(
            csms.url(profile), identity, store, version, organization=ORGANIZATION, retry=FAST, enrol=enrol,
            progress=told.append,
        )  # fmt: skip

    def done(operation: str) -> bool:
        return rig.inventory.get_operation(operation).state is OperationState.DONE

    async def story() -> None:
        # Profile 1: a new password.
        change = queue_operation(rig, OperationKind.SET_PASSWORD, identity, {}, password=new_password)
        running = asyncio.create_task(station(1, enrol=False).run(lambda _: False))
        await wait_for(lambda: done(change), seconds=60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # Profile 2: its first certificate; profile 3: the next one.
        await station(2).run(reaches(Milestone.CERTIFICATE_PROVEN))
        renewal = queue_operation(rig, OperationKind.TRIGGER_RENEWAL, identity, RENEWAL)
        await station(3).run(reaches(Milestone.CERTIFICATE_PROVEN))
        await wait_for(lambda: done(renewal), seconds=60)
        csms.process.send_signal(signal.SIGHUP)
        begun = len(told)
        running = asyncio.create_task(station(3).run(reaches(Milestone.REFUSED)))
        await wait_for(lambda: Milestone.BOOTED in {event.milestone for event in told[begun:]}, seconds=60)
        for record in rig.inventory.list_certificates(station=identity):
            await asyncio.to_thread(rig.authority.revoke, record.id, "keyCompromise")
        refused = await running
        assert refused is not None and refused.status == 403

    run_on("asyncio", story())
    text = csms.text()
    assert f"{identity} disconnected (1008 certificate revoked)" in text and "is delivered" in text
    assert new_password.decode() not in text and new_password.hex() not in text.lower()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plain_ocpp_package_as_a_station(rig: Rig, csms: RunningCsms, version: str) -> None:
    identity = f"PY-{version}"
    rig.add_station(identity)

    async def story() -> None:
        credential = Credential()
        async with foreign_station(csms.url(2), identity, version, password=PASSWORD, tls=rig.client_tls()) as one:
            assert await one.boot(identity) == "Accepted"
            assert await one.send_csr(build_station_csr(credential.key, identity, ORGANIZATION)) == "Accepted"
            credential.chain_pem = await one.next_chain()
            await one.report("TamperDetectionActivated", "2026-03-01T12:00:00Z", "cover")
        async with foreign_station(csms.url(3), identity, version, tls=rig.client_tls(credential)) as one:
            assert await one.boot(identity) == "Accepted"
            assert await one.heartbeat()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await open_socket(
                csms.url(2), identity, protocols=(version,), password=b"wrong-password-1", tls=rig.client_tls()
            )
        assert refused.value.response.status_code == 401

    run_on("asyncio", story())
    assert "TamperDetectionActivated" in [event.type for event in rig.inventory.list_security_events(station=identity)]


@pytest.mark.foreign
@pytest.mark.parametrize("version", VERSIONS)
def test_ocpp_rpc_as_a_station_in_strict_mode(rig: Rig, csms: RunningCsms, version: str, tmp_path: Path) -> None:
    need_node()
    identity = f"JS-{version}"
    rig.add_station(identity)
    files = StationFiles(rig, tmp_path, identity)

    async def story() -> None:
        key = files.new_key("first")
        url = f"{csms.url(2)}/ocpp"
        by_password = {"trust": files.trust, "password_file": files.password, **key}
        async with node_station(url, identity, version, until="certificate", options=by_password, ask=True) as one:
            assert await one.exit_code() == 0, one.events
            assert not one.told("invalid")
        by_certificate = {"trust": files.trust, "cert": key["out"], "key": key["csr_key"]}
        async with node_station(url, identity, version, until="closed", options=by_certificate) as one:
            await one.expect("booted")
            (record,) = rig.inventory.find_certificates_by_serial(serial_of(key["out"]))
            await asyncio.to_thread(rig.authority.revoke, record.id, "keyCompromise")
            assert (await one.expect("closed", timeout=5))["code"] == 1008
            assert not one.told("invalid")

    run_on("asyncio", story())
