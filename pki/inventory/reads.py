"""Typed reads, the same on an `Inventory` and inside a `Transaction`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.arrival_reads import ArrivalReads
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, LogHead, decode_entry
from chargepki.pki.inventory.bulk_reads import BulkReads
from chargepki.pki.inventory.campaign_reads import CampaignReads
from chargepki.pki.inventory.codec import RowKind, encode_time
from chargepki.pki.inventory.contract_reads import ContractReads
from chargepki.pki.inventory.firmware_reads import FirmwareReads
from chargepki.pki.inventory.import_reads import ImportReads
from chargepki.pki.inventory.query_reads import Make, QueryReads
from chargepki.pki.inventory.question_reads import QuestionReads
from chargepki.pki.inventory.reads_events import EventReads
from chargepki.pki.inventory.reads_ocsp import OcspReads
from chargepki.pki.inventory.reads_revocation import RevocationReads
from chargepki.pki.inventory.records import (
    AttemptRecord,
    AuditEntry,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlRecord,
    Delivery,
    EstAccountRecord,
    EstRequestRecord,
    EstRequestState,
    IssuanceRecord,
    IssuanceState,
    OperationRecord,
    OperationState,
    PresenceRecord,
    SecurityEventRecord,
    StationRecord,
    StationState,
)
from chargepki.pki.inventory.restoration_reads import RestorationReads
from chargepki.pki.inventory.terms_reads import TermsReads
from chargepki.pki.inventory.trust_reads import TrustReads
from chargepki.pki.inventory.verdict_reads import VerdictReads

__all__ = ["MOST_OF_A_KEY", "Reads", "Row"]

Row = Sequence[Any]
_R = TypeVar("_R")
_BEYOND: Final = "~"
"""Behind every instant."""
_PAGE = 500
MOST_OF_A_KEY: Final = 16
"""How many certificates of one key are looked at before another is issued for it."""


class Reads(
    OcspReads,
    TermsReads,
    EventReads,
    RevocationReads,
    FirmwareReads,
    TrustReads,
    CampaignReads,
    ContractReads,
    ArrivalReads,
    QueryReads,
    ImportReads,
    QuestionReads,
    RestorationReads,
    BulkReads,
    VerdictReads,
):
    """Every read of the inventory.

    ``find_`` gives ``None`` when there is nothing, ``get_`` raises `NotFound`, ``list_`` is an iterator that reads
    page by page and may see what is committed while it runs (inside a transaction: nothing foreign).
    """

    __slots__ = ()

    @abstractmethod
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Row]:
        """Run a compiled statement by name."""

    @abstractmethod
    def _ask(self, make: Make) -> list[Row]:
        """Run SQL that `filter_sql` makes for this database."""

    @abstractmethod
    def _select(self, table: str, filters: Mapping[str, object], order: str, limit: int) -> list[Row]:
        """Run a filtered select; the keys of *filters* name compiled conditions."""

    # -- CAs ----------------------------------------------------------------------------------------------------

    def find_ca(self, name: str) -> CaRecord | None:
        """Return the generation of ``NAME@N``, or of ``NAME`` the newest that is there (pending ones count last)."""
        rows = self._rows("ca_by_id" if "@" in name else "ca_newest", {"name": name})
        return codec.CA.decode(rows[0]) if rows else None

    def get_ca(self, name: str) -> CaRecord:
        """Return the generation of ``NAME@N``, or the newest of ``NAME``.

        Raises:
            NotFound: there is none.
        """
        record = self.find_ca(name)
        if record is None:
            raise NotFound(f"there is no CA {name}", fix="list the CAs with: chargepki ca list")
        return record

    def list_cas(
        self,
        *,
        state: CaState | None = None,
        name: str | None = None,
        foreign: bool = False,
        after: str | None = None,
    ) -> Iterator[CaRecord]:
        """List CA generations by id, optionally those of one state or one name.

        Args:
            foreign: those too that are known only as issuers of imported certificates. Whoever asks for CAs as a rule
                asks whom to trust, or whose lists to keep fresh, and these are none of them.
            after: only ids behind this one (for paging).
        """
        filters = _given({"state": state, "name": name})
        found = self._paged(codec.CA, filters, after, None)
        return found if foreign else (ca for ca in found if ca.state is not CaState.FOREIGN)

    # -- certificates -------------------------------------------------------------------------------------------

    def find_certificate(self, certificate_id: str) -> CertificateRecord | None:
        """Return the certificate with the id ``CA@N:SERIAL``."""
        return self._first(codec.CERTIFICATE, "certificate_by_id", {"id": certificate_id})

    def get_certificate(self, certificate_id: str) -> CertificateRecord:
        """Return the certificate with the id ``CA@N:SERIAL``.

        Raises:
            NotFound: there is none.
        """
        record = self.find_certificate(certificate_id)
        if record is None:
            raise NotFound(f"there is no certificate {certificate_id}", fix="list them with: chargepki cert list")
        return record

    def find_certificate_by_request_key(self, request_key: str) -> CertificateRecord | None:
        """Return the newest certificate made or reserved for this request; voided ones do not count."""
        return self._first(codec.CERTIFICATE, "certificate_by_request_key", {"request_key": request_key})

    def find_certificates_by_serial(self, serial: str) -> tuple[CertificateRecord, ...]:
        """Return the certificates with this serial (lower-case hex without leading zeros); two CAs may share one."""
        return self._all(codec.CERTIFICATE, "certificates_by_serial", {"serial": serial})

    def find_compromised(self, spki_sha256: str) -> CertificateRecord | None:
        """Return a certificate of this key (lower-case hex) that was revoked because the key is no secret any more."""
        return self._first(codec.CERTIFICATE, "certificate_compromised", {"spki_sha256": spki_sha256})

    def list_certificates_of_key(self, spki_sha256: str) -> tuple[CertificateRecord, ...]:
        """Return the newest certificates of this key (lower-case hex), at most `MOST_OF_A_KEY`; no voided ones."""
        return self._all(codec.CERTIFICATE, "certificates_of_key", {"spki_sha256": spki_sha256})

    def count_certificates_of_station(self, station: str, since: datetime) -> int:
        """Return how many certificates of *station* were reserved at *since* or later; voided ones do not count."""
        parameters = {"station": station, "since": encode_time(since)}
        return int(self._rows("certificate_count_of_station", parameters)[0][0])

    def find_certificate_by_sha256(self, sha256: str) -> CertificateRecord | None:
        """Return the certificate whose whole DER has this digest (lower-case hex)."""
        return self._first(codec.CERTIFICATE, "certificate_by_sha256", {"sha256": sha256})

    def list_certificates(
        self,
        *,
        ca: str | None = None,
        profile: str | None = None,
        state: CertificateState | None = None,
        station: str | None = None,
        delivery: Delivery | None = None,
        not_after_before: datetime | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Iterator[CertificateRecord]:
        """List certificates by id.

        Args:
            ca: id of a CA generation.
            not_after_before: only those whose last valid second is before this instant.
            limit: at most so many.
            after: only ids behind this one (for paging).
        """
        filters = _given({"ca": ca, "profile": profile, "state": state, "station": station, "delivery": delivery})
        if not_after_before is not None:
            filters["not_after_before"] = encode_time(not_after_before)
        return self._paged(codec.CERTIFICATE, filters, after, limit)

    def count_certificates(self, ca: str) -> dict[CertificateState, int]:
        """Count the certificates of a CA generation by state; a state that none is in is left out."""
        return {CertificateState(row[0]): int(row[1]) for row in self._rows("certificate_counts", {"ca": ca})}

    def list_reserved(self, ca: str | None = None) -> Iterator[CertificateRecord]:
        """List the reservations that were neither recorded nor voided, of one CA generation or of all."""
        return self.list_certificates(ca=ca, state=CertificateState.RESERVED)

    def list_revoked(self, ca: str) -> Iterator[CertificateRecord]:
        """List the revoked certificates of a CA generation, by id."""
        return self.list_certificates(ca=ca, state=CertificateState.REVOKED)

    # -- revocation lists ---------------------------------------------------------------------------------------

    def list_crls(self, ca: str | None = None) -> Iterator[CrlRecord]:
        """List complete CRLs by id: full ones and shards."""
        return self._paged(codec.CRL, _given({"ca": ca}), None, None)

    # -- stations -----------------------------------------------------------------------------------------------

    def find_station(self, station: str) -> StationRecord | None:
        """Return a station by its identity, removed ones too."""
        return self._first(codec.STATION, "station_by_id", {"id": station})

    def get_station(self, station: str) -> StationRecord:
        """Return a station by its identity, removed ones too.

        Raises:
            NotFound: there is none.
        """
        record = self.find_station(station)
        if record is None:
            raise NotFound(f"there is no station {station}", fix=f"add it with: chargepki station add {station}")
        return record

    def find_stations_by_serial_number(self, serial_number: str) -> tuple[StationRecord, ...]:
        """Return the active stations with this serial number, by identity."""
        return self._all(codec.STATION, "stations_by_serial_number", {"serial_number": serial_number})

    def list_stations(
        self, *, state: StationState | None = None, limit: int | None = None, after: str | None = None
    ) -> Iterator[StationRecord]:
        """List stations by identity."""
        return self._paged(codec.STATION, _given({"state": state}), after, limit)

    def find_presence(self, station: str) -> PresenceRecord | None:
        """Return what is known of a station's connection."""
        return self._first(codec.PRESENCE, "presence_by_station", {"station": station})

    def list_presence(self, *, owner: str | None = None, connected: bool | None = None) -> Iterator[PresenceRecord]:
        """List connections by station, optionally those of one process, or only the live or the ended ones."""
        filters = _given({"owner": owner, "connected": connected})
        return self._paged(codec.PRESENCE, filters, None, None)

    # -- queued issuance ----------------------------------------------------------------------------------------

    def find_issuance(self, issuance_id: str) -> IssuanceRecord | None:
        """Return a queued issuance request."""
        rows = self._rows("issuance_by_id", {"id": issuance_id})
        return decode_issuance(rows[0]) if rows else None

    def get_issuance(self, issuance_id: str) -> IssuanceRecord:
        """Return a queued issuance request.

        Raises:
            NotFound: there is none.
        """
        record = self.find_issuance(issuance_id)
        if record is None:
            raise NotFound(f"there is no issuance request {issuance_id}")
        return record

    def list_issuances(self, *, open_only: bool = False, limit: int = 1000) -> tuple[IssuanceRecord, ...]:
        """Return issuance requests, oldest first; *open_only* leaves out the finished ones."""
        rows = self._rows("issuances_open" if open_only else "issuances_all", {"limit": limit})
        return tuple(decode_issuance(row) for row in rows)

    # -- operations ---------------------------------------------------------------------------------------------

    def find_operation(self, operation_id: str) -> OperationRecord | None:
        """Return an operation."""
        rows = self._rows("operation_by_id", {"id": operation_id})
        return decode_operation(rows[0]) if rows else None

    def get_operation(self, operation_id: str) -> OperationRecord:
        """Return an operation.

        Raises:
            NotFound: there is none.
        """
        record = self.find_operation(operation_id)
        if record is None:
            raise NotFound(f"there is no operation {operation_id}")
        return record

    def list_operations(
        self, *, station: str | None = None, open_only: bool = False, limit: int = 1000
    ) -> tuple[OperationRecord, ...]:
        """Return operations, oldest first, of one station or of all; *open_only* leaves out the finished ones."""
        name = f"operations_{'open' if open_only else 'all'}{'_of_station' if station is not None else ''}"
        parameters: dict[str, object] = {"limit": limit}
        if station is not None:
            parameters["station"] = station
        return tuple(decode_operation(row) for row in self._rows(name, parameters))

    def list_newest_operations(
        self, *, station: str | None = None, behind: OperationRecord | None = None
    ) -> Iterator[OperationRecord]:
        """List operations, newest first, of one station or of all.

        Args:
            behind: only those that come after this one (for paging).
        """
        before = None if behind is None else (encode_time(behind.created_at), behind.id)
        while True:
            parameters: dict[str, object] = {"station": station or "", "limit": _PAGE}
            at, name = before or (_BEYOND, "")
            rows = self._rows("operations_newest", {**parameters, "before_at": at, "before": name})
            for row in rows:
                found = decode_operation(row)
                before = (encode_time(found.created_at), found.id)
                yield found
            if len(rows) < _PAGE:
                return

    def list_attempts(self, operation: str) -> tuple[AttemptRecord, ...]:
        """Return the attempts of an operation, first to last."""
        return self._all(codec.ATTEMPT, "attempts_of_operation", {"operation": operation})

    # -- enrolment over EST -------------------------------------------------------------------------------------

    def find_est_account(self, name: str) -> EstAccountRecord | None:
        """Return an account by its name, removed ones too."""
        return self._first(codec.EST_ACCOUNT, "est_account_get", {"id": name})

    def find_est_account_of_certificate(self, sha256: str) -> EstAccountRecord | None:
        """Return the active account that this TLS client certificate is (SHA-256 of its DER, lower-case hex)."""
        return self._first(codec.EST_ACCOUNT, "est_account_by_certificate", {"certificate_sha256": sha256})

    def list_est_accounts(self) -> Iterator[EstAccountRecord]:
        """List accounts by name, removed ones too."""
        return self._paged(codec.EST_ACCOUNT, {}, None, None)

    def find_est_request(self, request_id: str) -> EstRequestRecord | None:
        """Return an enrolment request by its id."""
        return self._first(codec.EST_REQUEST, "est_request_get", {"id": request_id})

    def list_est_requests(self, *, state: EstRequestState | None = None) -> Iterator[EstRequestRecord]:
        """List enrolment requests by id, optionally those of one state."""
        return self._paged(codec.EST_REQUEST, _given({"state": state}), None, None)

    # -- events and audit ---------------------------------------------------------------------------------------

    def list_security_events(
        self, *, station: str | None = None, after: int = 0, limit: int = 1000
    ) -> tuple[SecurityEventRecord, ...]:
        """Return security events with an id above *after*, in order of arrival."""
        name = "security_events" if station is None else "security_events_of_station"
        parameters: dict[str, object] = {"after": after, "limit": limit}
        if station is not None:
            parameters["station"] = station
        return self._all(codec.SECURITY_EVENT, name, parameters)

    def list_audit(self, *, after_seq: int = 0, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Return audit entries with a number above *after_seq*, in order: also the feed of what changed."""
        rows = self._rows("audit_after", {"after": after_seq, "limit": limit})
        return tuple(decode_entry(dict(zip(ENTRY_COLUMNS, row, strict=True))) for row in rows)

    def last_audit(self, action: str, subject: str) -> AuditEntry | None:
        """Return the newest audit entry of *action* about *subject*; reads the whole log where there is none."""
        rows = self._rows("audit_last", {"action": action, "subject": subject, "limit": 1})
        return decode_entry(dict(zip(ENTRY_COLUMNS, rows[0], strict=True))) if rows else None

    def audit_head(self) -> LogHead | None:
        """Return the head of the audit log as stored (unverified), or ``None`` if no log was begun."""
        rows = self._rows("head", {})
        return LogHead.from_row(rows[0]) if rows else None

    # -- helpers ------------------------------------------------------------------------------------------------

    def _first(self, kind: RowKind[_R], statement: str, parameters: Mapping[str, object]) -> _R | None:
        found = self._all(kind, statement, parameters)
        return found[0] if found else None

    def _all(self, kind: RowKind[_R], statement: str, parameters: Mapping[str, object]) -> tuple[_R, ...]:
        return self._decoded(kind, self._rows(statement, parameters))

    def _decoded(self, kind: RowKind[_R], rows: Sequence[Row]) -> tuple[_R, ...]:
        return tuple([kind.decode(row) for row in self._with_whole_verdicts(kind, rows)])

    def _paged(
        self, kind: RowKind[_R], filters: Mapping[str, object], after: str | None, limit: int | None
    ) -> Iterator[_R]:
        key = kind.key[0]
        position = kind.columns.index(key)
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = dict(filters) if after is None else {**filters, "after": after}
            rows = self._select(kind.table, page, key, size)
            for row in self._with_whole_verdicts(kind, rows):
                yield kind.decode(row)
            if len(rows) < size:
                return
            after = rows[-1][position]
            left = None if left is None else left - len(rows)


def decode_issuance(row: Row) -> IssuanceRecord:
    """Return the record of an issuance row joined with its lease (owner, until, fence, state)."""
    width = len(codec.ISSUANCE.columns)
    _, until, fence, state = row[width:]
    record = codec.ISSUANCE.decode(
        row[:width], lease_until=None if until is None else codec.decode_time(until), fence=fence or 0
    )
    if record.state is IssuanceState.QUEUED and state is not None:
        return _with_state(record, IssuanceState(state))
    return record


def decode_operation(row: Row) -> OperationRecord:
    """Return the record of an operation row joined with its lease (owner, until, fence, state)."""
    width = len(codec.OPERATION.columns)
    owner, until, fence, state = row[width:]
    record = codec.OPERATION.decode(
        row[:width],
        lease_owner=owner,
        lease_until=None if until is None else codec.decode_time(until),
        fence=fence or 0,
    )
    if not record.state.is_final and state is not None:
        return _with_state(record, OperationState(state))
    return record


def _with_state(record: _R, state: IssuanceState | OperationState) -> _R:
    import dataclasses

    return dataclasses.replace(record, state=state)  # type: ignore[type-var]  # both records are dataclasses


def _given(filters: Mapping[str, object]) -> dict[str, object]:
    """Leave out the filters that were not given; enums become their stored text."""
    return {
        name: str(value) if isinstance(value, str) else value for name, value in filters.items() if value is not None
    }
