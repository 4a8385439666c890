"""Believe a TLS-terminating proxy, and nobody else, about who is on the other side of it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

from websockets.datastructures import Headers

from chargepki.ocpp_security.admission_values import RefusedConnection
from chargepki.pki.errors import InputError
from chargepki.pki.pem import pem_blocks

__all__ = [
    "CERTIFICATE_HEADER",
    "PROTOCOL_HEADER",
    "REAL_IP_HEADER",
    "SECRET_HEADER",
    "ProxiedPeer",
    "ProxyTrust",
    "refuse_proxy_headers",
]

SECRET_HEADER: Final = "X-Chargepki-Proxy-Secret"  # noqa: S105 - the name of a header
CERTIFICATE_HEADER: Final = "X-SSL-Client-Cert"
"""PEM, percent-encoded: nginx's ``$ssl_client_escaped_cert``; empty without a client certificate."""
PROTOCOL_HEADER: Final = "X-Forwarded-Proto"
REAL_IP_HEADER: Final = "X-Real-IP"
_MIN_SECRET_BYTES: Final = 16
_MAX_PEM_BYTES: Final = 16_384

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ProxiedPeer:
    """What the proxy says about the connection on its other side."""

    host: str
    chain_der: tuple[bytes, ...]
    tls: bool


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """The proxy: where it connects from, and what it proves itself with."""

    networks: tuple[Network, ...]
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, networks: Sequence[str], secret: bytes) -> ProxyTrust:
        """Return the trust in a proxy at *networks* (addresses or CIDR).

        Raises:
            InputError: no network, something that is none, or a secret that can be guessed.
        """
        parsed: list[Network] = []
        for text in networks:
            try:
                parsed.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise InputError(
                    f"{text!r} is no address and no network of the proxy",
                    why=str(error),
                    fix="write 10.0.0.5 or fd00::/64",
                ) from error
        if not parsed:
            raise InputError("the proxy has no address", fix="say where it connects from")
        if len(secret) < _MIN_SECRET_BYTES:
            raise InputError(
                f"the secret of the proxy has {len(secret)} bytes",
                why="whoever guesses it can come in as any station",
                fix=f"make one of at least {_MIN_SECRET_BYTES}, for example with: openssl rand -hex 32",
            )
        return cls(tuple(parsed), secret)

    def is_at(self, host: str) -> bool:
        """Say whether *host* is an address of the proxy."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.networks)

    def read(self, headers: Headers, host: str) -> ProxiedPeer | RefusedConnection:
        """Return what the proxy says in *headers*, or the refusal of a peer that is not the proxy.

        Args:
            host: address that the request came from.
        """
        secrets = headers.get_all(SECRET_HEADER)
        given = secrets[0].encode("utf-8", "surrogateescape") if len(secrets) == 1 else b""
        if not self.is_at(host) or not hmac.compare_digest(given, self.secret):
            return _not_the_proxy(
                f"the request came from {host} "
                + ("with a wrong or no secret" if self.is_at(host) else "which is no address of the proxy")
            )
        try:
            return ProxiedPeer(
                host=_address(_only(headers, REAL_IP_HEADER)),
                chain_der=_certificate(_only(headers, CERTIFICATE_HEADER)),
                tls=_only(headers, PROTOCOL_HEADER) == "https",
            )
        except InputError as error:
            return _not_the_proxy(f"the proxy's headers cannot be read: {error.what}")


def refuse_proxy_headers(headers: Headers) -> RefusedConnection | None:
    """Refuse headers that only a proxy may send, where there is none; ``None`` when there are no such headers."""
    for name in (CERTIFICATE_HEADER, SECRET_HEADER):
        if name in headers:
            return _not_the_proxy(f"the request carries {name}, and this endpoint is not behind a proxy")
    return None


def _not_the_proxy(cause: str) -> RefusedConnection:
    return RefusedConnection(
        status=HTTPStatus.FORBIDDEN,
        reason="not-the-proxy",
        cause=cause,
        cure="let stations connect to the proxy, and the proxy send its secret and what it knows of them",
        event="ProxyHeaderForged",
    )


def _only(headers: Headers, name: str) -> str:
    found = headers.get_all(name)
    if len(found) > 1:
        raise InputError(f"{name} occurs {len(found)} times")
    return found[0].strip() if found else ""


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InputError(f"{REAL_IP_HEADER} holds no address") from error


def _certificate(escaped: str) -> tuple[bytes, ...]:
    if not escaped:
        return ()
    blocks = pem_blocks(unquote_to_bytes(escaped), max_bytes=_MAX_PEM_BYTES)
    if len(blocks) != 1 or blocks[0].label != "CERTIFICATE":
        raise InputError(f"{CERTIFICATE_HEADER} holds no single certificate")
    return (blocks[0].der,)
