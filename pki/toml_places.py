"""Where in a TOML text each value stands, so that an error can name line and column; `tomllib` tells neither."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Place", "find_places", "leaves"]

Path = tuple[str | int, ...]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK: Final = re.compile(r"[ \t]*")
_VOID: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING: Final = re.compile(r'"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL)
_SCALAR: Final = re.compile(r"[^,\]\}\n#]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


def find_places(text: str) -> Mapping[Path, Place]:
    """Return where each key and each element of an array begins.

    Args:
        text: TOML that `tomllib` has read without an error; anything else gives nonsense.

    >>> {".".join(map(str, path)): str(place) for path, place in find_places("[a]\\nb = [1, 2]").items()}
    {'a': 'line 1, column 2', 'a.b': 'line 2, column 1', 'a.b.0': 'line 2, column 6', 'a.b.1': 'line 2, column 9'}
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._found: dict[Path, Place] = {}
        self._arrays: dict[Path, int] = {}

    def run(self) -> Mapping[Path, Place]:
        table: Path = ()
        self._skip(_VOID)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                self._at += 2
                begin = self._at
                path = self._key_path(())
                self._arrays[path] = self._arrays.get(path, -1) + 1
                table = (*path, self._arrays[path])
                end, self._at = self._at + 2, begin
                self._note(table)
                self._at = end
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._key_path(())
                self._at += 1
            else:
                self._pair(table)
            self._skip(_VOID)
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None, "every pattern here matches nothing, too"
        self._at = match.end()

    def _note(self, path: Path) -> None:
        before = self._text[: self._at]
        self._found.setdefault(path, Place(before.count("\n") + 1, self._at - (before.rfind("\n") + 1) + 1))

    def _key_path(self, base: Path) -> Path:
        path = base
        while True:
            self._skip(_BLANK)
            begin = self._at
            match = _STRING.match(self._text, begin) or _BARE.match(self._text, begin)
            assert match is not None, "tomllib has read this text"
            word = match[0]
            path = (*path, word if _BARE.fullmatch(word) else next(iter(tomllib.loads(f"{word} = 0"))))
            self._note(path)
            self._at = match.end()
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return path
            self._at += 1
            if not base and path in self._arrays:
                path = (*path, self._arrays[path])  # a header below an array of tables belongs to its last one

    def _pair(self, table: Path) -> None:
        path = self._key_path(table)
        self._skip(_BLANK)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        character = self._text[self._at : self._at + 1]
        if character == "[":
            for index in self._members("]"):
                self._note((*path, index))
                self._value((*path, index))
        elif character == "{":
            for _ in self._members("}"):
                self._pair(path)
        elif character in ('"', "'"):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _members(self, end: str) -> Iterator[int]:
        self._at += 1
        index = 0
        while True:
            self._skip(_VOID)
            if self._text.startswith(end, self._at):
                self._at += 1
                return
            yield index
            index += 1
            self._skip(_VOID)
            if self._text.startswith(",", self._at):
                self._at += 1


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Return the path of every key and element of a document that `tomllib` has read."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from leaves(item, (*path, key))
