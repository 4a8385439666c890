"""``chargepki vehicle``: vehicles that contracts can be provisioned to, and the roots of their manufacturers."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["vehicle"]

_ROOT_COLUMNS = ("use", "subject", "state", "manufacturers", "source", "sha256")


def _stand_in(command: Any) -> Any:
    """Add the options that stand in for what a vehicle has."""
    roots = click.option(
        "--v2g-root",
        "v2g_roots",
        multiple=True,
        required=True,
        metavar="F",
        help="V2G root that the vehicle has; repeatable.",
    )
    return click.option("--key", required=True, metavar="F", help="The private key of --cert.")(roots(command))


@group("vehicle", example="chargepki vehicle import WAUABC12345678901D.pem")
def vehicle() -> None:
    """Keep vehicles by the PCID of their provisioning certificate, and stand in for one without a car."""


@vehicle.command(
    "import", writes="change", example="chargepki vehicle import WAUABC12345678901D.pem --crl oem-sub2.crl"
)
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--crl", "crls", multiple=True, metavar="F", help="Revocation list about the chain; repeatable.")
@click.option("--ocsp-response", "ocsp_responses", multiple=True, metavar="F", help="OCSP response (DER); repeatable.")
@click.option("--dry-run", is_flag=True, help="Judge them, keep none.")
@pass_state
def import_vehicles(state: GlobalState, /, **options: Any) -> None:
    """Admit the certificate in each FILE: PEM, the leaf first, then its sub-CAs.

    Either a provisioning certificate (its CN is the PCID), or a vehicle certificate of ISO 15118-20 (the EVCCID), with
    which a vehicle opens its TLS connection. Checked are manufacturer, validity of every certificate, revocation, and
    the chain to a root of a manufacturer: one of ours, or one of `vehicle add-root`. Files that are refused are told,
    and the rest go on; exit 3 if any was.
    """
    from chargepki.cli.vehicle_work import import_files

    import_files(state, options)


@vehicle.command("list", example="chargepki vehicle list --json")
@pass_state
def list_vehicles(state: GlobalState) -> None:
    """List provisioning certificates by PCID with the contracts of each vehicle, and vehicle certificates by EVCCID."""
    from chargepki.cli.vehicle_work import VEHICLE_COLUMNS, vehicle_rows

    state.output.rows("chargepki/vehicle-list", VEHICLE_COLUMNS, vehicle_rows(state), key="vehicles")


@vehicle.command("show", example="chargepki vehicle show WAUABC12345678901D")
@click.argument("pcid", metavar="PCID|EVCCID")
@pass_state
def show(state: GlobalState, pcid: str) -> None:
    """Show a vehicle: its certificates, and by its PCID the contracts that it may have."""
    from chargepki.cli.vehicle_work import show_vehicle

    show_vehicle(state, pcid)


@vehicle.command("remove", writes="change", example="chargepki vehicle remove WAUABC12345678901D")
@click.argument("pcid", metavar="PCID|EVCCID")
@click.option("--dry-run", is_flag=True, help="Say what would go, change nothing.")
@pass_state
def remove(state: GlobalState, pcid: str, dry_run: bool) -> None:
    """Provision nothing more to the vehicle PCID and withdraw its offers, or let go of the certificates of EVCCID."""
    from chargepki.cli.vehicle_work import remove_vehicle

    remove_vehicle(state, pcid, dry_run=dry_run)


@vehicle.command(
    "add-root",
    writes="change",
    example="chargepki vehicle add-root oem.pem --use oem --fingerprint 3f2a… --source 'letter of 2026-03-01' \\\n"
    "    --manufacturer WAU",
)
@click.argument("file", metavar="FILE")
@click.option(
    "--use", type=click.Choice(("oem", "v2g", "mo")), default="oem", show_default=True, help="What it is believed for."
)
@click.option("--fingerprint", required=True, metavar="HEX", help="SHA-256, as its owner told it on another way.")
@click.option("--source", required=True, metavar="TEXT", help="Where file and fingerprint came from.")
@click.option(
    "--manufacturer",
    "manufacturers",
    multiple=True,
    metavar="WMI",
    help="Whose vehicles it certifies; repeatable; any by default.",
)
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def add_root(state: GlobalState, /, **options: Any) -> None:
    """Believe the root certificate in FILE; roots of ours are believed without.

    An oem root certifies vehicles, an mo root contracts, a v2g root both. `csms serve` follows at once.
    """
    from chargepki.cli.vehicle_work import add_root

    add_root(state, options)


@vehicle.command("roots", example="chargepki vehicle roots")
@pass_state
def roots(state: GlobalState) -> None:
    """List the roots of others that were added, withdrawn ones included."""
    from chargepki.cli.vehicle_work import root_row

    rows = map(root_row, state.workspace.inventory.list_role_roots())
    state.output.rows("chargepki/vehicle-root-list", _ROOT_COLUMNS, rows, key="roots")


@vehicle.command("withdraw-root", writes="change", example="chargepki vehicle withdraw-root 3f2a…")
@click.argument("sha256", metavar="SHA256")
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def withdraw_root(state: GlobalState, sha256: str, dry_run: bool) -> None:
    """Believe the root with this fingerprint no more; what is below it is refused from now on."""
    from chargepki.cli.vehicle_work import withdraw_root

    withdraw_root(state, sha256, dry_run=dry_run)


@vehicle.command(
    "request",
    example="chargepki vehicle request --cert car.pem --key car.key --v2g-root v2g.pem -o request.exi",
)
@click.option(
    "--cert",
    required=True,
    metavar="F",
    help="Provisioning certificate, or contract with --update; PEM, leaf first, with sub-CAs.",
)
@_stand_in
@click.option(
    "--maximum", type=click.IntRange(0, 255), default=1, help="Contracts that it has room for (-20); 1 by default."
)
@click.option(
    "--prioritize", "prioritized", multiple=True, metavar="EMAID", help="Contract that it wants first (-20); up to 8."
)
@click.option("--update", is_flag=True, help="Ask for a new certificate of the contract that --cert is (-2).")
@click.option("--out", "-o", metavar="F", help="File for the request.")
@pass_state
def request(state: GlobalState, /, **options: Any) -> None:
    """Sign a request for a contract as a vehicle does, to try a back end without a car.

    A key on secp256r1 makes it one of ISO 15118-2, on secp521r1 or Ed448 one of ISO 15118-20.
    """
    from chargepki.cli.vehicle_work import write_request

    write_request(state, options)


@vehicle.command(
    "open",
    verdict=True,
    example="chargepki vehicle open res.exi --cert car.pem --key car.key --v2g-root v2g.pem --key-out contract.key",
)
@click.argument("response", metavar="FILE|-")
@click.option("--cert", required=True, metavar="F", help="The certificate that the request was signed with.")
@_stand_in
@click.option("--agreement-key", metavar="F", help="With an Ed448 key: that of its second public key, for X448 (PEM).")
@click.option("--key-out", metavar="F", help="File for the contract key (Ed448: its scalar in hex); not overwritten.")
@click.option("--chain-out", metavar="F", help="File for the contract chain, PEM, leaf first.")
@pass_state
def open_response(state: GlobalState, /, **options: Any) -> None:
    """Open the response to a request as a vehicle must: exit 0 when it gets a contract, 1 when it must discard it."""
    from chargepki.cli.vehicle_work import open_response

    open_response(state, options)
