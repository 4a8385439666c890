"""Fetch what a TLS server presents, without trusting it: one connection, to the endpoint that the operator names."""

from __future__ import annotations

import _ssl
import re
import socket
import ssl
from typing import Any, Final

from chargepki.pki.errors import InputError, UnavailableError

__all__ = ["check_operand", "presented_chain"]

_SECONDS: Final = 10.0
_OPERAND: Final = re.compile(r"tls://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^/@:\s\[\]]+)):(?P<port>[0-9]{1,5})/?\Z")


def check_operand(operand: str) -> tuple[str, int]:
    """Return host and port of ``tls://HOST:PORT``.

    Raises:
        InputError: *operand* is not of that form.
    """
    match = _OPERAND.match(operand)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InputError(f"{operand[:100]!r} is no TLS endpoint", fix="write tls://HOST:PORT")
    return match["v6"] or match["host"], int(match["port"])


def presented_chain(operand: str) -> list[bytes]:
    """Return the certificates (DER) that the server at ``tls://HOST:PORT`` sends, in its order.

    Raises:
        InputError: *operand* is not of that form.
        UnavailableError: no connection, or no handshake.
    """
    host, port = check_operand(operand)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What the server sends is judged, not trusted: nothing is sent to it but the handshake.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Keys and signatures that are too weak for a connection are to be seen as well.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        with (
            socket.create_connection((host, port), timeout=_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host) as secured,
        ):
            return _chain(secured)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"cannot see the certificates of {operand}", why=str(error)[:200], fix="check host, port and that it is TLS"
        ) from error


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    """Return the whole chain; Python 3.13 has a method for it, before it was there but not public."""
    public: Any = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public()]
    inner: Any = getattr(secured, "_sslobj", None)
    if inner is not None and hasattr(inner, "get_unverified_chain"):
        return [bytes(each.public_bytes(_ssl.ENCODING_DER)) for each in inner.get_unverified_chain() or ()]
    leaf = secured.getpeercert(binary_form=True)
    return [leaf] if leaf else []
