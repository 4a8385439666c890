"""The short way through an upgrade request: it gives way, or it says and does what the library would."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.uri import parse_uri

from chargepki.ocpp_security.csms import upgrade_request
from chargepki.ocpp_security.csms.opening import Opening, OpeningConnection, OpeningTerms
from chargepki.ocpp_security.csms.upgrade_request import build_acceptance, read_usual
from chargepki.ocpp_security.gate import SUBPROTOCOLS

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
LINES = (
    "Host: csms.example:443",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: ocpp2.0.1, ocpp1.6",
)
DATE = re.compile(rb"Date: [^\r]*")


def terms(*, serves: bool = True, level: int = logging.CRITICAL + 1) -> OpeningTerms:
    logger = logging.Logger("upgrade-test", level)
    return OpeningTerms(
        subprotocols=SUBPROTOCOLS,
        max_size=65_536,
        max_queue=8,
        ping_interval=None,
        ping_timeout=20,
        close_timeout=5,
        logger=logger,
        is_serving=lambda: serves,
    )


def request_of(*lines: str, first: str = "GET /ocpp/CS-1 HTTP/1.1") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


# --- the reader --------------------------------------------------------------------------------------------------

USUAL = {
    "as websockets sends it": ClientProtocol(parse_uri("wss://csms.example/ocpp/CS-1")).connect().serialize(),
    "as ws of Node.js sends it": request_of(
        *(*LINES[3:5], "Connection: Upgrade", "Upgrade: websocket", "Authorization: Basic Q1M6eA=="),
        *("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", *LINES[5:], LINES[0]),
    ),
    "as libwebsockets sends it": request_of(
        *("Pragma: no-cache", "Cache-Control: no-cache", *LINES, "Origin: https://csms.example"),
    ),
    "as browsers send it": request_of(LINES[0], "Connection: keep-alive, Upgrade", LINES[1], *LINES[3:]),
    "without a subprotocol": request_of(*LINES[:5]),
    "lower case, no blanks": request_of(
        *(line.lower().replace(": ", ":") for line in LINES if "Key" not in line), LINES[3]
    ),
}


@pytest.mark.parametrize("name", USUAL)
def test_what_common_clients_send_is_read_in_one_go(name: str) -> None:
    assert read_usual(USUAL[name]) is not None


NAMES = (
    *("Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"),
    *("Origin", "Content-Length", "Transfer-Encoding", "Authorization", "Sec-WebSocket-Extensions", "X", ""),
)
VALUES = (
    *("websocket", "WebSocket", "h2c", "Upgrade", "keep-alive, Upgrade", "upgrade , close", ",Upgrade", "close"),
    *(KEY, KEY[:-1], "!" * 24, "A" * 21 + "B==", "A" * 20 + "====", KEY + " ", "13", "8", "013"),
    *("ocpp2.0.1", "ocpp1.6,ocpp2.1", "ocpp9", ", ocpp1.6", "ocpp1.6,", "ocpp 1.6", "a,\tocpp1.6", "", "0", "1"),
    *("chunked", "permessage-deflate", "x\x00y", "caf\xe9", "a\rb", "a\nb", "x" * 5000, "\t", "a: b"),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """An upgrade request that is usual, or that differs from one in a few places."""
    lines = list(LINES)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(lines)))
        colon = draw(st.sampled_from([": ", ":", ":  ", " :", "", "\t: \t"]))
        line = draw(st.sampled_from(NAMES)) + colon + draw(st.sampled_from(VALUES))
        lines[place : place + draw(st.integers(0, 1))] = [line]
    lines = draw(st.permutations(lines)) if draw(st.booleans()) else lines
    lines += ["X: y"] * draw(st.sampled_from([0] * 8 + [50, 70, 130]))
    ends = draw(st.sampled_from(["\r\n"] * 8 + ["\n", "\r", "\r\n\r\n", "\r\n "]))
    method = draw(st.sampled_from(["GET"] * 8 + ["get", "POST", "G ET", ""]))
    path = draw(
        st.sampled_from(["/ocpp/CS-1"] * 6 + ["/", "", "*", "/a b", "/\xe9", "/%00", "/x" * 5000, "http://x/y"])
    )
    protocol = draw(st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2", "http/1.1", "HTTP/1.1 "]))
    data = ends.join([f"{method} {path} {protocol}", *lines, "", ""]).encode("latin-1")
    octet = draw(st.one_of(st.none(), st.tuples(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=1))))
    return data if octet is None else data[: octet[0]] + octet[1] + data[octet[0] + 1 :]


@settings(max_examples=120)
@given(data=requests())
def test_a_request_is_left_to_the_library_or_read_and_answered_as_the_library_does(data: bytes) -> None:
    usual = read_usual(data)
    if usual is None:
        return
    protocol = terms().protocol(State.CONNECTING)
    protocol.receive_data(data)
    [theirs] = cast("list[Request]", protocol.events_received())
    ours = usual.request
    assert (ours.method, ours.path, ours.protocol) == (theirs.method, theirs.path, theirs.protocol)
    assert list(ours.headers.raw_items()) == list(theirs.headers.raw_items())
    protocol.send_response(protocol.accept(theirs))
    assert protocol.data_to_send() == [build_acceptance(usual, protocol.subprotocol)]
    assert (protocol.state, protocol.extensions, protocol.origin) == (State.OPEN, [], usual.origin)


def test_limits_that_an_operator_sets_for_the_library_hold_here_too() -> None:
    assert upgrade_request._MAX_BYTES <= 8192
    assert read_usual(request_of(*LINES, "X: " + "y" * 8192)) is None
    assert read_usual(request_of(*LINES, *["X: y"] * 130)) is None


# --- the connection ----------------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A transport in memory: what was written to it, and what became of it."""

    def __init__(self, *, half_closes: bool) -> None:
        super().__init__()
        self.written = bytearray()
        self.ends: list[str] = []
        self.protocol: Any = None
        self._half_closes, self._closing = half_closes, False

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return self._half_closes

    def write_eof(self) -> None:
        self.ends.append("eof")

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.ends.append("close")
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))

    abort = close

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Alone:
    """The library's connection without anything before it, which is what `Opening` is held against."""

    def __init__(self, terms: OpeningTerms) -> None:
        self._connection = terms.make(State.CONNECTING)
        self.respond = self._connection.respond

    def connection_made(self, wire: Wire) -> None:
        wire.set_protocol(self._connection)
        self._connection.connection_made(wire)

    async def open(self, judge: Callable[[Request], Awaitable[Response | None]]) -> OpeningConnection | None:
        return self._connection if await self._connection.open(judge) else None


@dataclass(slots=True)
class Told:
    """What the peer sees of a connection, and what the endpoint does."""

    written: bytes = b""
    ends: tuple[str, ...] = ()
    judged: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    subprotocol: str | None = None
    messages: list[Any] = field(default_factory=list)
    state: str = ""


Step = bytes | str


async def converse(kind: type[Opening] | type[Alone], steps: list[Step], verdict: str, *, half_closes: bool) -> Told:
    """Play *steps* to a connection of *kind*: octets, ``eof``, ``lost``, or ``judged`` (until then the judge waits)."""
    told, wire, may_judge = Told(), Wire(half_closes=half_closes), asyncio.Event()
    opener = kind(terms(serves=verdict != "stopping"))
    wire.set_protocol(cast("asyncio.BaseProtocol", opener))

    async def judge(request: Request) -> Response | None:
        told.judged.append((request.path, list(request.headers.raw_items())))
        await may_judge.wait()
        if verdict == "fault":
            raise RuntimeError("a bug")
        return opener.respond(HTTPStatus.FORBIDDEN, "no\n") if verdict == "refused" else None

    async def settle() -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    opener.connection_made(wire)
    task = asyncio.create_task(opener.open(judge))
    for step in steps:
        await settle()
        if wire.is_closing():
            break
        if isinstance(step, bytes):
            wire.protocol.data_received(step)
        elif step == "judged":
            may_judge.set()
        elif step == "eof":
            if not wire.protocol.eof_received():
                wire.close()
        else:
            wire.close()
    may_judge.set()
    await settle()
    if not task.done():
        wire.close()
    connection = await task
    if connection is not None:
        told.subprotocol = connection.subprotocol
        for opcode in (Opcode.PING, Opcode.TEXT):
            if not wire.is_closing():
                wire.protocol.data_received(Frame(opcode, b"hello").serialize(mask=True))
        await settle()
        while len(connection.recv_messages.frames) and len(told.messages) < 5:
            told.messages.append(await connection.recv())
        told.state = connection.state.name
    wire.close()
    await settle()
    told.written, told.ends = DATE.sub(b"Date: x", bytes(wire.written)), tuple(wire.ends)
    return told


EARLY = Frame(Opcode.TEXT, b"early").serialize(mask=True)
PLAIN = request_of(*LINES)


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    data = draw(st.one_of(st.just(PLAIN), requests()))
    data += draw(st.sampled_from([b""] * 6 + [EARLY, b"\x00"]))
    cuts = sorted(draw(st.lists(st.integers(1, max(1, len(data) - 1)), max_size=2)) if draw(st.booleans()) else [])
    steps: list[Step] = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    extras: list[Step] = ["judged", "judged", "eof", "lost", EARLY]
    for extra in draw(st.lists(st.sampled_from(extras), max_size=3)):
        steps.insert(draw(st.integers(0, len(steps))), extra)
    return steps


VERDICTS = st.sampled_from(["welcome", "welcome", "refused", "fault", "stopping"])


@settings(max_examples=60, deadline=None)
@given(steps=stories(), verdict=VERDICTS, half_closes=st.booleans())
def test_whatever_comes_and_whenever_the_peer_sees_what_the_library_alone_would_show_it(
    steps: list[Step], verdict: str, half_closes: bool
) -> None:
    ours = asyncio.run(converse(Opening, steps, verdict, half_closes=half_closes))
    theirs = asyncio.run(converse(Alone, steps, verdict, half_closes=half_closes))
    assert ours == theirs


def test_a_usual_request_opens_a_connection_that_the_library_goes_on_with() -> None:
    told = asyncio.run(converse(Opening, [PLAIN, "judged"], "welcome", half_closes=False))
    assert told.written.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert told.written.endswith(b"\r\n\r\n" + Frame(Opcode.PONG, b"hello").serialize(mask=False))
    assert (told.subprotocol, told.messages, told.state) == ("ocpp2.0.1", ["hello"], "OPEN")


def test_the_library_parses_no_request_that_the_short_way_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(Request, "parse", parse)
    assert asyncio.run(converse(Opening, [PLAIN, "judged"], "welcome", half_closes=False)).state == "OPEN"


def test_who_listens_to_the_librarys_log_gets_the_librarys_handshake() -> None:
    opening, wire = Opening(terms(level=logging.INFO)), Wire(half_closes=False)

    async def story() -> Any:
        opening.connection_made(wire)
        opening.data_received(PLAIN)
        return wire.protocol

    assert isinstance(asyncio.run(story()), OpeningConnection)
