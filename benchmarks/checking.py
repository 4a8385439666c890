"""What does a check of the whole inventory cost, against the linter and the signature checks that it is made of?

The check is the command, on all cores, from its start to its exit code; CPU time is that of all its processes. The
reference lints and verifies one certificate in ``SAMPLE_OF`` without anything around it. What PostgreSQL's server does
is not counted. ``CHARGEPKI_BENCH_CERTIFICATES`` sets the size (100,000 by default; a million in a campaign).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.bulk import copy_to_postgresql, postgresql_url
from benchmarks.estate import AT, made, size
from benchmarks.harness import Case, Comparison, Limit, compare, main
from chargepki.pki import keys
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.codec import decode_time
from chargepki.pki.inventory.filters import And
from chargepki.pki.lint import lint_certificate
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile

CERTIFICATES = size(100_000)
SAMPLE_OF = max(1, CERTIFICATES // 5000)
ROUNDS = max(1, min(3, 300_000 // CERTIFICATES))
LIMIT = Limit(1.5, "a check costs little more than the linter and the signature checks in it")


class Judged(NamedTuple):
    """One certificate, with all that linter and verification want."""

    der: bytes
    profile: Profile
    now: datetime | None
    issuer: bytes
    key: keys.PublicKey
    signature: bytes
    tbs: bytes
    algorithm: bytes


def sample(inventory: Inventory) -> list[Judged]:
    """Return one certificate in `SAMPLE_OF`, each ready to be judged."""
    cas = {ca.id: der for ca in inventory.list_cas() if (der := ca.certificate_der) is not None}
    issuers = {name: keys.load_public_key(view_certificate(der).key.der) for name, der in cas.items()}
    found = []
    for page in inventory.scan_certificates(And(()), ("id", "ca", "profile", "state", "not_after", "der")):
        for _, ca, profile, state, not_after, der in page[::SAMPLE_OF]:
            view = view_certificate(bytes(der))
            if view.signature is None:
                raise AssertionError("a certificate without a signature")
            now = AT if state == "issued" and decode_time(not_after) >= AT else None
            found.append(
                Judged(
                    bytes(der), get_profile(profile), now, cas[ca], issuers[ca], view.signature, view.tbs,
                    view.signature_algorithm,
                )
            )  # fmt: skip
    return found


def reference(judged: Sequence[Judged]) -> Callable[[], None]:
    """Return what lints all, and then verifies all: in turn for each, either would slow the other down."""

    def run() -> None:
        for each in judged:
            lint_certificate(each.der, profile=each.profile, now=each.now, issuer_der=each.issuer)
        for each in judged:
            if not keys.verify(each.key, each.signature, each.tbs, each.algorithm):
                raise AssertionError("a signature that is none")

    return run


def check(folder: Path, expected: int, url: str | None = None) -> Callable[[], None]:
    """Return what checks everything with the command: the SQLite file in *folder*, or the database at *url*."""
    command = [str(Path(sys.executable).parent / "chargepki"), "inventory", "check", "--json", "-q", "--fresh"]
    command += ["--home", str(folder), "--at", f"{AT:%Y-%m-%dT%H:%M:%SZ}"]
    command += [] if url is None else ["--database", url]

    def run() -> None:
        # It finds errors: what the estate was made of is not all sound.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        if done.returncode != 1 or json.loads(done.stdout)["certificates"] < expected:
            raise AssertionError(f"exit {done.returncode}, not {expected} certificates judged")

    return run


def compare_on(database: str, run: Callable[[], None], judged: Sequence[Judged], *, rounds: int = ROUNDS) -> Comparison:
    """Compare the check of one database with the reference, per certificate."""
    return compare(
        f"what does a check of {CERTIFICATES:,} certificates cost against its linter and signature checks? {database}",
        subject=Case("inventory check", run, CERTIFICATES),
        reference=Case("lint_certificate and verify", reference(judged), len(judged)),
        limit=LIMIT,
        rounds=rounds,
        seconds=0.0,
        warms_up=False,
        note=f"the reference judges {len(judged)} of them",
    )


def measure() -> Sequence[Comparison]:
    """Compare the two on both databases."""
    with made(CERTIFICATES) as estate:
        with estate.open() as inventory:
            judged = sample(inventory)
        found = [compare_on("SQLite", check(estate.folder, CERTIFICATES), judged)]
        url = postgresql_url("checking", CERTIFICATES)
        copy_to_postgresql(estate.database, url, estate.log_key).close()
        found.append(compare_on("PostgreSQL", check(estate.folder, CERTIFICATES, url), judged, rounds=1))
    return found


if __name__ == "__main__":
    raise SystemExit(main("checking", measure))
