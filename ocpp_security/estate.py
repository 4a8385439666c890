"""All stations with their roots, page by page: what they list and what we did, and which certificates are meant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chargepki.ocpp_security.trust_facts import known_certificates
from chargepki.ocpp_security.trust_messages import HASH_FIELDS
from chargepki.pki.hashdata_oracle import Diagnosis, KnownCertificate, diagnose_hash_data
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import StationState
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, StationRootState

__all__ = ["Recogniser", "StationTrust", "list_station_trust"]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class StationTrust:
    """One active station with what is on record of its roots."""

    station: str
    installed: tuple[StationRootRecord, ...]
    """What we did last to each root; deleted ones included."""
    reports: tuple[StationRootReportRecord, ...]
    """What it listed last, for each use that it was asked about."""

    def uses(self, recogniser: Recogniser) -> Mapping[str, tuple[frozenset[str], int]]:
        """Return for each use the roots that the station trusts, and how many more it lists that nobody recognises.

        What it listed counts; for a use that it was never asked about, what we installed.
        """
        found: dict[str, tuple[frozenset[str], int]] = {}
        for report in self.reports:
            digests = [recogniser.sha256_of(entry["hash"]) for entry in report.listed["entries"]]
            known = frozenset(each for each in digests if each is not None)
            found[report.use] = known, digests.count(None)
        believed: dict[str, set[str]] = {}
        for record in self.installed:
            if record.use not in found and record.state is StationRootState.INSTALLED:
                believed.setdefault(record.use, set()).add(record.certificate)
        return found | {use: (frozenset(digests), 0) for use, digests in believed.items()}


class Recogniser:
    """Recognises hash data against the same certificates many times: stations of a fleet list the same."""

    def __init__(self, reads: Reads) -> None:
        """Read what stations may have installed: CAs, and roots that somebody added."""
        self.known = known_certificates(reads)
        self._seen: dict[tuple[str, ...], Diagnosis] = {}

    def diagnose(self, texts: Mapping[str, str], known: Sequence[KnownCertificate]) -> Diagnosis:
        """Return what *texts* mean, as `diagnose_hash_data`; for `trust_reconcile.reconcile`."""
        if known is not self.known:
            return diagnose_hash_data(texts, known)
        key = tuple([texts[name] for name in HASH_FIELDS])
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = diagnose_hash_data(texts, self.known)
        return found

    def sha256_of(self, entry: Mapping[str, object]) -> str | None:
        """Return the digest of the certificate that hash data mean, or ``None`` for none of ours."""
        meant = self.diagnose({name: str(entry[name]) for name in HASH_FIELDS}, self.known).certificate
        return None if meant is None else hashlib.sha256(meant.der).hexdigest()


def list_station_trust(reads: Reads) -> Iterator[StationTrust]:
    """Yield every active station of whose roots anything is on record, by identity."""
    page: list[str] = []
    for station in reads.list_stations(state=StationState.ACTIVE):
        page.append(station.id)
        if len(page) == _PAGE:
            yield from _trust_of(reads, page)
            page = []
    yield from _trust_of(reads, page)


def _trust_of(reads: Reads, stations: Sequence[str]) -> Iterator[StationTrust]:
    if not stations:
        return
    installed: dict[str, list[StationRootRecord]] = {}
    reports: dict[str, list[StationRootReportRecord]] = {}
    for record in reads.list_roots_of_stations(stations[0], stations[-1]):
        installed.setdefault(record.station, []).append(record)
    for report in reads.list_reports_of_stations(stations[0], stations[-1]):
        reports.setdefault(report.station, []).append(report)
    for station in stations:
        if station in installed or station in reports:
            yield StationTrust(station, tuple(installed.get(station, ())), tuple(reports.get(station, ())))
