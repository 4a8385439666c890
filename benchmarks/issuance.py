"""How many certificates does a CPU-second pay for: against the floor, and against other CAs?

The floor is what nobody can do without: verify one request, and sign once. Everything else that issuing means is on our
side of the comparison: policy, lint, two audit entries, two durable commits. Each round has requests of its own, with
keys that nobody has seen, made before the clock runs. Threads share their commits; the CPU time of all of them counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Comparison, Limit, Timing, compare, main
from benchmarks.issuance_peers import Peer, find_peers
from benchmarks.issuance_processes import compare_processes
from benchmarks.material import make_authority, make_request
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder

REQUESTS = 512
"""As many as `cert issue-batch` takes to two commits in a large folder."""
ROUNDS = 7
THREADS = 32
ONE_BY_ONE = 64


def floor(requests: Sequence[bytes]) -> Callable[[], None]:
    """Return what nobody can do without: parse and verify each request, and one signature with the CA's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    message = bytes(600)  # about the size of what is signed

    def run() -> None:
        for pem in requests:
            assert x509.load_pem_x509_csr(pem).is_signature_valid
            key.sign(message, ec.ECDSA(hashes.SHA256()))

    return run


def orders_of(requests: Sequence[bytes], *, again: bool = False) -> list[IssueOrder]:
    """Return one order for each request."""
    return [IssueOrder(ca="sub", profile="ocpp/charging-station", csr=pem, again=again) for pem in requests]


def issue(authority: Authority, rounds: Iterator[Sequence[bytes]], batch: int) -> Callable[[], None]:
    """Return what issues for each request of the next round, *batch* of them in one call."""

    def run() -> None:
        orders = orders_of(next(rounds))
        for start in range(0, len(orders), batch):
            for answer in authority.issue_many(orders[start : start + batch]):
                assert isinstance(answer, IssuedCertificate) and not answer.repeated, answer

    return run


def issue_in_threads(
    authority: Authority, rounds: Iterator[Sequence[bytes]], pool: ThreadPoolExecutor
) -> Callable[[], None]:
    """Return what issues for each request of the next round, each by a call of its own, many calls at once."""

    def run() -> None:
        orders = orders_of(next(rounds))
        assert sum(1 for _ in pool.map(authority.issue, orders)) == len(orders)

    return run


def fresh(requests: int) -> Iterator[Sequence[bytes]]:
    """Yield rounds of requests that nobody has seen; all are made before the first is asked for."""
    made = [[make_request(f"STATION-{n:02}-{each:04}") for each in range(requests)] for n in range(ROUNDS + 1)]
    return iter(made)


def against_floor(how: str, run: Callable[[], object], requests: int, limit: Limit | None = None) -> Comparison:
    """Compare *run*, which issues for *requests* at each call, with the floor."""
    reference = [make_request(f"STATION-{number:04d}") for number in range(requests)]
    return compare(
        f"certificates issued through the public API, {how}",
        subject=Case("Authority", run, requests),
        reference=Case("verify one request, sign once", floor(reference), requests),
        limit=limit,
        rounds=ROUNDS,
        # One call a round: the next would have the same requests.
        seconds=0,
    )


def against_peer(authority: Authority, peer: Peer, folder: Path, limit: float) -> Comparison:
    """Compare certificates in large groups with those of *peer*; rounds alternate."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    rounds = fresh(REQUESTS)
    run = issue(authority, rounds, REQUESTS)
    run()
    for number in range(ROUNDS):
        files = []
        for each in range(peer.requests):
            path = folder / f"{each}.csr"
            path.write_bytes(make_request(f"PEER-{number:02}-{each:04}"))
            files.append(path)
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        ours.append(((time.process_time() - cpu) / REQUESTS, (time.perf_counter() - wall) / REQUESTS))
        wall = time.perf_counter()
        used = peer.issue(files)
        theirs.append((used / peer.requests, (time.perf_counter() - wall) / peer.requests))
    ratios = [mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True)]
    walls = [mine[1] / other[1] for mine, other in zip(ours, theirs, strict=True)]
    return Comparison(
        question=f"certificates {REQUESTS} at a time, against {peer.name}",
        subject=timing("Authority", ours, REQUESTS * ROUNDS),
        reference=timing(peer.name, theirs, peer.requests * ROUNDS),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=ROUNDS,
        limit=Limit(
            limit, "at least three times the best that is durable for each certificate; one run for all beaten"
        ),
        wall_ratio=statistics.median(walls),
    )


def timing(name: str, samples: Sequence[tuple[float, float]], operations: int) -> Timing:
    """Return the timing of CPU and wall seconds for each operation."""
    cpu = [each[0] for each in samples]
    return Timing(name, operations, statistics.median(cpu), min(cpu), statistics.median(each[1] for each in samples))


def measure() -> Sequence[Comparison]:
    """Compare certificates one by one, in groups, and by concurrent callers; then with other CAs."""
    share = Limit(1 / 0.45, "45 % of what verifying and signing alone would allow")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(THREADS) as pool:
        folder = Path(name)
        authority = make_authority(folder)
        try:
            found = [
                against_floor("one at a time", issue(authority, fresh(ONE_BY_ONE), 1), ONE_BY_ONE),
                against_floor("64 at a time", issue(authority, fresh(REQUESTS), 64), REQUESTS),
                against_floor(f"{REQUESTS} at a time", issue(authority, fresh(REQUESTS), REQUESTS), REQUESTS, share),
                against_floor(f"by {THREADS} threads", issue_in_threads(authority, fresh(REQUESTS), pool), REQUESTS),
            ]
            for peer in find_peers(folder / "peers"):
                bulk = "one call for all" in peer.name
                found.append(against_peer(authority, peer, folder, 1.0 if bulk else 1 / 3))
        finally:
            authority.inventory.close()
        processes = folder / "processes"
        processes.mkdir()
        return [*found, compare_processes(processes, rounds=5)]


if __name__ == "__main__":
    raise SystemExit(main("issuance", measure))
