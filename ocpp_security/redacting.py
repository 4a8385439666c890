"""A log filter that takes the secrets out of OCPP messages, for code that logs them whole."""

from __future__ import annotations

import dataclasses
import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any

import orjson

from chargepki.ocpp_security import redact

__all__ = ["RedactingFilter", "install_redaction"]

_MAX_TRACEBACK = 20_000
_MAX_DEPTH = 40
_SNAKE = re.compile(r"_([a-z0-9])")


class RedactingFilter(logging.Filter):
    """Rewrites every record of the logger that it is added to; nothing is held back.

    The `ocpp` package logs each message whole, a new password included, and once more in the traceback when it cannot
    make sense of one. What this filter recognises as a message (text, payload, or the package's own objects, in camel
    or in snake case) is replaced by its `redact.log_form`; the secrets found in it are also taken out of the rest of
    the record. Of an exception that quotes a message only its kind and where it came from are left.

    Example:
        logging.getLogger("ocpp").addFilter(RedactingFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place and let it pass."""
        # logging unpacks a single dictionary, for formats with names; it may be a message by itself.
        arguments = record.args or ()
        values = list(arguments.values()) if isinstance(arguments, Mapping) else list(arguments)
        secrets = frozenset[str]().union(*(_secrets_of(value) for value in (*values, arguments, record.msg)))
        shown = [_shown(value, secrets) for value in values]
        record.args = dict(zip(arguments, shown, strict=True)) if isinstance(arguments, Mapping) else tuple(shown)
        if isinstance(record.msg, str) and _message_of(record.msg) is None:
            record.msg = redact.scrub(record.msg, secrets)
        else:
            record.msg = str(_shown(record.msg, secrets))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.exc_text = _describe(error, secrets)
            record.exc_info = None
        return True


def install_redaction(logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Add a `RedactingFilter` to *logger*, or to the logger behind an adapter, unless it has one."""
    plain: Any = logger
    while isinstance(plain, logging.LoggerAdapter):
        plain = plain.logger
    if not any(isinstance(present, RedactingFilter) for present in plain.filters):
        plain.addFilter(RedactingFilter())


def _message_of(value: object) -> object | None:
    """Return the frame or payload that *value* holds, as JSON data in camel case; ``None`` if it is no message."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _in_camel_case(dataclasses.asdict(value), 0)
    if isinstance(value, dict | list):
        return _in_camel_case(value, 0)
    if isinstance(value, str | bytes):
        if value[:1] not in ("[", "{", b"[", b"{"):
            return None
        try:
            read: object = orjson.loads(value)
        except ValueError:
            return None
        return _in_camel_case(read, 0)
    payload = getattr(value, "payload", None)  # Call and CallResult of the `ocpp` package
    return _in_camel_case(payload, 0) if isinstance(payload, dict) else None


def _in_camel_case(value: object, depth: int) -> object:
    """Return a copy whose member names are those that `redact` looks for, whatever spelling they came in."""
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            _SNAKE.sub(lambda match: match[1].upper(), str(name)): _in_camel_case(member, depth + 1)
            for name, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [_in_camel_case(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _secrets_of(value: object) -> frozenset[str]:
    message = _message_of(value)
    return redact.secret_values(message) if message is not None else frozenset()


def _shown(value: object, secrets: frozenset[str]) -> object:
    if value is None or isinstance(value, int | float):
        return value
    message = _message_of(value)
    if message is not None:
        try:
            return redact.log_form(orjson.dumps(message).decode(), secrets=secrets)
        except TypeError:  # numbers beyond 64 bits
            return f"<unreadable message, {len(str(value))} characters>"
    if isinstance(value, str | bytes) and value[:1] in ("[", "{", b"[", b"{"):
        # Most likely a frame that is no JSON: there is no telling what in it is secret.
        return f"<unreadable frame, {len(value)} characters>"
    if isinstance(value, BaseException):
        return _name_and_text(value, secrets)
    return redact.scrub(value if isinstance(value, str) else str(value), secrets)


def _describe(error: BaseException, secrets: frozenset[str]) -> str:
    """Return the traceback of *error* and of what caused it, the causes first, without what they quote."""
    parts: list[str] = []
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{lines}{_name_and_text(current, secrets)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\n".join(reversed(parts))[-_MAX_TRACEBACK:]


def _name_and_text(error: BaseException, secrets: frozenset[str]) -> str:
    name = type(error).__qualname__
    # The errors of `ocpp` carry the message in `details`, those of `jsonschema` in `instance`.
    if getattr(error, "details", None) or hasattr(error, "instance"):
        return f"{name} (its text quotes the message)"
    text = redact.scrub(str(error), secrets)
    return f"{name}: {text}" if text else name
