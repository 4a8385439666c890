"""OCPP-J frames as JSON arrays, strictly: size, depth, duplicate names and odd characters are found before use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from chargepki.ocpp_security.errors import RpcErrorCode

__all__ = ["Limits", "ParsedFrame", "encode_frame", "is_message_id", "parse_frame"]

MAX_MESSAGE_ID = 36


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost."""

    max_frame_bytes: int = 256 * 1024
    """Largest frame, in bytes of UTF-8, inclusive."""
    max_depth: int = 32
    """Deepest nesting of arrays and objects, the frame itself included; OCPP's own messages stay below 16."""
    max_open_calls: int = 16
    """Calls of the peer that may wait for our answer; OCPP allows one, hurried stations send more."""
    max_queued_calls: int = 64
    """Calls of ours that may wait for the one that is outstanding."""
    remembered_ids: int = 64
    """How many message ids of the peer are kept to notice repetition."""

    def __post_init__(self) -> None:
        # jsonschema-rs gives up at 255 levels, orjson at 1024: above that, refusing would no longer be our act.
        if not 1 <= self.max_depth <= 200:
            raise ValueError("max_depth must be between 1 and 200")


@dataclass(frozen=True, slots=True)
class ParsedFrame:
    """A frame's array, or what is wrong with it, or both (when it could be read although it is not acceptable)."""

    elements: list[object] | None
    problem: str = ""
    """Empty for a sound frame; never text of the frame."""
    code: RpcErrorCode = RpcErrorCode.RPC_FRAMEWORK_ERROR


def parse_frame(frame: str | bytes, limits: Limits) -> ParsedFrame:
    """Read one WebSocket message.

    Args:
        frame: text as ``str``; ``bytes`` means a binary message, which OCPP-J does not have.
    """
    if isinstance(frame, bytes):
        return ParsedFrame(None, "a binary message; OCPP-J sends text")
    # A cheap bound first: a character has at least one byte.
    if len(frame) > limits.max_frame_bytes:
        return ParsedFrame(None, f"longer than {limits.max_frame_bytes} bytes")
    try:
        if not frame.isascii() and len(frame.encode()) > limits.max_frame_bytes:
            return ParsedFrame(None, f"longer than {limits.max_frame_bytes} bytes")
        value = orjson.loads(frame)
    except ValueError:  # UnicodeEncodeError and JSONDecodeError are both ValueErrors
        return ParsedFrame(None, "not JSON")
    if not isinstance(value, list):
        return ParsedFrame(None, "not a JSON array")
    problem = _find_problem(frame, value, limits)
    if problem:
        return ParsedFrame(value, problem, RpcErrorCode.FORMAT_VIOLATION)
    return ParsedFrame(value)


def encode_frame(elements: Sequence[object]) -> str:
    """Write a frame as compact JSON text.

    >>> encode_frame([3, "1", {}])
    '[3,"1",{}]'
    """
    return orjson.dumps(elements).decode()


def is_message_id(value: object) -> bool:
    """Say whether *value* can be a message id: a string of 1 to 36 characters (part 4, 4.1.4)."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_MESSAGE_ID


def _find_problem(text: str, value: list[object], limits: Limits) -> str:
    """Find what orjson lets pass: deep nesting, duplicate member names, U+0000.

    orjson keeps the last of two equal names without a word, so two readers of one frame could see two messages.
    Finding out with the standard library costs several times what orjson does. Instead: orjson writes the value
    again, and the two texts must hold equally many colons. One follows every name, whatever white space is
    around it; the others stand in strings, which both texts have alike unless one is spelled with a ``\\u``
    escape. A name that was dropped, or a string with it, leaves the second text with fewer. Frames that differ,
    or that use such escapes, are read a second time by the standard library.
    """
    if text.count("[") + text.count("{") > limits.max_depth and _depth(value, limits.max_depth) > limits.max_depth:
        return f"nested deeper than {limits.max_depth} levels"
    if text.count(":") == orjson.dumps(value).count(b":") and "\\u" not in text:
        return ""
    if "\\u0000" in text and _holds_nul(value):
        return "holds U+0000"
    return _find_duplicate(text)


class _DuplicateName(Exception):
    """Raised inside the JSON reader of the standard library to leave it early."""


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _DuplicateName


def _find_duplicate(text: str) -> str:
    try:
        # Objects become None, since only the names matter here, and numbers stay unread (they may be huge).
        json.loads(text, object_pairs_hook=_refuse_duplicates, parse_int=len, parse_float=len)
    except _DuplicateName:
        return "a member name occurs twice in one object"
    except (ValueError, RecursionError):
        # orjson has read the text, so what fails here sits in a value that a duplicate name has hidden.
        return "a member name occurs twice in one object"
    return ""


def _depth(value: object, stop: int) -> int:
    """Return the nesting depth of *value*, or stop + 1 as soon as it is deeper than *stop*."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if any(isinstance(item, dict | list) for item in level):
            depth += 1
        if depth > stop:
            return depth
        level = below
    return depth


def _holds_nul(value: object) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False
