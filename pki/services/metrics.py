"""Counters of several processes added up, and shown as Prometheus text."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from chargepki.pki.services.tally import Tally

__all__ = ["CONTENT_TYPE", "Board", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SLOT_BYTES: Final = 64 * 1024
_HEADER: Final = struct.Struct("<QQ")
_FRESH_SECONDS: Final = 5.0
"""Gauges of a process that has not written for so long are those of a dead one."""

_GAUGES: Final = {
    "connections": "Open connections.",
    "ready": "1 while /readyz says so, in every process that serves.",
    "leader": "1 in the process that does the background work.",
    "inventory_reachable": "1 while the inventory answers.",
    "ocsp_memory_bytes": "Prepared OCSP answers in memory.",
    "ocsp_soonest_expiry_seconds": "Until the first prepared OCSP answer expires.",
    "ocsp_prepared": "Prepared OCSP answers in the inventory.",
    "crl_soonest_expiry_seconds": "Until the first full CRL or shard expires; 0 when one is missing.",
    "delta_crl_soonest_expiry_seconds": "Until the first delta CRL expires; 0 when one is missing.",
    "probe_failures": "Published artefacts that the last self-probe could not fetch or validate.",
    "probe_timestamp_seconds": "When the last self-probe ended.",
    "background_failures": "Background duties that failed in the last round.",
    "tls_certificate_expiry_seconds": "Until the certificate of the TLS listener expires.",
}
_SUMMED: Final = frozenset({"connections", "ocsp_memory_bytes"})
_LEAST: Final = frozenset(
    {
        "ready",
        "inventory_reachable",
        "ocsp_soonest_expiry_seconds",
        "crl_soonest_expiry_seconds",
        "delta_crl_soonest_expiry_seconds",
        "tls_certificate_expiry_seconds",
        "probe_timestamp_seconds",
    }
)


class Board:
    """Memory shared by processes that were forked after it was made: one slot each, written by one, read by all."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * _SLOT_BYTES)
        self._slots = slots
        self._slot = 0
        self._base: dict[str, Any] = {}

    def take_slot(self, slot: int) -> None:
        """Write to *slot* from now on, adding to what a dead predecessor has counted there: counters never fall."""
        self._slot = slot
        self._base = self._read(slot) or {}

    def write(self, tally: Tally, gauges: dict[str, float]) -> None:
        """Show this process's counters to the others."""
        base = self._base
        content = {
            "requests": _added(
                base, "requests", {f"{name} {status}": n for (name, status), n in tally.requests.items()}
            ),
            "seconds": _added(base, "seconds", tally.seconds),
            "ocsp": _added(base, "ocsp", {f"{answer} {source}": n for (answer, source), n in tally.ocsp.items()}),
            "gauges": gauges,
            "at": time.time(),
            "pid": os.getpid(),
        }
        data = orjson.dumps(content)
        if len(data) > _SLOT_BYTES - _HEADER.size:
            return
        start = self._slot * _SLOT_BYTES
        sequence, _ = _HEADER.unpack_from(self._memory, start)
        # An odd number says that somebody writes: a reader then looks again.
        _HEADER.pack_into(self._memory, start, sequence | 1, len(data))
        self._memory[start + _HEADER.size : start + _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._memory, start, (sequence | 1) + 1, len(data))

    def read_all(self) -> list[dict[str, Any]]:
        """Return what every process has written."""
        return [found for slot in range(self._slots) if (found := self._read(slot)) is not None]

    def _read(self, slot: int) -> dict[str, Any] | None:
        start = slot * _SLOT_BYTES
        for _ in range(50):
            sequence, length = _HEADER.unpack_from(self._memory, start)
            if length == 0:
                return None
            data = self._memory[start + _HEADER.size : start + _HEADER.size + length]
            if sequence % 2 == 0 and _HEADER.unpack_from(self._memory, start) == (sequence, length):
                found: dict[str, Any] = orjson.loads(data)
                return found
            time.sleep(0.001)
        return None


def _added(base: dict[str, Any], name: str, counts: dict[str, Any]) -> dict[str, Any]:
    before: dict[str, Any] = base.get(name, {})
    return {key: before.get(key, 0) + counts.get(key, 0) for key in (*before, *(k for k in counts if k not in before))}


def render(snapshots: Sequence[dict[str, Any]]) -> bytes:
    """Return the metrics of all processes together, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(snapshots))
    return generate_latest(registry)


class _Collector:
    """What prometheus-client asks for its metrics."""

    def __init__(self, snapshots: Sequence[dict[str, Any]]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Any]:
        """Yield the metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        requests = CounterMetricFamily(
            "chargepki_http_requests", "Requests by endpoint and status.", labels=("endpoint", "status")
        )
        for key, count in self._sum("requests").items():
            endpoint, _, status = key.partition(" ")
            requests.add_metric((endpoint, status), count)
        yield requests
        seconds = CounterMetricFamily(
            "chargepki_http_request_seconds", "Time between a request and its answer, added up.", labels=("endpoint",)
        )
        for endpoint, total in self._sum("seconds").items():
            seconds.add_metric((endpoint,), total)
        yield seconds
        answers = CounterMetricFamily(
            "chargepki_ocsp_answers", "OCSP answers by status and where they came from.", labels=("status", "source")
        )
        for key, count in self._sum("ocsp").items():
            status, _, source = key.partition(" ")
            answers.add_metric((status, source), count)
        yield answers
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"chargepki_{name}", _GAUGES[name], value=value)

    def _sum(self, name: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for snapshot in self._snapshots:
            for key, value in snapshot[name].items():
                total[key] = total.get(key, 0) + value
        return dict(sorted(total.items()))

    def _gauges(self) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        now = time.time()
        for snapshot in self._snapshots:
            if now - snapshot["at"] <= _FRESH_SECONDS:
                for name, value in snapshot["gauges"].items():
                    found.setdefault(name, []).append(value)
        choose = {name: sum if name in _SUMMED else min if name in _LEAST else max for name in found}
        return {name: choose[name](values) for name, values in sorted(found.items()) if name in _GAUGES}
