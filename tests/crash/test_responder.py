"""`serve` is killed, and PostgreSQL too, under load: no answer is wrong, and memory stays what it was."""

from __future__ import annotations

import http.client
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.crash_postgresql import PostgresqlServer
from testkit.responder_storm import Storm, resident_bytes

CHAOS_SECONDS = float(os.environ.get("CHARGEPKI_CHAOS_SECONDS", "300"))
SOAK_SECONDS = float(os.environ.get("CHARGEPKI_SOAK_SECONDS", "1800"))


def rage(
    storm: Storm, seconds: float, disasters: list[Callable[[], None]], pause: float, *, between: float = 0.0
) -> None:
    """Revoke one certificate after the other, with a disaster before every second one."""
    waiting, done = list(storm.certificates[: storm.count - 4]), 0
    deadline = time.monotonic() + seconds
    try:
        storm.ask_for_ever(pause=between)
        # On a busy machine starting a server again takes seconds: each disaster comes at least twice all the same.
        while (time.monotonic() < deadline or done < 4 * len(disasters)) and not storm.wrong:
            if done % 2 == 0:
                disasters[done // 2 % len(disasters)]()
            done += 1
            if waiting and storm.revoke(waiting[0]):
                del waiting[0]
            time.sleep(pause)
        assert storm.wrong == []
        # The last word on each: revoked ones are told as such, by whoever is left.
        for certificate in list(storm.acknowledged)[-3:]:
            assert storm.statuses["REVOKED"] > 0, certificate
    finally:
        storm.stop()
    assert storm.wrong == []
    assert len(storm.acknowledged) >= 3 and storm.statuses["GOOD"] > 50 and storm.statuses["REVOKED"] > 20
    assert "Traceback" not in storm.said(), storm.said()[-3000:]


@pytest.mark.slow
def test_no_wrong_answer_while_processes_and_postgresql_die(tmp_path: Path, server: PostgresqlServer) -> None:
    chance = random.Random(7)

    def power_cut() -> None:
        server.crash()
        time.sleep(0.3)
        server.start()

    storm = Storm(tmp_path, server.new_database()[1], count=16)
    rage(storm, 8.0, [lambda: storm.kill_one(chance), power_cut, server.disconnect_all], 0.4, between=0.004)


@pytest.mark.campaign
@pytest.mark.timeout(CHAOS_SECONDS + 900)
def test_campaign_of_deaths_on_sqlite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(8)
    storm = Storm(tmp_path, f"sqlite:///{tmp_path}/inventory.db", count=400)
    rage(storm, CHAOS_SECONDS, [lambda: storm.kill_one(chance)], CHAOS_SECONDS / 400)
    with capsys.disabled():
        print(f"\n{dict(storm.statuses)}, {len(storm.acknowledged)} revocations")


@pytest.mark.campaign
@pytest.mark.timeout(CHAOS_SECONDS + 900)
def test_campaign_of_deaths_on_postgresql(
    tmp_path: Path, server: PostgresqlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(9)

    def power_cut() -> None:
        server.crash()
        time.sleep(chance.random())
        server.start()

    storm = Storm(tmp_path, server.new_database()[1], count=400)
    disasters = [lambda: storm.kill_one(chance), power_cut, server.disconnect_all]
    rage(storm, CHAOS_SECONDS, disasters, CHAOS_SECONDS / 400)
    with capsys.disabled():
        print(f"\n{dict(storm.statuses)}, {len(storm.acknowledged)} revocations")


@pytest.mark.campaign
@pytest.mark.timeout(SOAK_SECONDS + 300)
def test_campaign_soak_has_constant_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers, nonces, lists, staples, unknown serials, rubbish, idle peers, new and revoked certificates.

    What is remembered has a bound: about answers it is set so low that the first minutes reach it.
    """
    storm = Storm(tmp_path, f"sqlite:///{tmp_path}/inventory.db", count=200, options=("--answer-memory-mib", "1"))
    chance = random.Random(1)
    samples: list[tuple[float, list[int]]] = []
    idle: list[socket.socket] = []
    began = time.monotonic()
    try:
        storm.ask_for_ever(3)
        while (passed := time.monotonic() - began) < SOAK_SECONDS and not storm.wrong:
            harass(storm.port, chance, idle, storm.certificates)
            if chance.random() < 0.05:
                storm.issue(chance.randrange(1 << 30))
            if chance.random() < 0.01:
                storm.revoke(chance.choice(storm.certificates[:100]))
            if not samples or passed - samples[-1][0] >= min(5.0, SOAK_SECONDS / 40):
                samples.append((passed, [resident_bytes(pid) for pid in storm.children()]))
            time.sleep(0.05)
        answers_bytes = storm.gauge("ocsp_memory_bytes")
    finally:
        for sock in idle:
            sock.close()
        storm.stop()
    assert storm.wrong == []
    rows = [row for _, row in samples]
    parts = [rows[len(rows) * part // 10 : max(len(rows) * (part + 1) // 10, 1)] for part in range(10)]
    most = [[max(column) for column in zip(*part, strict=True)] for part in parts]
    with capsys.disabled():
        print(f"\nsoak of {SOAK_SECONDS:.0f} s: {sum(storm.statuses.values())} answers {dict(storm.statuses)};")
        print("most resident MB of each process in each tenth of the time:")
        for row in [rows[0], *most]:
            print("  " + "  ".join(f"{value / 1e6:6.1f}" for value in row))
        print(f"prepared answers in memory of both processes: {answers_bytes / 1e6:.2f} MB")
    assert answers_bytes <= storm.workers << 20
    # What fills at first is bounded: 2 MB of pages for each connection to SQLite, and what Python's allocator asks for
    # by the MiB until it has enough. From the sixth tenth on nothing may grow by more than one such piece.
    for before, after in zip(most[6], most[-1], strict=True):
        assert after <= before * 1.01 + (1 << 20), (before, after)


def harass(port: int, chance: random.Random, idle: list[socket.socket], certificates: list[str]) -> None:
    """Behave badly once, and ask for what is no OCSP."""
    if len(idle) > 100:
        idle.pop(0).close()
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    begun = b"POST /ocsp HTTP/1.1\r\nContent-Length: 99\r\n\r\nx"
    sock.sendall(chance.choice([b"", b"GET / HT", begun, b"\x16\x03\x01"]))
    idle.append(sock)
    ca, _, serial = chance.choice(certificates).partition(":")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        # Each of them another request, so that nothing that is remembered by request may grow for ever.
        connection.request("POST", "/ocsp", b"0" + chance.randbytes(40))
        connection.getresponse().read()
        for path in (f"ocsp/{chance.randbytes(30).hex()}", f"crl/{ca}.crl", f"staples/{ca}/{serial}.ocsp"):
            connection.request("GET", f"/{path}")
            connection.getresponse().read()
    finally:
        connection.close()
