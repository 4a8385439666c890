"""HTTP Basic authentication of a station: the header as bytes, the identity out of the connection URL."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from chargepki.pki.errors import InputError

__all__ = [
    "BadCredentials",
    "Credentials",
    "build_authorization",
    "check_identity",
    "connection_path",
    "identity_from_path",
    "parse_authorization",
    "same_identity",
]

_MAX_HEADER_BYTES = 1024
_MAX_IDENTITY_CHARACTERS = 48
# Letters, digits and the symbols of identifierString (OCPP 2.x part 2, primitive types) without the colon, which
# ends the username in a Basic header (A00.FR.204, A00.FR.303).
_IDENTITY = re.compile(rf"[A-Za-z0-9*\-_=+|@.]{{1,{_MAX_IDENTITY_CHARACTERS}}}")


class BadCredentials(InputError):
    """An Authorization header that is missing or cannot be read; the peer is answered 401 without details."""

    code = "credentials"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an Authorization header carries."""

    username: str
    password: bytes = field(repr=False)
    """Octets as sent: binary in 1.6, UTF-8 of the text in 2.x."""


def check_identity(identity: str) -> None:
    """Refuse an identity that OCPP does not allow in a connection URL with Basic authentication.

    Raises:
        InputError: empty, longer than 48 characters, a colon, or another character outside a-z A-Z 0-9 *-_=+|@.

    Clause: A00.FR.204, A00.FR.303; OCPP 2.x identifierString; 2.1 schema maximum 48.
    """
    if _IDENTITY.fullmatch(identity):
        return
    if not identity or len(identity) > _MAX_IDENTITY_CHARACTERS:
        raise InputError(
            f"the identity has {len(identity)} characters", fix=f"use 1 to {_MAX_IDENTITY_CHARACTERS} characters"
        )
    wrong = min(char for char in identity if not _IDENTITY.fullmatch(char))
    raise InputError(
        f"the identity holds {wrong!r}",
        why="a colon ends the username in a Basic header (A00.FR.204)" if ":" in identity else "",
        fix="use letters, digits and the symbols *-_=+|@.",
    )


def connection_path(identity: str, prefix: str = "/ocpp/") -> str:
    """Return the URL path of *identity*, percent-encoded.

    >>> connection_path("CS|1")
    '/ocpp/CS%7C1'
    """
    return prefix + quote(identity, safe="")


def identity_from_path(path: str, prefix: str = "/ocpp/") -> str:
    """Return the identity that a request path names: its last segment, percent-decoded.

    The username of a Basic header is not percent-encoded, so the path is decoded before the two are compared.

    Args:
        path: request target with or without a query, as received.

    Raises:
        InputError: the path is not below *prefix*, has further segments, or does not decode to an allowed identity.

    >>> identity_from_path("/ocpp/CS%7C1?x=1")
    'CS|1'
    """
    target = path.partition("?")[0]
    encoded = target.removeprefix(prefix)
    if encoded == target or not encoded or "/" in encoded:
        raise InputError("the path is no OCPP endpoint", fix=f"connect to {prefix}IDENTITY")
    try:
        identity = unquote_to_bytes(encoded).decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError("the identity in the path is not ASCII", fix="use the registered identity") from error
    check_identity(identity)
    return identity


def build_authorization(identity: str, password: bytes) -> str:
    """Return the value of the Authorization header: ``Basic`` and base64 of identity, colon and password octets.

    Raises:
        InputError: *identity* cannot be a username (see `check_identity`).

    Clause: A00.FR.202 to A00.FR.205, A00.FR.301 to A00.FR.304.

    >>> build_authorization("CS1", b"0123456789abcdef")
    'Basic Q1MxOjAxMjM0NTY3ODlhYmNkZWY='
    """
    check_identity(identity)
    return "Basic " + base64.b64encode(identity.encode("ascii") + b":" + password).decode("ascii")


def parse_authorization(header: str | bytes | None) -> Credentials:
    """Read an Authorization header; the password may hold any octet, colons included.

    Raises:
        BadCredentials: no header, another scheme, not base64, no colon, or a username that no station can have.

    Clause: A00.FR.203, A00.FR.302 (credentials on every request); RFC 7617.
    """
    if header is None:
        raise BadCredentials("no Authorization header", fix="send HTTP Basic credentials with every upgrade request")
    raw = header if isinstance(header, bytes) else header.encode("latin-1", "replace")
    if len(raw) > _MAX_HEADER_BYTES:
        raise BadCredentials("the Authorization header is longer than any allowed credentials")
    scheme, _, token = raw.strip().partition(b" ")
    if scheme.lower() != b"basic":
        raise BadCredentials("the Authorization header is not of the Basic scheme")
    try:
        decoded = base64.b64decode(token.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadCredentials("the Basic credentials are not base64") from error
    username, colon, password = decoded.partition(b":")
    if not colon:
        raise BadCredentials("the Basic credentials hold no colon")
    try:
        name = username.decode("ascii")
        check_identity(name)
    except (UnicodeDecodeError, InputError) as error:
        raise BadCredentials("the Basic username is no station identity") from error
    return Credentials(name, password)


def same_identity(username: str, identity: str) -> bool:
    """Say whether a username is the identity of the connection URL: exactly, in constant time.

    Clause: A00.FR.207, A00.FR.324. identifierString is case-insensitive as a type, but two identities that differ
    in case are two rows of the inventory; we compare exactly.
    """
    return hmac.compare_digest(username.encode("utf-8"), identity.encode("utf-8"))
