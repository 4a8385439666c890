"""Reads of verdict forms, and of the rows that need one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from chargepki.pki.inventory.codec import CERTIFICATE, VERDICT_FORM, RowKind, dump_json
from chargepki.pki.inventory.engine import Session
from chargepki.pki.inventory.verdict_forms import VerdictForm, form_id_of, whole_verdict

__all__ = ["SessionForms", "VerdictReads"]

_VERDICT: Final = CERTIFICATE.columns.index("verdict")


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...

    def find_verdict_forms(self, ids: Iterable[str]) -> dict[str, VerdictForm]: ...


class VerdictReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_verdict_forms(self: _Rows, ids: Iterable[str]) -> dict[str, VerdictForm]:
        """Return the forms by id; those that are not there, or not what they were, are left out."""
        rows = self._rows("verdict_forms", {"wanted": dump_json(sorted(set(ids)), "forms")})
        forms = (VerdictForm.read(VERDICT_FORM.decode(row)) for row in rows)
        return {form.id: form for form in forms if form is not None}

    def _with_whole_verdicts(self: _Rows, kind: RowKind[Any], rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return rows of *kind* whose verdicts, if they are certificates, are written out."""
        if kind is not CERTIFICATE:
            return rows
        ids = {name for row in rows if (name := form_id_of(row[_VERDICT])) is not None}
        if not ids:
            return rows
        forms = self.find_verdict_forms(ids)
        return [(*row[:_VERDICT], whole_verdict(row[_VERDICT], forms), *row[_VERDICT + 1 :]) for row in rows]


class SessionForms(VerdictReads):
    """The forms that one state of the inventory has, each read when the first row needs it."""

    __slots__ = ("_known", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, VerdictForm | None] = {}

    def whole(self, stored: str) -> str:
        """Return the JSON of the verdict that a row holds."""
        name = form_id_of(stored)
        if name is not None and name not in self._known:
            self._known[name] = self.find_verdict_forms([name]).get(name)
        return whole_verdict(stored, self._known)

    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]:
        return self._session.run(statement, parameters)
