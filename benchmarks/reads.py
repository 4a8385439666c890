"""How long does a person wait for a page of certificates, for the number of those that expire soon, for a census?

Asked of a real inventory on SQLite, made from a seed, and of a copy on PostgreSQL. ``CHARGEPKI_BENCH_CERTIFICATES``
sets the size (100,000 by default; a million in a campaign). The reference is the promise itself, 50 ms on the clock;
seconds for a census.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter, process_time

from benchmarks.bulk import copy_to_postgresql, postgresql_url
from benchmarks.estate import AT, made, size
from benchmarks.harness import Comparison, Limit, Timing, main, tell
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import Filter
from chargepki.pki.questions import CENSUS_BY, take_census

CERTIFICATES = size(100_000)
PROMISED_SECONDS = 0.05
PAGE = 100
CALLS = 40
LIMIT = Limit(1.0, "a page and a count within 50 ms, whatever the size", wall=True)
CENSUS_SECONDS = 5.0
CENSUS_CALLS = 3
CENSUS_LIMIT = Limit(1.0, "a census in seconds", wall=True)


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


def ask(
    question: str,
    run: Callable[[], object],
    *,
    promised: float = PROMISED_SECONDS,
    calls: int = CALLS,
) -> Comparison:
    """Ask *question* until its median is known."""
    run()
    walls, cpus = [], []
    for _ in range(calls):
        wall, cpu = perf_counter(), process_time()
        run()
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return Comparison(
        question=question,
        subject=Timing("Inventory", calls, cpu, min(cpus), wall),
        reference=Timing(f"{promised * 1000:.0f} ms", calls, promised, promised, promised),
        ratio=cpu / promised,
        ratio_low=min(cpus) / promised,
        ratio_high=max(cpus) / promised,
        rounds=calls,
        limit=LIMIT,
        note=f"median {wall * 1000:.1f} ms on the clock, {cpu * 1000:.1f} ms of CPU",
        wall_ratio=wall / promised,
    )


def ask_all(inventory: Inventory, database: str) -> Iterator[Comparison]:
    """Ask one database every question, and every census of what is valid; the promise is held by the slowest."""
    of = f"of {CERTIFICATES:,} certificates, {database}"
    for question, run in questions(inventory):
        tell(f"{question} {of}")
        yield ask(f"{question} {of}", run)
    found = []
    for by in CENSUS_BY:
        tell(f"a census by {by} {of}")
        census = partial(take_census, inventory, AT, by)
        found.append(ask(f"a census by {by} {of}", census, promised=CENSUS_SECONDS, calls=CENSUS_CALLS))
    slowest = max(found, key=lambda each: each.subject.wall_median)
    yield from (replace(each, limit=CENSUS_LIMIT if each is slowest else None) for each in found)


def measure() -> Sequence[Comparison]:
    """Ask each database every question."""
    found: list[Comparison] = []
    with made(CERTIFICATES) as estate:
        with estate.open() as inventory:
            found += ask_all(inventory, "SQLite")
        with copy_to_postgresql(estate.database, postgresql_url("reads", CERTIFICATES), estate.log_key) as inventory:
            found += ask_all(inventory, "PostgreSQL")
    return found


if __name__ == "__main__":
    raise SystemExit(main("reads", measure))
