"""The client of addresses that others name: what is asked, where it may lead, and what it may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest

from chargepki.ocpp_security.fetch import Fetcher, FetchPolicy, parse_allowed
from chargepki.pki.errors import InputError, PolicyRefusal, UnavailableError

ALLOWED = "http://ocsp.example/ca"


def leads_to(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def refusal(url: str, *, allowed: Sequence[str] = (ALLOWED,), to: Sequence[str] = ("127.0.0.1",)) -> str:
    """Return why *url* is refused; nothing listens anywhere, and loopback is closed."""

    async def ask() -> None:
        await Fetcher(parse_allowed(allowed), resolve=leads_to(*to)).fetch(url)

    with pytest.raises(PolicyRefusal) as caught:
        asyncio.run(ask())
    return caught.value.what


@pytest.mark.parametrize(
    "url",
    [
        "http://ocsp.example/",
        "http://ocsp.example/cab",
        "http://ocsp.example/ca/../secret",
        "http://ocsp.example/ca/%2e%2E/secret",
        "http://ocsp.example:8080/ca",
        "https://ocsp.example/ca",
        "http://ocsp.example.evil/ca",
        "http://ocsp.example@evil/ca",
        "http://user:word@ocsp.example/ca",
        "http://evil\\@ocsp.example/ca",
        "http://ocsp.example/ca#x",
        "http://ocsp.example/ca\r\nHost: evil",
        "ftp://ocsp.example/ca",
        "file:///etc/passwd",
        "http://[::1/ca",
        "http://ocsp.example:99999/ca",
        "//ocsp.example/ca",
        "",
        "http://ocsp.example/ca/" + "x" * 2000,
    ],
)
def test_only_what_was_allowed_is_asked(url: str) -> None:
    assert "is not asked" in refusal(url)
    assert "leads to" not in refusal(url)


@pytest.mark.parametrize("url", [ALLOWED, ALLOWED + "/", "http://OCSP.example./ca/x?y=z", "http://ocsp.example:80/ca"])
def test_what_was_allowed_gets_as_far_as_its_address(url: str) -> None:
    assert "leads to 127.0.0.1" in refusal(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "ff02::1", "64:ff9b:1::7f00:1", "64:ff9b::a01:203", "::a01:203",
        "nonsense",
    ],
)  # fmt: skip
def test_no_address_inside_is_connected_to(address: str) -> None:
    assert "leads to" in refusal(ALLOWED, to=(address,))
    # One bad address among good ones condemns the name: which one is used is not the peer's choice.
    assert "leads to" in refusal(ALLOWED, to=("93.184.216.34", address))


async def _serve(answer: bytes, *, pause: float = 0) -> tuple[asyncio.Server, int, list[bytes]]:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        for at in range(0, len(answer), 4096):
            writer.write(answer[at : at + 4096])
            await asyncio.sleep(pause)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


def ask(answer: bytes, *, pause: float = 0, body: bytes | None = None, **limits: object) -> tuple[bytes, list[bytes]]:
    """Ask a server on loopback, opened by name, under a name that no resolver is asked about twice."""

    async def story() -> tuple[bytes, list[bytes]]:
        server, port, seen = await _serve(answer, pause=pause)
        base = parse_allowed([f"http://ocsp.invalid:{port}/"], ["127.0.0.0/8"])
        policy = FetchPolicy(allowed=base.allowed, networks=base.networks, **limits)  # type: ignore[arg-type]  # by name
        asked: list[str] = []

        async def resolve(host: str, port: int) -> Sequence[str]:
            # A second question would get another answer (DNS rebinding).
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        try:
            found = await Fetcher(policy, resolve=resolve).fetch(f"http://ocsp.invalid:{port}/x", body=body)
            assert asked == ["ocsp.invalid"]
            return found, seen
        finally:
            server.close()

    return asyncio.run(story())


def test_an_answer_comes_from_the_judged_address_with_the_name_in_the_request() -> None:
    found, seen = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", body=b"question")
    assert found == b"fine"
    assert seen[0].startswith(b"POST /x HTTP/1.1\r\nHost: ocsp.invalid:")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://ocsp.invalid/y\r\nContent-Length: 0\r\n\r\n", "not followed"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "longer than 1000"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n", "longer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "no answer to use"),
        (b"nonsense\r\n\r\n", "no answer to use"),
    ],
)
def test_no_redirect_no_excess_and_no_half_answer_is_taken(answer: bytes, words: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        ask(answer, max_bytes=1000)
    assert words in f"{caught.value.what} {caught.value.why}"


def test_the_time_is_bounded_as_a_whole() -> None:
    """A server that sends a little now and then would satisfy a timeout of single reads for ever."""
    slow = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000
    with pytest.raises(UnavailableError, match="gave no answer"):
        ask(slow, pause=0.05, timeout=timedelta(seconds=0.3))


def test_options_that_are_no_address_are_refused() -> None:
    with pytest.raises(InputError, match="network"):
        parse_allowed([], ["10.0.0.0/33"])
    with pytest.raises(InputError, match="not an address"):
        parse_allowed(["ocsp.example"])


def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise OSError

    for resolve in (fails, leads_to()):
        with pytest.raises(UnavailableError):
            asyncio.run(Fetcher(parse_allowed([ALLOWED]), resolve=resolve).fetch(ALLOWED))
