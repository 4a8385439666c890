"""Statements on prepared OCSP responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BindParameter, Select, Table, and_, bindparam, delete, func, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import Executable

from chargepki.pki.inventory.ocsp_records import OCSP_RESPONSE

__all__ = ["ocsp_statements"]


def _param(name: str) -> BindParameter[object]:
    return bindparam(name)


def ocsp_statements(
    certificate: Table, response: Table, head: Table, lease: Table, dialect: str
) -> dict[str, Executable]:
    """Return the statements by name.

    Args:
        head: the head of the audit log, whose count tells that something changed.
    """
    columns = [response.c[name] for name in OCSP_RESPONSE.columns]
    subject = [certificate.c[name] for name in ("id", "ca", "serial", "state", "revoked_at", "revocation_reason")]
    subject.append(certificate.c.not_after)
    return {
        "change_count": select(head.c.count).where(head.c.id == literal_column("1")),
        **_leases(lease),
        "ocsp_put": _put(response, dialect),
        "ocsp_get": select(*columns).where(
            response.c.certificate == _param("certificate"), response.c.hash == _param("hash")
        ),
        "ocsp_page": select(*columns)
        .where(response.c.certificate > _param("after"))
        .order_by(response.c.certificate, response.c.hash)
        .limit(_param("limit")),
        "ocsp_changes": select(*columns)
        .where(
            response.c.ca == _param("ca"),
            response.c.hash == _param("hash"),
            response.c.this_update >= _param("since"),
            or_(response.c.this_update > _param("since"), response.c.certificate > _param("after")),
        )
        .order_by(response.c.this_update, response.c.certificate)
        .limit(_param("limit")),
        "ocsp_of_ca": select(*columns)
        .where(
            response.c.certificate > _param("after"),
            response.c.ca == _param("ca"),
            response.c.hash == _param("hash"),
        )
        .order_by(response.c.certificate)
        .limit(_param("limit")),
        # Whoever loses its status loses its answers, and so does everything that a revoked signer has signed.
        "ocsp_drop": delete(response).where(
            or_(response.c.certificate == _param("certificate"), response.c.signer == _param("certificate"))
        ),
        "ocsp_prune": delete(response).where(response.c.next_update <= _param("now")),
        "ocsp_soonest": select(func.min(response.c.next_update), func.count()),
        "ocsp_subject": select(*subject).where(certificate.c.id == _param("id")),
        "ocsp_due": _due(select(*subject), certificate, response),
    }


def _due(subjects: Select[Any], certificate: Table, response: Table) -> Executable:
    """Select the certificates that have no prepared answer, or one whose successor is due."""
    joined = certificate.outerjoin(
        response, and_(response.c.certificate == certificate.c.id, response.c.hash == _param("hash"))
    )
    return (
        subjects.select_from(joined)
        .where(
            certificate.c.ca == _param("ca"),
            or_(certificate.c.state == "issued", certificate.c.state == "revoked"),
            certificate.c.not_after > _param("now"),
            or_(response.c.certificate.is_(None), response.c.refresh_at <= _param("now")),
        )
        # Revoked ones first: until they have an answer, a responder without keys has nothing to say about them.
        .order_by(certificate.c.state.desc(), certificate.c.id)
        .limit(_param("limit"))
    )


def _put(response: Table, dialect: str) -> Executable:
    make: Callable[[Table], postgresql.Insert | sqlite.Insert] = (
        postgresql.insert if dialect == "postgresql" else sqlite.insert
    )
    put = make(response).values({column.name: _param(column.name) for column in response.c})
    keys = ["certificate", "hash"]
    replaced = {column.name: put.excluded[column.name] for column in response.c if column.name not in keys}
    stored: Executable = put.on_conflict_do_update(index_elements=keys, set_=replaced)
    return stored


def _leases(lease: Table) -> dict[str, Executable]:
    """Who does the background work, and who answers from memory (`assent`)."""
    return {
        "leadership": select(lease.c.owner, lease.c.until, lease.c.fence).where(
            lease.c.kind == "leader", lease.c.item == _param("item")
        ),
        "assent_holders": select(lease.c.item, lease.c.owner).where(lease.c.kind == "assent"),
        "assent_drop": delete(lease).where(
            lease.c.kind == "assent", lease.c.item == _param("item"), lease.c.owner == _param("owner")
        ),
    }
