"""Put what an intake finds into the inventory, some hundreds to a commit, each accounted for in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Final

from cryptography import x509

from chargepki.pki import names
from chargepki.pki.importing.openssl_index import IndexRow
from chargepki.pki.inventory.import_records import (
    ForeignRevocation,
    FoundCertificate,
    ImportRunRecord,
    ImportTally,
)
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.store import Inventory
from chargepki.pki.inventory.transaction import Transaction

__all__ = ["Importer"]

_BATCH: Final = 500
_LOOK_UP: Final = 200
_MOST_NAMED: Final = 100


@dataclass
class Importer:
    """One import of one source. Killed anywhere, it is run again, and adds what is missing.

    Args:
        source: what was named.
        command: which command it is.
        is_rehearsal: every write is undone, so that what would be added is remembered here.
    """

    inventory: Inventory
    actor: Actor
    clock: Callable[[], datetime]
    source: str
    command: str
    is_rehearsal: bool = False
    tally: ImportTally = field(default_factory=ImportTally)
    orphans: list[str] = field(default_factory=list)
    """Places of certificates that name a CA of ours as their issuer, and are not in its records; the first hundred."""
    orphan_count: int = 0
    _fresh: dict[str, FoundCertificate] = field(default_factory=dict)
    _fresh_of_serial: dict[str, list[FoundCertificate]] = field(default_factory=dict)

    def take(self, found: Iterable[FoundCertificate]) -> Iterator[int]:
        """Store certificates, and yield how many were taken in after each commit."""
        source, count = iter(found), 0
        run = self._run()
        while batch := list(islice(source, _BATCH)):
            self._store(batch, run)
            count += len(batch)
            yield count

    def _run(self) -> ImportRunRecord:
        now = self.clock()
        mark = sha256(f"{now.isoformat()} {self.source}".encode()).hexdigest()[:12]
        return ImportRunRecord(f"{now:%Y%m%dT%H%M%SZ}-{mark}", self.source, self.command, self.actor.name, now)

    def _store(self, batch: Sequence[FoundCertificate], run: ImportRunRecord) -> None:
        now = self.clock()
        if self.is_rehearsal:
            batch = self._without_undone(batch)

        def work(tx: Transaction) -> ImportTally:
            tally = tx.import_certificates(batch, run, now=now)
            if tally.added or tally.places:
                details = {"source": run.source, "certificates": tally.added, "places": tally.places}
                tx.audit(self.actor, "inventory.import", run.id, now=now, details=details)
            return tally

        self.tally.add(self.inventory.write(work))
        for each in batch:
            self._look_for_orphan(each)

    def _without_undone(self, batch: Sequence[FoundCertificate]) -> list[FoundCertificate]:
        """Leave out what an earlier batch of a rehearsal added: that was undone, and would be added again."""
        known = self.inventory.find_known([each.sha256 for each in batch])
        left = []
        for each in batch:
            if each.sha256 in self._fresh:
                self.tally.known += 1
                self.tally.places += 1
            else:
                left.append(each)
        for each in left:
            if each.sha256 not in known and each.sha256 not in self._fresh:
                self._fresh[each.sha256] = each
                self._fresh_of_serial.setdefault(each.serial, []).append(each)
        return left

    @cached_property
    def _ours(self) -> dict[bytes, set[bytes]]:
        """Names of the CAs whose keys are here, and their key identifiers."""
        found: dict[bytes, set[bytes]] = {}
        for ca in self.inventory.list_cas():
            if ca.certificate_der is not None and not ca.key_uri.startswith(("est:", "none:")):
                found.setdefault(ca.subject_der, set()).add(subject_key_id(ca.certificate_der))
        return found

    def _look_for_orphan(self, found: FoundCertificate) -> None:
        """Note a certificate that a CA of ours should have issued, and did not put on record."""
        key_ids = self._ours.get(found.issuer_der)
        if key_ids is None or (found.authority_key_id and found.authority_key_id not in key_ids):
            return
        known = self.inventory.find_known([found.sha256]).get(found.sha256)
        if known is None or known[1]:
            self.orphan_count += 1
            if len(self.orphans) < _MOST_NAMED:
                self.orphans.append(f"{found.place}: serial {found.serial} of {names.text(found.issuer_der)}")

    def revoke(self, facts: Iterable[ForeignRevocation]) -> None:
        """Note what databases of others say was revoked, on the certificates that were imported from beside them."""
        source = iter(facts)
        while batch := list(islice(source, _LOOK_UP)):
            matched = [(fact, name) for fact in batch for name in self._matches(fact)]
            if matched:
                self.tally.revoked += self._note(matched)

    def find_absent(self, rows: Sequence[IndexRow]) -> list[str]:
        """Return the serial numbers of the rows whose certificates were not imported."""
        absent = []
        for at in range(0, len(rows), _LOOK_UP):
            part = rows[at : at + _LOOK_UP]
            known = {(each.serial, each.not_after) for each in self._with_serials([row.serial for row in part])}
            absent += [row.serial for row in part if (row.serial, row.not_after) not in known]
        return absent

    def _with_serials(self, serials: Sequence[str]) -> list[_Candidate]:
        stored = self.inventory.find_imported_by_serials(sorted(set(serials)))
        found = [_Candidate(each.id, each.serial, each.sha256 or "", each.not_after) for each in stored]
        return found + [
            _Candidate("", each.serial, each.sha256, each.not_after, each.place)
            for serial in sorted(set(serials))
            for each in self._fresh_of_serial.get(serial, ())
        ]

    def _matches(self, fact: ForeignRevocation) -> list[str]:
        """Return the ids of the certificates that *fact* means; the empty one for what a rehearsal would have added."""
        found = []
        for each in self._with_serials([fact.serial]):
            if fact.sha256 not in (None, each.sha256) or fact.not_after not in (None, each.not_after):
                continue
            places = [each.place] if each.place else [one.place for one in self.inventory.list_provenance(each.id)]
            if any(place.startswith(fact.within) for place in places):
                found.append(each.id)
        return found

    def _note(self, matched: Sequence[tuple[ForeignRevocation, str]]) -> int:
        now = self.clock()

        def work(tx: Transaction) -> int:
            changed = [name for fact, name in matched if name and tx.note_foreign_revocation(name, fact)]
            if changed:
                details = {"source": self.source, "certificates": changed}
                tx.audit(self.actor, "inventory.import-revocations", changed[0], now=now, details=details)
            return len(changed)

        return self.inventory.write(work) + sum(not name for _, name in matched)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A certificate that a row of a database may mean."""

    id: str
    serial: str
    sha256: str
    not_after: datetime
    place: str = ""


def subject_key_id(der: bytes) -> bytes:
    """Return the SubjectKeyIdentifier of a certificate of ours, or nothing."""
    try:
        extension = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return b""
    return extension.value.digest
