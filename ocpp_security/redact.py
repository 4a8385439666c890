"""What of an OCPP message may reach a log: everything but secrets, on one line, of bounded length."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

import orjson

from chargepki.pki.errors import printable

__all__ = ["REDACTED", "log_form", "may_hold_secrets", "scrub", "secret_values"]

REDACTED = "[secret]"

MAX_STRING = 200
"""Longest string shown; what is longer (a CSR, a chain) is cut, with its length."""
MAX_LINE = 4000
"""Longest log form of one frame, in characters."""
_MAX_NAME = 100
_MAX_DEPTH = 40
_MIN_SCRUBBED = 4
# A hostile frame may hold thousands of members called "password"; each is hidden where it stands,
# and only so many are also looked for in the rest of the frame.
_MAX_SCRUBBED = 32

# Looked for in names of members, configuration keys and variables, in lower case and without separators:
# 1.6 keys are case-insensitive (CiString), and vendors have keys of their own.
_SECRET_WORDS = ("password", "passphrase", "authorizationkey", "privatekey", "secret", "simpin", "presharedkey")
_NAMING_MEMBERS = frozenset({"key", "variable", "variableName", "messageId"})
# One of these is in every name that counts as secret, whatever separators stand between its words.
_HINTS = ("pass", "key", "secret", "pin", "shared")
# Members with the value of the variable or configuration key that the object around them names.
_VALUE_MEMBERS = frozenset({"value", "attributeValue", "actualValue", "data"})

# The bounds keep every pattern linear on hostile text.
_URL_USERINFO = re.compile(r"(:(?:\\?/){2})[^\s\"]{0,512}@")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN[^-\n]{0,40}PRIVATE KEY-----.*?(?:-----END[^-\n]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_ASSIGNMENT = re.compile(
    r"((?:password|passphrase|authorizationkey|secret)[\\\"']{0,8}\s{0,8}[:=]\s{0,8}[\\\"']{0,8})[^\\\"'\s,;&}]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"\b(basic|bearer)\s{1,8}[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)


def log_form(frame: str | bytes, *, secrets: Collection[str] = ()) -> str:
    """Return *frame* as it may be logged: one printable line, secrets replaced, long strings cut.

    A frame that is not JSON is described, never shown: there is no telling what in it is secret.

    Args:
        secrets: further values that must not show, wherever they stand (what a peer may echo).

    >>> log_form('[2,"1","ChangeConfiguration",{"key":"AuthorizationKey","value":"00112233"}]')
    '[2,"1","ChangeConfiguration",{"key":"AuthorizationKey","value":"[secret]"}]'
    """
    if isinstance(frame, bytes):
        return f"<binary frame, {len(frame)} bytes>"
    try:
        value = orjson.loads(frame)
    except ValueError:
        return f"<unreadable frame, {len(frame)} characters>"
    shown = _shown(value, _scrubber({*secrets, *secret_values(value)}), 0, named=False)
    text = printable(orjson.dumps(shown).decode())
    if len(text) > MAX_LINE:
        return f"{text[:MAX_LINE]}… ({len(text)} characters)"
    return text


def scrub(text: str, secrets: Collection[str]) -> str:
    """Return *text* without *secrets* (four characters or more, in any case), passwords in URLs and private keys.

    >>> scrub("wss://CS1:hunter22@csms.example/ocpp", ())
    'wss://[secret]@csms.example/ocpp'
    """
    return _scrub(text, _scrubber(secrets))


def may_hold_secrets(text: str) -> bool:
    """Say, cheaply and on the safe side, whether a frame's text can hold a member or variable that is secret."""
    lowered = text.lower()
    return "\\u" in lowered or any(hint in lowered for hint in _HINTS)


def secret_values(value: object) -> frozenset[str]:
    """Return the strings in a payload or frame that are secret because of where they stand (at most 32)."""
    found: set[str] = set()
    _collect(value, found, 0, named=False)
    return frozenset(found)


def _scrubber(secrets: Collection[str]) -> re.Pattern[str] | None:
    """Return one pattern for all *secrets*, as they are and as JSON inside a string spells them."""
    kept = [secret for secret in secrets if len(secret) >= _MIN_SCRUBBED]
    # Upper and lower case too: IGNORECASE compares single characters, and some letters grow (ß, SS).
    wanted = {form for secret in kept for form in (secret, secret.upper(), secret.lower())}
    wanted |= {orjson.dumps(secret).decode()[1:-1] for secret in wanted}
    if not wanted:
        return None
    longest_first = sorted(wanted, key=lambda text: (-len(text), text))
    return re.compile("|".join(re.escape(text) for text in longest_first), re.IGNORECASE)


def _scrub(text: str, scrubber: re.Pattern[str] | None) -> str:
    if scrubber is not None:
        text = scrubber.sub(REDACTED, text)
    # Substring tests first: they cost a fraction of the patterns, and nearly every string of OCPP passes them all.
    if "@" in text:
        text = _URL_USERINFO.sub(rf"\1{REDACTED}@", text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(REDACTED, text)
    if ":" in text or "=" in text:
        text = _ASSIGNMENT.sub(rf"\1{REDACTED}", text)
    if " " in text or "\t" in text:
        text = _AUTHORIZATION.sub(rf"\1 {REDACTED}", text)
    return text


def _shown(value: object, scrubber: re.Pattern[str] | None, depth: int, *, named: bool) -> object:
    """Return *value* without its secrets; *named*: an object around it names a secret variable."""
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        named = named or _names_secret(value)
        return {
            _scrub(name, scrubber)[:_MAX_NAME]: REDACTED
            if _is_secret(name, value, named=named)
            else _shown(member, scrubber, depth + 1, named=named)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [_shown(item, scrubber, depth + 1, named=named) for item in value]
    if not isinstance(value, str):
        return value
    nested = _nested(value)
    if nested is not None:
        value = orjson.dumps(_shown(nested, scrubber, depth + 1, named=named)).decode()
    text = _scrub(value, scrubber)
    return text if len(text) <= MAX_STRING else f"{text[:MAX_STRING]}… ({len(value)} characters)"


def _collect(value: object, found: set[str], depth: int, *, named: bool) -> None:
    if depth > _MAX_DEPTH or len(found) >= _MAX_SCRUBBED:
        return
    if isinstance(value, dict):  # payloads are plain dicts, from the wire and in our own calls
        named = named or _names_secret(value)
        for name, member in value.items():
            if _is_secret(name, value, named=named):
                if isinstance(member, str):
                    found.add(member)
            else:
                _collect(member, found, depth + 1, named=named)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found, depth + 1, named=named)
    elif isinstance(value, str):
        nested = _nested(value)
        if nested is not None:
            _collect(nested, found, depth + 1, named=named)


def _nested(text: str) -> object | None:
    """Return the JSON object or array that a string holds (DataTransfer.data), else ``None``."""
    if text[:1] not in ("{", "["):
        return None
    try:
        nested: object = orjson.loads(text)
    except ValueError:
        return None
    return nested


def _is_secret(name: object, around: Mapping[str, object], *, named: bool) -> bool:
    """Say whether the member *name* of the object *around* it is a secret."""
    if not isinstance(name, str):
        return False
    if name == "key":
        # VPNType.key is a secret; the key of a configuration item is its name.
        return "server" in around or "password" in around
    if name == "idToken":
        return around.get("type") == "KeyCode"  # a number that the driver types in
    return (named and name in _VALUE_MEMBERS) or _has_secret_word(name)


def _names_secret(value: Mapping[str, object]) -> bool:
    """Say whether *value* is about a secret: 1.6 ``key``, 2.x ``variable.name``."""
    if value.keys().isdisjoint(_NAMING_MEMBERS):
        return False
    variable = value.get("variable")
    names = [value.get("key"), value.get("variableName"), value.get("messageId")]
    if isinstance(variable, Mapping):
        names += [variable.get("name"), variable.get("instance")]
    return any(isinstance(name, str) and _has_secret_word(name) for name in names)


@lru_cache(maxsize=1024)
def _has_secret_word(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return any(word in plain for word in _SECRET_WORDS)
