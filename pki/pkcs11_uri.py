"""Names of keys in tokens: the ``pkcs11:`` URI of RFC 7512, as far as it says which key and where its PIN is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from chargepki.pki.errors import InputError, PolicyRefusal, printable

__all__ = ["TokenKeyUri", "parse_pkcs11_uri"]

_MAX: Final = 2048
_ATTRIBUTE: Final = re.compile(r"([a-z][a-z0-9-]*)=((?:[A-Za-z0-9_.~:\[\]@!$'()*+,/=&-]|%[0-9A-Fa-f]{2})*)\Z", re.ASCII)
_PATH: Final = frozenset({"token", "manufacturer", "serial", "model", "object", "id", "type"})
_EXAMPLE: Final = "write for example pkcs11:token=HSM;object=firmware-2026?pin-source=/etc/chargepki/pin"


@dataclass(frozen=True, slots=True)
class TokenKeyUri:
    """Which key of which token; what is ``None`` is not asked for."""

    text: str
    """As it was written; holds no secret."""
    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    label: str | None = None
    id: bytes | None = None
    pin_file: Path | None = None


def parse_pkcs11_uri(uri: str) -> TokenKeyUri:
    """Return what *uri* names.

    >>> parse_pkcs11_uri("pkcs11:token=My%20HSM;object=key-1;type=private?pin-source=file:/run/pin").label
    'key-1'

    Raises:
        PolicyRefusal: it carries the PIN itself, or names a module, which only the configuration may.
        InputError: no such URI, an attribute twice, one that is not known here, or neither object nor id.

    Clause: RFC 7512 2.3 and 2.4.
    """
    if not uri.startswith("pkcs11:") or len(uri) > _MAX:
        raise InputError(f"{printable(uri)[:80]!r} is not the URI of a key in a token", fix=_EXAMPLE)
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    asked = _attributes(query, "&")
    if "pin-value" in asked:
        raise PolicyRefusal(
            "the URI carries the PIN",
            why="URIs end up in histories, process lists and the inventory",
            fix="put the PIN into a file that you alone can read, and name it: pin-source=/path/of/the/file",
        )
    if asked.keys() & {"module-path", "module-name"}:
        raise PolicyRefusal(
            "the URI names the module",
            why="whoever may write a URI into the inventory could make us load any library",
            fix="set CHARGEPKI_PKCS11_MODULE, or pkcs11_module in chargepki.toml",
        )
    named = _attributes(path, ";")
    for name in (*(named.keys() - _PATH), *(asked.keys() - {"pin-source"})):
        raise InputError(f"the attribute {name} of a pkcs11: URI is not known here", fix=_EXAMPLE)
    if named.get("type", b"private") != b"private":
        raise InputError("the URI does not name a private key", fix="write type=private, or leave type out")
    if not named.get("object") and not named.get("id"):
        raise InputError("the URI names no key", why="a token holds many", fix=_EXAMPLE)
    texts = {name: _text(name, value) for name, value in named.items() if name != "id"}
    return TokenKeyUri(
        uri,
        token=texts.get("token"),
        manufacturer=texts.get("manufacturer"),
        serial=texts.get("serial"),
        model=texts.get("model"),
        label=texts.get("object"),
        id=named.get("id"),
        pin_file=_pin_file(asked),
    )


def _attributes(text: str, separator: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        match = _ATTRIBUTE.match(part)
        if match is None:
            # Not shown: the part may hold what should be secret.
            raise InputError("the pkcs11: URI has a part that is no attribute=value", fix=_EXAMPLE)
        if match[1] in found:
            raise InputError(f"the pkcs11: URI gives {match[1]} twice", why="RFC 7512 2.3 allows it once")
        found[match[1]] = unquote_to_bytes(match[2])
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InputError(f"{name} of the pkcs11: URI is not UTF-8", fix=_EXAMPLE) from exc


def _pin_file(asked: dict[str, bytes]) -> Path | None:
    if "pin-source" not in asked:
        return None
    text = _text("pin-source", asked["pin-source"]).removeprefix("file://").removeprefix("file:")
    if not text.startswith("/") or "\0" in text:
        # RFC 7512 2.4 also knows `|command`; nothing that a URI says is run here.
        raise InputError("pin-source is not the absolute path of a file", fix="write pin-source=/path/of/the/file")
    return Path(text)
