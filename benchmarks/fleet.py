"""A fleet of stations on security profile 3 against the real ``chargepki csms serve``, on loopback.

Used by `benchmarks.connections` and by the campaign test of the same size as a fleet. The stations are clients of the
`websockets` package in one process on uvloop: each has a key and a certificate of its own, boots, and stays connected.

Harness limits: server and stations share the machine, so wall times are upper bounds; CPU and memory are read from the
kernel's accounts of the server process alone, and nothing of the stations is in them. All connections come from
loopback addresses, over which no packet is lost or late.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import uvloop
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.fleet_process import Server
from benchmarks.fleet_servers import Kind
from benchmarks.material import ACTOR, make_authority
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import StationRecord, StationState
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key, spki_der
from chargepki.pki.pem import to_pem

__all__ = [
    "Connects", "Fleet", "Measured", "Station", "boot", "for_all", "measure_connects", "measure_fleet", "must",
    "settle",
]  # fmt: skip

_SUBJECT = (("O", "Example"), ("C", "DE"))
_AT_ONCE = 64
"""Handshakes under way: fewer than the endpoint allows one address, as from a fleet behind many addresses."""
_ADDRESSES = 16
_BATCH = 500
_TURN = 50
"""Stations that come to one kind of server before the next kind has its turn: both meet the same machine then."""
_IDLE_SECONDS = 0.02
"""CPU time in half a second of a server that does no more than look for news."""
_START_SECONDS, _AFTER_SECONDS = 3.0, 0.2
"""Until servers have started, and until they have done what follows a handshake."""


@dataclass(slots=True)
class Station:
    """One station: its identity, its credential and its connection."""

    id: str
    key: PrivateKey = field(repr=False)
    chain_pem: str = field(repr=False)
    certificate_id: str
    socket: ClientConnection | None = None
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured; CPU in seconds of the server process, memory in octets."""

    stations: int
    connect_wall: float
    boot_cpu: float
    resident_bytes: int
    """Of the server after every BootNotification was answered."""
    storm_wall: float
    """All connections dropped at once: until every station was back."""
    storm_lost: int
    revocations: int
    revocation_p50: float
    """Seconds from the return of the revocation to the closed connection, all stations connected."""
    revocation_p99: float
    latencies: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Connects:
    """CPU seconds of the server process for one connection, a figure for each turn of `_TURN` stations."""

    seconds: Mapping[Kind, tuple[float, ...]]
    again: tuple[float, ...]
    """`Kind.CHECKS` once more, for stations that had been there before."""


class Fleet:
    """A workspace with stations on record and certified, and a server over it. Use it with `with`.

    Args:
        count: number of stations.
    """

    def __init__(self, count: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.folder.chmod(0o700)
        self.authority: Authority = make_authority(self.folder)
        inventory = self.authority.inventory
        self.root_pem = to_pem("CERTIFICATE", inventory.get_ca("root").certificate_der or b"")
        self.stations: list[Station] = []
        self._make_stations(count)
        self._make_server_certificate()
        self.server: Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_server()
        self.authority.inventory.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_stations(self, count: int) -> None:
        now = datetime.now(UTC)
        names = [f"FLEET-{number:05d}" for number in range(count)]
        inventory = self.authority.inventory
        for start in range(0, count, _BATCH):
            batch = names[start : start + _BATCH]

            def add(tx: Transaction, batch: Sequence[str] = batch) -> None:
                for name in batch:
                    tx.add_station(StationRecord(name, name, "Example", 3, StationState.ACTIVE, now))
                    tx.audit(ACTOR, "station.add", name, now=now)

            inventory.write(add)
            keys = [generate_private_key(KeyAlgorithm.SECP256R1) for _ in batch]
            orders = [
                IssueOrder(
                    ca="sub",
                    profile="ocpp/charging-station",
                    spki=spki_der(key),
                    subject=(("CN", name), *_SUBJECT),
                    station=name,
                )
                for name, key in zip(batch, keys, strict=True)
            ]
            for name, key, made in zip(batch, keys, self.authority.issue_many(orders), strict=True):
                if isinstance(made, ChargePkiError):
                    raise made
                chain = "".join(to_pem("CERTIFICATE", each) for each in made.chain)
                self.stations.append(Station(name, key, chain, made.record.id))

    def _make_server_certificate(self) -> None:
        key = generate_private_key(KeyAlgorithm.SECP256R1)
        subject = (("CN", "localhost"), *_SUBJECT)
        order = IssueOrder(ca="sub", profile="ocpp/csms", spki=spki_der(key), subject=subject, dns_names=("localhost",))
        chain = self.authority.issue(order).chain
        (self.folder / "server.pem").write_text("".join(to_pem("CERTIFICATE", each) for each in chain))
        (self.folder / "server.key").write_bytes(_pem(key))
        (self.folder / "server.key").chmod(0o600)
        (self.folder / "trust.pem").write_text(self.root_pem)

    # -- the server -----------------------------------------------------------------------------------------------

    def start_server(self, *more: str) -> None:
        """Start ``csms serve`` as its user would, with *more* words."""
        command = [
            *(str(Path(sys.executable).with_name("chargepki")), "--home", str(self.folder), "--json"),
            *("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "3"),
            *("--tls-cert", str(self.folder / "server.pem"), "--tls-key", str(self.folder / "server.key")),
            *("--client-trust", str(self.folder / "trust.pem"), *more),
        ]
        self._start(command)

    def start(self, kind: Kind) -> Server:
        """Start one of the servers that are compared, and speak with it from now on."""
        if kind is Kind.SERVE:
            self.start_server()
        else:
            self._start([sys.executable, "-m", "benchmarks.fleet_servers", kind.value, str(self.folder)])
        assert self.server is not None
        return self.server

    def _start(self, command: Sequence[str]) -> None:
        log = (self.folder / "server.log").open("a")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).resolve().parent.parent
        )
        log.close()
        assert process.stdout is not None
        text = ""
        while True:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            text += line
            try:
                self.server = Server(process, int(json.loads(text)["port"]))
                return
            except ValueError:
                continue

    def stop_server(self) -> None:
        """End the server that was started last."""
        if self.server is not None:
            self.server.stop()
            self.server = None

    @property
    def port(self) -> int:
        """Port of the server that is spoken with."""
        assert self.server is not None
        return self.server.port

    @property
    def cpu(self) -> float:
        """CPU seconds that the server process has used."""
        assert self.server is not None
        return self.server.cpu

    @property
    def resident(self) -> int:
        """Resident memory of the server process, octets."""
        assert self.server is not None
        return self.server.resident

    def keep(self, station: Station) -> None:
        """Keep the station's connection open beside its next one."""
        assert station.socket is not None
        self._kept.append(station.socket.transport)
        station.socket = None

    def hang_up(self) -> None:
        """Drop every connection from the stations' side."""
        for transport in self._kept:
            transport.abort()  # type: ignore[attr-defined]  # every TLS transport has it
        self._kept.clear()
        for station in self.stations:
            if station.socket is not None:
                station.socket.transport.abort()
                station.socket = None

    # -- the stations ---------------------------------------------------------------------------------------------

    def context(self, station: Station) -> ssl.SSLContext:
        """Return the client context of one station."""
        context = ssl.create_default_context(cadata=self.root_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.NamedTemporaryFile("wb", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
            file.write(_pem(station.key) + station.chain_pem.encode())
            file.flush()
            context.load_cert_chain(file.name)
        return context

    async def connect(self, station: Station) -> None:
        """Open the station's connection; its previous one is forgotten."""
        source = f"127.0.0.{2 + hash(station.id) % _ADDRESSES}"
        station.closed_at = None
        station.socket = await connect(
            f"wss://localhost:{self.port}/ocpp/{station.id}",
            host="127.0.0.1",
            local_addr=(source, 0),
            ssl=self.context(station),
            subprotocols=["ocpp2.0.1"],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            ping_interval=None,
            open_timeout=60,
            max_queue=2,
        )

    def chargepki(self, *words: str) -> str:
        """Run a command on the workspace as its user would, and return what it prints."""
        command = [str(Path(sys.executable).with_name("chargepki")), "--home", str(self.folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    async def handshake(self, station: Station) -> None:
        """Do a TLS handshake with the bare reference and keep the connection."""
        loop = asyncio.get_running_loop()
        source = f"127.0.0.{2 + hash(station.id) % _ADDRESSES}"
        transport, protocol = await loop.create_connection(
            _Ready,
            "127.0.0.1",
            self.port,
            ssl=self.context(station),
            server_hostname="localhost",
            local_addr=(source, 0),
        )
        # Under TLS 1.3 the client is through before the server has seen its certificate; the server says when it has.
        await asyncio.wait_for(protocol.ready, 60)
        self._kept.append(transport)

    _kept: list[asyncio.BaseTransport] = []  # noqa: RUF012 - closed with the process


class _Ready(asyncio.Protocol):
    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed"))


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def for_all(stations: Sequence[Station], work: object, *, at_once: int = _AT_ONCE) -> list[BaseException]:
    """Do *work* for each station, so many at once; return what failed."""
    room = asyncio.Semaphore(at_once)
    failures: list[BaseException] = []

    async def one(station: Station) -> None:
        async with room:
            try:
                await work(station)  # type: ignore[operator]  # an async function of one station
            except Exception as error:  # noqa: BLE001 - counted and shown: a lost station is a finding
                failures.append(error)

    await asyncio.gather(*(one(station) for station in stations))
    return failures


async def boot(station: Station) -> None:
    assert station.socket is not None
    payload = {
        "reason": "PowerUp",
        "chargingStation": {"model": "M", "vendorName": "V", "serialNumber": station.id},
    }
    await station.socket.send(json.dumps([2, "b", "BootNotification", payload]))
    while True:
        answer = json.loads(await asyncio.wait_for(station.socket.recv(), 60))
        if answer[0] == 3 and answer[1] == "b":
            assert answer[2]["status"] == "Accepted", answer
            return


async def _watch(station: Station) -> None:
    assert station.socket is not None
    await station.socket.wait_closed()
    station.closed_at = time.perf_counter()


def measure_fleet(count: int, *, revocations: int, storm: bool = True) -> Measured:
    """Measure everything once with *count* stations.

    Raises:
        RuntimeError: a station could not connect or boot.
    """
    with Fleet(count) as fleet, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(fleet, revocations, storm))


def measure_connects(count: int, *, rounds: int) -> Connects:
    """Measure what it costs each kind of server until *count* stations are connected.

    In each round every kind is started anew. The kinds take turns with a few stations each, in changing order, so that
    what they are compared with is measured within the same second.

    Raises:
        RuntimeError: a station could not connect.
    """
    with Fleet(count) as fleet, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure_connects(fleet, rounds))


async def _measure_connects(fleet: Fleet, rounds: int) -> Connects:
    found: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    again: list[float] = []
    for number in range(rounds):
        servers: dict[Kind, Server] = {}
        try:
            for kind in Kind:
                servers[kind] = fleet.start(kind)
            await asyncio.sleep(_START_SECONDS)
            for place, start in enumerate(range(0, len(fleet.stations), _TURN)):
                stations = fleet.stations[start : start + _TURN]
                for kind in list(Kind) if (number + place) % 2 == 0 else reversed(Kind):
                    fleet.server = servers[kind]
                    found[kind].append(await _connect_all(fleet, kind, stations))
                    if kind is Kind.CHECKS:
                        again.append(await _connect_all(fleet, kind, stations))
        finally:
            fleet.hang_up()
            fleet.server = None
            for server in servers.values():
                server.stop()
    return Connects({kind: tuple(seconds) for kind, seconds in found.items()}, tuple(again))


async def _connect_all(fleet: Fleet, kind: Kind, stations: Sequence[Station]) -> float:
    """Return the CPU seconds of the server for one of *stations*, all of which connect and stay."""
    before = fleet.cpu
    must(await for_all(stations, fleet.handshake if kind is Kind.BARE else fleet.connect))
    await asyncio.sleep(_AFTER_SECONDS)
    used = fleet.cpu - before
    for station in stations:
        if station.socket is not None:
            fleet.keep(station)
    return used / len(stations)


async def _measure(fleet: Fleet, revocations: int, storm: bool) -> Measured:
    stations = fleet.stations
    fleet.start_server()
    await settle(fleet)
    started = time.perf_counter()
    must(await for_all(stations, fleet.connect))
    connect_wall = time.perf_counter() - started
    before = fleet.cpu
    must(await for_all(stations, boot))
    boot_cpu = fleet.cpu - before
    resident = fleet.resident

    storm_wall, lost = 0.0, 0
    if storm:
        for station in stations:
            assert station.socket is not None
            station.socket.transport.abort()
        started = time.perf_counter()
        # Everybody at once, as after a power cut; who is turned away comes back after a while, as stations do.
        waiting = list(stations)
        for _ in range(5):
            await for_all(waiting, fleet.connect, at_once=512)
            waiting = [each for each in waiting if each.socket is None or each.socket.state.name != "OPEN"]
            if not waiting:
                break
            await asyncio.sleep(1)
        lost, storm_wall = len(waiting), time.perf_counter() - started

    watchers = [asyncio.create_task(_watch(station)) for station in stations[:revocations]]
    latencies = []
    for station, watcher in zip(stations, watchers, strict=False):
        await asyncio.to_thread(fleet.authority.revoke, station.certificate_id, "keyCompromise")
        done = time.perf_counter()
        # A connection that is never closed counts with 30 seconds.
        await asyncio.wait([watcher], timeout=30)
        latencies.append((station.closed_at or done + 30) - done)
    for task in watchers:
        task.cancel()
    ordered = sorted(latencies)
    for station in stations:
        if station.socket is not None:
            station.socket.transport.abort()
    return Measured(
        stations=len(stations),
        connect_wall=connect_wall,
        boot_cpu=boot_cpu,
        resident_bytes=resident,
        storm_wall=storm_wall,
        storm_lost=lost,
        revocations=revocations,
        revocation_p50=ordered[len(ordered) // 2],
        revocation_p99=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        latencies=tuple(ordered),
    )


async def settle(fleet: Fleet) -> None:
    """Wait until the start of the server is over, so that it is not counted."""
    last = -1.0
    while fleet.cpu - last > _IDLE_SECONDS:
        last = fleet.cpu
        await asyncio.sleep(0.5)


def must(failures: Sequence[BaseException]) -> None:
    if failures:
        raise RuntimeError(f"{len(failures)} stations failed; the first: {failures[0]!r}")
