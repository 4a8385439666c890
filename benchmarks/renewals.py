"""A wave of renewals in a connected fleet: how long it takes, and what the rest of the fleet notices of it.

Used by the campaign test of a whole fleet. The server is the real ``chargepki csms serve --issue-here``, the campaign
is created by the command; stations answer the trigger, make a key and a CSR, take the certificate and come back with
it, which is what proves it. See `benchmarks.fleet` for the limits of the harness.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from benchmarks.fleet import Fleet, Station, boot, for_all, must, settle
from chargepki.pki.inventory.records import CertificateState, Delivery
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key

__all__ = ["MeasuredWave", "measure_wave"]

_CAMPAIGN = "wave"
_PROBES = 50
"""Stations that take no part and send a Heartbeat all the while."""


@dataclass(frozen=True, slots=True)
class MeasuredWave:
    """What was measured; seconds, CPU of the server process alone, memory in octets."""

    stations: int
    renewals: int
    wall: float
    """From the creation of the campaign until each of its stations was settled."""
    cpu: float
    trigger_to_certificate_p50: float
    trigger_to_certificate_p99: float
    heartbeat_p50: float
    """Of stations that take no part, while the wave goes on."""
    heartbeat_p99: float
    resident_before: int
    resident_after: int
    closed: int
    """Connections of stations that take no part, which the server closed."""
    triggers: Counter[str] = field(repr=False)
    """How often each station was triggered."""
    states: Counter[str] = field(default_factory=Counter)
    """How the stations of the campaign ended."""
    in_use: int = 0
    """Stations of the wave with exactly one new certificate, proven by a connection, and their old one superseded."""


class _Wave:
    def __init__(self, fleet: Fleet, chosen: Sequence[Station]) -> None:
        self.fleet, self.chosen = fleet, chosen
        self.triggers: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.heartbeats: list[float] = []

    async def renew(self, station: Station) -> None:
        """Be a station of the wave: until it has come back with a new certificate."""
        key, asked = generate_private_key(KeyAlgorithm.SECP256R1), 0.0
        while True:
            assert station.socket is not None
            frame = json.loads(await station.socket.recv())
            if frame[0] != 2:
                continue
            if frame[2] == "TriggerMessage":
                self.triggers[station.id] += 1
                asked = time.perf_counter()
                await station.socket.send(json.dumps([3, frame[1], {"status": "Accepted"}]))
                request = {"csr": _csr(station.id, key), "certificateType": "ChargingStationCertificate"}
                await station.socket.send(json.dumps([2, "csr", "SignCertificate", request]))
            elif frame[2] == "CertificateSigned":
                self.latencies.append(time.perf_counter() - asked)
                await station.socket.send(json.dumps([3, frame[1], {"status": "Accepted"}]))
                station.key, station.chain_pem = key, frame[3]["certificateChain"]
                await station.socket.close()
                await self.fleet.connect(station)
                return

    async def beat(self, station: Station, stop: asyncio.Event) -> None:
        """Be a station that takes no part."""
        number = 0
        while not stop.is_set():
            assert station.socket is not None
            number += 1
            began = time.perf_counter()
            await station.socket.send(json.dumps([2, f"h{number}", "Heartbeat", {}]))
            await asyncio.wait_for(station.socket.recv(), 60)
            self.heartbeats.append(time.perf_counter() - began)
            await asyncio.sleep(1)


def _csr(name: str, key: PrivateKey) -> str:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode("ascii")


def measure_wave(stations: int, renewals: int, *, patience: float) -> MeasuredWave:
    """Connect *stations*, and renew *renewals* of them in one wave.

    Args:
        patience: seconds until the wave has to be over.

    Raises:
        RuntimeError: a station could not connect or boot.
        TimeoutError: the wave was not over in time.
    """
    with Fleet(stations) as fleet, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(fleet, renewals, patience))


async def _measure(fleet: Fleet, renewals: int, patience: float) -> MeasuredWave:
    passphrase = fleet.folder / "passphrase"
    passphrase.write_bytes(b"benchmark")
    passphrase.chmod(0o600)
    fleet.start_server(
        "--issue", "ChargingStationCertificate=sub", "--issue-here", "--passphrase-file", str(passphrase)
    )
    await settle(fleet)
    must(await for_all(fleet.stations, fleet.connect))
    must(await for_all(fleet.stations, boot))
    chosen, rest = fleet.stations[:renewals], fleet.stations[renewals:]
    wave, stop = _Wave(fleet, chosen), asyncio.Event()
    before, cpu = fleet.resident, fleet.cpu
    probes = [asyncio.create_task(wave.beat(each, stop)) for each in rest[:_PROBES]]
    renewing = [asyncio.create_task(wave.renew(each)) for each in chosen]
    listed = fleet.folder / "wave.txt"
    listed.write_text("".join(f"{each.id}\n" for each in chosen))
    began = time.perf_counter()
    await asyncio.to_thread(_create, fleet, listed, renewals)
    try:
        async with asyncio.timeout(patience):
            await asyncio.gather(*renewing)
            while await asyncio.to_thread(_is_open, fleet):  # noqa: ASYNC110 - it ends in another process
                await asyncio.sleep(0.2)
    finally:
        stop.set()
        for task in renewing:
            task.cancel()
    wall, cpu, after = time.perf_counter() - began, fleet.cpu - cpu, fleet.resident
    await asyncio.gather(*probes)
    closed = sum(each.socket is None or each.socket.state.name != "OPEN" for each in rest)
    for each in fleet.stations:
        if each.socket is not None:
            each.socket.transport.abort()
    inventory = fleet.authority.inventory
    return MeasuredWave(
        stations=len(fleet.stations),
        renewals=renewals,
        wall=wall,
        cpu=cpu,
        trigger_to_certificate_p50=_share(wave.latencies, 0.5),
        trigger_to_certificate_p99=_share(wave.latencies, 0.99),
        heartbeat_p50=_share(wave.heartbeats, 0.5),
        heartbeat_p99=_share(wave.heartbeats, 0.99),
        resident_before=before,
        resident_after=after,
        closed=closed,
        triggers=wave.triggers,
        states=Counter(item.state.value for item in inventory.list_campaign_stations(_CAMPAIGN)),
        in_use=sum(_is_renewed(fleet, each) for each in chosen),
    )


def _create(fleet: Fleet, listed: Path, renewals: int) -> None:
    pace = ("--max-in-flight", str(renewals), "--stop-share", "never", "--wave", str(renewals), "--deadline", "1h")
    fleet.chargepki(
        "campaign", "create", _CAMPAIGN, "--kind", "trigger-renewal", "--stations-file", str(listed), *pace,
        "--passphrase-file", os.fspath(fleet.folder / "passphrase"),
    )  # fmt: skip


def _is_open(fleet: Fleet) -> bool:
    return not fleet.authority.inventory.get_campaign(_CAMPAIGN).state.is_final


def _is_renewed(fleet: Fleet, station: Station) -> bool:
    held: dict[str, Any] = {
        item.id: (item.state, item.delivery) for item in fleet.authority.inventory.list_certificates(station=station.id)
    }
    old = held.pop(station.certificate_id)
    good = (CertificateState.ISSUED, Delivery.IN_USE)
    return old == (CertificateState.ISSUED, Delivery.SUPERSEDED) and list(held.values()) == [good]


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
