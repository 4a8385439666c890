"""How many certificates does a CPU-second pay for, against the floor: verify one request and sign once?

Everything else that issuing means is on our side: policy, lint, two audit entries, two durable commits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Comparison, compare, main
from benchmarks.material import make_authority, make_request
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder

REQUESTS = 200


def floor(requests: Sequence[bytes]) -> Callable[[], None]:
    """Return what nobody can do without: parse and verify each request, and one signature with the CA's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    message = bytes(600)  # about the size of what is signed

    def run() -> None:
        for pem in requests:
            assert x509.load_pem_x509_csr(pem).is_signature_valid
            key.sign(message, ec.ECDSA(hashes.SHA256()))

    return run


def issue(authority: Authority, requests: Sequence[bytes], batch: int) -> Callable[[], None]:
    """Return what issues every request anew, *batch* of them in one call."""
    orders = [IssueOrder(ca="sub", profile="ocpp/charging-station", csr=pem, again=True) for pem in requests]

    def run() -> None:
        for start in range(0, len(orders), batch):
            for answer in authority.issue_many(orders[start : start + batch]):
                assert isinstance(answer, IssuedCertificate), answer

    return run


def measure() -> Sequence[Comparison]:
    """Compare certificates one by one, and in batches that share their commits."""
    requests = [make_request(f"STATION-{number:04d}") for number in range(REQUESTS)]
    comparisons = []
    for batch in (1, 64):
        with tempfile.TemporaryDirectory() as folder:
            authority = make_authority(Path(folder))
            try:
                comparison = compare(
                    f"certificates issued through the public API, {batch} at a time",
                    subject=Case("Authority.issue_many", issue(authority, requests, batch), REQUESTS),
                    reference=Case("verify one request, sign once", floor(requests), REQUESTS),
                )
            finally:
                authority.inventory.close()
            comparisons.append(comparison)
    return comparisons


if __name__ == "__main__":
    raise SystemExit(main("issuance", measure))
