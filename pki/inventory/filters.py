"""The filter language: parse ``profile = 'ocpp/csms' and not_after < now + 30d`` into a typed tree, and evaluate it.

Logic has two values: a comparison with something that a certificate lacks is false, and ``not`` turns it round, so
that every certificate is found by a filter or by its negation. `filter_sql` says the same to the databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt
from typing import Any, Final

from chargepki.pki.inventory.filter_fields import Field, Kind, Value
from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["And", "Compare", "Filter", "Like", "Missing", "Not", "OneOf", "Or", "like", "lowered", "matches"]


@dataclass(frozen=True, slots=True)
class Compare:
    """A field against a value; ``op`` is one of ``= < <= > >=``, and ``!=`` is `Not` of ``=``."""

    field: Field
    op: str
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field against a list."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text against a pattern: ``%`` is any text, ``_`` one character, ``\\`` takes the next as it is.

    ASCII letters match in either case.
    """

    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Whether a certificate lacks the field."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    parts: tuple[Filter, ...]


Filter = Compare | OneOf | Like | Missing | Not | And | Or

_UPPER: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER: Final = str.maketrans(_UPPER, _UPPER.lower())


def lowered(text: str) -> str:
    """Return *text* with ASCII letters in lower case, as both databases do it.

    >>> lowered("ÄB")
    'Äb'
    """
    return text.translate(_LOWER)


def matches(found: Filter, record: CertificateRecord | Mapping[str, Any]) -> bool:
    """Return whether *record*, or a row of another kind (`row_fields`), is one of those that the filter asks for."""
    if isinstance(found, And):
        return all(matches(part, record) for part in found.parts)
    if isinstance(found, Or):
        return any(matches(part, record) for part in found.parts)
    if isinstance(found, Not):
        return not matches(found.part, record)
    value = found.field.of(record)
    if found.field.of_places:
        return not value if isinstance(found, Missing) else any(_holds(found, each) for each in value)
    if isinstance(found, Missing):
        return value is None
    return value is not None and _holds(found, value)


def _holds(found: Compare | OneOf | Like, value: Value) -> bool:
    """Return whether one value is what a term asks for."""
    if isinstance(found, Like):
        return like(lowered(str(value)), lowered(found.pattern))
    if isinstance(found, OneOf):
        return any(_compare(found.field, value, "=", each) for each in found.values)
    return _compare(found.field, value, found.op, found.value)


def _compare(field: Field, value: Value, op: str, other: Value) -> bool:
    if field.name == "ca" and op == "=" and isinstance(other, str) and "@" not in other:
        return str(value).partition("@")[0] == other
    if field.kind is Kind.TEXT:
        # UTF-8 keeps the order of code points, and both databases compare its octets.
        return _ordered(str(value), op, str(other))
    return _ordered(value, op, other)


def _ordered(one: Any, op: str, other: Any) -> bool:
    """Compare two values of one type."""
    return bool({"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}[op](one, other))


def like(text: str, pattern: str) -> bool:
    r"""Return whether *text* has the form of *pattern* (``%``, ``_``, ``\``), in time that is bounded by their product.

    >>> like("acme charging", "acme%"), like("50%", "50\\%"), like("ab", "a_c")
    (True, True, False)
    """
    tokens = list(_tokens(pattern))
    at = token = 0
    back: tuple[int, int] | None = None
    while at < len(text):
        if token < len(tokens) and tokens[token] == "%%":
            back = (token, at)
            token += 1
        elif token < len(tokens) and (tokens[token] == "__" or tokens[token] == text[at]):
            at, token = at + 1, token + 1
        elif back is not None:
            back = (back[0], back[1] + 1)
            token, at = back[0] + 1, back[1]
        else:
            return False
    return all(each == "%%" for each in tokens[token:])


def _tokens(pattern: str) -> Iterator[str]:
    """Yield ``%%`` for any text, ``__`` for any character, and each plain character."""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\" and position + 1 < len(pattern):
            position += 1
            yield pattern[position]
        else:
            yield char * 2 if char in "%_" else char
        position += 1
