"""What does a station on security profile 3 cost the endpoint until it is connected, beside the TLS handshake alone?

The subject is the real ``chargepki csms serve``: handshake, upgrade, identity and revocation checks, presence.
The reference is a bare asyncio protocol on the same loop with the same TLS context; both in processes of their own.
``CHARGEPKI_STATIONS`` sets how many stations come (default 400; the campaign test takes 10,000).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks.fleet import measure_fleet
from benchmarks.harness import Comparison, Timing, main

GOAL = 1.3
"""What we want to reach; not a limit, because it is not reached yet."""


def measure() -> Sequence[Comparison]:
    """Connect a fleet once; one round, because each takes a server of its own."""
    count = int(os.environ.get("CHARGEPKI_STATIONS", "400"))
    found = measure_fleet(count, revocations=min(count // 10, 100))
    ours, bare = found.connect_cpu / count, found.bare_cpu / count
    print(
        f"{count} stations: {found.resident_bytes / 2**20:.0f} MiB resident when all had booted; a reconnect storm "
        f"took {found.storm_wall:.1f} s and lost {found.storm_lost}; from revocation to closed connection p50 "
        f"{found.revocation_p50 * 1000:.0f} ms, p99 {found.revocation_p99 * 1000:.0f} ms",
        file=sys.stderr,
    )
    ratio = ours / bare
    return [
        Comparison(
            question=f"connect one of {count} stations on profile 3 (goal {GOAL:g})",
            subject=Timing("chargepki csms serve", count, ours, ours, found.connect_wall / count),
            reference=Timing("bare TLS handshake", count, bare, bare, 0.0),
            ratio=ratio,
            ratio_low=ratio,
            ratio_high=ratio,
            rounds=1,
            note=f"resident {found.resident_bytes} octets; storm {found.storm_wall:.2f} s, lost {found.storm_lost}; "
            f"revocation p99 {found.revocation_p99:.3f} s",
        )
    ]


if __name__ == "__main__":
    raise SystemExit(main("connections", measure))
