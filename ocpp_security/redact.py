"""What of an OCPP message may reach a log: everything but secrets, on one line, of bounded length."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from types import TracebackType

import orjson

from chargepki.ocpp_security.schemas import is_action, member_names
from chargepki.pki.errors import printable

__all__ = ["REDACTED", "log_form", "may_hold_secrets", "scrub", "secret_values", "without_message"]

REDACTED = "[secret]"
UNKNOWN = "[not shown]"
"""In place of what stands under a name that no message has: nothing says whether it is a secret."""

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
_MAX_PATTERN = 256

# Looked for in names of members, configuration keys and variables, in lower case and without separators:
# 1.6 keys are case-insensitive (CiString), and vendors have keys of their own.
_SECRET_WORDS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "authorizationkey", "privatekey", "secret", "simpin",
    "pincode", "presharedkey", "psk", "credential",
)  # fmt: skip
_NAMING_MEMBERS = frozenset({"key", "variable", "variableName", "messageId"})
# Secret whatever they are called: contract keys travel in exiResponse, and a card's number opens a charging station.
_SECRET_MEMBERS = frozenset({"exiRequest", "exiResponse", "idTag", "parentIdTag", "additionalIdToken"})
# An idToken of these types proves nothing to whoever reads it; one of any other type (card, PIN, address) may.
_OPEN_TOKEN_TYPES = frozenset({"Central", "DirectPayment", "Local", "NoAuthorization", "eMAID"})
# A place for an upload is open to whoever knows its path.
_PLACE_MEMBERS = frozenset({"remoteLocation"})
_PATH = re.compile(r"(://[^/\s]{0,300})/.*", re.DOTALL)
# One of these is in every name that counts as secret, whatever separators stand between its words.
_HINTS = ("pass", "pwd", "psk", "key", "secret", "credential", "pin", "shared", "exi", "idt", "location")
# What these say is secret unless an object names, readably, what it is about.
_ACTIONS_THAT_SET = frozenset({"ChangeConfiguration", "SetVariables"})
# Members with the value of the variable or configuration key that the object around them names.
_VALUE_MEMBERS = frozenset({"value", "attributeValue", "actualValue", "data"})
# These hold a variable's value and nothing else; `value` may also be a measurement.
_VARIABLE_MEMBERS = frozenset({"attributeValue", "actualValue"})
_SETTING_LISTS = frozenset({"variableAttribute", "configurationKey"})

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
    shown = _Shower(_Scrubber({*secrets, *secret_values(value)}), _known_names(value)).show(value, 0, _subject(value))
    text = printable(orjson.dumps(shown).decode())
    if len(text) > MAX_LINE:
        return f"{text[:MAX_LINE]}… ({len(text)} characters)"
    return text


def scrub(text: str, secrets: Collection[str]) -> str:
    """Return *text* without *secrets* (four characters or more, in any case), passwords in URLs and private keys.

    >>> scrub("wss://CS1:hunter22@csms.example/ocpp", ())
    'wss://[secret]@csms.example/ocpp'
    """
    return _scrub(text, _Scrubber(secrets))


def may_hold_secrets(text: str) -> bool:
    """Say, cheaply and on the safe side, whether a frame's text can hold a member or variable that is secret."""
    lowered = text.lower()
    return "\\u" in lowered or any(hint in lowered for hint in _HINTS)


def secret_values(value: object) -> frozenset[str]:
    """Return the strings in a payload or frame that are secret because of where they stand (at most 32)."""
    found: set[str] = set()
    _collect(value, found, 0, _subject(value))
    return frozenset(found)


class _TextLeftOut(Exception):
    """Stands for an error whose text may quote a frame."""


def without_message(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return *error* as ``exc_info`` of a log record, with its traceback and its kind, without its text.

    An error that nobody foresaw may quote what a peer sent: ``KeyError: 'hunter22'``.
    """
    kind = type(error).__name__
    return _TextLeftOut, _TextLeftOut(f"{kind} (its text may quote a message, and is left out)"), error.__traceback__


class _Scrubber:
    """Takes secrets out of text; made once for a frame."""

    __slots__ = ("_long", "_short")

    def __init__(self, secrets: Collection[str]) -> None:
        kept = [secret for secret in secrets if len(secret) >= _MIN_SCRUBBED]
        # Upper and lower case too: IGNORECASE compares single characters, and some letters grow (ß, SS).
        wanted = {form for secret in kept for form in (secret, secret.upper(), secret.lower())}
        # As they are, and as JSON inside a string spells them.
        wanted |= {orjson.dumps(secret).decode()[1:-1] for secret in wanted}
        ordered = sorted(wanted, key=lambda text: (-len(text), text))
        # A pattern costs much by its length, and no person types the long ones: nobody changes the case of EXI.
        self._long = tuple(text for text in ordered if len(text) > _MAX_PATTERN)
        short = [re.escape(text) for text in ordered if len(text) <= _MAX_PATTERN]
        self._short = re.compile("|".join(short), re.IGNORECASE) if short else None

    def __call__(self, text: str) -> str:
        for secret in self._long:
            text = text.replace(secret, REDACTED)
        return text if self._short is None else self._short.sub(REDACTED, text)


def _scrub(text: str, scrubber: _Scrubber) -> str:
    text = scrubber(text)
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


class _Subject(Enum):
    """What the values around are about."""

    NOTHING = "nothing"
    """No setting: nothing around names one."""
    OPEN = "open"
    """A setting that is named, and is no secret."""
    UNCERTAIN = "uncertain"
    """A setting, and nothing has said yet which."""
    SECRET = "secret"  # noqa: S105 (the name of a state)


def _subject(frame: object) -> _Subject:
    """Return what a frame's values are about before any object has named it."""
    elements = frame if isinstance(frame, list) else []
    sets = any(isinstance(element, str) and element in _ACTIONS_THAT_SET for element in elements)
    return _Subject.UNCERTAIN if sets else _Subject.NOTHING


def _known_names(frame: object) -> frozenset[str]:
    """Return the member names that the frame's action has; those of all messages where it names none."""
    action = frame[2] if isinstance(frame, list) and len(frame) > 2 else None
    return member_names(action if isinstance(action, str) and is_action(action) else None)


class _Shower:
    """Makes the form that may be shown of one frame."""

    __slots__ = ("_known", "_scrubber")

    def __init__(self, scrubber: _Scrubber, known: frozenset[str]) -> None:
        self._scrubber, self._known = scrubber, known

    def show(self, value: object, depth: int, subject: _Subject) -> object:
        """Return *value* without its secrets; *subject*: what an object around it is about."""
        if depth > _MAX_DEPTH:
            return "…"
        if isinstance(value, dict):
            subject = _named(value, subject)
            return {
                _scrub(name, self._scrubber)[:_MAX_NAME]: self._member(name, value, depth + 1, subject)
                for name in value
            }
        if isinstance(value, list):
            return [self.show(item, depth + 1, subject) for item in value]
        if not isinstance(value, str):
            return value
        nested = _nested(value)
        if nested is not None:
            # Vendors wrap other messages into DataTransfer.
            inner = _Shower(self._scrubber, member_names())
            value = orjson.dumps(inner.show(nested, depth + 1, subject)).decode()
        text = _scrub(value, self._scrubber)
        return text if len(text) <= MAX_STRING else f"{text[:MAX_STRING]}… ({len(value)} characters)"

    def _member(self, name: str, around: Mapping[str, object], depth: int, subject: _Subject) -> object:
        member = around[name]
        if _is_secret(name, around, subject):
            return REDACTED
        # customData is an object, in which only vendorId has a name that the standard knows.
        if name not in self._known or (name == "customData" and not isinstance(member, dict)):
            return UNKNOWN
        return self.show(_without_path(name, member), depth, _inside(name, subject))


def _inside(name: str, subject: _Subject) -> _Subject:
    """Return what the values below the member *name* are about."""
    return _Subject.UNCERTAIN if subject is _Subject.NOTHING and name in _SETTING_LISTS else subject


def _without_path(name: object, member: object) -> object:
    if name in _PLACE_MEMBERS and isinstance(member, str):
        return _PATH.sub(rf"\1/{REDACTED}", member)
    return member


def _collect(value: object, found: set[str], depth: int, subject: _Subject) -> None:
    if depth > _MAX_DEPTH or len(found) >= _MAX_SCRUBBED:
        return
    if isinstance(value, dict):  # payloads are plain dicts, from the wire and in our own calls
        subject = _named(value, subject)
        for name, member in value.items():
            if _is_secret(name, value, subject):
                found.update(_strings(member))
            else:
                _collect(member, found, depth + 1, _inside(str(name), subject))
            if name in _PLACE_MEMBERS and isinstance(member, str):
                # The path alone: host and port are no secret, and stand in other places.
                found.add(member.partition("://")[2].partition("/")[2])
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found, depth + 1, subject)
    elif isinstance(value, str):
        nested = _nested(value)
        if nested is not None:
            _collect(nested, found, depth + 1, subject)


def _strings(member: object) -> Iterator[str]:
    """Yield what of a secret member is looked for elsewhere: its texts, and its numbers as text."""
    stack = [member]
    for _ in range(4 * _MAX_SCRUBBED):
        if not stack:
            return
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif type(item) is int:
            yield str(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _nested(text: str) -> object | None:
    """Return the JSON object or array that a string holds (DataTransfer.data), else ``None``."""
    if text[:1] not in ("{", "["):
        return None
    try:
        nested: object = orjson.loads(text)
    except ValueError:
        return None
    return nested


def _is_secret(name: object, around: Mapping[str, object], subject: _Subject) -> bool:
    """Say whether the member *name* of the object *around* it is a secret."""
    if not isinstance(name, str):
        return False
    if name == "key":
        # VPNType.key is a secret; that of a configuration item is its name, and a request for some lists their names.
        is_vpn = "server" in around or "password" in around
        is_setting = "value" in around or "readonly" in around
        is_list = isinstance(around["key"], list) and around.keys() <= {"key", "customData"}
        return is_vpn or not (is_setting or is_list)
    if name == "idToken":
        token, kind = around["idToken"], around.get("type")
        if isinstance(kind, str) and kind in _OPEN_TOKEN_TYPES:
            return False
        # In messages it is an object around a member of the same name, which is looked at in its turn.
        return not (
            isinstance(token, dict) and "type" not in around and not token.keys().isdisjoint(("idToken", "type"))
        )
    if name in _SECRET_MEMBERS:
        return True
    if subject in (_Subject.SECRET, _Subject.UNCERTAIN):
        return name in _VALUE_MEMBERS or _has_secret_word(name)
    return (subject is _Subject.NOTHING and name in _VARIABLE_MEMBERS) or _has_secret_word(name)


def _named(value: Mapping[str, object], around: _Subject) -> _Subject:
    """Return what *value* is about: 1.6 ``key``, 2.x ``variable.name``; what is secret stays so further down."""
    if around is _Subject.SECRET or value.keys().isdisjoint(_NAMING_MEMBERS):
        return around
    names = [value[member] for member in ("key", "variableName", "messageId") if member in value]
    if "variable" in value:
        variable = value["variable"]
        names += [variable.get("name"), variable.get("instance", "")] if isinstance(variable, Mapping) else [None]
    if any(isinstance(name, str) and _has_secret_word(name) for name in names):
        return _Subject.SECRET
    # A name that cannot be read may be that of a secret.
    return _Subject.OPEN if all(isinstance(name, str) for name in names) else _Subject.UNCERTAIN


@lru_cache(maxsize=1024)
def _has_secret_word(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return any(word in plain for word in _SECRET_WORDS)
