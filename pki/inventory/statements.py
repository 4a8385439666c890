"""Every SQL statement, as SQLAlchemy Core over the SQLModel tables, compiled for both databases into ``compiled.json``.

Compiling beforehand keeps SQLAlchemy out of the start of every command and out of the path of every certificate.
``python -m chargepki.pki.inventory.statements`` writes the file anew; a test compares it with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlmodel import SQLModel

from chargepki.pki.inventory import (
    campaign_tables,
    codec,
    contract_tables,
    event_tables,
    firmware_tables,
    import_tables,
    ocsp_tables,
    query_tables,
    restoration_tables,
    tables,
    terms_tables,
    trust_tables,
    verdict_tables,
)
from chargepki.pki.inventory.arrival_reads import ARRIVING_CERTIFICATE
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS
from chargepki.pki.inventory.bulk_statements import bulk_statements
from chargepki.pki.inventory.campaign_statements import campaign_statements
from chargepki.pki.inventory.contract_statements import contract_statements
from chargepki.pki.inventory.enrolment_statements import enrolment_statements
from chargepki.pki.inventory.event_statements import event_statements
from chargepki.pki.inventory.firmware_statements import firmware_statements
from chargepki.pki.inventory.import_statements import import_statements
from chargepki.pki.inventory.ocsp_statements import ocsp_statements
from chargepki.pki.inventory.query_statements import query_statements
from chargepki.pki.inventory.question_statements import question_statements
from chargepki.pki.inventory.reads import MOST_OF_A_KEY
from chargepki.pki.inventory.restoration_statements import restoration_statements
from chargepki.pki.inventory.revocation_statements import revocation_statements
from chargepki.pki.inventory.trust_statements import trust_statements

__all__ = ["compile_all"]

_ALIKE: Final = (
    *(campaign_statements, contract_statements, enrolment_statements, firmware_statements),
    *(query_statements, question_statements, restoration_statements, trust_statements),
)
_HEAD_COLUMNS: Final = ("log_id", "count", "hash", "at", "key_id", "signature")


def _table(row: type[SQLModel]) -> Table:
    table = row.metadata.tables[str(row.__tablename__)]
    assert isinstance(table, Table)
    return table


TABLES: Final[Mapping[str, Table]] = {
    str(row.__tablename__): _table(row)
    for row in (
        tables.CaRow,
        tables.CertificateRow,
        tables.CrlRow,
        tables.CrlDeltaRow,
        tables.CrlShardRow,
        tables.CrlSegmentRow,
        tables.RevocationChangeRow,
        tables.StationRow,
        tables.IssuanceRow,
        tables.OperationRow,
        tables.AttemptRow,
        tables.SecurityEventRow,
        tables.EstAccountRow,
        tables.EstRequestRow,
        tables.PresenceRow,
        tables.LeaseRow,
        tables.AuditEntryRow,
        tables.AuditHeadRow,
        ocsp_tables.OcspResponseRow,
        terms_tables.StationTermsRow,
        event_tables.EventSeriesRow,
        event_tables.AlertRow,
        event_tables.AlertDeliveryRow,
        event_tables.AlertCursorRow,
        event_tables.RequestedLogRow,
        firmware_tables.FirmwareReleaseRow,
        firmware_tables.FirmwareApproverRow,
        firmware_tables.FirmwareApprovalRow,
        firmware_tables.StationFirmwareRow,
        firmware_tables.FirmwareStatusRow,
        trust_tables.TrustRootRow,
        trust_tables.StationRootRow,
        trust_tables.StationRootReportRow,
        campaign_tables.CampaignRow,
        campaign_tables.CampaignStationRow,
        contract_tables.RoleRootRow,
        contract_tables.ProvisioningCertificateRow,
        contract_tables.VehicleCertificateRow,
        contract_tables.ContractRow,
        contract_tables.ContractOfferRow,
        contract_tables.ProvisioningRow,
        query_tables.SavedQueryRow,
        import_tables.ImportRunRow,
        import_tables.ProvenanceRow,
        restoration_tables.RestorationRow,
        verdict_tables.VerdictFormRow,
    )
}


def _param(name: str) -> BindParameter[Any]:
    return bindparam(name)


def _limit(statement: Select[Any]) -> Select[Any]:
    return statement.limit(_param("limit"))


def _record(name: str) -> Select[Any]:
    """Select a record's columns in their order."""
    return select(*(TABLES[name].c[column] for column in codec.ROW_KINDS[name].columns))


def _insert(name: str) -> Executable:
    return insert(TABLES[name]).values({column.name: _param(column.name) for column in TABLES[name].c})


def _insert_new(name: str, dialect: str) -> Executable:
    """Insert a row unless its key is taken.

    Not an insert that fails: on PostgreSQL a failed statement would spoil the whole transaction.
    """
    table = TABLES[name]
    make: Callable[[Table], Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
    keys = [column.name for column in table.primary_key]
    statement = make(table).values({column.name: _param(column.name) for column in table.c})
    result: Executable = statement.on_conflict_do_nothing(index_elements=keys)
    return result


def _upsert(name: str, dialect: str) -> Executable:
    table = TABLES[name]
    make: Callable[[Table], Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(table).values({column.name: _param(column.name) for column in table.c})
    keys = [column.name for column in table.primary_key]
    changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    result: Executable = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    return result


def _leased(name: str) -> Select[Any]:
    """Select a record with its lease: owner, until, fence, state."""
    table, lease = TABLES[name], TABLES["lease"]
    joined = table.outerjoin(lease, and_(lease.c.kind == name, lease.c.item == table.c.id))
    columns = [table.c[column] for column in codec.ROW_KINDS[name].columns]
    return select(*columns, lease.c.owner, lease.c.until, lease.c.fence, lease.c.state).select_from(joined)


def _certificates() -> dict[str, Executable]:
    ca, certificate = TABLES["ca"], TABLES["certificate"]
    newest = certificate.c.reserved_at.desc(), certificate.c.id.desc()
    return {
        "ca_by_id": _record("ca").where(ca.c.id == _param("name")),
        # A generation that is not there yet stands behind those that are: what it will take over goes on meanwhile.
        "ca_newest": _record("ca")
        .where(ca.c.name == _param("name"))
        .order_by(ca.c.state == "pending", ca.c.generation.desc())
        .limit(1),
        "ca_last_generation": select(func.max(ca.c.generation)).where(ca.c.name == _param("name")),
        "certificate_by_id": _record("certificate").where(certificate.c.id == _param("id")),
        "certificate_by_request_key": _record("certificate")
        .where(certificate.c.request_key == _param("request_key"), certificate.c.state != "voided")
        .order_by(*newest)
        .limit(1),
        # What a reservation holds none of is demanded here, so that the row before is known from the row after.
        "certificate_issue": update(certificate)
        .where(
            certificate.c.id == _param("id"),
            certificate.c.state == "reserved",
            certificate.c.der.is_(None),
            certificate.c.sha256.is_(None),
            certificate.c.issued_at.is_(None),
        )
        .values(
            {
                "state": literal_column("'issued'"),
                "der": _param("der"),
                "sha256": _param("sha256"),
                "issued_at": _param("issued_at"),
            }
        )
        .returning(*(certificate.c[column] for column in codec.CERTIFICATE.columns)),
        "certificates_by_serial": _record("certificate")
        .where(certificate.c.serial == _param("serial"))
        .order_by(certificate.c.id),
        "certificate_by_sha256": _record("certificate").where(certificate.c.sha256 == _param("sha256")),
        "certificate_compromised": _record("certificate")
        .where(
            certificate.c.spki_sha256 == _param("spki_sha256"),
            certificate.c.state == "revoked",
            or_(*(certificate.c.revocation_reason == f"{who}Compromise" for who in ("key", "cA", "aA"))),
        )
        .limit(1),
        "certificates_of_key": _record("certificate")
        .where(certificate.c.spki_sha256 == _param("spki_sha256"), certificate.c.state != literal_column("'voided'"))
        .order_by(certificate.c.reserved_at.desc())
        .limit(MOST_OF_A_KEY),
        "certificate_count_of_station": select(func.count())
        .select_from(certificate)
        .where(
            certificate.c.station == _param("station"),
            certificate.c.reserved_at >= _param("since"),
            certificate.c.state != literal_column("'voided'"),
        ),
        "certificate_counts": select(certificate.c.state, func.count())
        .where(certificate.c.ca == _param("ca"))
        .group_by(certificate.c.state),
    }


def _stations(dialect: str) -> dict[str, Executable]:
    station, presence, event = TABLES["station"], TABLES["presence"], TABLES["security_event"]
    this = presence.c.station == _param("station"), presence.c.connection == _param("connection")
    seen = {"last_seen_at": _param("last_seen_at")}
    events = _record("security_event").where(event.c.id > _param("after")).order_by(event.c.id)
    terms, certificate = TABLES["station_terms"], TABLES["certificate"]
    arriving = (
        *(station.c[column] for column in codec.STATION.columns),
        *(terms.c[column] for column in codec.STATION_TERMS.columns),
        *(certificate.c[column] for column in ARRIVING_CERTIFICATE.columns),
    )
    return {
        "arriving": select(*arriving)
        .select_from(
            station.outerjoin(terms, terms.c.station == station.c.id).outerjoin(
                certificate, certificate.c.sha256 == _param("sha256")
            )
        )
        .where(station.c.id == _param("station")),
        "station_terms_onboarding": select(terms.c.onboarding_anchors)
        .where(terms.c.onboarding_anchors.is_not(None))
        .order_by(terms.c.station),
        "station_by_id": _record("station").where(station.c.id == _param("id")),
        "stations_by_serial_number": _record("station")
        .where(station.c.serial_number == _param("serial_number"), station.c.state == "active")
        .order_by(station.c.id),
        "presence_by_station": _record("presence").where(presence.c.station == _param("station")),
        "presence_put": _upsert("presence", dialect),
        "presence_touch": update(presence).where(*this).values(seen).returning(presence.c.station),
        "presence_clear": update(presence)
        .where(*this)
        .values({**seen, "connected": False})
        .returning(presence.c.station),
        "security_event_last": select(func.max(event.c.id)),
        "security_events": _limit(events),
        "security_events_of_station": _limit(events.where(event.c.station == _param("station"))),
    }


def _operations(dialect: str) -> dict[str, Executable]:
    issuance, operation, attempt, lease = (TABLES[name] for name in ("issuance", "operation", "attempt", "lease"))
    issuances = _leased("issuance").order_by(issuance.c.created_at, issuance.c.id)
    operations = _leased("operation").order_by(operation.c.created_at, operation.c.id)
    of_station = operation.c.station == _param("station")
    free = or_(lease.c.owner.is_(None), lease.c.until <= _param("now"))
    return {
        "issuance_by_id": _leased("issuance").where(issuance.c.id == _param("id")),
        "issuances_all": _limit(issuances),
        "issuances_open": _limit(issuances.where(issuance.c.state == "queued")),
        "issuances_free": _limit(issuances.where(issuance.c.state == "queued", free)),
        "operation_by_id": _leased("operation").where(operation.c.id == _param("id")),
        "operations_all": _limit(operations),
        "operations_open": _limit(operations.where(operation.c.state == "queued")),
        "operations_all_of_station": _limit(operations.where(of_station)),
        "operations_newest": _leased("operation")
        .where(
            or_(_param("station") == "", of_station),
            or_(
                operation.c.created_at < _param("before_at"),
                and_(operation.c.created_at == _param("before_at"), operation.c.id < _param("before")),
            ),
        )
        .order_by(operation.c.created_at.desc(), operation.c.id.desc())
        .limit(_param("limit")),
        "operations_open_of_station": _limit(operations.where(operation.c.state == "queued", of_station)),
        "attempts_of_operation": _record("attempt")
        .where(attempt.c.operation == _param("operation"))
        .order_by(attempt.c.number),
        "lease_put": _upsert("lease", dialect),
        "lease_fence": select(lease.c.fence).where(lease.c.kind == _param("kind"), lease.c.item == _param("item")),
    }


def _audit() -> dict[str, Executable]:
    entry, head = TABLES["audit_entry"], TABLES["audit_head"]
    entries = select(*(entry.c[column] for column in ENTRY_COLUMNS))
    this_head = select(*(head.c[column] for column in _HEAD_COLUMNS)).where(head.c.id == 1)
    return {
        "audit_insert": _insert("audit_entry"),
        "audit_after": _limit(entries.where(entry.c.seq > _param("after")).order_by(entry.c.seq)),
        "audit_last": _limit(
            entries.where(entry.c.action == _param("action"), entry.c.subject == _param("subject")).order_by(
                entry.c.seq.desc()
            )
        ),
        "audit_tail": select(entry.c.seq, entry.c.entry_hash).order_by(entry.c.seq.desc()).limit(1),
        "head": this_head,
        "head_lock": this_head.with_for_update(),
        "head_insert": insert(head).values({"id": 1, **{column: _param(column) for column in _HEAD_COLUMNS}}),
        "head_update": update(head).where(head.c.id == 1).values({column: _param(column) for column in _HEAD_COLUMNS}),
    }


def _generic(dialect: str) -> dict[str, Executable]:
    """Insert and get of each audited table."""
    found: dict[str, Executable] = {}
    for kind in codec.AUDITED:
        table = TABLES[kind.table]
        this = [table.c[name] == _param(name) for name in kind.key]
        found[f"{kind.table}_insert"] = _insert_new(kind.table, dialect)
        found[f"{kind.table}_get"] = _record(kind.table).where(*this)
    return found


def _conditions(name: str) -> dict[str, ColumnElement[bool]]:
    """Return the filters that lists know: equality by column, and the ones that compare."""
    table = TABLES[name]
    found: dict[str, ColumnElement[bool]] = {
        column.name: column == _param(column.name) for column in table.c if not isinstance(column.type, LargeBinary)
    }
    found["after"] = table.c[codec.ROW_KINDS[name].key[0]] > _param("after")
    if name == "certificate":
        found["not_after_before"] = table.c.not_after < _param("not_after_before")
        # An id begins with its CA (`CertificateRecord.id`): as a range of the key the rows come in the order of the
        # pages, where the column would have all of a CA's certificates sorted for each page.
        ca = cast(_param("ca"), Text())
        found["ca"] = and_(
            table.c.id >= ca.concat(literal_column("':'")), table.c.id < ca.concat(literal_column("';'"))
        )
    return found


def _compile_lists(text: Callable[[Executable], str]) -> dict[str, object]:
    lists: dict[str, object] = {}
    for name, kind in codec.ROW_KINDS.items():
        base = _record(name)
        select_text = text(base)
        key = TABLES[name].c[kind.key[0]]
        lists[name] = {
            "select": select_text,
            "where": {
                label: text(base.where(condition)).removeprefix(select_text).removeprefix(" WHERE ")
                for label, condition in _conditions(name).items()
            },
            "order": {kind.key[0]: text(_limit(base.order_by(key))).removeprefix(select_text)},
        }
    return lists


def _compile_updates(text: Callable[[Executable], str]) -> dict[str, object]:
    updates: dict[str, object] = {}
    for kind in codec.AUDITED:
        table = TABLES[kind.table]
        where = [table.c[name] == _param(f"key_{name}") for name in kind.key]
        prefix, suffix, assignments = "", "", {}
        for name in kind.columns:
            whole = text(update(table).where(*where).values({name: _param(name)}))
            before, _, rest = whole.partition(" SET ")
            assignment, _, condition = rest.partition(" WHERE ")
            prefix, suffix, assignments[name] = f"{before} SET ", f" WHERE {condition}", assignment
        updates[kind.table] = {"prefix": prefix, "suffix": suffix, "set": assignments}
    return updates


def compile_all() -> dict[str, dict[str, object]]:
    """Return all statements of both dialects, by name."""
    dialects: dict[str, Dialect] = {
        "sqlite": sqlite.dialect(paramstyle="named"),
        # Its text for psycopg 3 casts every parameter, which our columns' types make needless; this one does not.
        "postgresql": PGDialect_psycopg2(paramstyle="pyformat"),  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    }
    compiled: dict[str, dict[str, object]] = {}
    for name, dialect in dialects.items():

        def text(statement: Executable, dialect: Dialect = dialect) -> str:
            found = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]  # every executable here is a clause
            return " ".join(_with_literals(found).split())

        named = {
            **_certificates(),
            **revocation_statements(TABLES, _record),
            **_stations(name),
            **_operations(name),
            **_audit(),
            **_generic(name),
        }
        named |= ocsp_statements(
            TABLES["certificate"], TABLES["ocsp_response"], TABLES["audit_head"], TABLES["lease"], name
        )
        named |= event_statements(TABLES, name)
        named |= import_statements(TABLES, _record, name)
        named |= bulk_statements(TABLES, _record, name)
        for statements in _ALIKE:
            named |= statements(TABLES, _record)
        compiled[name] = {
            "named": {label: text(statement) for label, statement in sorted(named.items())},
            "select": _compile_lists(text),
            "update": _compile_updates(text),
        }
    return compiled


def _with_literals(found: Any) -> str:
    """Write the constants of a statement into its text, so that callers bind nothing but what they vary."""
    sql = str(found)
    for name, bound in found.binds.items():
        if bound.value is None:
            continue
        value = bound.value
        plain = str(value).lower() if isinstance(value, bool) else str(value)
        literal = f"'{value}'" if isinstance(value, str) else plain
        assert "'" not in str(value)
        sql = sql.replace(found.bindtemplate % {"name": name}, literal)
    return sql


def main() -> None:
    """Write ``compiled.json`` anew."""
    path = Path(__file__).resolve().with_name("compiled.json")
    path.write_bytes(orjson.dumps(compile_all(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


if __name__ == "__main__":
    main()
