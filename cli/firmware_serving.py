"""``chargepki firmware serve``: hand the images of releases to stations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from chargepki.cli.globals import GlobalState
from chargepki.cli.listening import event_loop_factory, parse_listen
from chargepki.ocpp_security.firmware_server import FirmwareImages
from chargepki.pki.errors import UnavailableError
from chargepki.pki.services.logs import start_logging
from chargepki.pki.services.tls import TlsFiles

__all__ = ["serve_images"]

_SHUTDOWN_SECONDS = 5
_RELOAD_SECONDS = 60


def serve_images(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT; a TLS certificate that changes is read again.

    Raises:
        click.UsageError: only one of certificate and key.
        UnavailableError: the address is taken, or a file cannot be read.
    """
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    level = logging.DEBUG if state.verbose else logging.WARNING if state.quiet else logging.INFO
    start_logging(as_json=options["log_json"], level=level)
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(_serve(state, options))


async def _serve(state: GlobalState, options: Mapping[str, Any]) -> None:
    host, port = parse_listen(options["listen"])
    workspace = state.workspace
    tls = TlsFiles(Path(options["tls_cert"]), Path(options["tls_key"])) if options["tls_cert"] else None
    images = FirmwareImages(
        workspace.inventory,
        workspace.settings.home,
        workspace.sealing_key,
        bytes_per_second=options["rate_kib"] * 1024 if options["rate_kib"] else None,
        max_downloads=options["max_downloads"],
    )
    application = web.Application()
    images.add_to(application)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, host, port, ssl_context=tls.context if tls else None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        try:
            await site.start()
        except OSError as exc:
            raise UnavailableError(
                f"cannot listen on {host}:{port}", why=exc.strerror or str(exc), fix="choose another --listen"
            ) from exc
        _tell_ready(state, runner, tls is not None)
        await _until_told(tls)
    finally:
        await runner.cleanup()


def _tell_ready(state: GlobalState, runner: web.AppRunner, is_tls: bool) -> None:
    host, port = runner.addresses[0][:2]
    url = f"{'https' if is_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    if not is_tls:
        state.output.say("warning: without --tls-cert images travel in the clear, against L01.FR.08")
    state.output.say(f"ready: {url}")
    if state.output.for_machines:
        state.output.document("chargepki/firmware-serve", {"url": url})
        sys.stdout.flush()


async def _until_told(tls: TlsFiles | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELOAD_SECONDS):
                await stop.wait()
        if tls is not None and not stop.is_set():
            await asyncio.to_thread(tls.reload)
