"""``chargepki inventory``: look at everything the inventory holds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from chargepki.cli.checking import add_check
from chargepki.cli.filtering import combined, filter_options, wanted_of
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.importing import add_import
from chargepki.cli.passphrase import read_passphrase
from chargepki.cli.questions import add_questions
from chargepki.cli.report_accounts import add_report_account
from chargepki.cli.reporting import add_report
from chargepki.cli.watching import add_watch

__all__ = ["inventory"]


@group("inventory", example="chargepki inventory list")
def inventory() -> None:
    """Look at everything the inventory holds."""


add_import(inventory)


@inventory.command("list", example="chargepki inventory list --json")
@pass_state
def list_all(state: GlobalState) -> None:
    """Count what there is: CAs, certificates by state, CRLs, stations, operations, events, firmware, audit entries."""
    store = state.workspace.inventory
    rows: list[dict[str, Any]] = []
    for ca in store.list_cas():
        numbers = {str(key): value for key, value in store.count_certificates(ca.id).items()}
        crl = store.list_states(ca.id).get(None)
        rows.append(
            {
                "ca": ca.id,
                "profile": ca.profile,
                "state": ca.state,
                "issued": numbers.get("issued", 0),
                "revoked": numbers.get("revoked", 0),
                "reserved": numbers.get("reserved", 0),
                "voided": numbers.get("voided", 0),
                "crl_number": crl.number if crl else None,
                "crl_next_update": crl.next_update if crl else None,
                "not_after": ca.not_after,
            }
        )
    columns = ("ca", "state", "issued", "revoked", "reserved", "crl_number", "crl_next_update", "not_after")
    head = store.audit_head()
    counts = store.count_all()
    totals = {
        "imported_certificates": store.count_imported(),
        "stations": counts.stations,
        "operations": counts.operations,
        "open_operations": counts.open_operations,
        "security_events": counts.security_events,
        "firmware_releases": counts.firmware_releases,
        "open_alerts": counts.open_alerts,
        "queued_requests": counts.queued_requests,
        "audit_entries": head.count if head else 0,
    }
    if state.output.is_json:
        imports = [
            {name: getattr(run, name) for name in ("source", "command", "imported_by", "started_at")}
            for run in store.list_import_runs()
        ]
        state.output.document("chargepki/inventory", {"cas": rows, **totals, "imports": imports})
        return
    state.output.rows("chargepki/inventory", columns, rows, key="cas")
    for name, value in totals.items():
        state.output.say(f"{name.replace('_', ' ')}: {value}")


@inventory.command(
    "grant-reader",
    example="chargepki inventory grant-reader auditor | psql -d pki",
)
@click.argument("role", metavar="ROLE")
@click.option("--schema", default="public", show_default=True, metavar="NAME", help="Schema that holds the tables.")
@pass_state
def grant_reader(state: GlobalState, role: str, schema: str) -> None:
    """Print the SQL that lets a login of PostgreSQL read this inventory, and nothing else.

    Nothing is changed here: the owner of the tables runs it. How a file of SQLite is shared with an auditor is in the
    guide "Take over an unknown PKI".
    """
    from chargepki.pki.errors import StateError
    from chargepki.pki.inventory.address import DatabaseAddress, Dialect
    from chargepki.pki.inventory.readers import reader_grants

    address = DatabaseAddress.parse(state.settings.database)
    if address.dialect is not Dialect.POSTGRESQL:
        raise StateError(
            f"the inventory {address.shown} is a file of SQLite, which knows no logins",
            why="who may read it is a matter of the permissions of the file and of its folder",
            fix=f"let the auditor's group read both: chgrp GROUP, then chmod 640 {address.path}",
        )
    state.output.text(reader_grants(role, database=address.shown.rpartition("/")[2], schema=schema))


@inventory.command("show", example="chargepki inventory show station-0001")
@click.argument("item", metavar="ID")
@pass_state
def show(state: GlobalState, item: str) -> None:
    """Show whatever ID names: a CA, a station, an operation, a firmware release, or a certificate by its serial."""
    from chargepki.cli.ca import ca_row
    from chargepki.cli.cert import certificate_row
    from chargepki.cli.firmware_store import show_release
    from chargepki.cli.station_rows import attempt_rows, operation_row, station_row
    from chargepki.cli.values import find_certificate
    from chargepki.pki.errors import InputError, NotFound

    store = state.workspace.inventory
    ca = store.find_ca(item)
    if ca is not None:
        state.output.fields("chargepki/ca", ca_row(ca))
        return
    station = store.find_station(item)
    if station is not None:
        firmware = store.find_station_firmware(station.id)
        row = station_row(station, store.find_presence(station.id), firmware=firmware)
        state.output.fields("chargepki/station", row)
        return
    operation = store.find_operation(item)
    if operation is not None:
        content = {**operation_row(operation), "attempts": attempt_rows(store, operation.id)}
        state.output.fields("chargepki/operation", content)
        return
    if store.find_release(item) is not None:
        show_release(state, item, statement=False)
        return
    try:
        record = find_certificate(store, item)
    except (NotFound, InputError) as error:
        raise NotFound(
            f"there is no CA, station, operation, firmware release or certificate {item[:100]}",
            why="a CA is named NAME or NAME@N, a station by its identity, a certificate CA:SERIAL or by its serial",
            fix="list them with: chargepki ca list, station list, station operations, firmware list, cert list",
        ) from error
    state.output.fields("chargepki/certificate", certificate_row(record))


@inventory.command(
    "export",
    example="chargepki inventory export --out inventory.ndjson\n"
    'chargepki inventory export --format csv --where "not_after < now + 90d" --out expiring.csv\n'
    "chargepki inventory export --layout everest --prefix ev --leaf secc=secc.pem,secc.key --out certs",
)
@click.option(
    "--out", "-o", metavar="F", help="File to write instead of stdout, whole or not at all; with --layout a new folder."
)
@click.option(
    "--layout",
    type=click.Choice(["ecog-iso15118", "everest", "maeve", "citrineos"]),
    help="Write the folder that another charging stack starts with, private keys in the clear included.",
)
@click.option("--prefix", metavar="P", help="With --layout: of the CAs' names, as `ca create-hierarchy` gave them.")
@click.option(
    "--leaf",
    "leaves",
    multiple=True,
    metavar="ROLE=CERT[,KEY]",
    help="With --layout: a leaf and its key, as `cert issue` wrote them; ROLE is secc, csms, charging-station, "
    "oem-provisioning, contract or cps; repeatable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json-lines", "json", "csv", "pem", "pkcs12"]),
    help="json-lines by default, json with --json; csv, pem and pkcs12 hold certificates alone.",
)
@filter_options
@click.option("--with-pem", is_flag=True, help="JSON holds each certificate as PEM too.")
@click.option("--with-provenance", is_flag=True, help="JSON and CSV tell where an import found each certificate too.")
@click.option("--with-verdict", is_flag=True, help="JSON holds what each rule said when a certificate was requested.")
@click.option(
    "--pkcs12-passphrase-file", metavar="PATH|-", help="Protects the PKCS#12 file; without it, anybody can open it."
)
@pass_state
def export(
    state: GlobalState,
    out: str | None,
    layout: str | None,
    prefix: str | None,
    leaves: tuple[str, ...],
    form: str | None,
    where: str | None,
    query: str | None,
    at: datetime | None,
    with_pem: bool,
    with_provenance: bool,
    with_verdict: bool,
    pkcs12_passphrase_file: str | None,
) -> None:
    """Write everything that is on record, the certificates that a filter asks for, or another stack's folder.

    CAs, certificates, stations, firmware releases, operations and security events.

    No key and no password hash is in it, except in the folder of a --layout. Certificates come by id, as one committed
    state has them; the columns are in the guide "Take over an unknown PKI". A cell of CSV that a spreadsheet would run
    begins with an apostrophe.
    """
    from chargepki.cli.exporting import Form, export_chunks, write_chunks
    from chargepki.cli.results import check_folder

    if layout is not None or prefix is not None or leaves:
        others = (form, where, query, at, with_pem, with_provenance, with_verdict, pkcs12_passphrase_file)
        _lay_out(state, layout, prefix, out, leaves, others=others)
        return
    chosen = Form(form or ("json" if state.json else "json-lines"))
    for name, is_given in (("--with-pem", with_pem), ("--with-verdict", with_verdict)):
        if is_given and chosen not in (Form.JSON, Form.JSON_LINES):
            raise click.UsageError(f"{name} goes with --format json and json-lines")
    if with_provenance and chosen in (Form.PEM, Form.PKCS12):
        raise click.UsageError("--with-provenance goes with --format json, json-lines and csv")
    if pkcs12_passphrase_file is not None and chosen is not Form.PKCS12:
        raise click.UsageError("--pkcs12-passphrase-file goes with --format pkcs12")
    check_folder("--out", out)
    secret = None if pkcs12_passphrase_file is None else read_passphrase(pkcs12_passphrase_file, warn=state.output.say)
    wanted = wanted_of(state, where, query, at)
    chunks = export_chunks(
        state.workspace.inventory,
        chosen,
        combined(wanted),
        everything=not wanted,
        with_pem=with_pem,
        with_verdict=with_verdict,
        provenance=with_provenance,
        passphrase=secret,
    )
    write_chunks(state, chunks, out, is_binary=chosen is Form.PKCS12)


add_check(inventory)
add_questions(inventory)
add_report(inventory)
add_report_account(inventory)
add_watch(inventory)


def _lay_out(
    state: GlobalState,
    layout: str | None,
    prefix: str | None,
    out: str | None,
    leaves: tuple[str, ...],
    *,
    others: tuple[object, ...],
) -> None:
    from chargepki.cli.laying_out import write_layout
    from chargepki.pki.layouts import Layout

    if layout is None or prefix is None or out is None or out == "-":
        raise click.UsageError("a folder of another stack takes --layout, --prefix and --out DIR")
    if any(others):
        raise click.UsageError("--layout goes with --prefix, --leaf and --out alone")
    write_layout(state, Layout(layout), prefix=prefix, out=out, leaves=leaves)
