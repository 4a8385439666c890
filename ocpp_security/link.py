"""An `RpcSession` over an open WebSocket: the same loop for the CSMS and for the simulated station."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, PeerAnswer, RpcErrorCode
from chargepki.ocpp_security.redact import without_message
from chargepki.ocpp_security.rpc import (
    AnswerReceived,
    CallReceived,
    CallTimedOut,
    ErrorReceived,
    Origin,
    ProtocolViolation,
    ResultErrorReceived,
    RpcEvent,
    RpcSession,
    SendFrame,
    SendReceived,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import ChargePkiError, UnavailableError, printable

__all__ = ["CallRefused", "CallUnanswered", "Reply", "RpcLink", "TaskedLink"]

_MAX_BACKGROUND = 16


class CallRefused(ChargePkiError):
    """The peer answered our call with a CALLERROR, or with something that is no valid answer (`origin` says which)."""

    code: ClassVar[str] = "call-refused"

    def __init__(self, action: str, rpc_code: str, description: str, origin: Origin) -> None:
        blame = "the peer refused" if origin is Origin.PEER else "the peer's answer is malformed:"
        super().__init__(f"{action}: {blame} {rpc_code}", why=description)
        self.rpc_code, self.description, self.origin = rpc_code, description, origin


class CallUnanswered(UnavailableError):
    """Our call got no answer in time, or the connection ended first; when `sent`, the peer may have acted on it."""

    code: ClassVar[str] = "call-unanswered"

    def __init__(self, action: str, *, sent: bool) -> None:
        how = "was not answered" if sent else "was never sent"
        super().__init__(f"{action} {how}", fix="ask the station for its state before sending it again" if sent else "")
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call of the peer, and what to do once it is on its way."""

    payload: dict[str, Any]
    then: Callable[[], Awaitable[None]] | None = None
    """Runs in a task of its own after the answer was written, so it may call the peer."""


class RpcLink:
    """Reads, answers and calls over one connection until it closes.

    Calls of the peer are answered one after the other: what a hurried peer sends waits in bounded queues and then in
    its own socket.

    Args:
        on_call: answers a call; raises `OcppRefusal` to refuse it. Any other error is answered InternalError, so a bug
            in one handler costs that message and not the connection.
        on_violation: told about every broken rule of OCPP-J; the link itself goes on.
        trace: told about every frame, with ``receive`` or ``send``, in place of the log; it must redact what it keeps.
    """

    def __init__(
        self,
        connection: Connection,
        session: RpcSession,
        *,
        on_call: Callable[[CallReceived], Awaitable[Reply]],
        on_violation: Callable[[ProtocolViolation], Awaitable[None]],
        clock: Callable[[], datetime],
        log: logging.Logger,
        name: str,
        trace: Callable[[str, str | bytes], None] | None = None,
    ) -> None:
        self.connection, self.session = connection, session
        self._trace = trace
        self._on_call, self._on_violation = on_call, on_violation
        self._clock, self._log, self._name = clock, log, name
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._ended = False

    async def run(self) -> None:
        """Serve the connection until it closes; never raises for what the peer does."""
        try:
            while True:
                frame = await self.connection.recv()
                self._show("receive", frame)
                if self._closing is not None:
                    # A peer that lost its right may go on sending until the close is through; nothing of it counts.
                    continue
                await self.feed(frame)
        except ConnectionClosed:
            pass
        finally:
            await self._end()

    async def feed(self, frame: str | bytes) -> None:
        """Take a frame that the peer has sent; `run` does so for every one that comes."""
        await self._perform(self.session.receive(frame, self._clock()))

    async def call(
        self, action: str, payload: dict[str, Any], timeout: timedelta, *, unchecked: bool = False
    ) -> dict[str, Any]:
        """Call the peer and return the payload of its answer (camelCase, valid by its schema unless *unchecked*).

        Raises:
            InputError: unknown action, or a payload that its schema does not allow.
            StateError: too many calls wait for this peer.
            CallRefused: the peer answered with an error.
            CallUnanswered: no answer in time, or the connection ended.
        """
        if self._ended:
            raise CallUnanswered(action, sent=False)
        outgoing = self.session.call(action, payload, self._clock(), timeout, unchecked=unchecked)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # Whoever waits may be cancelled in the instant in which the connection ends: then nobody looks at the error.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting[outgoing.message_id] = future
        if outgoing.text is not None:
            await self._send(outgoing.text)
        if self._timer is None or self._timer.done():
            self._timer = asyncio.get_running_loop().create_task(self._watch_time())
        return await future

    def spawn(self, work: Awaitable[None]) -> None:
        """Run *work* beside the reading loop; it is cancelled when the connection ends."""

        async def guarded() -> None:
            try:
                await work
            except ChargePkiError as exc:
                self._log.warning("%s: %s", self._name, exc)
            except Exception as exc:  # noqa: BLE001 (a bug in one background task must not pass unseen, nor end the process)
                self._log.error("%s: a background task failed", self._name, exc_info=without_message(exc))

        task = asyncio.get_running_loop().create_task(guarded())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def is_alive(self, seconds: float) -> bool:
        """Ping the peer and say whether it answered within *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await (await self.connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True

    @property
    def is_closing(self) -> bool:
        """Whether we have begun to close the connection."""
        return self._closing is not None

    def farewell(self) -> str:
        """Return how the connection ended, for a log line."""
        code, reason = self.connection.close_code, self.connection.close_reason
        return printable(f"{code} {reason}".strip()) if code is not None else "no close frame"

    def close_soon(self, code: int, reason: str) -> asyncio.Task[None]:
        """Start to close the connection; the first code and reason win, the latter cut to 123 bytes."""
        if self._closing is None:
            text = reason.encode("utf-8")[:123].decode("utf-8", "ignore")
            self._closing = asyncio.get_running_loop().create_task(self.connection.close(code, text))
        return self._closing

    async def _perform(self, events: list[RpcEvent]) -> None:
        for event in events:
            match event:
                case SendFrame():
                    await self._send(event.text)
                case CallReceived():
                    await self._answer(event)
                case AnswerReceived():
                    self._settle(event.message_id, event.payload)
                case ErrorReceived():
                    self._settle(
                        event.message_id, CallRefused(event.action, event.code, event.description, event.origin)
                    )
                case CallTimedOut():
                    self._settle(event.message_id, CallUnanswered(event.action, sent=event.sent))
                case ProtocolViolation():
                    await self._on_violation(event)
                case SendReceived():
                    pass
                case ResultErrorReceived():
                    self._log.warning(
                        "%s: our answer to %s was not understood: %s", self._name, event.action, event.code
                    )

    async def _answer(self, event: CallReceived) -> None:
        try:
            reply = await self._on_call(event)
            text = self.session.answer(event.message_id, reply.payload)
        except OcppRefusal as refusal:
            self._log.info("%s: %s refused: %s", self._name, event.action, refusal)
            await self._send(self._refusal_frame(event.message_id, refusal.answer))
            return
        except ChargePkiError as exc:
            self._log.error("%s: %s could not be answered: %s", self._name, event.action, exc)
            await self._send(self.session.refuse(event.message_id, RpcErrorCode.INTERNAL_ERROR))
            return
        except Exception as exc:  # noqa: BLE001 (the boundary to the peer: a bug in one handler must not end its connection)
            self._log.error("%s: the handler of %s failed", self._name, event.action, exc_info=without_message(exc))
            await self._send(self.session.refuse(event.message_id, RpcErrorCode.INTERNAL_ERROR))
            return
        await self._send(text)
        if reply.then is not None:
            await self._follow(reply.then())

    async def _follow(self, work: Awaitable[None]) -> None:
        if len(self._background) < _MAX_BACKGROUND:
            self.spawn(work)
        elif isinstance(work, Coroutine):
            work.close()

    def _refusal_frame(self, message_id: str, answer: PeerAnswer) -> str:
        if isinstance(answer, CallErrorAnswer):
            return self.session.refuse(message_id, answer.code, answer.description)
        payload: dict[str, Any] = {"status": answer.status}
        if self.session.version is not OcppVersion.V16 and answer.reason_code is not None:
            payload["statusInfo"] = {"reasonCode": answer.reason_code}
            if answer.additional_info:
                payload["statusInfo"]["additionalInfo"] = answer.additional_info
        return self.session.answer(message_id, payload)

    def _settle(self, message_id: str, outcome: dict[str, Any] | ChargePkiError) -> None:
        future = self._waiting.pop(message_id, None)
        if future is None or future.done():
            return
        if isinstance(outcome, ChargePkiError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _show(self, direction: str, frame: str | bytes) -> None:
        if self._trace is not None:
            self._trace(direction, frame)
        elif self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("%s: %ss %s", self._name, direction, self.session.for_log(frame))

    async def _send(self, text: str) -> None:
        self._show("send", text)
        # A closed connection ends the reading loop too, which settles what is open.
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(text)

    async def _watch_time(self) -> None:
        while self._waiting:
            due = self.session.next_due()
            wait = 0.05 if due is None else (due - self._clock()).total_seconds()
            await asyncio.sleep(min(max(wait, 0.01), 1.0))
            await self._perform(self.session.due(self._clock()))

    async def _end(self) -> None:
        self._ended = True
        for lost in self.session.abandon():
            self._settle(lost.message_id, CallUnanswered(lost.action, sent=lost.sent))
        if self._timer is not None:
            self._timer.cancel()
        # Background work sees the end of its calls by itself; give it a moment to record that, then stop it.
        if self._background:
            _done, late = await asyncio.wait(set(self._background), timeout=5)
            for task in late:
                task.cancel()


class TaskedLink(RpcLink):
    """Answers in a task of its own, still one call after the other: a handler may call the peer and await the answer.

    What waits is bounded by `Limits.max_open_calls`; a peer that sends more at once is answered with an error.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._inbox: asyncio.Queue[CallReceived | None] = asyncio.Queue()
        self._has_worker = False

    async def _answer(self, event: CallReceived) -> None:
        self._inbox.put_nowait(event)
        if not self._has_worker:
            self._has_worker = True
            self.spawn(self._answer_all())

    async def _answer_all(self) -> None:
        while (event := await self._inbox.get()) is not None:
            await super()._answer(event)

    async def _follow(self, work: Awaitable[None]) -> None:
        # Somebody's handler must run; when many do already, the next call of the peer waits for this one.
        if len(self._background) < _MAX_BACKGROUND:
            self.spawn(work)
        else:
            await work

    async def _end(self) -> None:
        self._inbox.put_nowait(None)
        await super()._end()
