"""Step over a serialised Java object, as JCEKS key stores hold secret keys, without making anything of it.

Only the grammar is followed (Java Object Serialization Specification, 6.4): no class is looked up, nothing is
constructed, and what cannot stand in such a store is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chargepki.pki.errors import InputError

__all__ = ["skip_object"]

_MAGIC: Final = 0xACED0005
_NULL, _REFERENCE, _CLASS, _OBJECT, _STRING, _ARRAY = range(0x70, 0x76)
_BLOCK, _END = 0x77, 0x78
_WRITES_MORE, _SERIALISABLE = 0x01, 0x02
_SIZES: Final = {"B": 1, "Z": 1, "C": 2, "S": 2, "F": 4, "I": 4, "D": 8, "J": 8}
_FIRST_HANDLE: Final = 0x7E0000
_MOST_PARTS: Final = 1000
_DEEPEST: Final = 30


@dataclass(frozen=True, slots=True)
class _Class:
    """How the values of a class lie in the stream."""

    name: str
    flags: int
    fields: tuple[str, ...]
    above: _Class | None


def skip_object(take: Callable[[int], bytes]) -> None:
    """Take the octets of one object, with the header of its stream.

    Args:
        take: returns the next so many octets, and raises when there are fewer.

    Raises:
        InputError: it is none, or one of a kind that key stores do not hold.
    """
    if int.from_bytes(take(4), "big") != _MAGIC:
        raise _strange("no Java object")
    _Skipper(take).value()


def _strange(what: str) -> InputError:
    return InputError(f"the Java key store holds {what}", fix="check that the file is whole")


class _Skipper:
    def __init__(self, take: Callable[[int], bytes]) -> None:
        self._take = take
        self._handles: list[_Class | None] = []
        self._parts = 0
        self._depth = 0

    def value(self) -> None:
        """Take one value: an object, a text, an array, or a reference to one."""
        self._count()
        kind = self._number(1)
        if kind == _REFERENCE:
            self._take(4)
        elif kind == _STRING:
            self._handles.append(None)
            self._text()
        elif kind == _OBJECT:
            found = self._class()
            self._handles.append(None)
            self._values(found)
        elif kind == _ARRAY:
            found = self._class()
            self._handles.append(None)
            self._elements(found)
        elif kind != _NULL:
            raise _strange(f"a Java object of kind {kind:#x}")
        self._depth -= 1

    def _count(self) -> None:
        self._parts += 1
        self._depth += 1
        if self._parts > _MOST_PARTS or self._depth > _DEEPEST:
            raise _strange("a Java object of too many parts")

    def _number(self, octets: int) -> int:
        return int.from_bytes(self._take(octets), "big")

    def _text(self) -> str:
        return self._take(self._number(2)).decode("utf-8", "replace")

    def _class(self) -> _Class | None:
        """Take the description of a class with those above it."""
        self._count()
        kind = self._number(1)
        if kind == _NULL:
            self._depth -= 1
            return None
        if kind == _REFERENCE:
            self._depth -= 1
            return self._known(self._number(4) - _FIRST_HANDLE)
        if kind != _CLASS:
            raise _strange(f"a Java class of kind {kind:#x}")
        name = self._text()
        self._take(8)  # serialVersionUID
        place = len(self._handles)
        self._handles.append(None)
        flags = self._number(1)
        fields = []
        for _ in range(self._number(2)):
            self._count()
            fields.append(chr(self._number(1)))
            self._text()
            if fields[-1] in "[L":
                self.value()
            self._depth -= 1
        self._annotation()
        found = _Class(name, flags, tuple(fields), self._class())
        self._handles[place] = found
        self._depth -= 1
        return found

    def _known(self, number: int) -> _Class:
        found = self._handles[number] if 0 <= number < len(self._handles) else None
        if found is None:
            raise _strange("a reference to no class")
        return found

    def _values(self, found: _Class | None) -> None:
        """Take the fields of an object, those of the classes above first."""
        if found is None:
            return
        self._count()
        self._values(found.above)
        if not found.flags & _SERIALISABLE:
            raise _strange("a Java object that writes itself")
        for kind in found.fields:
            if kind in "[L":
                self.value()
            else:
                self._take(self._size(kind))
        if found.flags & _WRITES_MORE:
            self._annotation()
        self._depth -= 1

    def _elements(self, found: _Class | None) -> None:
        kind = found.name[1:2] if found is not None else ""
        count = self._number(4)
        if kind and kind in "[L":
            for _ in range(count):
                self.value()
        else:
            self._take(count * self._size(kind))

    def _size(self, kind: str) -> int:
        size = _SIZES.get(kind)
        if size is None:
            raise _strange("a field of no type")
        return size

    def _annotation(self) -> None:
        """Take what a class or an object wrote besides its fields."""
        while True:
            self._count()
            self._depth -= 1
            mark = self._number(1)
            if mark == _END:
                return
            if mark != _BLOCK:
                raise _strange(f"an annotation of kind {mark:#x}")
            self._take(self._number(1))
