"""The only client of addresses that others name: what a certificate or a station calls its responder or its CRL.

A station may name any address, so an address is asked only if the operator has allowed it. The name is resolved once,
every address that it has is judged, and the connection goes to one that was judged: a second answer of the name server
(DNS rebinding) changes nothing. Redirects are not followed, no proxy of the environment is used, and size and time are
bounded as a whole.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from chargepki.pki.errors import InputError, PolicyRefusal, UnavailableError

__all__ = ["FetchPolicy", "Fetcher", "parse_allowed"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_PORTS: Final = {"http": 80, "https": 443}
_EMBEDDING: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""NAT64 (RFC 6052) and IPv4-compatible addresses (RFC 4291 2.5.5.1): the last 32 bits are an IPv4 address."""
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215; Python 3.11 takes it for global."""
_MAX_URL: Final = 2000
_MAX_ADDRESSES: Final = 16
_MAX_TOGETHER: Final = 16


@dataclass(frozen=True, slots=True)
class _Place:
    """Scheme, host, port and path of an address."""

    scheme: str
    host: str
    port: int
    path: str

    def holds(self, other: _Place) -> bool:
        """Say whether *other* lies at or below this place."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        return other.path == self.path or other.path.startswith(self.path.rstrip("/") + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be asked, and at what cost."""

    allowed: tuple[str, ...] = ()
    """URLs; each allows itself and what lies below its path. None allows nothing."""
    networks: tuple[Network, ...] = ()
    """Private, loopback and other special ranges that may be connected to; none unless named."""
    max_bytes: int = 4 << 20
    """Of an answer; a longer one is refused."""
    timeout: timedelta = timedelta(seconds=10)
    """From the resolution of the name to the last octet."""
    _places: tuple[_Place, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", tuple(map(_place, self.allowed)))

    def find(self, url: str) -> _Place | None:
        """Return the place of *url* if it is allowed."""
        try:
            place = _place(url)
        except InputError:
            return None
        return place if any(each.holds(place) for each in self._places) else None


def parse_allowed(urls: Sequence[str], networks: Sequence[str] = ()) -> FetchPolicy:
    """Return the policy of an operator's options.

    Raises:
        InputError: one of them is no URL, or no network.
    """
    ranges: list[Network] = []
    for text in networks:
        try:
            ranges.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise InputError(f"{text!r} is no network", why=str(error), fix="write 10.0.0.0/8 or fd00::/8") from error
    return FetchPolicy(allowed=tuple(urls), networks=tuple(ranges))


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _no_url(url, str(error)) from error
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= _MAX_URL
    if not plain or parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.fragment:
        raise _no_url(url, "it must be http or https, with a host, without credentials and fragment")
    path = parts.path or "/"
    if any(step in (".", "..") for step in path.replace("%2e", ".").replace("%2E", ".").split("/")):
        raise _no_url(url, "its path goes back up")
    target = f"{path}?{parts.query}" if parts.query else path
    return _Place(parts.scheme, parts.hostname.lower().rstrip("."), port or _PORTS[parts.scheme], target)


def _no_url(url: str, why: str) -> InputError:
    return InputError(f"not an address to fetch from: {url[:100]!r}", why=why, fix="write http://HOST[:PORT]/PATH")


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class _Pinned(AbstractResolver):
    """Answers with the address that was judged, whatever the name server says by now."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        kind = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [ResolveResult(hostname=host, host=self._address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


class Fetcher:
    """Asks allowed addresses; for one event loop."""

    def __init__(self, policy: FetchPolicy, *, resolve: Resolve = _resolve, tls: ssl.SSLContext | None = None) -> None:
        """Set up; nothing is opened.

        Args:
            resolve: returns the addresses of a host.
            tls: for https; the system's roots unless given.
        """
        self.policy, self._resolve = policy, resolve
        self._tls = tls
        self._together = asyncio.Semaphore(_MAX_TOGETHER)

    async def fetch(self, url: str, *, body: bytes | None = None, content_type: str = "", accept: str = "*/*") -> bytes:
        """Return the body of the answer 200; POST if there is a *body*, else GET.

        Raises:
            PolicyRefusal: the address is not allowed, or leads where nobody may go.
            UnavailableError: no answer in time, another status, a redirect, or too long an answer.
        """
        place = self.policy.find(url)
        if place is None:
            raise PolicyRefusal(
                f"{url[:100]!r} is not asked",
                why="whoever sent it may name any address; only allowed ones are asked",
                fix="allow it with --ocsp-allow URL if it is a responder or CRL that you trust to be asked",
            )
        try:
            async with asyncio.timeout(self.policy.timeout.total_seconds()), self._together:
                address = await self._choose(place)
                return await self._ask(url, place, address, body, content_type, accept)
        except TimeoutError as error:
            raise _unavailable(place, f"no answer within {self.policy.timeout}") from error

    async def _choose(self, place: _Place) -> str:
        """Resolve once; one bad address condemns the name."""
        try:
            addresses = list(await self._resolve(place.host, place.port))[:_MAX_ADDRESSES]
        except (OSError, UnicodeError) as error:
            raise _unavailable(place, "its name cannot be resolved") from error
        if not addresses:
            raise _unavailable(place, "its name has no address")
        for address in addresses:
            if not self._may_connect(address):
                raise PolicyRefusal(
                    f"{place.host} is not asked: it leads to {address}",
                    why="private, loopback and other special ranges are closed (server-side request forgery)",
                    fix="open the range with --ocsp-network NET if the responder is really there",
                )
        return addresses[0]

    def _may_connect(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        candidates = {address}
        if isinstance(address, ipaddress.IPv6Address):
            # An IPv4 address inside an IPv6 one leads to that IPv4 address, or may.
            candidates |= {each for each in (address.ipv4_mapped, address.sixtofour) if each is not None}
            candidates |= set(address.teredo or ())
            if any(address in each for each in _EMBEDDING):
                candidates.add(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        return all(self._is_open(each) for each in candidates)

    def _is_open(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        named = any(address.version == each.version and address in each for each in self.policy.networks)
        return named or (address.is_global and not address.is_multicast and address not in _LOCAL_NAT64)

    async def _ask(
        self, url: str, place: _Place, address: str, body: bytes | None, content_type: str, accept: str
    ) -> bytes:
        headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "chargepki"}
        if content_type:
            headers["Content-Type"] = content_type
        options: dict[str, Any] = {"ssl": self._tls} if self._tls is not None else {}
        connector = aiohttp.TCPConnector(resolver=_Pinned(address), use_dns_cache=False, limit=1, **options)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as session,
                session.request(
                    "GET" if body is None else "POST", url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                if response.status != 200:
                    redirect = " (a redirect, which is not followed)" if 300 <= response.status < 400 else ""
                    raise _unavailable(place, f"it answered {response.status}{redirect}")
                if (response.content_length or 0) > self.policy.max_bytes:
                    raise _unavailable(place, f"its answer is longer than {self.policy.max_bytes} octets")
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > self.policy.max_bytes:
                        raise _unavailable(place, f"its answer is longer than {self.policy.max_bytes} octets")
                return bytes(content)
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            raise _unavailable(place, type(error).__name__) from error


def _unavailable(place: _Place, why: str) -> UnavailableError:
    return UnavailableError(f"{place.host}:{place.port} gave no answer to use", why=why, fix="try again later")
