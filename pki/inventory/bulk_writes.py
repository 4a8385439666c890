"""Typed writes of many certificates at once: the same rows and entries as one at a time, at a fraction of the cost.

`writes_certificates` says what each write means. Here the rows of a group are inserted by one statement and changed by
one, and their audit entries are made without a value object for each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final

from chargepki.pki.errors import Conflict, StateError
from chargepki.pki.inventory.bulk_records import RESERVED, BulkRow
from chargepki.pki.inventory.codec import CERTIFICATE, VERDICT_FORM, dump_json, encode_time
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.traits import COLUMN
from chargepki.pki.inventory.verdict_forms import VerdictForm
from chargepki.pki.inventory.writes import Writes

__all__ = ["BulkWrites", "PlainEntry", "ReservationChanged"]

PlainEntry = tuple[str, str, str, str, str]
"""Subject, digest of the artefact, and the canonical JSON of details, effects and preconditions."""

_NONE: Final = "[]"
_reserved: Final = itemgetter(*RESERVED)
_ISSUE_NAMES: Final = ("der", "sha256", "issued_at", "id", "station", "verdict", "tbs")


class ReservationChanged(StateError):
    """A reservation is not as it was written: void, recorded by another process, or linked to a station."""


class BulkWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    @abstractmethod
    def audit_plainly(self, actor: Actor, action: str, entries: Iterable[PlainEntry], *, now: datetime) -> None:
        """Append entries that account for writes which were made without noting their effects."""

    @abstractmethod
    def change_rows(self, statement: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
        """Run a compiled statement once for each of *rows*, by position; return how many rows of the table changed."""

    def keep_verdict_forms(self, forms: Iterable[VerdictForm], actor: Actor, *, now: datetime) -> None:
        """Store those forms of verdicts that are not there yet, each with its audit entry (``verdict-form.keep``).

        Raises:
            StateError: one is there with another content, so that what names it would have lost its verdict.
        """
        wanted = {form.id: form for form in forms}
        entries: list[PlainEntry] = []
        for name in sorted(wanted.keys() - self.find_verdict_forms(wanted).keys()):
            row = (name, wanted[name].text)
            if not self.change_rows("verdict_form_insert", VERDICT_FORM.columns, [row]):
                raise StateError(
                    f"the verdict form {name[:16]} is not what it was",
                    why="the inventory was changed behind our back",
                    fix="run: chargepki audit verify",
                )
            effects = f'[["{VERDICT_FORM.table}","{name}","{VERDICT_FORM.digest_of_row(row)}"]]'
            entries.append((name, name, "{}", effects, _NONE))
        self.audit_plainly(actor, "verdict-form.keep", entries, now=now)

    def reserve_certificates(self, rows: Sequence[BulkRow], actor: Actor, *, now: datetime) -> None:
        """Store reservations with their audit entries (``certificate.reserve``).

        Raises:
            Conflict: a serial is taken under its CA; nothing may be committed then.
            StateError: as `keep_verdict_forms`.
        """
        self.keep_verdict_forms([row.form for row in rows], actor, now=now)
        stored = [(*_reserved(row.values), row.traits) for row in rows]
        if self.change_rows("certificate_reserve", (*RESERVED, COLUMN), stored) != len(rows):
            raise Conflict("a serial number of the group is taken", fix="repeat the command: others will be drawn")
        entries: list[PlainEntry] = []
        for row in rows:
            identifier = str(row.values["id"])
            row.digest = row.digest_with({})
            tbs = row.covered["tbs"]
            assert isinstance(tbs, dict)
            effects = f'[["{CERTIFICATE.table}","{identifier}","{row.digest}"]]'
            entries.append((identifier, tbs["sha256"], row.details, effects, _NONE))
        self.audit_plainly(actor, "certificate.reserve", entries, now=now)

    def issue_certificates(
        self, rows: Sequence[BulkRow], signed: Sequence[tuple[bytes, str]], actor: Actor, *, now: datetime
    ) -> None:
        """Turn reservations into issued certificates, with their audit entries (``certificate.issue``).

        Args:
            rows: as `reserve_certificates` has written them.
            signed: of each, the certificate (DER) and its SHA-256 (lower-case hex).

        Raises:
            ReservationChanged: somebody wrote to one of them meanwhile; nothing may be committed then.
        """
        issued_at = encode_time(now)
        changes = [
            (der, sha256, issued_at, (held := row.values)["id"], held["station"] or "", held["verdict"], held["tbs"])
            for row, (der, sha256) in zip(rows, signed, strict=True)
        ]
        if self.change_rows("certificate_issue_unchanged", _ISSUE_NAMES, changes) != len(rows):
            raise ReservationChanged("a reservation of the group was changed meanwhile", fix="repeat the command")
        entries: list[PlainEntry] = []
        for row, (_, sha256) in zip(rows, signed, strict=True):
            identifier, station = str(row.values["id"]), row.values["station"]
            # Not put into the row: this work may be run again.
            issued = {"state": "issued", "der": {"sha256": sha256}, "sha256": sha256, "issued_at": issued_at}
            after = row.digest_with(issued)
            # A CSMS that follows the log sees by the station whether this is for one of its own connections.
            details = "{}" if station is None else dump_json({"station": station}, "the station")
            effects = f'[["{CERTIFICATE.table}","{identifier}","{after}"]]'
            found = f'[["{CERTIFICATE.table}","{identifier}","{row.digest}"]]'
            entries.append((identifier, sha256, details, effects, found))
        self.audit_plainly(actor, "certificate.issue", entries, now=now)
