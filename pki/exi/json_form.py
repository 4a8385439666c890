"""A message as JSON, with the names of the schema: the form that EcoG's iso15118 logs and reads, too.

Binary values are base64, except where the schema says hexBinary (SessionID): those are hexadecimal. Whole numbers
without a limit (serial numbers) are decimal text, because many readers of JSON round what has more than 53 bits; a
JSON number is read as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import cache

from chargepki.pki.exi.codec import Message, MessageSet, Tree, Value
from chargepki.pki.exi.errors import ExiError, Problem
from chargepki.pki.exi.grammar import Choice, Kind, Simple
from chargepki.pki.exi.states import SETS, TEXT, roots_of

__all__ = ["from_json", "to_json"]

_MOST_DIGITS = 400


def to_json(message: Message) -> dict[str, object]:
    """Return *message* as what `json.dumps` takes: an object with the name of the outermost element as its only key."""
    return {message.name: _out(message.tree, message.message_set, _root_type(message.message_set, message.name))}


def from_json(document: object, *, message_set: MessageSet | None = None) -> Message:
    """Return the message that *document* describes.

    Args:
        document: what `json.loads` gave, in the form of `to_json`.
        message_set: the schema; without it, the one that has such a message. CertificateInstallationReq is a message
            of -20 when it has a Header, and the signed element of -2 without one.

    Raises:
        ExiError: it is no message, or a value cannot be what its field holds.
    """
    if not isinstance(document, Mapping) or len(document) != 1:
        raise ExiError("a message is one JSON object with one key, the name of its outermost element")
    name, tree = next(iter(document.items()))
    chosen = _set_of(name, tree) if message_set is None else message_set
    try:
        value = _in(tree, chosen, _root_type(chosen, name))
    except Problem as problem:
        raise problem.error(name) from None
    if not isinstance(value, dict):
        raise ExiError(f"{name}: an object with its fields is wanted")
    return Message(chosen, name, value)


def _set_of(name: str, tree: object) -> MessageSet:
    fitting = {each: root for each in MessageSet for root in roots_of(each) if root.name == name}
    if not fitting:
        known = ", ".join(dict.fromkeys(root.name for each in MessageSet for root in roots_of(each)))
        raise ExiError(f"{str(name)[:80]!r} is no message about certificates", fix=f"known are: {known}")
    has_header = isinstance(tree, Mapping) and "Header" in tree
    for message_set, root in fitting.items():
        if root.is_fragment != has_header:
            return message_set
    return next(iter(fitting))


def _root_type(message_set: MessageSet, name: str) -> str | None:
    """Return the type of a root; ``None`` when it is unknown or open."""
    grammars = SETS[message_set]
    fragments = {fragment.name: fragment.type for fragment in grammars.fragments}
    return grammars.roots.get(name) or fragments.get(name)


@cache
def _fields(message_set: MessageSet, type_name: str | None) -> Mapping[str, str | None]:
    """Return the type of each attribute and child, and of the text, of a complex type."""
    kind = SETS[message_set].complex_types.get(type_name or "")
    if kind is None:
        return {}
    found: dict[str, str | None] = {attribute.name: attribute.type for attribute in kind.attributes}
    for particle in kind.content:
        for element in particle.elements if isinstance(particle, Choice) else (particle,):
            found[element.name] = element.type
    return {**found, TEXT: kind.text} if kind.text else found


def _simple(message_set: MessageSet, type_name: str | None) -> Simple | None:
    return SETS[message_set].simple_types.get(type_name or "")


def _out(value: Value, message_set: MessageSet, type_name: str | None) -> object:
    if isinstance(value, dict):
        fields = _fields(message_set, type_name)
        return {name: _out(each, message_set, fields.get(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_out(each, message_set, type_name) for each in value]
    simple = _simple(message_set, type_name)
    if isinstance(value, bytes):
        if simple is not None and simple.kind is Kind.HEX:
            return value.hex().upper()
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, int) and simple is not None and simple.kind is Kind.INTEGER and simple.maximum is None:
        return str(value)
    return value


def _in(value: object, message_set: MessageSet, type_name: str | None) -> Value:
    if isinstance(value, Mapping):
        fields = _fields(message_set, type_name)
        tree: Tree = {}
        for name, each in value.items():
            try:
                tree[name] = _in(each, message_set, fields.get(name))
            except Problem as problem:
                raise problem.inside(str(name)[:80]) from None
        return tree
    if isinstance(value, list):
        return [_in(each, message_set, type_name) for each in value]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Problem(f"{'null' if value is None else type(value).__name__} is no value of a message")
    simple = _simple(message_set, type_name)
    if simple is None or isinstance(value, int):
        return value
    if simple.kind in {Kind.BASE64, Kind.HEX}:
        return _binary(value, simple.kind)
    if simple.kind in {Kind.INTEGER, Kind.UNSIGNED, Kind.NBIT}:
        return _number(value)
    return value


def _binary(text: str, kind: Kind) -> bytes:
    try:
        if kind is Kind.HEX:
            return bytes.fromhex(text)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Problem(f"this is no {'hexadecimal' if kind is Kind.HEX else 'base64'}") from None


def _number(text: str) -> int:
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
        raise Problem("this is no whole number in decimal digits")
    return int(text)
