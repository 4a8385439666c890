"""What all typed writes stand on: insert or change one row and remember what that did to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from chargepki.pki.errors import Conflict, NotFound
from chargepki.pki.inventory.codec import RowKind, Value
from chargepki.pki.inventory.reads import Reads

__all__ = ["Writes"]

_R = TypeVar("_R")


class Writes(Reads):
    """Base of the write mixins; `Transaction` supplies the abstract part."""

    __slots__ = ()

    @abstractmethod
    def _insert(self, kind: RowKind[Any], values: Mapping[str, Value]) -> bool:
        """Insert a row of an audited table and note its effect; false, and nothing done, when its key is taken."""

    @abstractmethod
    def _insert_many(self, kind: RowKind[Any], rows: Sequence[Mapping[str, Value]]) -> None:
        """Insert rows of an audited table whose keys are free, and note their effects."""

    @abstractmethod
    def _update(self, kind: RowKind[Any], before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Change the row whose stored values are *before* and note the effect; equal values are no write."""

    @abstractmethod
    def _note_update(self, kind: RowKind[Any], before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Note the effect of a change that was made by a statement of its own."""

    def _add(self, kind: RowKind[_R], record: _R, what: str) -> None:
        """Insert *record*, refusing one whose key is taken.

        Raises:
            Conflict: it exists.
        """
        values = kind.encode(record)
        if not self._insert(kind, values):
            raise Conflict(f"{what} {kind.key_of(values)} exists already")

    def _stored(self, kind: RowKind[_R], what: str, **key: Value) -> dict[str, Value]:
        """Return the stored values of one row.

        Raises:
            NotFound: there is none.
        """
        rows = self._rows(f"{kind.table}_get", key)
        if not rows:
            raise NotFound(f"there is no {what} {'/'.join(str(part) for part in key.values())}")
        return dict(zip(kind.columns, rows[0], strict=True))

    def _change(self, kind: RowKind[_R], before: Mapping[str, Value], changes: Mapping[str, object]) -> _R:
        """Apply *changes* (typed values by field) to a row and return the new record."""
        import dataclasses

        changed = dataclasses.replace(self._record_of(kind, before), **changes)  # type: ignore[type-var]  # every record is a dataclass
        # What is not changed stays as it is stored, which is not always as it would be stored today.
        self._update(kind, before, {**before, **{n: v for n, v in kind.encode(changed).items() if n in changes}})
        return changed

    def _record_of(self, kind: RowKind[_R], stored: Mapping[str, Value]) -> _R:
        """Return the record of the stored values of a row."""
        return self._decoded(kind, [[stored[name] for name in kind.columns]])[0]
