"""Payloads of every OCPP message, made from the schema files themselves, and hostile variants of them; all seeded."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from chargepki.ocpp_security.versions import OcppVersion, Role, rules_of, takes_call

__all__ = [
    "CARD_MEMBERS",
    "all_messages",
    "caller_of",
    "make_payload",
    "mutate_payload",
    "mutate_text",
    "plain_members",
    "plant",
    "schema_of",
    "secret_members",
]

Schema = dict[str, Any]

_FOLDERS = {OcppVersion.V16: "v16", OcppVersion.V201: "v201", OcppVersion.V21: "v21"}
_TIME = "2026-03-01T12:00:00Z"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ äß"

# What the standards call a password, key or PIN, what identifies a driver's card, and EXI with contract keys in it.
CARD_MEMBERS = frozenset({"idTag", "parentIdTag", "idToken", "additionalIdToken"})
_SECRET_STRINGS = CARD_MEMBERS | {
    "apnPassword", "basicAuthPassword", "exiRequest", "exiResponse", "password", "simPin",
}  # fmt: skip
_NAMED_VALUES = frozenset({"value", "attributeValue", "actualValue"})


@functools.cache
def schema_of(version: OcppVersion, action: str, kind: str) -> Schema:
    """Return the schema as the `ocpp` wheel ships it; *kind* is ``request`` or ``response``."""
    suffix = {"request": rules_of(version).request_suffix, "response": "Response"}[kind]
    path = _folder(version) / f"{action}{suffix}.json"
    # The one message without an answer is a file without a suffix.
    schema: Schema = json.loads((path if path.exists() else path.with_name(f"{action}.json")).read_text("utf-8-sig"))
    return schema


@functools.cache
def all_messages(version: OcppVersion) -> tuple[tuple[str, str], ...]:
    """Return (action, kind) of every schema of *version*, sorted."""
    suffix = rules_of(version).request_suffix
    found = []
    for path in _folder(version).glob("*.json"):
        if path.stem.endswith("Response"):
            found.append((path.stem.removesuffix("Response"), "response"))
        else:
            found.append((path.stem.removesuffix(suffix), "request"))
    return tuple(sorted(found))


@functools.cache
def plain_members() -> frozenset[str]:
    """Return the names of all members, of any message, that hold no secret, whatever stands there."""
    names: set[str] = set()
    for version in OcppVersion:
        for action, kind in all_messages(version):
            names |= _names_in(schema_of(version, action, kind))
    return frozenset(names - _SECRET_STRINGS - _NAMED_VALUES - {"key", "data", "customData"})


def _names_in(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(_names_in(item) for item in node)) if node else set()
    if not isinstance(node, dict):
        return set()
    properties = node.get("properties")
    own = set(properties) if isinstance(properties, dict) else set()
    return own.union(*(_names_in(member) for member in node.values())) if node else own


def caller_of(version: OcppVersion, action: str) -> Role:
    """Return who calls *action* (for those that both may call: the station)."""
    return Role.STATION if takes_call(version, Role.CSMS, action) else Role.CSMS


def _folder(version: OcppVersion) -> Path:
    spec = importlib.util.find_spec("ocpp")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / _FOLDERS[version] / "schemas"


def make_payload(schema: Schema, random: Random, *, full: bool = False) -> Any:
    """Return a payload that *schema* allows; *full*: with every optional member."""
    return _make(schema, schema, random, full)


def _make(root: Schema, node: Schema, random: Random, full: bool) -> Any:
    node = _resolve(root, node)
    if "enum" in node:
        return random.choice(node["enum"])
    kind = node.get("type")
    if kind == "object" or "properties" in node:
        required = set(node.get("required", ()))
        return {
            name: _make(root, member, random, full)
            for name, member in node.get("properties", {}).items()
            if name in required or full or random.random() < 0.3
        }
    if kind == "array":
        least, most = node.get("minItems", 0), node.get("maxItems", 3)
        count = max(least, min(most, 2 if full else random.randint(least, max(least, 2))))
        return [_make(root, node["items"], random, full) for _ in range(count)]
    return _scalar(node, random)


def _scalar(node: Schema, random: Random) -> Any:
    kind = node.get("type")
    if kind == "string":
        if node.get("format") == "date-time":
            return _TIME
        if node.get("format") == "uri":
            return "https://files.example/logs"
        longest = node.get("maxLength", 40)
        length = longest if random.random() < 0.05 else random.randint(min(1, longest), min(longest, 16))
        return "".join(random.choice(_LETTERS) for _ in range(length))
    if kind == "boolean":
        return random.random() < 0.5
    low, high = node.get("minimum", -1000), node.get("maximum", 1000)
    if kind == "integer":
        return random.randint(int(low), max(int(low), int(high)))
    if kind == "number":
        return round(random.uniform(low, max(low, high)), 1)
    return random.choice(["text", 1, True, None, {"a": [1]}])


def _resolve(root: Schema, node: Schema) -> Schema:
    while "$ref" in node:
        node = root["definitions"][node["$ref"].rsplit("/", 1)[1]]
    return node


# Secrets


def secret_members(version: OcppVersion, action: str, kind: str) -> frozenset[str]:
    """Return the dotted names of the members of this message that hold a secret, or may hold one."""
    schema = schema_of(version, action, kind)
    return frozenset(_secret_members(schema, schema, "", 0))


def _secret_members(root: Schema, node: Schema, path: str, depth: int) -> Iterator[str]:
    node = _resolve(root, node)
    if depth > 12:
        return
    if "items" in node:
        yield from _secret_members(root, node["items"], path, depth + 1)
    properties = node.get("properties", {})
    names_a_setting = "variable" in properties or "key" in properties or "variable" in path
    for name, member in properties.items():
        inner = f"{path}.{name}".removeprefix(".")
        leaf = _resolve(root, member).get("type") in ("string", "integer")
        is_key = name == "key" and "server" in properties
        is_value = name in _NAMED_VALUES and (names_a_setting or "variableAttribute" in path)
        if leaf and (name in _SECRET_STRINGS or is_key or is_value):
            yield inner
        yield from _secret_members(root, member, inner, depth + 1)


def plant(payload: Any, secret: str) -> int:
    """Put *secret* (digits alone where a number belongs) into every secret member of *payload*; return how many."""
    return _plant(payload, secret, named=False)


def _plant(value: Any, secret: str, *, named: bool) -> int:
    if isinstance(value, list):
        return sum(_plant(item, secret, named=named) for item in value)
    if not isinstance(value, dict):
        return 0
    planted = 0
    if isinstance(value.get("variable"), dict):
        value["component"], value["variable"] = {"name": "SecurityCtrlr"}, {"name": "BasicAuthPassword"}
        named = True
    elif isinstance(value.get("key"), str) and "server" not in value:
        value["key"] = "AuthorizationKey"
        named = True
    if "idToken" in value and isinstance(value["idToken"], str):
        value["type"] = "KeyCode"
    for name, member in value.items():
        is_key = name == "key" and "server" in value
        is_secret = name in _SECRET_STRINGS or is_key or (named and name in _NAMED_VALUES)
        if is_secret and isinstance(member, str):
            value[name] = secret
            planted += 1
        elif is_secret and type(member) is int:
            value[name] = int("".join(str(ord(letter) % 10) for letter in secret[:12]) or "1")
            planted += 1
        else:
            planted += _plant(member, secret, named=named)
    return planted


# Hostile variants

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e300, 2**31, 2**63 - 1, 2**64, "", "x" * 11_000, "\x1b[2J", "\u2028", "ß" * 50, [],
    {}, [[]], [None], {"": ""}, {"a": {"a": {"a": {}}}}, "2026-13-01T00:00:00Z", "not a date", "\ud800",
)  # fmt: skip


def mutate_payload(payload: Any, random: Random) -> Any:
    """Return a copy of *payload* with one to three places changed: removed, added, retyped, doubled or misspelt."""
    copy = json.loads(json.dumps(payload))
    for _ in range(random.randint(1, 3)):
        places = list(_places(copy))
        if not places:
            return random.choice(_ODD)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = deepcopy(random.choice(_ODD))
            case 2 if isinstance(holder, dict):
                name = random.choice(["", "x", "__proto__", "customData", str(key).upper(), "y" * 200])
                holder[name] = deepcopy(holder[key])
            case 3 if isinstance(holder, list):
                holder.extend(deepcopy(holder[key]) for _ in range(random.choice([1, 5, 200])))
            case 4:
                holder[key] = [holder[key]]
            case _:
                holder[key] = {"x": holder[key]}
    return copy


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        keys = list(item) if isinstance(item, dict) else list(range(len(item))) if isinstance(item, list) else []
        for key in keys:
            yield item, key
            stack.append(item[key])


_SPLICES = (
    "NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 400, "\\ud800", "\\u0000", "\x00", '"a":1,"a":2,', "[" * 300,
    "{" * 50, "]", "}", ",", '"', "\\", "/**/", "\ufeff", "\u202e", "null", "[2,", "'", "0x10", "01", "\t\n",
)  # fmt: skip


def mutate_text(text: str, random: Random) -> str:
    """Return *text* with one to three edits that need not leave it JSON: spliced, cut, doubled, swapped or flipped."""
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        end = min(len(text), at + random.randint(0, 30))
        match random.randrange(6):
            case 0:
                text = text[:at] + random.choice(_SPLICES) + text[at:]
            case 1:
                text = text[:at] + text[end:]
            case 2:
                text = text[:at] + text[at:end] * random.choice([2, 3, 50]) + text[end:]
            case 3:
                text = (
                    text[:at] + chr(random.choice([0, 34, 44, 58, 91, 92, 93, 123, 125, 0xD7FF, 0x1F4A9])) + text[end:]
                )
            case 4:
                text = text[:at]
            case _:
                # A member once more: two readers of one frame could see two messages.
                start = text.find('"', at)
                stop = text.find(",", start)
                if 0 <= start < stop:
                    text = text[: stop + 1] + text[start : stop + 1] + text[stop + 1 :]
    return text
