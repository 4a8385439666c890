"""Read the filter language: words to a typed tree, or an error that points at the column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.filter_fields import FIELDS, Field, Kind, Value
from chargepki.pki.inventory.filters import And, Compare, Filter, Like, Missing, Not, OneOf, Or

__all__ = ["FilterError", "parse_filter"]

_MAX_LENGTH: Final = 4000
_MAX_DEPTH: Final = 40
_MAX_TERMS: Final = 200
_MAX_PATTERN: Final = 500
_WIDEST: Final = (1 << 63) - 1
_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_WORDS: Final = frozenset({"and", "or", "not", "in", "like", "contains", "is", "null", "now"})
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>'(?:[^']|'')*')
    |(?P<instant>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]{5,15}(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)?)
    |(?P<span>[0-9]+[A-Za-z]+)
    |(?P<number>[0-9]+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op><=|>=|!=|<>|=|<|>|\(|\)|,|\+|-)""",
    re.VERBOSE | re.ASCII,
)


class FilterError(InputError):
    """A filter that cannot be read; `column` (from 1) is where."""

    code = "filter"

    def __init__(self, text: str, column: int, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(f"the filter is wrong at column {column}: {what}", why=why, fix=fix or _EXAMPLE)
        self.text = text
        self.column = column

    def pointer(self) -> tuple[str, str]:
        """Return the filter and a line with a caret below the place, cut to what a terminal shows."""
        first = max(0, self.column - 61)
        shown = "".join(char if char.isprintable() else " " for char in self.text[first : first + 100])
        return shown, " " * (self.column - 1 - first) + "^"


_EXAMPLE: Final = "write for example: profile = 'ocpp/charging-station' and not_after < now + 30d"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


def parse_filter(
    text: str, *, now: datetime, profiles: Sequence[str] = (), fields: Mapping[str, Field] = FIELDS
) -> Filter:
    """Read a filter.

    Args:
        now: what the word ``now`` stands for; aware.
        profiles: the names that ``profile =`` may be compared with; empty: any.
        fields: what may be asked, by name; what certificates have unless given (`row_fields.ROW_FIELDS`).

    Raises:
        FilterError: says at which column, and which field may have been meant.
        TypeError: *now* is naive.

    >>> parse_filter("not state = 'issued'", now=datetime(2026, 3, 1, tzinfo=UTC)).part.value
    'issued'
    """
    if now.tzinfo is None:
        raise TypeError("now is a naive datetime; pass an aware one")
    if len(text) > _MAX_LENGTH:
        raise FilterError(text, _MAX_LENGTH, f"it has {len(text)} characters, at most {_MAX_LENGTH} are read")
    return _Parser(text, now.astimezone(UTC), frozenset(profiles), fields).parse()


class _Parser:
    def __init__(self, text: str, now: datetime, profiles: frozenset[str], fields: Mapping[str, Field]) -> None:
        self._text = text
        self._now = now
        self._profiles = profiles
        self._fields = fields
        self._tokens = self._split()
        self._at = 0
        self._terms = 0

    def parse(self) -> Filter:
        """Read the whole text."""
        found = self._either(0)
        if self._next.kind != "end":
            self._fail(self._next, f"expected and, or, or the end, not {_shown(self._next)}")
        return found

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                place = _Token("bad", self._text[position], position + 1)
                if self._text[position] == "'":
                    self._fail(place, "a text without its closing quote", fix="close it; a quote inside is written ''")
                if self._text[position] == '"':
                    self._fail(place, "texts stand in single quotes", fix="write 'like this'")
                self._fail(place, f"{printable(self._text[position])!r} has no meaning here")
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match[0], position + 1))
            position = match.end()
        tokens.append(_Token("end", "", len(self._text) + 1))
        return tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._at += 1
        return token

    def _accept(self, *texts: str) -> bool:
        """Take the next token if it is one of the words or signs *texts*."""
        token = self._next
        if token.kind in ("word", "op") and token.text.lower() in texts:
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            self._fail(self._next, f"expected {sign}, not {_shown(self._next)}")

    def _fail(self, token: _Token, what: str, *, why: str = "", fix: str = "") -> NoReturn:
        if not fix and self._fields is not FIELDS:
            fix = f"write for example: {next(iter(self._fields))} = 'x'; the fields are {', '.join(self._fields)}"
        raise FilterError(self._text, token.column, what, why=why, fix=fix)

    def _either(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            self._fail(self._next, f"parentheses nest deeper than {_MAX_DEPTH}")
        parts = [self._both(depth)]
        while self._accept("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._accept("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Filter:
        negative = False
        while self._accept("not"):
            negative = not negative
        if self._accept("("):
            found = self._either(depth + 1)
            self._expect(")")
        else:
            found = self._term()
        return Not(found) if negative else found

    def _term(self) -> Filter:
        self._terms += 1
        if self._terms > _MAX_TERMS:
            self._fail(self._next, f"more than {_MAX_TERMS} comparisons")
        field = self._field()
        if self._accept("is"):
            negative = self._accept("not")
            if not self._accept("null"):
                self._fail(
                    self._next, f"expected null, not {_shown(self._next)}", fix=f"write {field.name} is not null"
                )
            return Not(Missing(field)) if negative else Missing(field)
        negative = self._accept("not")
        found = self._listed(field)
        if found is None:
            if negative:
                self._fail(self._next, f"expected in, like or contains, not {_shown(self._next)}")
            return self._comparison(field)
        return Not(found) if negative else found

    def _field(self) -> Field:
        token = self._take()
        if token.kind != "word" or token.text.lower() in _WORDS:
            self._fail(token, f"expected a field, not {_shown(token)}", why=f"fields are {', '.join(self._fields)}")
        field = self._fields.get(token.text.lower())
        if field is None:
            close = difflib.get_close_matches(token.text.lower(), self._fields, n=1, cutoff=0.5)
            fix = f"did you mean {close[0]}?" if close else "use one of them"
            known = f"fields are {', '.join(self._fields)}"
            self._fail(token, f"there is no field {printable(token.text[:40])!r}", why=known, fix=fix)
        return field

    def _listed(self, field: Field) -> Filter | None:
        token = self._next
        if self._accept("in"):
            self._expect("(")
            values = [self._value(field)]
            while self._accept(","):
                self._terms += 1
                values.append(self._value(field))
            self._expect(")")
            if self._terms > _MAX_TERMS:
                self._fail(token, f"more than {_MAX_TERMS} comparisons")
            return OneOf(field, tuple(values))
        if self._accept("like", "contains"):
            if field.kind is not Kind.TEXT:
                self._fail(token, f"{field.name} is a {field.kind}, and {token.text.lower()} compares texts")
            typed = self._next
            pattern = self._string(field, "a text")
            if len(pattern) > _MAX_PATTERN:
                self._fail(typed, f"a pattern of {len(pattern)} characters, at most {_MAX_PATTERN}")
            if token.text.lower() == "contains":
                pattern = "%" + re.sub(r"([%_\\])", r"\\\1", pattern) + "%"
            elif len(pattern) - len(pattern.rstrip("\\")) & 1:
                self._fail(typed, "the pattern ends with a lone backslash", fix="write \\\\ for a backslash")
            return Like(field, pattern)
        return None

    def _comparison(self, field: Field) -> Filter:
        token = self._take()
        if token.kind != "op" or token.text not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            self._fail(token, f"expected = != < <= > >= in like contains or is, not {_shown(token)}")
        if field.known and token.text in ("<", "<=", ">", ">="):
            self._fail(token, f"{field.name} has no order", fix=f"it is one of {', '.join(field.known)}")
        value = self._value(field)
        if token.text in ("!=", "<>"):
            return Not(Compare(field, "=", value))
        return Compare(field, token.text, value)

    # -- values -------------------------------------------------------------------------------------------------

    def _value(self, field: Field) -> Value:
        if field.kind is Kind.TIME:
            return self._instant(field)
        if field.kind is Kind.NUMBER:
            token = self._take()
            if token.kind != "number" or int(token.text[:20]) > _WIDEST:
                self._fail(token, f"{field.name} is a number, not {_shown(token)}")
            return int(token.text)
        token = self._next
        value = field.normalise(self._string(field, "a text in single quotes"))
        if field.known and value not in field.known:
            self._unknown(token, field, value, field.known)
        if field.name == "profile" and self._profiles and value not in self._profiles:
            self._unknown(token, field, value, sorted(self._profiles))
        return value

    def _unknown(self, token: _Token, field: Field, value: str, known: Sequence[str]) -> NoReturn:
        close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
        usual = "see them with: chargepki profile list" if field.name == "profile" else "use one of them"
        fix = f"did you mean '{close[0]}'?" if close else usual
        listed = ", ".join(known) if len(known) < 20 else "those of chargepki profile list"
        self._fail(token, f"there is no {field.name} {printable(value[:60])!r}", why=f"known are {listed}", fix=fix)

    def _string(self, field: Field, expected: str) -> str:
        token = self._take()
        if token.kind != "string":
            hint = f"write '{token.text}'" if token.kind in ("word", "number", "span", "instant") else ""
            if token.text.lower() == "null":
                hint = f"write {field.name} is null"
            self._fail(token, f"{field.name} is compared with {expected}, not {_shown(token)}", fix=hint)
        text = token.text[1:-1].replace("''", "'")
        if not text.isprintable():
            self._fail(token, "the text holds characters that cannot be printed")
        return text

    def _instant(self, field: Field) -> datetime:
        token = self._take()
        if token.kind == "word" and token.text.lower() == "now":
            found = self._now
        elif token.kind in ("instant", "string"):
            found = self._point(token)
        else:
            self._fail(
                token,
                f"{field.name} is a time, not {_shown(token)}",
                fix="write now, now + 30d, 2026-03-01 or 2026-03-01T12:00:00Z",
            )
        while self._next.kind == "op" and self._next.text in "+-":
            sign = 1 if self._take().text == "+" else -1
            span = self._take()
            try:
                found += sign * self._span(span)
            except OverflowError:
                self._fail(span, "that lies outside the years 1 to 9999")
        return found

    def _point(self, token: _Token) -> datetime:
        text = token.text.strip("'").upper().replace(" ", "T")
        day = len(text) == 10
        try:
            found = datetime.fromisoformat(f"{text}T00:00:00+00:00" if day else text)
            if found.tzinfo is None:
                self._fail(token, "a time without its zone", fix=f"write {text}Z for UTC")
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            self._fail(token, f"{_shown(token)} is no time", fix="write 2026-03-01 or 2026-03-01T12:00:00Z")

    def _span(self, token: _Token) -> timedelta:
        unit = _UNITS.get(token.text[-1:].lower()) if token.kind == "span" else None
        digits = token.text[:-1]
        if unit is None or not digits.isdigit() or len(digits) > 9:
            self._fail(token, f"{_shown(token)} is no span", fix="write 90s, 15m, 12h, 30d, 2w or 4y (of 365 days)")
        return int(digits) * unit


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else printable(token.text[:40])
