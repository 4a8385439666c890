"""The frame fuzzer against a real endpoint: stations stay served, and no secret reaches log, events or audit."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import product
from random import Random
from typing import ClassVar, NamedTuple

import orjson
import pytest

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.versions import OcppVersion, Role
from chargepki.pki.errors import ChargePkiError
from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.frame_fuzz import make_frame, stands_elsewhere
from testkit.ocpp_peers import open_socket

CAMPAIGN_SECONDS = float(os.environ.get("CHARGEPKI_FUZZ_SECONDS", "600")) / 2
# After fifty invalid messages within a minute the CSMS hangs up, as it should.
FRAMES_A_CONNECTION = 40
# As the fuzzer makes them; nothing else looks so.
SECRET = re.compile("Zq[ghjkmnpqrtvwxyz23456789]{14}")
HEARTBEAT = '[2,"still-alive","Heartbeat",{}]'


class _Watcher(logging.Handler):
    """Looks for secrets in every log record, and for bugs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.secrets: set[str] = set()
        self.found: list[str] = []
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        text = self.format(record)
        if record.exc_info or ("Zq" in text and any(secret in text for secret in self.secrets)):
            self.found.append(text)


async def fuzz(
    rig: Rig, server: CsmsServer, version: OcppVersion, random: Random, frames: int, watcher: _Watcher
) -> Counter[str]:
    """Send *frames* frames in connections of forty each; every connection must answer a Heartbeat at its end."""
    seen: Counter[str] = Counter()
    for _ in range(0, frames, FRAMES_A_CONNECTION):
        name = f"FUZZ-{version.value}"
        socket = await open_socket(rig.url_of(server), name, protocols=(version.value,), password=PASSWORD)
        watcher.secrets = set()
        for _ in range(FRAMES_A_CONNECTION):
            frame = make_frame(version, Role.CSMS, random)
            if len(frame.text) > 200_000:
                continue
            if frame.planted and not stands_elsewhere(frame):
                watcher.secrets.add(frame.secret)
            text = frame.text
            await socket.send(text if isinstance(text, bytes) else text.encode("utf-8", "replace").decode())
            seen["frames"] += 1
        await socket.send(HEARTBEAT)
        while True:
            answer = orjson.loads(await asyncio.wait_for(socket.recv(), 60))
            seen[f"type {answer[0]}"] += 1
            if answer[1] == "still-alive":
                break
            assert not any(secret in json.dumps(answer) for secret in watcher.secrets), answer
        await socket.close()
        assert not watcher.found, watcher.found[0][:2000]
    return seen


def secrets_stored(rig: Rig) -> list[str]:
    """Return the fuzzer's secrets that the inventory holds anywhere about events and in the audit log."""
    found = SECRET.findall(repr(rig.inventory.list_event_series(limit=100_000)))
    after = 0
    while entries := rig.inventory.list_audit(after_seq=after):
        found += SECRET.findall(repr(entries))
        after = entries[-1].seq
    return found


def run(
    rig: Rig, *, seed: int, frames: int, seconds: float = 0, after_round: Callable[[], None] | None = None
) -> Counter[str]:
    watcher = _Watcher()
    logger = logging.getLogger("chargepki")
    before = logger.level
    logger.addHandler(watcher)
    logger.setLevel(logging.DEBUG)
    # The capture of the test runner would keep every line in memory.
    logger.propagate = False
    total: Counter[str] = Counter()

    async def story() -> None:
        async with rig.server(1) as server:
            rounds, end = 0, time.process_time() + seconds
            while rounds == 0 or time.process_time() < end:
                for version in OcppVersion:
                    random = Random(f"{seed}/{rounds}/{version}")
                    total.update(await fuzz(rig, server, version, random, frames, watcher))
                rounds += 1
                if after_round is not None:
                    after_round()

    try:
        for version in OcppVersion:
            if rig.inventory.find_station(f"FUZZ-{version.value}") is None:
                rig.add_station(f"FUZZ-{version.value}", profile=1)
        if seconds:
            asyncio.run(story())
        else:
            run_on("uvloop", story())
    finally:
        logger.removeHandler(watcher)
        logger.setLevel(before)
        logger.propagate = True
    total["log lines"] = watcher.lines
    return total


def test_fuzzed_stations_stay_served_and_leave_no_secret(rig: Rig) -> None:
    seen = run(rig, seed=3, frames=80)
    assert seen["frames"] > 200
    assert seen["type 4"] > 50
    assert seen["log lines"] > 400
    assert secrets_stored(rig) == []


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_against_an_endpoint(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("CHARGEPKI_FUZZ_SEED", "0")) or int(time.time())
    # Compiled on first use and there to stay: 774 validators take 21 MiB, which is no matter of how many frames come.
    for version in OcppVersion:
        for action in schemas.actions(version):
            for kind, sending in product(schemas.Kind, (False, True)):
                with contextlib.suppress(ChargePkiError):
                    schemas.check_payload(version, action, kind, {}, sending=sending)
    sizes: list[_Sizes] = []
    seen = run(rig, seed=seed, frames=400, seconds=CAMPAIGN_SECONDS, after_round=lambda: sizes.append(_sizes()))
    # The first round is not counted: a server keeps the memory in which it hashed its first passwords, 19 MiB each.
    sizes = sizes[1:]
    shown = sizes[:: max(1, len(sizes) // 6)]
    with capsys.disabled():
        print(f"\nendpoint fuzz, seed {seed}, {CAMPAIGN_SECONDS:.0f} CPU-seconds of CSMS and stations in one process")
        print(dict(sorted(seen.items())))
        for resident, used, objects in shown:
            print(f"resident {resident / 2**20:.1f} MiB, of it in use {used / 2**20:.1f} MiB, {objects} objects")
    assert secrets_stored(rig) == []
    # What a leak takes grows with the frames; pools of the allocator come to an end.
    assert sizes[-1].resident - sizes[0].resident < 64 * 2**20
    assert sizes[-1].resident - sizes[len(sizes) // 2].resident < 24 * 2**20


class _Sizes(NamedTuple):
    resident: int
    """Octets, after the allocator gave back what it could."""
    used: int
    """Octets that the C library has handed out and not got back."""
    objects: int
    """That the collector of Python knows."""


def _sizes() -> _Sizes:
    gc.collect()
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    library.mallinfo2.restype = _Mallinfo
    found = library.mallinfo2()
    with open("/proc/self/statm") as stream:
        resident = int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return _Sizes(resident, int(found.uordblks) + int(found.hblkhd), len(gc.get_objects()))


class _Mallinfo(ctypes.Structure):
    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *(
                "arena",
                "ordblks",
                "smblks",
                "hblks",
                "hblkhd",
                "usmblks",
                "fsmblks",
                "uordblks",
                "fordblks",
                "keepcost",
            ),
        )
    ]
