"""Put the services together from the options of ``serve`` and run them until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.listening import event_loop_factory, parse_listen
from chargepki.pki import aio
from chargepki.pki.authority.ocsp import OcspSigner, find_delegate
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.keys import PrivateKey
from chargepki.pki.pointers import check_public_url
from chargepki.pki.services.allocator import give_memory_back
from chargepki.pki.services.est import EstService
from chargepki.pki.services.est_routes import est_routes, est_trust, read_server_key
from chargepki.pki.services.est_settings import EstSettings, check_labels, load_est_settings
from chargepki.pki.services.failures import SharedFailures
from chargepki.pki.services.http import Handler
from chargepki.pki.services.keeper import Keeper
from chargepki.pki.services.logs import start_logging
from chargepki.pki.services.metrics import Board
from chargepki.pki.services.ocsp import Signers
from chargepki.pki.services.run import Serving, run_keeper, run_server
from chargepki.pki.services.server import bind
from chargepki.pki.services.staples import read_tokens
from chargepki.pki.services.supervisor import supervise
from chargepki.pki.services.tls import TlsFiles
from chargepki.pki.workspace import Workspace

__all__ = ["serve_pki"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the options say, checked, with sockets bound."""

    plain: list[socket.socket]
    tls: list[socket.socket]
    tls_files: TlsFiles | None
    probe_base: str
    public_url: str | None
    holds_keys: bool
    access_log: bool
    est: EstSettings
    est_key: tuple[PrivateKey, bytes] | None
    est_failures: SharedFailures | None
    """Of all processes that serve EST."""
    issues_here: bool
    answer_bytes: int
    staple_tokens: Callable[[], Sequence[bytes]] | None
    images: _ImagePlan
    pages: Callable[[], Mapping[bytes, Handler]] | None
    """Makes the routes of reports, for one process."""


@dataclass(frozen=True, slots=True)
class _ImagePlan:
    """How images of firmware are served; rates in bytes per second and process."""

    rate: int | None
    total: int | None
    downloads: int
    plain: bool


class Alerts(Protocol):
    """What is done with log records that carry ``alert``."""

    def listen(self) -> None:
        """Begin to take them, in this process and in every one that it forks."""
        ...

    def beside(self) -> contextlib.AbstractContextManager[None]:
        """Deliver them in a thread for the length of the block."""
        ...

    def run(self, parent: int) -> int:
        """Deliver them in this process, until told to stop or *parent* is gone."""
        ...


class Reports(Protocol):
    """The report on the inventory, made in a process of its own."""

    def routes(self) -> Mapping[bytes, Handler]:
        """Return what serves it in one process."""
        ...

    def run(self, parent: int) -> int:
        """Make reports in this process, until told to stop or *parent* is gone."""
        ...


def serve_pki(
    state: GlobalState, options: Mapping[str, Any], *, alerts: Alerts | None = None, reports: Reports | None = None
) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        click.UsageError: options that contradict each other.
        SignerError: the passphrase does not open the keys.
        UnavailableError: an address is taken, or a file or the inventory cannot be read.
    """
    holds_keys = not options["presigned_only"]
    if not holds_keys:
        state.writes = ""  # reading is all that it does, and all that it needs rights for
    level = logging.DEBUG if state.verbose else logging.WARNING if state.quiet else logging.INFO
    start_logging(as_json=options["log_json"], level=level)
    give_memory_back()
    workers = int(options["workers"])
    plan = _plan(state, options, workers, holds_keys=holds_keys, pages=None if reports is None else reports.routes)
    workspace = state.workspace
    # What would stop every process stops the start: no inventory, an old schema, a wrong passphrase.
    workspace.inventory.list_cas()
    if holds_keys:
        workspace.check_passphrase()

    def ready() -> None:
        _tell_ready(state, plan)

    if alerts is not None:
        alerts.listen()
    # A report of a large inventory takes minutes of a processor, which no process that answers can spare.
    if workers == 1 and reports is None:
        _serve_alone(workspace, plan, alerts, ready)
        state.output.say("stopped")
        return
    # Connections must not cross a fork: each process opens its own.
    workspace.forget_inventory()
    supervise(_children(workspace, plan, workers, alerts, reports), ready=ready)
    state.output.say("stopped")


def _children(
    workspace: Workspace, plan: _Plan, workers: int, alerts: Alerts | None, reports: Reports | None
) -> list[tuple[str, Callable[[], int]]]:
    """Return what each process does, with the name that it has in the log."""
    board = Board(workers + 1)
    parent = os.getpid()

    def serve_one(number: int) -> int:
        board.take_slot(number)
        serving = _serving(workspace, plan, number, board=board, parent=parent)
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(run_server(serving))
        workspace.close()
        return 0

    def keep() -> int:
        board.take_slot(workers)
        run_keeper(_keeper(workspace), board=board, parent=parent)
        workspace.close()
        return 0

    children: list[tuple[str, Callable[[], int]]] = [
        (f"serving #{number}", partial(serve_one, number)) for number in range(workers)
    ]
    if plan.holds_keys:
        children.append(("background", keep))
    if alerts is not None:
        children.append(("alerts", lambda: alerts.run(parent)))
    if reports is not None:
        children.append(("reports", lambda: reports.run(parent)))
    return children


def _serve_alone(workspace: Workspace, plan: _Plan, alerts: Alerts | None, ready: Callable[[], None]) -> None:
    """Do everything in this process."""
    keeper = _keeper(workspace) if plan.holds_keys else None
    serving = _serving(workspace, plan, 0)
    beside = contextlib.nullcontext() if alerts is None else alerts.beside()
    with beside, asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(run_server(serving, keeper=keeper, ready=ready))


def _plan(
    state: GlobalState,
    options: Mapping[str, Any],
    workers: int,
    *,
    holds_keys: bool,
    pages: Callable[[], Mapping[bytes, Handler]] | None,
) -> _Plan:
    given = [options[name] for name in ("tls_listen", "tls_cert", "tls_key")]
    if any(given) and not all(given):
        raise click.UsageError("--tls-listen, --tls-cert and --tls-key belong together")
    if options["issue_here"] and not holds_keys:
        raise click.UsageError("--issue-here needs the keys that --presigned-only does without")
    est = load_est_settings(state.settings.home / CONFIG_FILE)
    check_labels(est, state.workspace.inventory)
    tls_files, est_key = None, None
    if all(given):
        certificate, key = Path(options["tls_cert"]), Path(options["tls_key"])
        # Asked through the workspace each time: a connection to the database must not cross a fork.
        trust = (lambda: est_trust(state.workspace.inventory)) if est.labels else None
        tls_files = TlsFiles(certificate, key, client_trust=trust)
        est_key = read_server_key(certificate, key) if est.labels else None
    elif est.labels:
        state.output.say("note: EST labels are set, but EST needs --tls-listen; it is not served")
    plain = _bind("--listen", options["listen"], workers)
    tls = _bind("--tls-listen", options["tls_listen"], workers) if options["tls_listen"] else []
    probe = options["probe_url"]
    return _Plan(
        plain=plain,
        tls=tls,
        tls_files=tls_files,
        probe_base=check_public_url(probe) if probe else _own_url(plain[0]),
        public_url=state.settings.public_url,
        holds_keys=holds_keys,
        access_log=options["access_log"],
        est=est,
        est_key=est_key,
        est_failures=SharedFailures() if est_key else None,
        issues_here=options["issue_here"],
        answer_bytes=options["answer_memory_mib"] << 20,
        staple_tokens=_staple_tokens(options["staples_token_file"]),
        images=_image_plan(state, options, workers),
        pages=pages,
    )


def _staple_tokens(file: str | None) -> Callable[[], Sequence[bytes]] | None:
    if file is None:
        return None
    read = partial(read_tokens, Path(file))
    read()  # what is wrong with the file stops the start
    return read


def _image_plan(state: GlobalState, options: Mapping[str, Any], workers: int) -> _ImagePlan:
    if options["firmware_plain"]:
        state.output.say("warning: with --firmware-plain images travel in the clear, against L01.FR.08")
    rate, total = options["firmware_rate_kib"], options["firmware_total_kib"]
    return _ImagePlan(
        rate=rate * 1024 if rate else None,
        total=max(total * 1024 // workers, 1) if total else None,
        downloads=options["firmware_downloads"],
        plain=options["firmware_plain"],
    )


def _bind(option: str, text: str, count: int) -> list[socket.socket]:
    """Return one listening socket for each process, all on one port."""
    host, port = parse_listen(text, option=option)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(bind(host, port))
            port = int(sockets[0].getsockname()[1])
    except OSError as error:
        for each in sockets:
            each.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}", why=error.strerror or str(error), fix=f"choose another {option}"
        ) from error
    return sockets


def _own_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _tell_ready(state: GlobalState, plan: _Plan) -> None:
    shown = {"url": _own_url(plan.plain[0])}
    state.output.say(f"ready: {shown['url']}" + ("" if plan.holds_keys else " (prepared answers only)"))
    if plan.tls:
        shown["tls_url"] = _own_url(plan.tls[0]).replace("http:", "https:", 1)
        state.output.say(f"ready: {shown['tls_url']}")
    if state.output.for_machines:
        state.output.document("chargepki/serve", dict(shown))
        sys.stdout.flush()


def _serving(
    workspace: Workspace, plan: _Plan, number: int, *, board: Board | None = None, parent: int | None = None
) -> Serving:
    for position, listener in enumerate((*plan.plain, *plan.tls)):
        if position % len(plan.plain) != number:
            listener.close()  # another process's
    routes, closing = _est(workspace, plan)
    return Serving(
        inventory=workspace.inventory,
        routes={**routes, **_images(workspace, plan), **({} if plan.pages is None else plan.pages())},
        closing=closing,
        plain=plan.plain[number],
        tls=plan.tls[number] if plan.tls else None,
        tls_files=plan.tls_files,
        signers=_signers(workspace) if plan.holds_keys else None,
        public_url=plan.public_url,
        probe_base=plan.probe_base,
        access_log=plan.access_log,
        answer_bytes=plan.answer_bytes,
        staple_tokens=plan.staple_tokens,
        board=board,
        parent=parent,
    )


def _est(workspace: Workspace, plan: _Plan) -> tuple[Mapping[bytes, Handler], Callable[[], Awaitable[None]] | None]:
    """Return the routes of EST and what closes them; none without a label or without TLS."""
    if not plan.est.labels or plan.tls_files is None:
        return {}, None
    issuer: aio.Issuer
    if plan.issues_here:
        for label in plan.est.labels:
            workspace.authority.open_issuer(label.ca)
        issuer = aio.Authority(workspace.authority)
    else:
        issuer = aio.QueueIssuer(workspace.inventory, actor=workspace.actor)
    service = EstService(workspace.inventory, issuer, plan.est, server_key=plan.est_key, failures=plan.est_failures)

    async def close() -> None:
        service.close()
        await issuer.aclose()

    return est_routes(service), close


def _images(workspace: Workspace, plan: _Plan) -> Mapping[bytes, Handler]:
    """Return the route of firmware images; none where no listener may serve them, and none before there is any."""
    sealing = workspace.find_sealing_key()
    if sealing is None or not (plan.tls or plan.images.plain):
        return {}
    # A responder that hands out no firmware loads no OCPP code.
    from chargepki.ocpp_security.firmware_server import FirmwareImages

    return FirmwareImages(
        workspace.inventory,
        workspace.settings.home,
        sealing,
        bytes_per_second=plan.images.rate,
        total_bytes_per_second=plan.images.total,
        max_downloads=plan.images.downloads,
        allow_plain=plan.images.plain,
    ).routes()


def _signers(workspace: Workspace) -> Signers:
    authority = workspace.authority

    def find(ca: CaRecord) -> OcspSigner | None:
        # The delegate's key alone: no CA key is opened by what faces the network.
        return find_delegate(workspace.inventory, authority.keystore, ca, authority.now())

    return find


def _keeper(workspace: Workspace) -> Keeper:
    owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"
    return Keeper(workspace.authority, owner=owner, check_keys=workspace.check_tokens)
