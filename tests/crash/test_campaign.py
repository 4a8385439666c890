"""Campaigns while CSMS processes are killed and PostgreSQL dies: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.ocpp_security.station import RetryPolicy, StationSimulator, StationStore
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import verify_log
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.records import Delivery
from chargepki.pki.pem import to_pem
from testkit.command_line import CommandLine
from testkit.crash import SEED
from testkit.crash_postgresql import PostgresqlServer
from testkit.csms_rig import PASSWORD, Rig

pytestmark = [pytest.mark.slow, pytest.mark.foreign]

S = CampaignStationState
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")
RENEW, PASSWORDS = "renew", "passwords"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Endpoint:
    """A real ``csms serve`` on a port of its own, which dies without a word and is started again."""

    def __init__(self, rig: Rig, number: int) -> None:
        self.rig, self.port, self.log = rig, free_port(), rig.folder / f"csms-{number}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder = self.rig.folder
        words = [
            *("csms", "serve", "--listen", f"127.0.0.1:{self.port}", "--security-profile", "2,3", "--issue-here"),
            *("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")),
            *("--client-trust", str(folder / "root.pem"), "--issue", "ChargingStationCertificate=t-cso-sub"),
        ]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "chargepki"), *words], env=environment(self.rig),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output,
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def supervise(self) -> None:
        """Start it again if it has ended by itself, as whatever supervises services does: a database starts slowly."""
        if self.process is not None and self.process.poll() is not None:
            self.start()


def environment(rig: Rig) -> dict[str, str]:
    return {
        **os.environ,
        "CHARGEPKI_HOME": str(rig.folder),
        "CHARGEPKI_DATABASE": rig.url,
        "CHARGEPKI_PASSPHRASE_FILE": str(rig.folder / "passphrase"),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example",
    }


@pytest.fixture
def database() -> Iterator[PostgresqlServer]:
    running = PostgresqlServer()
    yield running
    running.close()


class Storm:
    """A fleet of which one half renews and the other one gets passwords, while everything dies now and then."""

    def __init__(self, rig: Rig, database: PostgresqlServer, count: int, processes: int) -> None:
        self.rig, self.database, self.random = rig, database, random.Random(SEED)
        self.names = [f"S-{number:03}" for number in range(count)]
        self.endpoints = [Endpoint(rig, number) for number in range(processes)]
        self.command = CommandLine(
            rig.folder, {name: value for name, value in environment(rig).items() if "PKI" in name}
        )
        self.deaths = self.hits = 0
        (rig.folder / "passphrase").write_bytes(b"test passphrase")
        (rig.folder / "passphrase").chmod(0o600)
        (rig.folder / "root.pem").write_text(rig.root_pem)
        identity = rig.server_identity
        (rig.folder / "server.pem").write_text("".join(to_pem("CERTIFICATE", der) for der in identity.chain_der))
        key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (rig.folder / "server.key").write_bytes(key)
        (rig.folder / "server.key").chmod(0o600)
        for name in self.names:
            rig.add_station(name)

    def station(self, number: int) -> StationSimulator:
        name = self.names[number]
        store = StationStore(self.rig.folder / "stations" / name)
        store.set_trust(self.rig.root_pem.encode())
        store.set_password(PASSWORD)
        url = f"wss://localhost:{self.endpoints[number % len(self.endpoints)].port}"
        retry = RetryPolicy(timedelta(milliseconds=50), timedelta(milliseconds=500))
        return StationSimulator(
            url, name, store, VERSIONS[number % 3], organization="Example CSO", enrol=False, retry=retry
        )

    async def run(self, deaths: int, patience: float) -> None:
        """Live through it: *deaths* of processes and of the database, then wait for the end."""
        for endpoint in self.endpoints:
            endpoint.start()
        half = len(self.names) // 2
        self.create(RENEW, "trigger-renewal", self.names[:half])
        self.create(PASSWORDS, "set-password", self.names[half:])
        try:
            async with self.living():
                for _ in range(deaths):
                    self.supervise()
                    await self.somebody_is_worked_on()
                    await asyncio.sleep(self.random.uniform(0.0, 0.5))
                    await asyncio.to_thread(self.let_something_die)
                async with asyncio.timeout(patience):
                    while not await asyncio.to_thread(self.is_over):
                        self.supervise()
                        await asyncio.sleep(0.5)
        finally:
            for endpoint in self.endpoints:
                endpoint.kill()

    def supervise(self) -> None:
        for endpoint in self.endpoints:
            endpoint.supervise()

    def create(self, name: str, kind: str, stations: list[str]) -> None:
        chosen = [word for station in stations for word in ("--station", station)]
        pace = ("--wave", "2", "--max-in-flight", "20", "--stop-share", "never", "--deadline", "10m")
        self.command("campaign", "create", name, "--kind", kind, *chosen, *pace)

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self.station(number).run()) for number in range(len(self.names))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def somebody_is_worked_on(self) -> None:
        """Wait until a station is in the middle of it; a death hits nothing otherwise."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(self.running):
                    await asyncio.sleep(0.05)
                self.hits += 1

    def running(self) -> int:
        try:
            counts = [self.rig.inventory.count_campaign_stations(name) for name in (RENEW, PASSWORDS)]
        except UnavailableError:
            return 0
        return sum(states.get(S.RUNNING, 0) for each in counts for states in each.values())

    def let_something_die(self) -> None:
        self.deaths += 1
        if self.deaths % (1 + len(self.endpoints)) == 0:
            self.database.crash()
            self.database.start()
            return
        endpoint = self.endpoints[self.deaths % len(self.endpoints)]
        endpoint.kill()
        endpoint.start()

    def is_over(self) -> bool:
        try:
            return all(self.rig.inventory.get_campaign(name).state.is_final for name in (RENEW, PASSWORDS))
        except UnavailableError:
            return False

    def check(self) -> None:
        """What is on record is what the stations hold, and nobody was asked twice for the same thing."""
        assert self.hits, "nothing died while a station was worked on"
        inventory = self.rig.inventory
        for name in (RENEW, PASSWORDS):
            for item in inventory.list_campaign_stations(name):
                assert item.state is S.DONE, (item, self.rig.folder)
                (operation,) = inventory.list_operations(station=item.station)
                assert operation.id == item.operation and operation.sealed is None
                attempts = inventory.list_attempts(operation.id)
                # An answer that was recorded is never followed by the same message, unless a station of 1.6 lost its
                # CSR with the link: it sends that once.
                is_16 = name == RENEW and int(item.station.removeprefix("S-")) % 3 == 0
                assert is_16 or all(attempt.answered_at is None for attempt in attempts[:-1]), attempts
                store = StationStore(self.rig.folder / "stations" / item.station)
                if name == PASSWORDS:
                    assert PASSWORD not in store.passwords()[:1]
                    continue
                certificate = inventory.get_certificate(str((item.outcome or {})["certificate"]))
                # Only a station that was on profile 3 already owes a proof; it may be on its way with the new one.
                assert certificate.delivery in (Delivery.DELIVERED, Delivery.IN_USE), certificate
                assert not (item.outcome or {})["proven"] or certificate.delivery is Delivery.IN_USE
                live = [each for each in inventory.list_certificates(station=item.station) if each.state == "issued"]
                assert [each.delivery for each in live].count(Delivery.IN_USE) <= 1, live
        report = verify_log(inventory, checkpoint=None, pinned_keys=[self.rig.log_key.public])
        assert report.findings == ()


def live(
    database: PostgresqlServer, folder: Path, *, stations: int, processes: int, deaths: int, patience: float
) -> None:
    with Rig(folder, database.new_database()[1]) as rig:
        storm = Storm(rig, database, stations, processes)
        try:
            asyncio.run(storm.run(deaths, patience))
            storm.check()
        except BaseException:
            print(f"CHARGEPKI_CRASH_SEED={SEED}")
            for endpoint in storm.endpoints:
                print(endpoint.log.read_text(errors="replace")[-4000:])
            raise


@pytest.mark.campaign
@pytest.mark.timeout(240)
def test_a_small_fleet_survives_kills_and_a_restart_of_the_database(database: PostgresqlServer, tmp_path: Path) -> None:
    live(database, tmp_path, stations=6, processes=1, deaths=2, patience=150)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_200_stations_of_mixed_versions_survive_kills_and_restarts(database: PostgresqlServer, tmp_path: Path) -> None:
    live(
        database,
        tmp_path,
        stations=int(os.environ.get("CHARGEPKI_STATIONS", "200")),
        processes=2,
        deaths=30,
        patience=1800,
    )
