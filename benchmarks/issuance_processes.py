"""Two processes that issue from one PostgreSQL database: what does each keep of what it could do alone?

The processes live through all rounds. In each round one of them works alone, then both do; who is alone alternates. CPU
time is that of the issuing processes; what the server of the database takes is on no account here.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.bulk import postgresql_url
from benchmarks.harness import Comparison, Limit, Timing
from benchmarks.material import make_authority, make_request, open_authority
from chargepki.pki.authority import IssuedCertificate, IssueOrder

__all__ = ["compare_processes"]

_BATCH = 256
_BATCHES = 2
"""In each round."""

_Spent = tuple[float, float]
"""CPU and wall seconds for each certificate."""


def compare_processes(folder: Path, *, rounds: int) -> Comparison:
    """Return the CPU for a certificate in each of two processes, against that of one that is alone."""
    url = postgresql_url("issuance")
    make_authority(folder, url).inventory.close()
    # Not forked: the caller has threads and connections.
    started = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    workers = []
    for number in range(2):
        ours, theirs = started.Pipe()
        worker = started.Process(target=_work, args=(folder, url, number, rounds, theirs), daemon=True)
        worker.start()
        theirs.close()
        ends.append(ours)
        workers.append(worker)
    try:
        for end in ends:
            end.recv()
        alone: list[_Spent] = []
        together: list[_Spent] = []
        walls: list[float] = []
        for turn in range(rounds):
            (single,) = _round(ends[turn % 2 : turn % 2 + 1])
            began = time.perf_counter()
            both = _round(ends)
            wall = (time.perf_counter() - began) / (2 * _BATCH * _BATCHES)
            alone.append(single)
            together.append((statistics.mean(cpu for cpu, _ in both), wall))
            walls.append(wall / single[1])
    finally:
        for end in ends:
            end.close()
        for worker in workers:
            worker.join()
    ratios = [two[0] / one[0] for one, two in zip(alone, together, strict=True)]
    return Comparison(
        question="certificates of each of two processes on PostgreSQL",
        subject=_timing("each of two processes", together, 2),
        reference=_timing("one process alone", alone, 1),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=rounds,
        limit=Limit(1 / 0.85, "each keeps at least 85 % of a single one's certificates per client CPU-second"),
        wall_ratio=statistics.median(walls),
    )


def _timing(name: str, spent: Sequence[_Spent], processes: int) -> Timing:
    cpu = [each[0] for each in spent]
    operations = len(spent) * processes * _BATCH * _BATCHES
    return Timing(name, operations, statistics.median(cpu), min(cpu), statistics.median(each[1] for each in spent))


def _round(ends: Sequence[Connection]) -> list[_Spent]:
    for end in ends:
        end.send(None)
    return [end.recv() for end in ends]


def _work(folder: Path, url: str, number: int, rounds: int, end: Connection) -> None:
    """Issue a round whenever the other end says so, until it closes."""
    # One round of each alone or together: at most two a turn.
    made = (
        [make_request(f"P{number}-{turn:02}-{each:05}") for each in range(_BATCH * _BATCHES)]
        for turn in range(2 * rounds)
    )
    supply = iter([[order(pem) for pem in pems] for pems in made])
    authority = open_authority(folder, url)
    try:
        for answer in authority.issue_many([order(make_request(f"WARM-{number}-{each}")) for each in range(8)]):
            assert isinstance(answer, IssuedCertificate), answer
        end.send(None)
        while True:
            end.recv()
            orders = next(supply)
            cpu, wall = time.process_time(), time.perf_counter()
            for start in range(0, len(orders), _BATCH):
                for answer in authority.issue_many(orders[start : start + _BATCH]):
                    assert isinstance(answer, IssuedCertificate) and not answer.repeated, answer
            spent = (time.process_time() - cpu, time.perf_counter() - wall)
            end.send((spent[0] / len(orders), spent[1] / len(orders)))
    except EOFError:
        return
    finally:
        authority.inventory.close()


def order(pem: bytes) -> IssueOrder:
    """Return the order for a request."""
    return IssueOrder(ca="sub", profile="ocpp/charging-station", csr=pem)
