"""What does it cost to take over the certificates of others, and to write an inventory out again?

The certificates are the same in every run: they are made from a seed. ``CHARGEPKI_BENCH_CERTIFICATES`` sets how many
(100,000 by default, a million in a campaign). Each step imports the next fifth into an inventory that grows.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import process_time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.bulk import postgresql_url
from benchmarks.estate import kept_folder, size
from benchmarks.harness import Case, Comparison, Limit, compare, main, tell
from chargepki.cli.exporting import Form, export_chunks
from chargepki.pki.der import to_pem
from chargepki.pki.importing import Importer, Intake
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.filters import And
from chargepki.pki.inventory.records import Actor, ActorKind

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

from testkit.estate import Estate

CERTIFICATES = size(100_000)
STEPS = 5
ROWS_PER_SECOND = 50_000
MOST_WARMED_UP = 300_000
ROUNDS = 3
MOST_GROWTH = 64 << 20
ACTOR = Actor("benchmark", ActorKind.SYSTEM, authenticated=False)


def write_bundles(folder: Path) -> list[Path]:
    """Write the certificates into one file a step."""
    estate, each = Estate("Benchmark Root", seed=8, has_own_keys=True), CERTIFICATES // STEPS
    paths = [folder / f"{step}.pem" for step in range(STEPS)]
    for step, path in enumerate(paths):
        with path.open("w") as stream:
            for number in range(step * each, (step + 1) * each):
                stream.write(to_pem("CERTIFICATE", estate.certificate(number)))
    return paths


def importing(inventory: Inventory, paths: Sequence[Path]) -> Callable[[], None]:
    """Return what imports the next file at each call."""
    left = iter(paths)

    def run() -> None:
        importer = Importer(inventory, ACTOR, lambda: datetime.now(UTC), "benchmark", "benchmark")
        for _ in importer.take(Intake().path(str(next(left)))):
            pass
        if importer.tally.added != CERTIFICATES // STEPS:
            raise AssertionError(f"not all were added: {importer.tally}")

    return run


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the PEM blocks of a file."""
    block: list[bytes] = []
    with path.open("rb") as stream:
        for line in stream:
            block.append(line)
            if line.startswith(b"-----END"):
                yield b"".join(block)
                block = []


def parsing(paths: Sequence[Path]) -> Callable[[], None]:
    """Return what reads the next file with `cryptography`, and of each certificate what an inventory tells of it."""
    steps = count()

    def run() -> None:
        for pem in blocks(paths[next(steps)]):
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc  # noqa: B018 - reading them is what costs
            certificate.issuer.public_bytes()
            certificate.subject.rfc4514_string()
            certificate.fingerprint(hashes.SHA256())
            key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            hashlib.sha256(key).hexdigest()
            certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)

    return run


def exporting(inventory: Inventory, form: Form) -> Callable[[], None]:
    """Return what writes every certificate out, and minds how much memory that takes."""

    def run() -> None:
        before = _peak_memory(reset=True)
        chunks = export_chunks(inventory, form, And(()), everything=False, with_pem=False, passphrase=None)
        lines = sum(chunk.count(b"\n") for chunk in chunks)
        growth = _peak_memory() - before
        if lines < CERTIFICATES or growth > MOST_GROWTH:
            raise AssertionError(f"{lines} lines, {growth >> 20} MiB more memory")

    return run


def _peak_memory(*, reset: bool = False) -> int:
    """Return the largest resident size of this process in bytes since the last reset (Linux); 0 elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def allowed_time() -> None:
    """Spend the processor time that the promised rate allows for all rows."""
    end = process_time() + CERTIFICATES / ROWS_PER_SECOND
    while process_time() < end:
        pass


def measure() -> Sequence[Comparison]:
    """Compare the import with parsing, and each export with the time that its rate allows, on both databases."""
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(dir=kept_folder()) as folder:
        tell(f"making {CERTIFICATES:,} certificates of others")
        paths = write_bundles(Path(folder))
        urls = {"SQLite": f"sqlite:///{folder}/inventory.db", "PostgreSQL": postgresql_url("takeover", CERTIFICATES)}
        for name, url in urls.items():
            with Inventory.open(url, log_key=AuditKey.generate()) as inventory:
                found += compare_all(inventory, paths, name)
    return found


def compare_all(inventory: Inventory, paths: Sequence[Path], name: str) -> Iterator[Comparison]:
    """Import everything into one database, and export it."""
    promise = Limit(5.0, "an import costs at most five times the processor time of parsing the same certificates")
    rate = Limit(1.0, f"at least {ROWS_PER_SECOND} rows a second of processor time")
    each = CERTIFICATES // STEPS
    yield compare(
        f"what does an import of {CERTIFICATES:,} certificates cost against parsing alone? {name}",
        subject=Case("import", importing(inventory, paths), each),
        reference=Case("parse with cryptography", parsing(paths), each),
        limit=promise,
        rounds=STEPS - 1,
        seconds=0.0,
        note=f"in {STEPS} steps, of which the first warms up; without PostgreSQL's own",
    )
    for form in (Form.JSON_LINES, Form.JSON, Form.CSV):
        yield compare(
            f"is an export of {CERTIFICATES:,} as {form.value} as fast as promised, in constant memory? {name}",
            subject=Case(f"export as {form.value}", exporting(inventory, form), CERTIFICATES),
            reference=Case("allowed time", allowed_time, CERTIFICATES),
            limit=rate,
            rounds=ROUNDS,
            seconds=0.0,
            # The import has just read and written all of them.
            warms_up=CERTIFICATES <= MOST_WARMED_UP,
        )


if __name__ == "__main__":
    raise SystemExit(main("takeover", measure))
