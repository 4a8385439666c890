"""Records to stored values and back, and the digest of a stored row.

Stored values are text, bytes, whole numbers, booleans and nothing else, so that SQLite and PostgreSQL hold the same:
instants are RFC 3339 text of fixed width (``2026-03-01T00:00:00.000000Z``, which sorts as time does), JSON is
canonical text, enums are their wire spelling.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

import orjson

from chargepki.pki.errors import InputError
from chargepki.pki.inventory.campaign_records import CampaignRecord, CampaignStationRecord
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    ContractRecord,
    ProvisioningCertificateRecord,
    ProvisioningRecord,
    RoleRootRecord,
    VehicleCertificateRecord,
)
from chargepki.pki.inventory.event_records import (
    AlertDeliveryRecord,
    AlertRecord,
    EventSeriesRecord,
    RequestedLogRecord,
)
from chargepki.pki.inventory.firmware_records import (
    FirmwareApprovalRecord,
    FirmwareApproverRecord,
    FirmwareReleaseRecord,
    FirmwareStatusRecord,
    StationFirmwareRecord,
)
from chargepki.pki.inventory.import_records import ImportRunRecord, ProvenanceRecord
from chargepki.pki.inventory.query_records import SavedQueryRecord
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CaRecord,
    CertificateRecord,
    CrlDeltaRecord,
    CrlRecord,
    CrlSegmentRecord,
    CrlShardRecord,
    EstAccountRecord,
    EstRequestRecord,
    IssuanceRecord,
    OperationRecord,
    PresenceRecord,
    RevocationChangeRecord,
    SecurityEventRecord,
    StationRecord,
)
from chargepki.pki.inventory.restoration_records import RestorationRecord
from chargepki.pki.inventory.terms_records import StationTermsRecord
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, TrustRootRecord
from chargepki.pki.inventory.verdict_forms import VerdictFormRecord

__all__ = [
    "AUDITED",
    "ROW_KINDS",
    "RowKind",
    "Value",
    "decode_time",
    "dump_json",
    "encode_text",
    "encode_time",
    "load_json",
    "row_digest",
    "sha256_hex",
]

Value = str | bytes | int | None
"""What a column holds."""

_R = TypeVar("_R")
_MISSING_DIGEST: Final = "not-encodable"
_STORED: Final = frozenset((str, bytes, int, bool, type(None)))


def encode_time(at: datetime) -> str:
    """Return *at* as the stored text, in UTC.

    Raises:
        TypeError: *at* is naive.

    >>> encode_time(datetime(2026, 3, 1, tzinfo=UTC))
    '2026-03-01T00:00:00.000000Z'
    """
    zone = at.tzinfo
    if zone is UTC:
        return _utc_text(at)
    if zone is None:
        raise TypeError("a naive datetime has no place in the inventory: give it a time zone")
    return _utc_text(at.astimezone(UTC))


@functools.lru_cache(maxsize=256)
def _utc_text(at: datetime) -> str:
    # One instant is written many times, in the rows and entries of one act. Only UTC comes here: in other zones two
    # instants an hour apart can be equal (PEP 495), and a cache would take one for the other.
    return at.isoformat(timespec="microseconds")[:-6] + "Z"


@functools.lru_cache(maxsize=256)
def decode_time(text: str) -> datetime:
    """Return the instant of the stored text, aware and in UTC."""
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC)


def encode_text(text: str, what: str) -> str:
    """Return *text* unchanged if both databases can hold it.

    Raises:
        InputError: a NUL (PostgreSQL refuses it) or a lone surrogate (no UTF-8).
    """
    if "\0" in text:
        raise InputError(f"{what} contains a NUL character", fix="remove it")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise InputError(f"{what} is not valid Unicode text", why=f"position {exc.start}") from exc
    return text


def dump_json(value: object, what: str) -> str:
    """Return canonical JSON (sorted keys, no blanks) of plain data.

    Raises:
        InputError: something that JSON cannot say, or a number beyond 64 bits.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=_plain).decode()
    except (TypeError, RecursionError) as exc:
        raise InputError(f"{what} cannot be stored as JSON", why=str(exc)) from exc


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value) if isinstance(value, Sequence) else sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def load_json(text: str) -> Any:
    """Return the plain data of JSON text."""
    return orjson.loads(text)


_BIG: Final = 1 << 20
_last_big: tuple[bytes, str] = (b"", "")


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of *data* in lower-case hex; that of the last big object is remembered.

    A revocation list of megabytes is hashed for its record, and again for the digest of its row.
    """
    global _last_big  # a memory of one value; two threads at worst hash the same twice
    if len(data) < _BIG:
        return hashlib.sha256(data).hexdigest()
    known, digest = _last_big
    if known is not data:
        digest = hashlib.sha256(data).hexdigest()
        _last_big = data, digest
    return digest


def row_digest(table: str, columns: Sequence[str], values: Sequence[object], added: Sequence[str] = ()) -> str:
    """Return the SHA-256 (lower-case hex) that the audit log holds of a row.

    It is taken over the JSON array ``[table, {column: value, …}]`` with the columns in their order; a byte string
    counts as ``{"sha256": hex}`` and a boolean as 0 or 1, so that an auditor can repeat it with any language.
    A value that no writer of ours stores (invalid UTF-8, a real number) gives a constant that equals no digest.

    Args:
        added: columns that the table got later. They count only when they hold something, so that the digests of
            rows from before stay right.
    """
    kinds = set(map(type, values))
    if not kinds <= _STORED:
        # A real number, which only tampering stores. JSON writes an infinite one as null, like a missing value.
        return _MISSING_DIGEST
    row: dict[str, object] = dict(zip(columns, values, strict=True))
    for column in added:
        if row[column] is None:
            del row[column]
    if bytes in kinds or bool in kinds:
        for column, value in row.items():
            if value.__class__ is bytes:
                row[column] = {"sha256": sha256_hex(value)}
            elif value.__class__ is bool:
                row[column] = 1 if value else 0
    try:
        return hashlib.sha256(orjson.dumps((table, row))).hexdigest()
    except TypeError:
        return _MISSING_DIGEST


class RowKind(Generic[_R]):
    """How one record type is stored: its table, key and columns, with converters made once from the type hints."""

    def __init__(
        self,
        table: str,
        record: type[_R],
        *,
        key: tuple[str, ...] = ("id",),
        omit: Sequence[str] = (),
        added: tuple[str, ...] = (),
    ) -> None:
        self.table = table
        self.record = record
        self.key = key
        self.added = added
        hints = typing.get_type_hints(record)
        fields = [field for field in dataclasses.fields(record) if field.name not in omit]  # type: ignore[arg-type]  # every record is a dataclass
        self.columns: tuple[str, ...] = tuple(field.name for field in fields)
        self._encoders = [(name, _encoder(hints[name], f"{table}.{name}")) for name in self.columns]
        decoders = ((name, _decoder(hints[name])) for name in self.columns)
        self._decoders = [(name, decoder) for name, decoder in decoders if decoder is not None]
        self._key_positions = [self.columns.index(name) for name in key]

    def encode(self, record: _R) -> dict[str, Value]:
        """Return the stored values of *record* by column.

        Raises:
            TypeError: a naive datetime, or a value of the wrong type.
            InputError: text or JSON that a database cannot hold.
        """
        return {name: encode(getattr(record, name)) for name, encode in self._encoders}

    def decode(self, row: Sequence[Any], **extra: object) -> _R:
        """Return the record of a row whose values come in column order; *extra* supplies the omitted fields."""
        values = dict(zip(self.columns, row, strict=False))
        for name, decode in self._decoders:
            value = values.get(name)
            if value is not None:
                values[name] = decode(value)
        return self.record(**values, **extra)

    def key_of(self, values: Mapping[str, Value]) -> str:
        """Return the primary key as the audit log writes it: the parts joined with ``/``."""
        return "/".join(str(values[name]) for name in self.key)

    def key_of_row(self, row: Sequence[object]) -> str:
        """Return the same for a row in column order."""
        return "/".join(str(row[position]) for position in self._key_positions)

    def digest(self, values: Mapping[str, Value]) -> str:
        """Return the digest of a row given by column."""
        return self.digest_of_row([values[name] for name in self.columns])

    def digest_of_row(self, row: Sequence[object]) -> str:
        """Return the same for a row in column order."""
        return row_digest(self.table, self.columns, row, self.added)


def _bare(hint: Any) -> tuple[Any, bool]:
    """Split ``X | None`` into X and whether None is allowed."""
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return next(argument for argument in arguments if argument is not type(None)), True
    return hint, False


def _encoder(hint: Any, what: str) -> Callable[[Any], Value]:
    bare, optional = _bare(hint)
    check = _checked(bare, what)

    def encode(value: Any) -> Value:
        if value is None:
            if optional:
                return None
            raise TypeError(f"{what} must not be None")
        return check(value)

    return encode


def _checked(bare: Any, what: str) -> Callable[[Any], Value]:
    def of_type(kind: type, convert: Callable[[Any], Value]) -> Callable[[Any], Value]:
        def encode(value: Any) -> Value:
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise TypeError(f"{what} must be {kind.__name__}, not {type(value).__name__}")
            return convert(value)

        return encode

    if bare is datetime:
        return of_type(datetime, encode_time)
    if bare in (bool, int, bytes):
        return of_type(bare, bare)
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return of_type(bare, lambda value: str(value.value))
    if bare is str:
        return of_type(str, lambda value: encode_text(value, what))
    return of_type(Mapping, lambda value: dump_json(dict(value), what))


def _decoder(hint: Any) -> Callable[[Any], Any] | None:
    bare, _ = _bare(hint)
    if bare is datetime:
        return decode_time
    if bare is bool:
        return bool
    if bare in (int, str, bytes):
        return None
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return _member_decoder(bare)
    return load_json


def _member_decoder(kind: type[StrEnum]) -> Callable[[Any], StrEnum]:
    """Return what calling *kind* does, at a fraction of its price for the values that there are."""
    members: dict[object, StrEnum] = {member.value: member for member in kind}

    def decode(value: Any) -> StrEnum:
        found = members.get(value)
        return kind(value) if found is None else found

    return decode


CA: Final = RowKind("ca", CaRecord, added=("crl_shard_size", "crl_delta_hours"))
CERTIFICATE: Final = RowKind("certificate", CertificateRecord, added=("shard", "invalidity_date"))
CRL: Final = RowKind("crl", CrlRecord, added=("shard", "changes"))
CRL_DELTA: Final = RowKind("crl_delta", CrlDeltaRecord)
CRL_SHARD: Final = RowKind("crl_shard", CrlShardRecord)
CRL_SEGMENT: Final = RowKind("crl_segment", CrlSegmentRecord)
REVOCATION_CHANGE: Final = RowKind("revocation_change", RevocationChangeRecord)
STATION: Final = RowKind("station", StationRecord)
# Leases live in a table of their own: they change with every tick of a worker and prove nothing, so they are not
# audited, and the rows that are audited stay covered in every column.
ISSUANCE: Final = RowKind("issuance", IssuanceRecord, omit=("lease_until", "fence"))
OPERATION: Final = RowKind("operation", OperationRecord, omit=("lease_owner", "lease_until", "fence"))
ATTEMPT: Final = RowKind("attempt", AttemptRecord, key=("operation", "number"))
SECURITY_EVENT: Final = RowKind("security_event", SecurityEventRecord)
STATION_TERMS: Final = RowKind("station_terms", StationTermsRecord, key=("station",))
FIRMWARE_RELEASE: Final = RowKind("firmware_release", FirmwareReleaseRecord)
FIRMWARE_APPROVER: Final = RowKind("firmware_approver", FirmwareApproverRecord)
FIRMWARE_APPROVAL: Final = RowKind("firmware_approval", FirmwareApprovalRecord, key=("release", "approver"))
FIRMWARE_STATUS: Final = RowKind("firmware_status", FirmwareStatusRecord, key=("operation", "number"))
STATION_FIRMWARE: Final = RowKind("station_firmware", StationFirmwareRecord, key=("station",))
TRUST_ROOT: Final = RowKind("trust_root", TrustRootRecord)
STATION_ROOT: Final = RowKind("station_root", StationRootRecord, key=("station", "use", "certificate"))
STATION_ROOT_REPORT: Final = RowKind("station_root_report", StationRootReportRecord, key=("station", "use"))
EST_ACCOUNT: Final = RowKind("est_account", EstAccountRecord)
EST_REQUEST: Final = RowKind("est_request", EstRequestRecord)
CAMPAIGN: Final = RowKind("campaign", CampaignRecord)
CAMPAIGN_STATION: Final = RowKind("campaign_station", CampaignStationRecord, key=("campaign", "station"))
ROLE_ROOT: Final = RowKind("role_root", RoleRootRecord)
PROVISIONING_CERTIFICATE: Final = RowKind("provisioning_certificate", ProvisioningCertificateRecord)
VEHICLE_CERTIFICATE: Final = RowKind("vehicle_certificate", VehicleCertificateRecord)
CONTRACT: Final = RowKind("contract", ContractRecord)
CONTRACT_OFFER: Final = RowKind("contract_offer", ContractOfferRecord, key=("contract", "vehicle"))
PROVISIONING: Final = RowKind("provisioning", ProvisioningRecord)
SAVED_QUERY: Final = RowKind("saved_query", SavedQueryRecord, added=("kind",))
IMPORT_RUN: Final = RowKind("import_run", ImportRunRecord)
PROVENANCE: Final = RowKind("provenance", ProvenanceRecord, key=("certificate", "place"))
RESTORATION: Final = RowKind("restoration", RestorationRecord)
VERDICT_FORM: Final = RowKind("verdict_form", VerdictFormRecord)
PRESENCE: Final = RowKind("presence", PresenceRecord, key=("station",))
EVENT_SERIES: Final = RowKind("event_series", EventSeriesRecord, key=("event",))
ALERT: Final = RowKind("alert", AlertRecord)
ALERT_DELIVERY: Final = RowKind("alert_delivery", AlertDeliveryRecord, key=("alert", "target"))
REQUESTED_LOG: Final = RowKind("requested_log", RequestedLogRecord)

AUDITED: Final[tuple[RowKind[Any], ...]] = (
    CA,
    CERTIFICATE,
    CRL,
    CRL_DELTA,
    CRL_SHARD,
    CRL_SEGMENT,
    REVOCATION_CHANGE,
    STATION,
    ISSUANCE,
    OPERATION,
    ATTEMPT,
    SECURITY_EVENT,
    STATION_TERMS,
    ALERT,
    REQUESTED_LOG,
    FIRMWARE_RELEASE,
    FIRMWARE_APPROVER,
    FIRMWARE_APPROVAL,
    FIRMWARE_STATUS,
    STATION_FIRMWARE,
    EST_ACCOUNT,
    EST_REQUEST,
    TRUST_ROOT,
    STATION_ROOT,
    STATION_ROOT_REPORT,
    CAMPAIGN,
    CAMPAIGN_STATION,
    ROLE_ROOT,
    PROVISIONING_CERTIFICATE,
    VEHICLE_CERTIFICATE,
    CONTRACT,
    CONTRACT_OFFER,
    PROVISIONING,
    SAVED_QUERY,
    IMPORT_RUN,
    PROVENANCE,
    RESTORATION,
    VERDICT_FORM,
)
"""Every table whose rows the audit log accounts for."""

ROW_KINDS: Final[Mapping[str, RowKind[Any]]] = {
    kind.table: kind for kind in (*AUDITED, PRESENCE, EVENT_SERIES, ALERT_DELIVERY)
}
