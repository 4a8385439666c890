"""``chargepki inventory``: look at everything the inventory holds."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.pki.inventory.records import IssuanceState

__all__ = ["inventory"]

_MANY = 100_000
"""More queued requests than this are not counted."""


@group("inventory", example="chargepki inventory list")
def inventory() -> None:
    """Look at everything the inventory holds."""


@inventory.command("list", example="chargepki inventory list --json")
@pass_state
def list_all(state: GlobalState) -> None:
    """Count what there is: CAs, certificates by state, CRLs, stations, open work, audit entries."""
    store = state.workspace.inventory
    rows: list[dict[str, Any]] = []
    for ca in store.list_cas():
        counts = {str(key): value for key, value in store.count_certificates(ca.id).items()}
        crl = store.latest_crl(ca.id)
        rows.append(
            {
                "ca": ca.id,
                "profile": ca.profile,
                "state": ca.state,
                "issued": counts.get("issued", 0),
                "revoked": counts.get("revoked", 0),
                "reserved": counts.get("reserved", 0),
                "voided": counts.get("voided", 0),
                "crl_number": crl.number if crl else None,
                "crl_next_update": crl.next_update if crl else None,
                "not_after": ca.not_after,
            }
        )
    columns = ("ca", "state", "issued", "revoked", "reserved", "crl_number", "crl_next_update", "not_after")
    head = store.audit_head()
    totals = {
        "stations": sum(1 for _ in store.list_stations()),
        "open_operations": sum(1 for item in store.list_operations() if not item.state.is_final),
        "queued_requests": sum(
            1 for item in store.list_issuances(open_only=True, limit=_MANY) if item.state is IssuanceState.QUEUED
        ),
        "audit_entries": head.count if head else 0,
    }
    if state.output.is_json:
        state.output.document("chargepki/inventory", {"cas": rows, **totals})
        return
    state.output.rows("chargepki/inventory", columns, rows, key="cas")
    for name, value in totals.items():
        state.output.say(f"{name.replace('_', ' ')}: {value}")


@inventory.command("show", example="chargepki inventory show station-0001")
@click.argument("item", metavar="ID")
@pass_state
def show(state: GlobalState, item: str) -> None:
    """Show whatever ID names: a CA, a certificate (CA:SERIAL or serial) or a station."""
    from chargepki.cli.ca import ca_row
    from chargepki.cli.cert import certificate_row
    from chargepki.cli.station_rows import station_row
    from chargepki.cli.values import find_certificate
    from chargepki.pki.errors import InputError, NotFound

    store = state.workspace.inventory
    ca = store.find_ca(item)
    if ca is not None:
        state.output.fields("chargepki/ca", ca_row(ca))
        return
    station = store.find_station(item)
    if station is not None:
        state.output.fields("chargepki/station", station_row(station, store.find_presence(station.id)))
        return
    try:
        record = find_certificate(store, item)
    except (NotFound, InputError) as error:
        raise NotFound(
            f"there is neither a CA nor a station nor a certificate {item[:100]}",
            why="a CA is named NAME or NAME@N, a station by its identity, a certificate CA:SERIAL or by its serial",
            fix="list them with: chargepki ca list, chargepki station list, chargepki cert list",
        ) from error
    state.output.fields("chargepki/certificate", certificate_row(record))


@inventory.command("export", example="chargepki inventory export --out inventory.ndjson")
@click.option("--out", "-o", metavar="F", help="File to write instead of stdout.")
@pass_state
def export(state: GlobalState, out: str | None) -> None:
    """Write every CA, certificate and station, one JSON object a line; no key, no password hash."""
    import json
    from collections.abc import Iterator

    from chargepki.cli.ca import ca_row
    from chargepki.cli.cert import certificate_row
    from chargepki.cli.output import jsonable
    from chargepki.cli.results import write_result
    from chargepki.cli.station_rows import station_row

    store = state.workspace.inventory

    def lines() -> Iterator[str]:
        for ca in store.list_cas():
            yield json.dumps({"kind": "ca", **jsonable(ca_row(ca))}, ensure_ascii=False)
        for record in store.list_certificates():
            yield json.dumps({"kind": "certificate", **jsonable(certificate_row(record))}, ensure_ascii=False)
        for station in store.list_stations():
            row = station_row(station, store.find_presence(station.id))
            yield json.dumps({"kind": "station", **jsonable(row)}, ensure_ascii=False)

    if out is None:
        for line in lines():
            state.output.text(line)
        return
    write_result(state, "".join(f"{line}\n" for line in lines()).encode(), out)
