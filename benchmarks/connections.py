"""What does a station on security profile 3 cost the endpoint until it is connected, beside the TLS handshake alone?

Six servers take the same stations, each in a process of its own on the same loop with the same TLS context: a bare
asyncio protocol (the reference), ``websockets.serve`` as it comes, the least that such checks cost with that library,
our endpoint without its checks, our endpoint up to the answer 101, and the whole ``csms serve``. The fourth less the
first is the price of the upgrade, the fifth less the fourth that of the identity and revocation checks, the last less
the fifth that of what follows.

``CHARGEPKI_STATIONS`` sets how many stations come (default 300), ``CHARGEPKI_ROUNDS`` how often (default 3). What a
whole fleet takes in memory is measured once besides, with all of its connections open.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence

from benchmarks.fleet import Connects, measure_connects, measure_fleet
from benchmarks.fleet_servers import Kind
from benchmarks.harness import Comparison, Limit, Timing, main

GUARD = Limit(1.6, "guard against a regression, with room for a busy machine", goal=1.3)
"""Of handshake, upgrade, identity and revocation checks."""

_QUESTIONS = {
    Kind.LIBRARY: "handshake, upgrade by websockets.serve alone",
    Kind.FLOOR: "handshake, the least that upgrade and checks can cost with the library",
    Kind.UPGRADE: "handshake, upgrade by our endpoint without its checks",
    Kind.CHECKS: "handshake, upgrade, identity and revocation checks",
    Kind.SERVE: "all that csms serve does when a station comes",
}


def measure() -> Sequence[Comparison]:
    """Connect the stations to each server in turn, and a fleet once."""
    count = int(os.environ.get("CHARGEPKI_STATIONS", "300"))
    rounds = int(os.environ.get("CHARGEPKI_ROUNDS", "3"))
    found = measure_connects(count, rounds=rounds)
    fleet = measure_fleet(count, revocations=min(count // 10, 100))
    middle = {kind: statistics.median(seconds) * 1000 for kind, seconds in found.seconds.items()}
    print(
        f"{count} stations, CPU for each: handshake {middle[Kind.BARE]:.2f} ms, upgrade "
        f"{middle[Kind.UPGRADE] - middle[Kind.BARE]:.2f} ms, identity and revocation checks "
        f"{middle[Kind.CHECKS] - middle[Kind.UPGRADE]:.2f} ms, what follows "
        f"{middle[Kind.SERVE] - middle[Kind.CHECKS]:.2f} ms, BootNotification {fleet.boot_cpu / count * 1000:.2f} ms\n"
        f"{fleet.resident_bytes / 2**20:.0f} MiB resident when all had booted; a reconnect storm "
        f"took {fleet.storm_wall:.1f} s and lost {fleet.storm_lost}; from revocation to closed connection p50 "
        f"{fleet.revocation_p50 * 1000:.0f} ms, p99 {fleet.revocation_p99 * 1000:.0f} ms",
        file=sys.stderr,
    )
    note = (
        f"resident {fleet.resident_bytes} octets; storm {fleet.storm_wall:.2f} s, lost {fleet.storm_lost}; "
        f"revocation p99 {fleet.revocation_p99:.3f} s"
    )
    comparisons = [
        _comparison(found, question, found.seconds[kind], count, limit=GUARD if kind is Kind.CHECKS else None)
        for kind, question in _QUESTIONS.items()
    ]
    again = "the same for a station that comes back"
    return [*comparisons, _comparison(found, again, found.again, count, limit=GUARD, note=note)]


def _comparison(
    found: Connects, question: str, seconds: Sequence[float], count: int, *, limit: Limit | None, note: str = ""
) -> Comparison:
    bare = found.seconds[Kind.BARE]
    ratios = [ours / reference for ours, reference in zip(seconds, bare, strict=True)]
    operations = count * len(seconds)
    return Comparison(
        question=question,
        subject=Timing("chargepki csms serve", operations, statistics.median(seconds), min(seconds), 0.0),
        reference=Timing("bare TLS handshake", operations, statistics.median(bare), min(bare), 0.0),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=len(seconds),
        limit=limit,
        note=note,
    )


if __name__ == "__main__":
    raise SystemExit(main("connections", measure))
