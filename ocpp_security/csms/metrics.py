"""What an endpoint counts, and the small HTTP server that gives it to Prometheus and to health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from chargepki.pki.errors import ChargePkiError, UnavailableError

__all__ = ["CsmsMetrics", "MetricsServer"]

_READY_SECONDS: Final = 2.0
_MAX_REASONS: Final = 100
"""Distinct reasons that are counted one by one; a station table of one's own may invent as many as it likes."""


class CsmsMetrics:
    """Counters of one endpoint, in a registry of their own: several endpoints may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reasons: set[str] = set()
        self._refused = Counter(
            "chargepki_csms_refused_connections",
            "Connections refused before the upgrade, by reason and HTTP status.",
            ("reason", "status"),
            registry=self.registry,
        )
        self._tls_failures = Counter(
            "chargepki_csms_tls_failures", "TLS handshakes that failed, by reason.", ("reason",), registry=self.registry
        )
        self._dropped = Counter(
            "chargepki_csms_dropped_sockets",
            "Sockets dropped by a limit before anything was read, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._accepted = Counter(
            "chargepki_csms_accepted_connections",
            "Connections that were upgraded, by OCPP version and security profile.",
            ("version", "profile"),
            registry=self.registry,
        )
        self._displaced = Counter(
            "chargepki_csms_displaced_connections",
            "Connections replaced by a newer one of the same identity.",
            registry=self.registry,
        )
        self._certificate_expiry = Gauge(
            "chargepki_csms_server_certificate_not_after_seconds",
            "Last valid second of the server certificate, as a Unix time, by kind of key.",
            ("key",),
            registry=self.registry,
        )

    def refused(self, reason: str, status: int) -> None:
        """Count a connection that was refused before the upgrade."""
        if reason not in self._reasons and len(self._reasons) >= _MAX_REASONS:
            reason = "other"
        self._reasons.add(reason)
        self._refused.labels(reason, str(status)).inc()

    def tls_failed(self, reason: str) -> None:
        """Count a failed handshake."""
        self._tls_failures.labels(reason).inc()

    def dropped(self, reason: str) -> None:
        """Count a socket that a limit dropped."""
        self._dropped.labels(reason).inc()

    def accepted(self, version: str, profile: int) -> None:
        """Count a connection that was upgraded."""
        self._accepted.labels(version, str(profile)).inc()

    def displaced(self) -> None:
        """Count a connection that a newer one replaced."""
        self._displaced.inc()

    def watch_connections(self, count: Callable[[], float]) -> None:
        """Show what *count* returns as the number of open connections."""
        gauge = Gauge(
            "chargepki_csms_connections", "Stations that are connected to this process.", registry=self.registry
        )
        gauge.set_function(count)

    def server_certificate(self, key: str, not_after: float) -> None:
        """Note until when the server certificate of this kind of key is valid."""
        self._certificate_expiry.labels(key).set(not_after)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class MetricsServer:
    """``/metrics``, ``/healthz`` and ``/readyz`` in clear text, for an address that no station reaches.

    Args:
        is_ready: raises `ChargePkiError` when the process should get no connections.
    """

    def __init__(self, host: str, port: int, metrics: CsmsMetrics, is_ready: Callable[[], Awaitable[None]]) -> None:
        self._host, self._wanted_port, self._metrics, self._is_ready = host, port, metrics, is_ready
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._show)
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/readyz", self._ready)
        self._runner = web.AppRunner(app, access_log=None)
        self.port = 0
        """The bound port; valid after `start`."""

    async def start(self) -> None:
        """Bind, and begin to serve.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._wanted_port).start()
        except OSError as exc:
            await self._runner.cleanup()
            raise UnavailableError(
                f"cannot serve metrics on {self._host}:{self._wanted_port}", why=str(exc.strerror or exc)
            ) from exc
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop to serve. Idempotent."""
        await self._runner.cleanup()

    async def _show(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._is_ready()
        except TimeoutError:
            return web.Response(status=503, text="the inventory does not answer\n")
        except ChargePkiError as exc:
            return web.Response(status=503, text=f"{exc.what}\n")
        return web.Response(text="ready\n")
