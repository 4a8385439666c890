"""Put site, sockets and background tasks together, and run them until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory
from chargepki.pki.services.health import Health
from chargepki.pki.services.http import Handler, Limits
from chargepki.pki.services.keeper import Keeper
from chargepki.pki.services.metrics import Board
from chargepki.pki.services.ocsp import Signers
from chargepki.pki.services.ocsp_memory import DEFAULT_MEMORY_BYTES
from chargepki.pki.services.probe import Probe, run_quietly
from chargepki.pki.services.server import HttpServer
from chargepki.pki.services.site import PkiSite
from chargepki.pki.services.tally import Tally
from chargepki.pki.services.tls import TlsFiles

__all__ = ["Serving", "run_keeper", "run_server"]

_log = logging.getLogger(__name__)

_PROBE_SECONDS: Final = 60.0
_PROBE_AGAIN_SECONDS: Final = 1.0
_START_SECONDS: Final = 15.0
_PRELOAD_SECONDS: Final = 300.0
_TLS_CHECK_SECONDS: Final = 5.0
_REFILL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What one process serves."""

    inventory: Inventory
    plain: socket.socket | None
    tls: socket.socket | None = None
    tls_files: TlsFiles | None = None
    signers: Signers | None = None
    public_url: str | None = None
    probe_base: str | None = None
    """Where the self-probe fetches from; ``None`` makes none."""
    routes: Mapping[bytes, Handler] = field(default_factory=dict)
    closing: Callable[[], Awaitable[None]] | None = None
    """Lets go of what the routes hold, when the last request is answered."""
    answer_bytes: int = DEFAULT_MEMORY_BYTES
    """What prepared OCSP answers may take in memory."""
    staple_tokens: Callable[[], Sequence[bytes]] | None = None
    """Returns what opens batches of prepared responses; ``None`` offers none."""
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    access_log: bool = False
    board: Board | None = None
    parent: int | None = None
    """Process id of the supervisor: without it this process ends too."""


async def run_server(
    serving: Serving, *, keeper: Keeper | None = None, ready: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way; SIGHUP loads the TLS certificate again.

    Args:
        keeper: does the background work in a thread of this process.
        ready: called when connections are accepted.
    """
    tally = Tally()
    health = Health(tally, board=serving.board)
    site = PkiSite(
        serving.inventory,
        signers=serving.signers,
        public_url=serving.public_url,
        tally=tally,
        health=health,
        routes=serving.routes,
        answer_bytes=serving.answer_bytes,
        staple_tokens=serving.staple_tokens,
    )
    server = HttpServer(site, limits=serving.limits, tally=tally, access_log=serving.access_log)
    stop = _stop_event(serving)
    probe = None if serving.probe_base is None else Probe(serving.inventory, serving.probe_base)
    health.refresh = lambda: _measure(health, site, server, serving, keeper)
    # The first look is taken before anybody asks, so that the first request finds memory and not an empty house.
    await site.gate.pass_through()
    with _thread(keeper):
        if serving.plain is not None:
            server.start(serving.plain)
        if serving.tls is not None and serving.tls_files is not None:
            server.start(serving.tls, serving.tls_files.take_context)
        if ready is not None:
            ready()
        tasks = [
            asyncio.create_task(_forever(work, name))
            for name, work in (
                ("metrics", lambda: _publish(health)),
                ("preload", lambda: _preload(site)),
                ("refill", lambda: _refill(site)),
                ("probe", lambda: _probe(probe, health)),
                ("tls", lambda: _watch_tls(serving)),
                ("parent", lambda: _watch_parent(serving, stop)),
            )
        ]
        await stop.wait()
        health.set_problems("stop", "the server is stopping")
        await server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await site.close()
        if serving.closing is not None:
            await serving.closing()
    health.publish()


def run_keeper(keeper: Keeper, *, board: Board | None, parent: int) -> None:
    """Do the background work in this process until SIGTERM, or until the supervisor is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()
            if board is not None:
                board.write(Tally(), keeper.gauges)

    threading.Thread(target=watch, name="chargepki-watch", daemon=True).start()
    keeper.run(stop)


def _stop_event(serving: Serving) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        if serving.tls_files is not None:
            serving.tls_files.reload(force=True)

    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


@contextlib.contextmanager
def _thread(keeper: Keeper | None) -> Any:
    if keeper is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,), name="chargepki-keeper")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30.0)


async def _forever(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    while True:
        try:
            await work()
        except ChargePkiError as error:
            _log.warning("%s: %s; trying again", name, error)
            await asyncio.sleep(5.0)


async def _publish(health: Health) -> None:
    health.publish()
    await asyncio.sleep(1.0)


async def _preload(site: PkiSite) -> None:
    if site.gate.is_current:
        await site.responder.preload()
    await asyncio.sleep(_PRELOAD_SECONDS if site.responder.memory_bytes else 5.0)


async def _refill(site: PkiSite) -> None:
    """Notice that the inventory went or changed also when nobody asks, and have in memory what will be asked for."""
    if await site.gate.pass_through():
        await site.responder.refill()
        await site.artefacts.refill()
    await asyncio.sleep(_REFILL_SECONDS)


async def _probe(probe: Probe | None, health: Health) -> None:
    if probe is None:
        health.set_problems("start")
        await asyncio.sleep(3600)
        return
    problems = await asyncio.to_thread(run_quietly, probe, datetime.now(UTC))
    is_first = health.set_problems("start")
    if health.set_problems("probe", *problems) or is_first:
        # At the start the leader may still be signing what is looked for: not ready, but nothing to wake anybody for.
        starts = time.monotonic() - health.started < _START_SECONDS
        for problem in problems:
            if starts:
                _log.info("self-probe: not there yet: %s", problem)
            else:
                _log.error("self-probe: %s", problem, extra={"alert": "probe"})
        if not problems:
            _log.info("self-probe: every published artefact is there and valid")
    health.gauges["probe_failures"] = float(len(problems))
    health.gauges["probe_timestamp_seconds"] = time.time()
    await asyncio.sleep(_PROBE_AGAIN_SECONDS if problems else _PROBE_SECONDS)


async def _watch_tls(serving: Serving) -> None:
    await asyncio.sleep(_TLS_CHECK_SECONDS)
    if serving.tls_files is not None:
        serving.tls_files.reload()


async def _watch_parent(serving: Serving, stop: asyncio.Event) -> None:
    await asyncio.sleep(1.0)
    if serving.parent is not None and os.getppid() != serving.parent:
        _log.error("the supervisor is gone: this process ends", extra={"alert": "process"})
        stop.set()


def _measure(health: Health, site: PkiSite, server: HttpServer, serving: Serving, keeper: Keeper | None) -> None:
    health.gauges["connections"] = float(server.connections)
    health.gauges["inventory_reachable"] = 1.0 if site.gate.is_current else 0.0
    health.gauges["ocsp_memory_bytes"] = float(site.responder.memory_bytes)
    health.set_problems("inventory", *(() if site.gate.is_current else ("the inventory cannot be reached",)))
    if serving.tls_files is not None:
        left = serving.tls_files.not_after - datetime.now(UTC)
        health.gauges["tls_certificate_expiry_seconds"] = left.total_seconds()
    if keeper is not None:
        health.gauges.update(keeper.gauges)
        # Anybody may read /readyz; what a failure says, names of files for example, is in the log.
        duties = dict.fromkeys(failure.partition(":")[0] for failure in keeper.failures)
        health.set_problems("background", *(f"background work fails: {duty}; the log tells why" for duty in duties))
    elif serving.board is not None:
        # Another process of this service does it.
        fails = any(found["gauges"].get("background_failures") for found in serving.board.read_all())
        health.set_problems("background", *(("background work fails; the log tells why",) if fails else ()))
