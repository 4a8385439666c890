"""``chargepki contract``: contracts of drivers, and the certificates that vehicles get for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import INSTANT

__all__ = ["contract"]

_COLUMNS = ("emaid", "state", "ends_at", "vehicles", "certificates")


@group("contract", example="chargepki contract create DE-8AA-A1B2C3D4E --vehicle WAUABC12345678901D")
def contract() -> None:
    """Create contracts (EMAID), offer them to vehicles, answer their requests, and end them (Plug & Charge)."""


@contract.command("create", writes="change", example="chargepki contract create DE-8AA-A1B2C3D4E --ends 2028-01-01")
@click.argument("emaid", metavar="EMAID")
@click.option(
    "--ends", type=INSTANT, metavar="T", help="No certificate of it is valid for longer; open-ended by default."
)
@click.option("--vehicle", "vehicles", multiple=True, metavar="PCID", help="Offer it to this vehicle; repeatable.")
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def create(state: GlobalState, emaid: str, ends: datetime | None, vehicles: tuple[str, ...], dry_run: bool) -> None:
    """Create the contract EMAID: with or without hyphens and check digit. An EMAID is never given twice."""
    from chargepki.cli.contracting import create_contract

    create_contract(state, emaid, ends=ends, vehicles=vehicles, dry_run=dry_run)


@contract.command(
    "offer", writes="change", example="chargepki contract offer DE-8AA-A1B2C3D4E --vehicle WAUABC12345678901D"
)
@click.argument("emaid", metavar="EMAID")
@click.option("--vehicle", required=True, metavar="PCID", help="The vehicle, which has been imported.")
@click.option("--priority", type=click.IntRange(0, 1_000_000), default=0, help="Lower numbers first; 0 by default.")
@click.option("--withdraw", is_flag=True, help="Take the offer back; what the vehicle has is not touched.")
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def offer(state: GlobalState, emaid: str, vehicle: str, priority: int, withdraw: bool, dry_run: bool) -> None:
    """Let a vehicle have the contract EMAID when it asks.

    Offering it again lets the vehicle ask with a request whose answer is worth nothing any more.
    """
    from chargepki.cli.contracting import offer_contract

    offer_contract(state, emaid, vehicle, priority=priority, withdraw=withdraw, dry_run=dry_run)


@contract.command("list", example="chargepki contract list --state active --json")
@click.option("--state", "wanted", type=click.Choice(("active", "ended")), help="Only those.")
@click.option("--vehicle", metavar="PCID", help="Only those offered to this vehicle.")
@pass_state
def list_contracts(state: GlobalState, wanted: str | None, vehicle: str | None) -> None:
    """List the contracts with the vehicles that they are offered to and the number of their valid certificates."""
    from chargepki.cli.contracting import contract_rows

    state.output.rows("chargepki/contract-list", _COLUMNS, contract_rows(state, wanted, vehicle), key="contracts")


@contract.command("show", example="chargepki contract show DE-8AA-A1B2C3D4E")
@click.argument("emaid", metavar="EMAID")
@pass_state
def show(state: GlobalState, emaid: str) -> None:
    """Show the contract EMAID: its offers, and every answer that was given to a vehicle."""
    from chargepki.cli.contracting import show_contract

    show_contract(state, emaid)


@contract.command(
    "revoke", writes="change", example="chargepki contract revoke DE-8AA-A1B2C3D4E --reason cessationOfOperation"
)
@click.argument("emaid", metavar="EMAID")
@click.option("--reason", default=None, metavar="R", help="RFC 5280's name; cessationOfOperation by default.")
@click.option("--superseded", is_flag=True, help="Revoke all but its newest certificate; the contract lives on.")
@click.option("--dry-run", is_flag=True, help="Say what would end, change nothing.")
@pass_state
def revoke(state: GlobalState, emaid: str, reason: str | None, superseded: bool, dry_run: bool) -> None:
    """End the contract EMAID for good, and revoke its certificates in the same transaction."""
    from chargepki.cli.contracting import revoke_contract

    revoke_contract(state, emaid, reason, superseded=superseded, dry_run=dry_run)


@contract.command(
    "provision",
    writes="change",
    example="chargepki contract provision req.exi --contract-ca acme-mo-sub2 --cps-ca acme-cps-sub2 -o res.exi",
)
@click.argument("request", metavar="FILE|-")
@click.option(
    "--contract-ca",
    "contract_cas",
    multiple=True,
    metavar="CA",
    help="Issues contract certificates; one of each standard and key algorithm.",
)
@click.option(
    "--cps-ca", "cps_cas", multiple=True, metavar="CA", help="Sub-CA of the provisioning service; repeatable."
)
@click.option(
    "--cps-cert",
    "cps_certs",
    multiple=True,
    metavar="F",
    help="Chain of a provisioning service made elsewhere (PEM, leaf first).",
)
@click.option("--cps-key", "cps_keys", multiple=True, metavar="F", help="Key of the --cps-cert at the same place.")
@click.option(
    "--crl", "crls", multiple=True, metavar="F", help="Revocation list about certificates of others; repeatable."
)
@click.option(
    "--ocsp-response", "ocsp_responses", multiple=True, metavar="F", help="OCSP response about them (DER); repeatable."
)
@click.option(
    "--characters",
    type=click.IntRange(1000, 100_000),
    default=17_000,
    help="Of base64 that the answer may have; 17000 by default.",
)
@click.option("--out", "-o", metavar="F", help="File for the response.")
@click.option("--dry-run", is_flag=True, help="Judge the request, make nothing.")
@pass_state
def provision(state: GlobalState, /, **options: Any) -> None:
    """Answer a vehicle's request for its contract, as `csms serve --contract-ca` does.

    FILE is CertificateInstallationReq or CertificateUpdateReq: the bytes of the EXI stream, or base64 of them. The
    request is judged before anything is made. The same request again brings the same certificate.
    """
    from chargepki.cli.contracting import provision_request

    provision_request(state, options)
