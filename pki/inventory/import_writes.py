"""Typed writes of imports: many certificates at once, each with the place where it was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from chargepki.pki import names
from chargepki.pki.der import DerError
from chargepki.pki.errors import Conflict, InputError, StateError
from chargepki.pki.inventory.codec import CA, CERTIFICATE, IMPORT_RUN, PROVENANCE, dump_json
from chargepki.pki.inventory.import_records import (
    ForeignRevocation,
    FoundCertificate,
    ImportRunRecord,
    ImportTally,
    ProvenanceRecord,
)
from chargepki.pki.inventory.records import FOREIGN, CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.inventory.writes import Writes

__all__ = ["ImportWrites", "foreign_ca_name"]

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_MAX_WORDS: Final = 40


@lru_cache(maxsize=1024)
def foreign_ca_name(issuer_der: bytes, authority_key_id: bytes) -> str:
    """Return the name under which the issuer of imported certificates is kept: its words and a digest of name and key.

    >>> foreign_ca_name(names.name_der(names.parse_rdns("CN=V2G Root CA,O=x")), b"")
    'V2G-Root-CA-9b9d2f15'
    """
    try:
        pairs = names.attributes(issuer_der, text_only=True)
    except (InputError, DerError):
        pairs = []
    words = next((text for wanted in ("CN", "O") for key, text in pairs if key == wanted), "")
    text = _NO_NAME.sub("-", words).strip("-")[:_MAX_WORDS].strip("-")
    digest = sha256(len(issuer_der).to_bytes(4, "big") + issuer_der + authority_key_id).hexdigest()[:8]
    return f"{text or 'unnamed'}-{digest}"


class ImportWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def import_certificates(
        self, found: Sequence[FoundCertificate], run: ImportRunRecord, *, now: datetime
    ) -> ImportTally:
        """Store certificates that others issued, and where each was found; what is known already is no write.

        Of a certificate that was issued here only the place is noted.
        """
        tally = ImportTally()
        known = self.find_known([each.sha256 for each in found])
        fresh: dict[str, FoundCertificate] = {}
        for each in found:
            if each.sha256 in fresh or each.sha256 in known:
                imported = each.sha256 in fresh or known[each.sha256][1]
                tally.known += imported
                tally.ours += not imported
            else:
                fresh[each.sha256] = each
        ids = self._new_ids(fresh.values(), now)
        places = self._new_places(found, {**{digest: name for digest, (name, _) in known.items()}, **ids}, run)
        if not fresh and not places:
            return tally
        self._insert(IMPORT_RUN, IMPORT_RUN.encode(run))
        records = [_record(each, ids[digest], run, now) for digest, each in fresh.items()]
        self._insert_many(CERTIFICATE, [CERTIFICATE.encode(record) for record in records])
        self._insert_many(PROVENANCE, [PROVENANCE.encode(place) for place in places])
        tally.added, tally.places = len(records), len(places)
        return tally

    def import_issued(self, records: Sequence[CertificateRecord]) -> int:
        """Store certificates of a CA that has become ours; return how many were not on record yet.

        Raises:
            Conflict: a serial number is on record for another certificate.
        """
        wanted = dump_json([record.id for record in records], "ids")
        taken = {str(row[0]) for row in self._rows("certificates_of_ids", {"wanted": wanted})}
        for record in records:
            if record.id in taken and record.der is not None and self.get_certificate(record.id).der != record.der:
                raise Conflict(
                    f"the serial {record.serial} of {record.ca} is on record for another certificate",
                    why="no serial is used twice",
                    fix="find out which of them the CA really issued",
                )
        fresh = [CERTIFICATE.encode(record) for record in records if record.id not in taken]
        self._insert_many(CERTIFICATE, fresh)
        return len(fresh)

    def _new_ids(self, fresh: Iterable[FoundCertificate], now: datetime) -> dict[str, str]:
        """Return an id for each new certificate, by digest, and store the CAs that are behind them.

        An issuer that gave one serial twice has a second generation: none of its certificates gets lost.
        """
        wanted: dict[str, FoundCertificate] = {}
        waiting, generation = list(fresh), 0
        ids: dict[str, str] = {}
        while waiting:
            generation += 1
            candidates = [(f"{_issuer(each)}@{generation}:{each.serial}", each) for each in waiting]
            rows = self._rows("certificates_of_ids", {"wanted": dump_json([name for name, _ in candidates], "ids")})
            taken = {str(row[0]) for row in rows}
            waiting = []
            for name, each in candidates:
                if name in taken or name in wanted:
                    waiting.append(each)
                else:
                    wanted[name] = each
                    ids[each.sha256] = name
        for name, each in {name.partition(":")[0]: each for name, each in wanted.items()}.items():
            if self.find_ca(name) is None:
                self._insert(CA, CA.encode(_foreign_ca(name, each, now)))
        return ids

    def _new_places(
        self, found: Sequence[FoundCertificate], ids: dict[str, str], run: ImportRunRecord
    ) -> list[ProvenanceRecord]:
        wanted = dump_json(sorted(set(ids.values())), "ids")
        taken = {(row[0], row[1]) for row in self._rows("provenance_of_certificates", {"wanted": wanted})}
        places = []
        for each in found:
            key = (ids[each.sha256], each.place)
            if key not in taken:
                taken.add(key)
                places.append(ProvenanceRecord(*key, run.id, each.file_sha256, each.role))
        return places

    def note_foreign_revocation(self, certificate_id: str, revocation: ForeignRevocation) -> bool:
        """Record that the CA of somebody else revoked a certificate; false when that is on record.

        What came first is kept, also where two databases differ, unless it was a mere hold.

        Raises:
            NotFound: there is none.
            StateError: it was issued here.
        """
        before = self._stored(CERTIFICATE, "certificate", id=certificate_id)
        if before["profile"] != FOREIGN:
            raise StateError(f"{certificate_id} was issued here", fix="revoke it with: chargepki cert revoke")
        record = self._record_of(CERTIFICATE, before)
        if record.state is CertificateState.REVOKED and (
            record.revocation_reason != "certificateHold" or revocation.reason == "certificateHold"
        ):
            return False
        changes = {
            "state": CertificateState.REVOKED,
            "revoked_at": revocation.revoked_at,
            "revocation_reason": revocation.reason,
            "invalidity_date": revocation.invalidity_date,
        }
        self._change(CERTIFICATE, before, changes)
        return True


def _issuer(found: FoundCertificate) -> str:
    return foreign_ca_name(found.issuer_der, found.authority_key_id)


def _foreign_ca(ca_id: str, found: FoundCertificate, now: datetime) -> CaRecord:
    name, _, generation = ca_id.rpartition("@")
    return CaRecord(
        id=ca_id,
        name=name,
        generation=int(generation),
        profile=FOREIGN,
        issuer=None,
        subject=names.text(found.issuer_der),
        subject_der=found.issuer_der,
        # As with CAs above a connected one: there is no key here, and no way to one.
        key_uri="none:",
        state=CaState.FOREIGN,
        public_url=None,
        created_at=now,
    )


def _record(found: FoundCertificate, name: str, run: ImportRunRecord, now: datetime) -> CertificateRecord:
    return CertificateRecord(
        id=name,
        ca=name.partition(":")[0],
        serial=found.serial,
        profile=FOREIGN,
        state=CertificateState.ISSUED,
        subject=names.text(found.subject_der),
        subject_der=found.subject_der,
        spki_sha256=found.spki_sha256,
        not_before=found.not_before,
        not_after=found.not_after,
        # What was imported answers no request.
        request_key="imported",
        requester=run.imported_by,
        reserved_at=now,
        der=found.der,
        sha256=found.sha256,
    )
