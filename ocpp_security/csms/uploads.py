"""The endpoint that stations upload their logs to: it takes what was asked for, once, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from aiohttp import BodyPartReader, web

from chargepki.ocpp_security.csms.binding import bind
from chargepki.ocpp_security.csms.journal import Incident, SecurityJournal
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.csms.services import station_actor
from chargepki.ocpp_security.log_requests import is_failure, token_digest
from chargepki.ocpp_security.log_store import ReceivedLog, record_received
from chargepki.ocpp_security.tls import with_few_sessions
from chargepki.pki.errors import ChargePkiError, Conflict, UnavailableError
from chargepki.pki.files import NewFile, make_private_folder
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.event_records import LogRequestState, RequestedLogRecord
from chargepki.pki.inventory.records import Actor, ActorKind

__all__ = ["UploadConfig", "UploadServer"]

_log = logging.getLogger("chargepki.csms")
_EVENT: Final = "LogUploadRefused"
_CHUNK: Final = 256 * 1024
_NOT_MADE_AGAIN: Final = "the TLS context for uploads cannot be made again: %s; the next connection tries it again"
_CLEANUP_SECONDS: Final = 5.0
_T = TypeVar("_T")
_HEADERS_SECONDS: Final = 20.0
"""From the connection to the end of the request's headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig:
    """Where logs are taken, and what a peer may cost."""

    host: str = "127.0.0.1"
    port: int = 0
    folder: Path
    """Received logs, one file each; created 0700."""
    tls: ssl.SSLContext | None = None
    """A certificate that a client shows must be the station's own; it need not show one."""
    max_connections: int = 256
    max_uploads: int = 16
    idle: timedelta = timedelta(seconds=30)
    """Longest silence within an upload."""
    longest: timedelta = timedelta(minutes=15)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class _Refused(Exception):
    """An upload that is not taken; *status* for the peer, *cause* for the operator."""

    def __init__(self, status: int, cause: str, *, close: bool = True) -> None:
        super().__init__(cause)
        self.status, self.cause, self.close = status, cause, close


class UploadServer:
    """Takes ``PUT`` and ``POST`` at ``/logs/STATION/REQUEST/TOKEN``, with or without a file name behind (N01.FR.18).

    The token is made for one request of one station and cannot be guessed; its holder may upload once, until the
    request ends, and no more than was allowed. Any number of processes may take uploads on one inventory.

    Example:
        async with UploadServer(UploadConfig(folder=home / "logs"), inventory) as server:
            print(server.port)
    """

    def __init__(self, config: UploadConfig, inventory: Inventory) -> None:
        self.config = config
        self._inventory = inventory
        self._offload = Offload(threads=4)
        actor = Actor("uploads", ActorKind.SYSTEM, authenticated=True)
        self._journal = SecurityJournal(inventory, self._offload, config.clock, actor)
        self._busy: set[str] = set()
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        self._runner: web.AppRunner | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls = config.tls
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The bound TCP port."""
        assert self._sockets, "call start first"
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context of new connections; made anew when OpenSSL remembers many sessions in it."""
        return self._tls

    async def start(self) -> None:
        """Bind, and begin to serve.

        Raises:
            UnavailableError: the address cannot be bound, or the folder cannot be made.
            StateError: others can write to the folder.
        """
        await self._offload.run(make_private_folder, self.config.folder)
        app = web.Application(client_max_size=1024)
        for path in ("/logs/{station}/{request}/{token}", "/logs/{station}/{request}/{token}/{name}"):
            app.router.add_put(path, self._take)
            app.router.add_post(path, self._take)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=5, lingering_time=1)
        await self._runner.setup()
        try:
            self._sockets = await bind(self.config.host, self.config.port, backlog=128)
            await self._listen(self._tls)
        except OSError as exc:
            await self._runner.cleanup()
            raise UnavailableError(
                f"cannot listen for uploads on {self.config.host}:{self.config.port}", why=exc.strerror or str(exc)
            ) from exc

    async def stop(self) -> None:
        """Close the port and every upload under way. Idempotent."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        for timer in self._waiting.values():
            timer.cancel()
        if self._runner is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLEANUP_SECONDS):
                    await self._runner.cleanup()
            self._runner = None
            await self._journal.drain()
            self._offload.close()

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        """Accept from now on with *context*; a server of asyncio cannot be given another one.

        Raises:
            OSError: it cannot; what listened before goes on.
        """
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        try:
            for sock in self._sockets:
                # Both listen on one queue of the kernel, so that nobody who comes meanwhile is lost.
                again = sock.dup()
                again.setblocking(False)
                servers.append(await loop.create_server(self._protocol, sock=again, ssl=context, backlog=128))
        except BaseException:
            for server in servers:
                server.close()
            raise
        before, self._servers, self._tls = self._servers, servers, context
        for server in before:
            server.close()

    def _forget_sessions(self) -> None:
        """Go on with another TLS context when OpenSSL remembers many sessions in this one."""
        if self._tls is None or (self._renewing is not None and not self._renewing.done()):
            return
        try:
            context = with_few_sessions(self._tls)
        except (ChargePkiError, OSError) as error:
            _log.error(_NOT_MADE_AGAIN, error)
            return
        if context is not self._tls:
            self._renewing = asyncio.get_running_loop().create_task(self._renew(context))

    async def _renew(self, context: ssl.SSLContext) -> None:
        try:
            await self._listen(context)
        except OSError as error:
            _log.error(_NOT_MADE_AGAIN, error)

    def _protocol(self) -> asyncio.Protocol:
        """Make the protocol of one connection; one that asks for nothing in time is dropped."""
        assert self._runner is not None and self._runner.server is not None
        self._forget_sessions()
        if len(self._runner.server.connections) >= self.config.max_connections:
            return _Full()
        protocol = self._runner.server()

        def give_up() -> None:
            del self._waiting[id(protocol)]
            if protocol.transport is not None:
                protocol.transport.abort()

        self._waiting[id(protocol)] = asyncio.get_running_loop().call_later(_HEADERS_SECONDS, give_up)
        return protocol

    async def _take(self, request: web.Request) -> web.Response:
        timer = self._waiting.pop(id(request.protocol), None)
        if timer is not None:
            timer.cancel()
        try:
            log = await self._judge(request)
            async with asyncio.timeout(self.config.longest.total_seconds()):
                received = await self._receive(request, log)
        except _Refused as refusal:
            return self._refuse(request, refusal)
        except TimeoutError:
            return self._refuse(request, _Refused(408, "it took too long"))
        except UnavailableError as exc:
            _log.error("a log cannot be stored: %s", exc)
            return self._refuse(request, _Refused(503, "it cannot be stored"))
        _log.info("%s uploaded its %s (%d bytes)", log.station, log.log_type, received.size)
        return web.Response(status=201)

    def _refuse(self, request: web.Request, refusal: _Refused) -> web.Response:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = f"{peer[0]}:{peer[1]}" if peer else "unknown:0"
        claimed = request.match_info.get("station", "")
        incident = Incident("upload-refused", f"upload of a log refused: {refusal.cause}", event=_EVENT)
        self._journal.note(incident, station=None, peer=address, claimed=claimed)
        answer = web.Response(status=refusal.status)
        # What it still sends is not read.
        answer.force_close()
        return answer

    async def _judge(self, request: web.Request) -> RequestedLogRecord:
        """Return the request that this upload answers.

        Raises:
            _Refused: there is none, it is over, or somebody else answers it.
        """
        parts = request.match_info
        log = await self._offload.run(self._inventory.find_requested_log_by_token, token_digest(parts["token"]))
        # A token under another station's or request's path is as good as none.
        if log is None or (log.station, str(log.request_id)) != (parts["station"], parts["request"]):
            raise _Refused(404, "nobody asked for it")
        await self._check_certificate(request, log)
        if log.state is not LogRequestState.REQUESTED or is_failure(log.status):
            raise _Refused(410, f"request {log.request_id} of {log.station} is {log.state.value} already")
        if self.config.clock() >= log.expires_at:
            raise _Refused(410, f"request {log.request_id} of {log.station} has expired")
        if request.content_length is not None and request.content_length > log.max_bytes + _CHUNK:
            raise _Refused(413, f"{request.content_length} bytes are announced, {log.max_bytes} are allowed")
        if log.id in self._busy:
            raise _Refused(409, f"request {log.request_id} of {log.station} is being uploaded already")
        if len(self._busy) >= self.config.max_uploads:
            raise _Refused(503, "too many uploads at once")
        return log

    async def _check_certificate(self, request: web.Request, log: RequestedLogRecord) -> None:
        """Refuse a client that shows another station's certificate."""
        tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der is None:
            return
        digest = hashlib.sha256(der).hexdigest()
        record = await self._offload.run(self._inventory.find_certificate_by_sha256, digest)
        if record is None or record.station != log.station:
            raise _Refused(403, f"the client's certificate is not one of {log.station}")

    async def _receive(self, request: web.Request, log: RequestedLogRecord) -> ReceivedLog:
        self._busy.add(log.id)
        path = self.config.folder / f"{log.id}-{secrets.token_hex(4)}.log"
        file = await self._offload.run(NewFile, path)
        try:
            digest, size, pending = hashlib.sha256(), 0, bytearray()
            async for chunk in self._body(request):
                size += len(chunk)
                if size > log.max_bytes:
                    raise _Refused(413, f"more than {log.max_bytes} bytes")
                digest.update(chunk)
                pending += chunk
                if len(pending) >= _CHUNK:
                    await self._offload.run(file.write, bytes(pending))
                    pending.clear()
            await self._offload.run(file.write, bytes(pending))
            received = ReceivedLog(size, digest.hexdigest(), path.name)
            # The file first: what the inventory names is there, whatever happens in between.
            await self._offload.run(file.commit)
            await self._record(log, received, path)
            return received
        finally:
            self._busy.discard(log.id)
            await self._offload.run(file.abandon)

    async def _record(self, log: RequestedLogRecord, received: ReceivedLog, path: Path) -> None:
        actor, now = station_actor(log.station), self.config.clock()
        try:
            await self._offload.run(self._inventory.write, lambda tx: record_received(tx, log.id, received, actor, now))
        except ChargePkiError as exc:
            await self._offload.run(path.unlink, missing_ok=True)
            if isinstance(exc, Conflict):
                raise _Refused(410, f"request {log.request_id} of {log.station} is over") from exc
            raise

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """Yield the log: the body, or the first file of a form; a silent peer is given up."""
        try:
            if request.content_type.startswith("multipart/"):
                part = await self._soon((await request.multipart()).next())
                if not isinstance(part, BodyPartReader):
                    raise _Refused(400, "the form holds no file")
                while piece := await self._soon(part.read_chunk(_CHUNK)):
                    yield bytes(piece)
                return
            size = 0
            while chunk := await self._soon(request.content.read(_CHUNK)):
                size += len(chunk)
                yield chunk
            if request.content_length is not None and size != request.content_length:
                raise _Refused(400, "it ended early")
        except (ValueError, ConnectionError, web.HTTPException, web.RequestPayloadError) as exc:
            raise _Refused(400, f"the body cannot be read ({type(exc).__name__})") from exc

    async def _soon(self, work: Awaitable[_T]) -> _T:
        # Not wait_for: that of Python 3.11 forgets a cancellation that meets the result, and starts a task each time.
        async with asyncio.timeout(self.config.idle.total_seconds()):
            return await work


class _Full(asyncio.Protocol):
    """Takes the place of a connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
