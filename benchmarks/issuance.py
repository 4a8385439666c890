"""How many certificates does a CPU-second pay for, against the floor: verify one request and sign once?

Everything else that issuing means is on our side of the comparison: policy, lint, two audit entries, two durable
commits. Threads share their commits; the CPU time of all of them counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Comparison, compare, main
from benchmarks.material import make_authority, make_request
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder

REQUESTS = 200
THREADS = 32


def floor(requests: Sequence[bytes]) -> Callable[[], None]:
    """Return what nobody can do without: parse and verify each request, and one signature with the CA's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    message = bytes(600)  # about the size of what is signed

    def run() -> None:
        for pem in requests:
            assert x509.load_pem_x509_csr(pem).is_signature_valid
            key.sign(message, ec.ECDSA(hashes.SHA256()))

    return run


def orders_of(requests: Sequence[bytes], *, again: bool = True) -> list[IssueOrder]:
    """Return one order for each request."""
    return [IssueOrder(ca="sub", profile="ocpp/charging-station", csr=pem, again=again) for pem in requests]


def issue(authority: Authority, requests: Sequence[bytes], batch: int) -> Callable[[], None]:
    """Return what issues every request anew, *batch* of them in one call."""
    orders = orders_of(requests)

    def run() -> None:
        for start in range(0, len(orders), batch):
            for answer in authority.issue_many(orders[start : start + batch]):
                assert isinstance(answer, IssuedCertificate), answer

    return run


def issue_in_threads(authority: Authority, requests: Sequence[bytes], pool: ThreadPoolExecutor) -> Callable[[], None]:
    """Return what issues every request anew, each by a call of its own, many calls at once."""
    orders = orders_of(requests)

    def run() -> None:
        assert sum(1 for _ in pool.map(authority.issue, orders)) == len(orders)

    return run


def measure() -> Sequence[Comparison]:
    """Compare certificates one by one, in batches, and by concurrent callers."""
    requests = [make_request(f"STATION-{number:04d}") for number in range(REQUESTS)]

    def against_floor(how: str, subject: Callable[[], object]) -> Comparison:
        return compare(
            f"certificates issued through the public API, {how}",
            subject=Case("Authority", subject, REQUESTS),
            reference=Case("verify one request, sign once", floor(requests), REQUESTS),
        )

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:
        authority = make_authority(Path(folder))
        try:
            return [
                against_floor("one at a time", issue(authority, requests, 1)),
                against_floor("64 at a time", issue(authority, requests, 64)),
                against_floor(f"by {THREADS} threads", issue_in_threads(authority, requests, pool)),
            ]
        finally:
            authority.inventory.close()


if __name__ == "__main__":
    raise SystemExit(main("issuance", measure))
