"""An update from the catalogue to the station, in every version: each status in order, and every way to say no."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.station import StationSimulator
from chargepki.ocpp_security.station.firmware import FirmwareFault
from chargepki.ocpp_security.station.firmware_store import FirmwareStore, JobStage
from chargepki.ocpp_security.station.misbehaviour import Conduct
from chargepki.pki.inventory.records import OperationState
from testkit.csms_rig import ACTOR, Rig, run_on, wait_for
from testkit.firmware import serving_images
from testkit.firmware_plant import IMAGE, Plant, running

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
HAPPY = ["Downloading", "Downloaded", "SignatureVerified", "Installing", "InstallRebooting", "Installed"]


class PowerCut(Exception):
    """The station loses its power."""


@pytest.fixture(scope="module")
def plant(rig: Rig) -> Plant:
    made = Plant.of(rig)
    made.release("good")
    made.release("old", "0.9.0")
    return made


@contextlib.asynccontextmanager
async def images(plant: Plant, **options: Any) -> AsyncIterator[str]:
    """Serve the images and yield the base of their URLs."""
    inventory = plant.rig.inventory
    async with serving_images(inventory, plant.rig.folder, plant.rig.sealing_key, **options) as base:
        yield base


@pytest.mark.parametrize("version", VERSIONS)
def test_an_update_is_installed_with_every_status_in_order(plant: Plant, version: str) -> None:
    station = f"FW-{version}"
    plant.rig.add_station(station)

    async def story() -> str:
        async with plant.rig.server(2) as server, images(plant) as base:
            simulator = plant.simulator(server, station, version)
            async with running(simulator):
                await wait_for(lambda: plant.rig.inventory.find_station_firmware(station))
                soon = datetime.now(UTC) + timedelta(seconds=2)
                operation = plant.order(
                    station, "good", base, retrieve_at=soon.isoformat(),
                    install_at=(soon + timedelta(seconds=2)).isoformat(),
                )  # fmt: skip
                await wait_for(lambda: plant.outcome(operation).state.is_final, seconds=60)
                await wait_for(lambda: "FirmwareUpdated" in plant.events(station))
                assert simulator.firmware.store.state.version == "2.0.0"

                def runs() -> str:
                    record = plant.rig.inventory.find_station_firmware(station)
                    return record.version if record else ""

                await wait_for(lambda: runs() == "2.0.0")
            return operation

    operation = run_on("asyncio", story())
    done = plant.outcome(operation)
    assert done.state is OperationState.DONE, done.outcome
    assert done.outcome is not None and "out_of_order" not in done.outcome
    scheduled = ["DownloadScheduled", *HAPPY[:3], "InstallScheduled", *HAPPY[3:]]
    assert plant.statuses(operation) == done.outcome["statuses"] == scheduled
    actions = [attempt.action for attempt in plant.rig.inventory.list_attempts(operation)]
    assert actions == ["SignedUpdateFirmware" if version == "ocpp1.6" else "UpdateFirmware"]


FAULTS: dict[FirmwareFault, tuple[list[str], str | None]] = {
    FirmwareFault.REFUSE: ([], None),
    FirmwareFault.DOWNLOAD: (["Downloading", "DownloadFailed"], None),
    FirmwareFault.CORRUPT: ([*HAPPY[:2], "InvalidSignature"], "InvalidFirmwareSignature"),
    FirmwareFault.VERIFICATION: ([*HAPPY[:4], "InstallVerificationFailed"], None),
    FirmwareFault.INSTALLATION: ([*HAPPY[:4], "InstallationFailed"], None),
}


def test_a_station_that_fails_fails_the_operation_with_its_status(plant: Plant) -> None:
    for fault in FAULTS:
        plant.rig.add_station(f"FAULT-{fault.value}")

    async def fail(server: CsmsServer, base: str, fault: FirmwareFault) -> None:
        station, (statuses, event) = f"FAULT-{fault.value}", FAULTS[fault]
        simulator = plant.simulator(server, station, "ocpp2.0.1", conduct=Conduct(firmware=frozenset({fault})))
        async with running(simulator):
            operation = plant.order(station, "good", base)
            await wait_for(lambda: plant.outcome(operation).state.is_final, seconds=60)
            await wait_for(lambda: event is None or event in plant.events(station))
            assert simulator.firmware.store.state.version == "1.0.0"
        done = plant.outcome(operation)
        assert done.state is OperationState.FAILED
        assert plant.statuses(operation) == statuses
        assert done.outcome is not None and "out_of_order" not in done.outcome

    async def story() -> None:
        async with plant.rig.server(2) as server, images(plant) as base:
            await asyncio.gather(*(fail(server, base, fault) for fault in FAULTS))

    run_on("asyncio", story())


def test_what_the_station_would_refuse_is_never_sent(plant: Plant) -> None:
    plant.rig.add_station("ADMIT")
    plant.release("other-vendor", "3.0.0", vendor="Other")

    async def story() -> list[str]:
        found: list[str] = []
        async with (
            plant.rig.server(2) as server,
            images(plant) as base,
            running(plant.simulator(server, "ADMIT", "ocpp2.1")),
        ):
            await wait_for(lambda: plant.rig.inventory.find_station_firmware("ADMIT"))
            for release in ("old", "other-vendor", "absent"):
                found.append(plant.order("ADMIT", release, base))
                await wait_for(lambda: plant.outcome(found[-1]).state.is_final)
        return found

    for operation, word in zip(run_on("asyncio", story()), ("rollback", "model", "catalogue"), strict=True):
        done = plant.outcome(operation)
        assert done.state is OperationState.FAILED
        assert word in str(done.outcome)
        assert plant.rig.inventory.list_attempts(operation) == ()


def test_a_station_without_our_root_answers_invalid_certificate_and_reports_it(plant: Plant) -> None:
    plant.rig.add_station("NOROOT")

    async def story() -> str:
        async with plant.rig.server(2) as server, images(plant) as base:
            simulator = plant.simulator(server, "NOROOT", "ocpp1.6")
            simulator.store.set_manufacturer_trust(plant.rig.root_pem.encode())
            async with running(simulator):
                operation = plant.order("NOROOT", "good", base)
                await wait_for(lambda: plant.outcome(operation).state.is_final)
                await wait_for(lambda: "InvalidFirmwareSigningCertificate" in plant.events("NOROOT"))
            return operation

    done = plant.outcome(run_on("asyncio", story()))
    assert "InvalidCertificate" in str(done.outcome)
    assert plant.statuses(done.id) == []


def test_an_update_is_replaced_by_another_and_renewals_do_not_wait_for_it(plant: Plant) -> None:
    plant.rig.add_station("REPLACE")
    plant.release("newer", "2.1.0")

    async def story() -> tuple[str, str]:
        async with plant.rig.server(2, 3) as server, images(plant) as base:
            simulator = plant.simulator(server, "REPLACE", "ocpp2.0.1")
            async with running(simulator):
                later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
                first = plant.order("REPLACE", "good", base, retrieve_at=later)
                await wait_for(lambda: plant.statuses(first) == ["DownloadScheduled"])
                store = OperationStore(plant.rig.inventory, plant.rig.sealing_key, owner="test", actor=ACTOR)
                now = datetime.now(UTC)
                renewal = store.create(
                    OperationKind.TRIGGER_RENEWAL, "REPLACE", {"use": "ChargingStationCertificate"},
                    operation_id=new_operation_id(), actor=ACTOR, now=now, deadline=now + timedelta(seconds=30),
                )  # fmt: skip
                # Done while the update waits; the station comes back with its new certificate.
                await wait_for(lambda: plant.outcome(renewal.id).state is OperationState.DONE)
                await wait_for(lambda: simulator.store.state.security_profile == 3)
                with pytest.raises(Exception, match="under way"):
                    plant.order("REPLACE", "newer", base)
                second = plant.order("REPLACE", "newer", base, replace=True)
                await wait_for(lambda: plant.outcome(second).state.is_final, seconds=60)
                assert simulator.firmware.store.state.version == "2.1.0"
            return first, second

    first, second = run_on("asyncio", story())
    assert f"replaced by {second}" in str(plant.outcome(first).outcome)
    (attempt,) = plant.rig.inventory.list_attempts(second)
    assert attempt.answer == {"status": "AcceptedCanceled"}
    assert plant.statuses(second) == HAPPY


@contextlib.asynccontextmanager
async def breaking_link(port: int, octets: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Relay to *port*, and cut the first connection after so many octets; yield the port and what each carried."""
    carried: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(carried)
        carried.append(0)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def upwards() -> None:
            while data := await reader.read(1 << 16):
                to_server.write(data)

        up = asyncio.create_task(upwards())
        try:
            while data := await from_server.read(1 << 14):
                carried[number] += len(data)
                if number == 0 and carried[0] > octets:
                    break
                writer.write(data)
                await writer.drain()
        finally:
            up.cancel()
            writer.transport.abort()
            to_server.transport.abort()

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with relaying:
        yield relaying.sockets[0].getsockname()[1], carried


def test_a_download_over_https_that_breaks_is_resumed_where_it_stopped(plant: Plant) -> None:
    plant.rig.add_station("BREAKS")
    tls = plant.rig.tls(frozenset({2}))

    async def story() -> tuple[str, list[int]]:
        async with (
            plant.rig.server(2) as server,
            images(plant, tls=tls, bytes_per_second=2_000_000) as base,
            breaking_link(int(base.rpartition(":")[2]), 150_000) as (port, carried),
            running(plant.simulator(server, "BREAKS", "ocpp2.0.1")),
        ):
            where = f"https://localhost:{port}"
            operation = plant.order("BREAKS", "good", where, retries=3, retry_interval=0)
            await wait_for(lambda: plant.outcome(operation).state.is_final, seconds=60)
        return operation, carried

    operation, carried = run_on("asyncio", story())
    assert plant.outcome(operation).state is OperationState.DONE, plant.outcome(operation).outcome
    assert plant.statuses(operation) == HAPPY
    first, second = carried
    # The second connection carried what was missing, and not the beginning again.
    assert first > 150_000 and second < len(IMAGE) - 100_000


def cut_at(simulator: StationSimulator, stage: JobStage) -> None:
    """Have the station lose its power as soon as *stage* is on disk."""

    def cut(reached: JobStage) -> None:
        if reached is stage:
            raise PowerCut

    object.__setattr__(simulator.firmware._hooks, "stage", cut)


def test_an_update_survives_a_power_cut_at_every_stage_in_turn(plant: Plant) -> None:
    plant.rig.add_station("CUTS")

    async def story() -> str:
        async with plant.rig.server(2) as server, images(plant, bytes_per_second=20_000_000) as base:
            operation = plant.order("CUTS", "good", base)
            for stage in JobStage:
                # The same store in a new process, as after the power came back.
                simulator = plant.simulator(server, "CUTS", "ocpp2.0.1")
                cut_at(simulator, stage)
                store = simulator.firmware.store
                async with running(simulator):
                    await wait_for(partial(has_reached, store, stage), seconds=60)
            async with running(plant.simulator(server, "CUTS", "ocpp2.0.1")):
                await wait_for(lambda: plant.outcome(operation).state.is_final, seconds=60)
        return operation

    check_survived(plant, "CUTS", run_on("asyncio", story()))


def has_reached(store: FirmwareStore, stage: JobStage) -> bool:
    return store.state.job is not None and store.state.job.stage is stage


def check_survived(plant: Plant, station: str, operation: str) -> None:
    done = plant.outcome(operation)
    assert done.state is OperationState.DONE, done.outcome
    assert done.outcome is not None and "out_of_order" not in done.outcome, done.outcome
    assert [status for status in plant.statuses(operation) if status in HAPPY] == HAPPY
    active = Path(plant.rig.folder / f"station-{station}" / "firmware" / "active.img").read_bytes()
    assert active.endswith(IMAGE)


@pytest.mark.campaign
@pytest.mark.parametrize("stage", list(JobStage))
def test_a_power_cut_at_any_stage_is_survived(plant: Plant, stage: JobStage) -> None:
    station = f"CUT-{stage.value}"
    plant.rig.add_station(station)

    async def story() -> str:
        async with plant.rig.server(2) as server, images(plant, bytes_per_second=20_000_000) as base:
            simulator = plant.simulator(server, station, "ocpp2.0.1")
            cut_at(simulator, stage)
            operation = ""
            async with running(simulator) as _:
                operation = plant.order(station, "good", base)
                await wait_for(
                    lambda: (job := simulator.firmware.store.state.job) is not None and job.stage is stage, seconds=20
                )
            # The same store in a new process, as after the power came back.
            again = plant.simulator(server, station, "ocpp2.0.1")
            assert again.firmware.store.state.job is not None
            async with running(again):
                await wait_for(lambda: plant.outcome(operation).state.is_final, seconds=60)
                assert again.firmware.store.state.version == "2.0.0"
            return operation

    check_survived(plant, station, run_on("asyncio", story()))
