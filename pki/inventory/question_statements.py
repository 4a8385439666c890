"""The statements that questions about everything need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, Select, Table, and_, bindparam, func, literal_column, select
from sqlalchemy.sql.base import Executable

__all__ = ["question_statements"]


def question_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    certificate, crl, delta, change, answer = (
        tables[name] for name in ("certificate", "crl", "crl_delta", "revocation_change", "ocsp_response")
    )
    operation, issuance, lease = (tables[name] for name in ("operation", "issuance", "lease"))
    queued = issuance.outerjoin(lease, and_(lease.c.kind == "issuance", lease.c.item == issuance.c.id))
    root, report = tables["station_root"], tables["station_root_report"]
    first: BindParameter[str] = bindparam("first")
    last: BindParameter[str] = bindparam("last")
    newest = (
        select(change.c.certificate, func.max(change.c.seq).label("seq"))
        .where(change.c.ca == bindparam("ca"))
        .group_by(change.c.certificate)
        .subquery("newest")
    )
    c = certificate.c
    told = (c.id, c.profile, c.subject, c.station, c.revoked_at, c.revocation_reason, c.shard)
    return {
        "question_revocations": select(*told, newest.c.seq, c.not_after)
        .select_from(certificate.outerjoin(newest, newest.c.certificate == c.id))
        .where(c.ca == bindparam("ca"), c.state == "revoked")
        .order_by(c.id),
        "question_stations": select(func.count()).select_from(tables["station"]),
        "question_open_operations": select(func.count()).select_from(operation).where(operation.c.state == "queued"),
        "question_operations": select(func.count()).select_from(operation),
        "question_security_events": select(func.count()).select_from(tables["security_event"]),
        "question_firmware_releases": select(func.count()).select_from(tables["firmware_release"]),
        "question_open_alerts": select(func.count())
        .select_from(tables["alert"])
        .where(tables["alert"].c.state == "open"),
        # What a worker holds the lease of is taken.
        "question_queued_requests": select(func.count())
        .select_from(queued)
        .where(issuance.c.state == "queued", func.coalesce(lease.c.state, "queued") == "queued"),
        # The rows of lists are megabytes long; the index holds all that is asked here.
        "question_lists": select(crl.c.shard, crl.c.number, crl.c.this_update, crl.c.next_update, crl.c.changes).where(
            crl.c.ca == bindparam("ca")
        ),
        "question_deltas": select(
            literal_column("0"), delta.c.number, delta.c.this_update, delta.c.next_update, delta.c.changes
        ).where(delta.c.ca == bindparam("ca")),
        "question_stale_answers": select(answer.c.certificate)
        .distinct()
        .select_from(answer.join(certificate, and_(c.id == answer.c.certificate, c.state == "revoked")))
        .where(answer.c.status == "good")
        .order_by(answer.c.certificate),
        "question_station_roots": record("station_root")
        .where(root.c.station >= first, root.c.station <= last)
        .order_by(root.c.station, root.c.use, root.c.certificate),
        "question_root_reports": record("station_root_report")
        .where(report.c.station >= first, report.c.station <= last)
        .order_by(report.c.station, report.c.use),
    }
