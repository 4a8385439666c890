"""What the verdicts of one kind of request have in common: kept once, so that a certificate's row holds the rest.

A verdict names every rule with its clause: half of a certificate's row, and of a fleet's requests all but the digest of
the request and the common name is the same each time. Such a row holds a JSON array: the id of the form and the values
that belong between its pieces. Reads put both together, so a record has the whole verdict whichever way it is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

__all__ = ["VerdictForm", "VerdictFormRecord", "form_id_of", "whole_verdict"]

_OPENING: Final = '["'
_ID_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class VerdictFormRecord:
    """A form as it is stored."""

    id: str
    """SHA-256 of `text`, lower-case hex: rows that name it vouch for its content."""
    text: str
    """JSON array of the pieces."""


@dataclass(frozen=True, slots=True)
class VerdictForm:
    """The JSON of a verdict in pieces; between two of them belongs a value, which is the content of a JSON string."""

    id: str
    text: str
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, pieces: Sequence[str]) -> VerdictForm:
        """Return the form of these pieces."""
        text = orjson.dumps(list(pieces)).decode()
        return cls(hashlib.sha256(text.encode()).hexdigest(), text, tuple(pieces))

    @classmethod
    def read(cls, record: VerdictFormRecord) -> VerdictForm | None:
        """Return the form as it was stored; ``None`` when it was changed since, or none of ours has written it."""
        if hashlib.sha256(record.text.encode()).hexdigest() != record.id:
            return None
        try:
            pieces = orjson.loads(record.text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(pieces, list) or not pieces or not all(isinstance(piece, str) for piece in pieces):
            return None
        return cls(record.id, record.text, tuple(pieces))

    def shorten(self, *values: str) -> str:
        """Return what a row holds.

        Args:
            values: one less than there are pieces; texts that JSON holds as they are.
        """
        return f'["{self.id}","' + '","'.join(values) + '"]'

    def fill(self, values: Sequence[str]) -> str:
        """Return the JSON of the whole verdict."""
        first, *rest = self.pieces
        return first + "".join(value + piece for value, piece in zip(values, rest, strict=True))


def form_id_of(stored: str) -> str | None:
    """Return which form the verdict of a row needs; ``None`` for one that is stored whole."""
    return stored[2 : 2 + _ID_CHARACTERS] if stored.startswith(_OPENING) else None


def whole_verdict(stored: str, forms: Mapping[str, VerdictForm | None]) -> str:
    """Return the JSON of the verdict that a row holds.

    Of one whose form is gone, or is not what it was, the name of the form is all there is: `audit verify` says more.
    """
    name = form_id_of(stored)
    if name is None:
        return stored
    form = forms.get(name)
    values = orjson.loads(stored)[1:]
    if form is None or len(values) != len(form.pieces) - 1:
        return orjson.dumps({"form": name}).decode()
    return form.fill([orjson.dumps(value).decode()[1:-1] for value in values])
