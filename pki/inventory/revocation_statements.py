"""The statements on revoked certificates and their lists, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, Select, Table, bindparam, func, select
from sqlalchemy.sql.base import Executable

__all__ = ["revocation_statements"]

_Record = Callable[[str], Select[Any]]


def _param(name: str) -> BindParameter[Any]:
    return bindparam(name)


def revocation_statements(tables: Mapping[str, Table], record: _Record) -> dict[str, Executable]:
    """Return them by name."""
    return {**_lists(tables, record), **_parts(tables, record), **_certificates(tables)}


def _lists(tables: Mapping[str, Table], record: _Record) -> dict[str, Executable]:
    """Complete lists, of a CA or of a shard, and delta lists."""
    crl, delta = tables["crl"], tables["crl_delta"]
    of_ca = {name: tables[name].c.ca == _param("ca") for name in ("crl", "crl_delta")}
    full = crl.c.shard.is_(None)
    newest = crl.c.number.desc()
    latest = select(func.max(crl.c.number).label("number")).where(of_ca["crl"]).group_by(crl.c.shard).subquery("latest")
    state = (crl.c.shard, crl.c.number, crl.c.this_update, crl.c.next_update, crl.c.changes, crl.c.sha256)
    last_delta = delta.c.number.desc()
    return {
        "latest_crl": record("crl").where(of_ca["crl"], full).order_by(newest).limit(1),
        "latest_shard_crl": record("crl").where(of_ca["crl"], crl.c.shard == _param("shard")).order_by(newest).limit(1),
        "latest_delta_crl": record("crl_delta").where(of_ca["crl_delta"]).order_by(last_delta).limit(1),
        "crl_states": select(*state).where(of_ca["crl"], crl.c.number.in_(select(latest.c.number))),
        "crl_delta_state": select(
            delta.c.number, delta.c.this_update, delta.c.next_update, delta.c.changes, delta.c.sha256
        )
        .where(of_ca["crl_delta"])
        .order_by(last_delta)
        .limit(1),
        "crl_delta_base": select(crl.c.number, crl.c.changes)
        .where(of_ca["crl"], full, crl.c.changes.is_not(None), crl.c.next_update >= _param("now"))
        .order_by(crl.c.number)
        .limit(1),
        "crl_last_number": select(func.max(crl.c.number)).where(of_ca["crl"]),
        "crl_delta_last_number": select(func.max(delta.c.number)).where(of_ca["crl_delta"]),
        "crl_superseded": select(crl.c.id).where(
            of_ca["crl"], full, crl.c.number < _param("number"), func.length(crl.c.der) > 0
        ),
        "crl_superseded_shard": select(crl.c.id).where(
            of_ca["crl"],
            crl.c.shard == _param("shard"),
            crl.c.number < _param("number"),
            func.length(crl.c.der) > 0,
        ),
        "crl_delta_superseded": select(delta.c.id).where(
            of_ca["crl_delta"], delta.c.number < _param("number"), func.length(delta.c.der) > 0
        ),
    }


def _parts(tables: Mapping[str, Table], record: _Record) -> dict[str, Executable]:
    """What lists are made of: shards, encoded entries, and changes since."""
    names = ("crl_shard", "crl_segment", "revocation_change")
    shard, segment, change = (tables[name] for name in names)
    of_ca = {name: tables[name].c.ca == _param("ca") for name in names}
    return {
        "crl_shards": record("crl_shard").where(of_ca["crl_shard"]).order_by(shard.c.number),
        "crl_shard_open": record("crl_shard")
        .where(of_ca["crl_shard"], shard.c.base_url == _param("base_url"))
        .order_by(shard.c.number.desc())
        .limit(1),
        "crl_shard_last": select(func.max(shard.c.number)).where(of_ca["crl_shard"]),
        "crl_segments": record("crl_segment").where(of_ca["crl_segment"]).order_by(segment.c.shard, segment.c.number),
        "crl_segments_of_shard": record("crl_segment")
        .where(of_ca["crl_segment"], segment.c.shard == _param("shard"))
        .order_by(segment.c.number),
        "crl_segment_tail": record("crl_segment")
        .where(of_ca["crl_segment"], segment.c.shard == _param("shard"))
        .order_by(segment.c.number.desc())
        .limit(1),
        "crl_segment_count": select(func.sum(segment.c.count)).where(of_ca["crl_segment"]),
        "revocation_change_last": select(func.max(change.c.seq)).where(of_ca["revocation_change"]),
        "revocation_change_shards": select(change.c.shard, func.max(change.c.seq))
        .where(of_ca["revocation_change"], change.c.seq > _param("after"))
        .group_by(change.c.shard),
        "revocation_changes": record("revocation_change")
        .where(of_ca["revocation_change"], change.c.seq > _param("after"))
        .order_by(change.c.seq),
    }


def _certificates(tables: Mapping[str, Table]) -> dict[str, Executable]:
    certificate = tables["certificate"]
    of_ca = certificate.c.ca == _param("ca")
    count = select(func.count()).select_from(certificate)
    return {
        "certificate_count_in_shard": count.where(of_ca, certificate.c.shard == _param("shard")),
        "certificate_count_revoked": count.where(of_ca, certificate.c.state == "revoked"),
        "certificate_revoked_rows": select(
            certificate.c.serial,
            certificate.c.shard,
            certificate.c.revoked_at,
            certificate.c.revocation_reason,
            certificate.c.invalidity_date,
        )
        .where(of_ca, certificate.c.state == "revoked")
        .order_by(certificate.c.id),
        "certificate_count_valid": count.where(
            of_ca, certificate.c.state == "issued", certificate.c.not_after >= _param("now")
        ),
    }
