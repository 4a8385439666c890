"""How long does a person wait for a page of certificates, and for the number of those that expire soon?

Asked of a real inventory on SQLite, made from a seed, and of a copy on PostgreSQL. ``CHARGEPKI_BENCH_CERTIFICATES``
sets the size (100,000 by default; a million in a campaign). The reference is the promise itself, 50 ms on the clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, process_time

from benchmarks.bulk import copy_to_postgresql, postgresql_url
from benchmarks.estate import AT, made, size
from benchmarks.harness import Comparison, Limit, Timing, main
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import Filter

CERTIFICATES = size(100_000)
PROMISED_SECONDS = 0.05
PAGE = 100
CALLS = 40
LIMIT = Limit(1.0, "a page and a count within 50 ms, whatever the size", wall=True)


def questions(inventory: Inventory) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what people ask first, and how."""

    def parse(text: str) -> Filter:
        return parse_filter(text, now=AT)

    soon = parse("state = 'issued' and not_after >= now and not_after < now + 30d")
    rare = parse("profile = 'ocpp/firmware-signing'")
    ca = inventory.get_ca("e-cpo-sub2").id
    yield "a page of all", lambda: list(inventory.list_certificates(limit=PAGE))
    yield "a page of one CA", lambda: list(inventory.list_certificates(ca=ca, limit=PAGE))
    yield "a page of a rare profile", lambda: list(inventory.find_certificates(rare, limit=PAGE))
    yield "the number that expires soon", lambda: inventory.count_matching(soon)


def ask(question: str, run: Callable[[], object]) -> Comparison:
    """Ask *question* until its median is known."""
    run()
    walls, cpus = [], []
    for _ in range(CALLS):
        wall, cpu = perf_counter(), process_time()
        run()
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return Comparison(
        question=question,
        subject=Timing("Inventory", CALLS, cpu, min(cpus), wall),
        reference=Timing("50 ms", CALLS, PROMISED_SECONDS, PROMISED_SECONDS, PROMISED_SECONDS),
        ratio=cpu / PROMISED_SECONDS,
        ratio_low=min(cpus) / PROMISED_SECONDS,
        ratio_high=max(cpus) / PROMISED_SECONDS,
        rounds=CALLS,
        limit=LIMIT,
        note=f"{CERTIFICATES} certificates; median {wall * 1000:.1f} ms on the clock, {cpu * 1000:.1f} ms of CPU",
        wall_ratio=wall / PROMISED_SECONDS,
    )


def measure() -> Sequence[Comparison]:
    """Ask each database every question."""
    found: list[Comparison] = []
    with made(CERTIFICATES) as estate:
        with estate.open() as inventory:
            found += [ask(f"{question}, SQLite", run) for question, run in questions(inventory)]
        with copy_to_postgresql(estate.database, postgresql_url("reads"), estate.log_key) as inventory:
            found += [ask(f"{question}, PostgreSQL", run) for question, run in questions(inventory)]
    return found


if __name__ == "__main__":
    raise SystemExit(main("reads", measure))
