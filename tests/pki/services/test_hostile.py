"""Peers that are slow, greedy, broken or many: what they cost is bounded, and everybody else is served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import socket
import ssl
import time
from pathlib import Path

import pytest

from chargepki.pki import private_keys
from chargepki.pki.der import to_pem
from chargepki.pki.inventory import Inventory
from chargepki.pki.services.connection import HttpConnection
from chargepki.pki.services.http import Limits, Request, Response
from chargepki.pki.services.tls import TlsFiles
from testkit.hierarchy import make_node
from testkit.pki_server import LiveServer, live_server, ocsp_request

SHORT = Limits(request_seconds=0.6, idle_seconds=0.6, write_seconds=0.8, handshake_seconds=0.8, stop_seconds=3.0)


def receive(sock: socket.socket, until: bytes = b"") -> bytes:
    """Read until the peer hangs up, or until *until* is there."""
    data = b""
    sock.settimeout(60)
    try:
        while part := sock.recv(65536):
            data += part
            if until and until in data:
                break
    except ConnectionResetError:
        pass
    return data


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"", b""), (b"GET /healthz HT", b""), (b"GET /healthz HTTP/1.1\r\n", b"A: b\r\n"),
     (b"POST /ocsp HTTP/1.1\r\nContent-Length: 5000\r\n\r\n", b"x")],
    ids=["silent", "stuck", "one header at a time", "one octet at a time"],
)  # fmt: skip
def test_a_slow_sender_is_hung_up_on_however_it_trickles(inventory: Inventory, start: bytes, more: bytes) -> None:
    with live_server(inventory, limits=SHORT) as server, server.connect() as slow:
        slow.sendall(start)
        deadline = time.monotonic() + 60
        closed = False
        while not closed and time.monotonic() < deadline:
            try:
                if more:
                    slow.sendall(more)
                slow.settimeout(0.1)
                closed = slow.recv(4096)[:12] in (b"", b"HTTP/1.1 408")
            except TimeoutError:
                continue
            except (ConnectionError, OSError):
                closed = True
        assert closed
        server.until(lambda: server.server.connections == 0)


def test_a_flood_of_idle_connections_makes_room_for_who_asks(inventory: Inventory) -> None:
    with live_server(inventory, limits=Limits(connections=50)) as server:
        idle = [server.connect() for _ in range(200)]
        assert server.ask("GET", "/healthz").status == 200
        assert server.server.connections <= 50
        for each in idle:
            each.close()


def test_requests_that_are_too_long_are_refused_before_they_are_kept(inventory: Inventory) -> None:
    limits = Limits()
    with live_server(inventory, limits=limits) as server:
        for request, status in (
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
            (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", b"431"),
            (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
            (b"POST /ocsp HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, b"413"),
            (b"POST /ocsp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"fffff\r\n" + b"x" * 0xFFFFF, b"413"),
        ):
            with server.connect() as sock:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    sock.sendall(request)
                answer = receive(sock)
                assert answer[:12] in (b"HTTP/1.1 " + status, b""), (status, answer[:80])
        assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "octets",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\r\n\r\n", b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100,
     b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
     b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
     b"CONNECT a:1 HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nExpect: magic\r\nA: b\r\nC: d\r\n\r\n"],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_request_gets_a_4xx_and_the_end(inventory: Inventory, octets: bytes) -> None:
    with live_server(inventory, limits=SHORT) as server, server.connect() as sock:
        sock.sendall(octets)
        answer = receive(sock)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
        assert server.ask("GET", "/healthz").status == 200


def test_pipelined_requests_are_answered_in_order(inventory: Inventory, leaf: str) -> None:
    request = ocsp_request(inventory, leaf)
    post = b"POST /ocsp HTTP/1.1\r\nContent-Length: " + str(len(request)).encode() + b"\r\n\r\n" + request
    with live_server(inventory) as server, server.connect() as sock:
        sock.sendall(
            (post + b"GET /healthz HTTP/1.1\r\n\r\n") * 20 + b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        answer = receive(sock)
    kinds = [line.rpartition(b" ")[2] for line in answer.split(b"\r\n") if line.startswith(b"Content-Type: ")]
    assert answer.count(b"HTTP/1.1 200") == 40 and answer.count(b"HTTP/1.1 404") == 1
    assert kinds[:4] == [b"application/ocsp-response", b"charset=utf-8"] * 2


def test_a_half_closed_peer_still_gets_its_answer(inventory: Inventory, leaf: str) -> None:
    request = ocsp_request(inventory, leaf, hash_name="sha256")
    with live_server(inventory) as server, server.connect() as sock:
        sock.sendall(b"POST /ocsp HTTP/1.1\r\nContent-Length: " + str(len(request)).encode() + b"\r\n\r\n" + request)
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock).startswith(b"HTTP/1.1 200")


def test_a_peer_that_does_not_read_a_long_answer_costs_little(inventory: Inventory) -> None:
    async def long(request: Request) -> Response:
        return Response(200, bytes(30_000_000), (), "long")

    # Long enough to be looked at before it is given up.
    limits = Limits(write_seconds=3.0)
    with live_server(inventory, limits=limits, routes={b"/long": long}) as server:
        with server.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET /long HTTP/1.1\r\n\r\n")
            server.until(lambda: any(c._rest is not None for c in server.server._connections))
            (connection,) = server.server._connections
            assert connection.transport is not None
            assert connection.transport.get_write_buffer_size() < 1_000_000
            server.until(lambda: server.server.connections == 0)
        assert len(server.ask("GET", "/long").body) == 30_000_000


def test_a_peer_that_asks_on_and_never_reads_costs_little_and_is_hung_up_on(inventory: Inventory) -> None:
    async def some(request: Request) -> Response:
        return Response(200, bytes(60_000), (), "some")

    with live_server(inventory, limits=SHORT, routes={b"/some": some}) as server, server.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        began, most = time.monotonic(), 0
        with contextlib.suppress(ConnectionError):
            while server.server.connections or not most:
                with contextlib.suppress(BlockingIOError):
                    sock.sendall(b"GET /some HTTP/1.1\r\n\r\n" * 8)
                sizes = [c.transport.get_write_buffer_size() for c in server.server._connections if c.transport]
                most = max(most, *sizes, 0)
                assert time.monotonic() - began < 60
                time.sleep(0.002)
        assert 0 < most < 300_000
        server.until(lambda: server.server.held == 0)


def test_a_slow_reader_gets_every_answer_it_has_asked_for(inventory: Inventory) -> None:
    async def some(request: Request) -> Response:
        return Response(200, bytes(60_000), (), "some")

    count = 200  # more than the kernel's buffers hold
    with live_server(inventory, routes={b"/some": some}) as server, server.connect() as sock:
        sock.sendall(b"GET /some HTTP/1.1\r\n\r\n" * (count - 1) + b"GET /some HTTP/1.1\r\nConnection: close\r\n\r\n")
        server.until(lambda: any(c._write_paused for c in server.server._connections))
        answer = receive(sock)
    assert answer.count(b"HTTP/1.1 200") == count and len(answer) > count * 60_000


def test_long_requests_of_all_peers_together_are_bounded_and_short_ones_still_answered(
    inventory: Inventory, leaf: str
) -> None:
    body = b"POST /ocsp HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 150_000
    with live_server(inventory, limits=Limits(held_bytes=1 << 20)) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(20)]
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                peer.sendall(body)
        server.until(lambda: server.site.tally.requests.get(("refused", 503), 0) >= 10, seconds=60)
        # What a refused peer has sent counts until its connection is gone.
        server.until(lambda: 0 < server.server.held <= 1 << 20, seconds=60)
        assert server.ocsp(ocsp_request(inventory, leaf)).status == 200
        for peer in peers:
            peer.close()
        server.until(lambda: server.server.held == 0)


def test_chunks_are_joined_and_a_trailer_adds_no_header(inventory: Inventory) -> None:
    seen: list[Request] = []

    async def keep(request: Request) -> Response:
        seen.append(request)
        return Response(200, b"", (), "keep")

    with live_server(inventory, routes={b"/keep": keep}) as server, server.connect() as sock:
        sock.sendall(
            b"POST /keep HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            + b"2\r\nab\r\n" * 1000
            + b"0\r\nAuthorization: Basic bWU6bWU=\r\nX-Request-Id: mine\r\n\r\n"
        )
        assert receive(sock).startswith(b"HTTP/1.1 200")
    (request,) = seen
    assert request.body == b"ab" * 1000 and type(request.body) is bytes
    assert request.header(b"authorization") is None and request.id != "mine"


def test_a_handler_that_fails_is_a_500_without_detail(inventory: Inventory) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("the secret detail")

    with live_server(inventory, routes={b"/broken": broken}) as server:
        answer = server.ask("GET", "/broken", headers={"X-Request-Id": "mine-1"})
        assert answer.status == 500 and b"secret" not in answer.body and b"mine-1" in answer.body
        assert server.ask("GET", "/healthz", headers={"X-Request-Id": "evil\tid"}).headers["x-request-id"] != "evil\tid"


def test_stopping_lets_a_request_under_way_finish(inventory: Inventory) -> None:
    begun = asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await asyncio.sleep(0.5)
        return Response(200, b"done", (), "slow")

    with live_server(inventory, limits=Limits(stop_seconds=60.0), routes={b"/slow": slow}) as server:
        sock, idle = server.connect(), server.connect()
        sock.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        server.until(begun.is_set)
    answer = receive(sock)
    assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer and answer.endswith(b"done")
    assert receive(idle) == b""
    sock.close()
    idle.close()


# ---------------------------------------------------------------- TLS


@pytest.fixture
def tls_files(tmp_path: Path) -> TlsFiles:
    return write_identity(tmp_path, "one.example")


def write_identity(folder: Path, name: str) -> TlsFiles:
    node = make_node(name, None, ca=False)
    (folder / "tls.pem").write_text(to_pem("CERTIFICATE", node.der))
    (folder / "tls.key").write_bytes(private_keys.serialise_private_key(node.key))
    return TlsFiles(folder / "tls.pem", folder / "tls.key")


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def serving_name(server: LiveServer) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 10) as bare, client_context().wrap_socket(bare) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert receive(sock).startswith(b"HTTP/1.1 200")
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


def test_hostile_tls_costs_a_bounded_time_and_the_listener_lives_on(inventory: Inventory, tls_files: TlsFiles) -> None:
    with live_server(inventory, limits=SHORT, context=tls_files.take_context) as server:
        peers = [server.connect() for _ in range(20)]
        for number, peer in enumerate(peers):
            peer.sendall((b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28")[number % 4])
        assert serving_name(server)
        server.until(lambda: server.server.connections == 0)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("AES128-SHA:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError), server.connect() as bare:
            old.wrap_socket(bare)
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name)
def test_a_handler_learns_what_only_both_ends_of_the_session_know(
    inventory: Inventory, tls_files: TlsFiles, version: ssl.TLSVersion
) -> None:
    async def tell(request: Request) -> Response:
        return Response(200, (request.tls_unique or b"").hex().encode(), (), "tell")

    context = client_context(version)
    with live_server(inventory, context=tls_files.take_context, routes={b"/tell": tell}) as server:
        told = []
        for _ in range(2):
            with context.wrap_socket(server.connect()) as sock:
                sock.sendall(b"GET /tell HTTP/1.1\r\nConnection: close\r\n\r\n")
                own = sock.get_channel_binding("tls-unique")
                told.append(receive(sock).rpartition(b"\r\n")[2])
                assert own is not None and told[-1] == own.hex().encode()
        assert told[0] != told[1]


def test_a_certificate_is_replaced_while_it_serves(inventory: Inventory, tls_files: TlsFiles, tmp_path: Path) -> None:
    with live_server(inventory, context=tls_files.take_context) as server:
        first = serving_name(server)
        assert not tls_files.reload()  # nothing has changed
        write_identity(tmp_path, "two.example")
        assert tls_files.reload()
        second = serving_name(server)
        assert first != second
        (tmp_path / "tls.key").write_text("no key")
        assert not tls_files.reload()
        assert serving_name(server) == second


def count_connections() -> int:
    return sum(isinstance(each, HttpConnection | ssl.SSLObject) for each in gc.get_objects())


def test_a_connection_that_ended_takes_no_memory_until_some_collector_comes_by(
    inventory: Inventory, tls_files: TlsFiles
) -> None:
    with live_server(inventory, context=tls_files.take_context) as server, live_server(inventory) as plain:
        gc.collect()
        before = count_connections()
        gc.disable()
        try:
            for number in range(4):
                serving_name(server)
                assert plain.ask("GET", "/healthz").status == 200
                for each in (server, plain):
                    with each.connect() as peer:
                        peer.sendall((b"", b"GET / HT", b"\x16\x03\x01", b"rubbish\r\n\r\n")[number])
            server.until(lambda: server.server.connections + plain.server.connections == 0)
            server.until(lambda: count_connections() == before, 20)
        finally:
            gc.enable()


def test_what_tls_remembers_of_old_sessions_is_bounded(
    inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(request: Request) -> Response:
        return Response(200, hashlib.sha256(request.client_certificate or b"").hexdigest().encode(), (), "tell")

    monkeypatch.setattr("chargepki.pki.services.tls._MAX_SESSIONS", 5)
    write_identity(tmp_path, "one.example")
    station = make_node("station", None, ca=False)
    (tmp_path / "station.pem").write_text(to_pem("CERTIFICATE", station.der))
    (tmp_path / "station.key").write_bytes(private_keys.serialise_private_key(station.key))
    files = TlsFiles(
        tmp_path / "tls.pem", tmp_path / "tls.key", client_trust=lambda: (tmp_path / "station.pem").read_bytes()
    )
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_TICKET
    context.load_cert_chain(tmp_path / "station.pem", tmp_path / "station.key")
    contexts: list[ssl.SSLContext] = []
    remembered: list[int] = []

    def ask() -> None:
        with context.wrap_socket(server.connect()) as sock:
            sock.sendall(b"GET /tell HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert receive(sock).endswith(hashlib.sha256(station.der).hexdigest().encode())

    def take() -> ssl.SSLContext:
        contexts.append(files.take_context())
        remembered.append(contexts[-1].session_stats()["number"])
        return contexts[-1]

    with live_server(inventory, context=take, routes={b"/tell": tell}) as server:
        for _ in range(18):
            ask()
        assert len(set(contexts)) == 4 and max(remembered) == 4
        (tmp_path / "tls.key").rename(tmp_path / "away.key")
        for _ in range(18):
            ask()  # with what there is
        assert len(set(contexts)) == 4
        (tmp_path / "away.key").rename(tmp_path / "tls.key")
        for _ in range(6):
            ask()
        assert len(set(contexts)) == 5 and remembered[-1] <= 4
