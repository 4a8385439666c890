"""``chargepki ca``: create and look at certificate authorities."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.ca_ceremony import add_ceremony
from chargepki.cli.ca_chain import add_chain
from chargepki.cli.ca_importing import add_import
from chargepki.cli.ca_keys import add_keys
from chargepki.cli.ca_offline import add_offline
from chargepki.cli.ca_plan import add_plan
from chargepki.cli.ca_rollover import add_rollover
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.row_filtering import asked_of, row_options, show_page
from chargepki.cli.values import DURATION, SUBJECT, parse_algorithm

if TYPE_CHECKING:
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.records import CaRecord
    from chargepki.pki.template import Criticality

__all__ = ["ca"]


@group("ca", example="chargepki ca create acme-root --profile ocpp/cso-root --subject 'CN=Acme Root,O=Acme,C=DE'")
def ca() -> None:
    """Create, roll over and look at certificate authorities."""


@ca.command(
    "create",
    writes="create",
    example="chargepki ca create acme-sub --profile ocpp/cso-sub --issuer acme-root --subject 'CN=Acme Sub,O=Acme'",
)
@click.argument("name")
@click.option("--profile", required=True, metavar="ID", help="Certificate profile, see `chargepki profile list`.")
@click.option("--issuer", metavar="NAME", help="CA that signs it; a root has none.")
@click.option("--subject", type=SUBJECT, metavar="RDNS", help="CN=…,O=…,C=…,DC=…; the CN defaults to NAME.")
@click.option("--validity", type=DURATION, metavar="4y", help="90s 60m 12h 30d 4y; the profile's default otherwise.")
@click.option("--key", "algorithm", metavar="ALG", help="Key algorithm, for example secp256r1 or rsa3072.")
@click.option("--key-uri", metavar="pkcs11:…", help="Use this key of a token (RFC 7512) instead of making one.")
@click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)
@click.option(
    "--crl-shard-size",
    "shard_size",
    type=int,
    metavar="N",
    help="Cut its CRL into shards of N certificates (750 at most), each under 64 KiB; one full CRL otherwise.",
)
@click.option(
    "--crl-delta", "delta", type=DURATION, metavar="24h", help="Also publish delta CRLs, valid for so long (1h to 7d)."
)
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge and lint, print what would be signed, change nothing.")
@pass_state
def create(
    state: GlobalState,
    /,
    name: str,
    profile: str,
    issuer: str | None,
    subject: tuple[tuple[str, str], ...] | None,
    validity: timedelta | None,
    algorithm: str | None,
    key_uri: str | None,
    criticality: Criticality,
    shard_size: int | None,
    delta: timedelta | None,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Create the CA NAME: make its key, have its certificate signed, activate it.

    An interrupted creation is continued by the same command.
    """
    from chargepki.cli.cautions import ca_warnings, tell_warnings
    from chargepki.cli.creating import judge_new_ca, show_preview
    from chargepki.cli.values import whole_hours
    from chargepki.pki.authority import CaOrder
    from chargepki.pki.authority.shards import CrlSettings

    order = CaOrder(
        name=name,
        profile=profile,
        issuer=issuer,
        subject=subject or (),
        validity=validity,
        key_algorithm=parse_algorithm(algorithm),
        criticality=criticality,
        crls=CrlSettings(shard_size, whole_hours(delta)),
        key_uri=key_uri,
    )
    if dry_run:
        state.rehearse()
        show_preview(state, order)
        return
    # Nothing is created for an order that is refused, nor for a passphrase that is missing or mistyped.
    judge_new_ca(state, order)
    with approving(state, **brought):
        if key_uri is None and brought["request_approval"] is None:
            state.workspace.check_passphrase()
        record = state.workspace.authority.create_ca(order)
    state.output.say(f"created {record.id}")
    warnings = ca_warnings(state.workspace.inventory, record)
    tell_warnings(state, warnings)
    row = ca_row(record)
    if state.output.for_machines:
        row["warnings"] = warnings
    state.output.fields("chargepki/ca", row)


@ca.command(
    "create-hierarchy",
    writes="create",
    example="chargepki ca create-hierarchy iso15118-2 --prefix acme --organization 'Acme Charging' --country DE",
)
@click.argument("standard")
@click.option("--prefix", required=True, metavar="P", help="CAs are named P-v2g-root, P-cpo-sub1 and so on.")
@click.option("--organization", required=True, metavar="O", help="Organisation in every subject.")
@click.option("--country", required=True, metavar="CC", help="Two-letter country code in every subject.")
@click.option("--key", "algorithm", metavar="ALG", help="Key algorithm of all; the standard's default otherwise.")
@click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)
@approval_options
@click.option("--dry-run", is_flag=True, help="Make all with throw-away keys, print them, change nothing.")
@pass_state
def create_hierarchy(
    state: GlobalState,
    /,
    standard: str,
    prefix: str,
    organization: str,
    country: str,
    algorithm: str | None,
    criticality: Criticality,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Create all roots and sub-CAs of STANDARD; those that exist already are left as they are.

    STANDARD is the first half of a profile id, for example ocpp, iso15118-2 or iso15118-20.
    """
    from chargepki.cli.cautions import tell_warnings
    from chargepki.cli.creating import HierarchyOrder, create_all, rehearse_hierarchy
    from chargepki.cli.output import counted

    order = HierarchyOrder(standard, prefix, organization, country, parse_algorithm(algorithm), criticality)
    if dry_run:
        state.rehearse()
    # A hierarchy is made in a throw-away workspace first: refused as a whole, or created as a whole.
    made = rehearse_hierarchy(state, order) if dry_run or not state.workspace.exists else None
    if not dry_run:
        with approving(state, **brought):
            if brought["request_approval"] is None:
                state.workspace.check_passphrase()
            made = create_all(state, state.workspace, order)
    assert made is not None
    if not dry_run:
        existed = f", {made.existed} existed already" if made.existed else ""
        state.output.say(f"created {counted(len(made.records) - made.existed, 'CA')}{existed}")
    tell_warnings(state, (warning for found in made.warnings for warning in found))
    rows = [ca_row(record) for record in made.records]
    if state.output.for_machines:
        rows = [{**row, "warnings": found} for row, found in zip(rows, made.warnings, strict=True)]
    state.output.rows("chargepki/ca-list", _COLUMNS, rows, key="cas")


@ca.command("connect", writes="create", example="chargepki ca connect hub --profile iso15118-2/cpo-sub2")
@click.argument("name")
@click.option("--profile", "profile_id", required=True, metavar="ID", help="Profile of the CA that issues there.")
@click.option("--dry-run", is_flag=True, help="Fetch and judge its chain, print it, change nothing.")
@pass_state
def connect(state: GlobalState, name: str, profile_id: str, dry_run: bool) -> None:
    """Connect a CA that is not ours and is reached over EST, so that orders can name it.

    The table [est.ca.NAME] of chargepki.toml says where it is: url, trust, user and password_file, or certificate and
    key. Repeat this when that CA has a new certificate: the new one is another generation.
    """
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.external import connect_ca
    from chargepki.pki.services.est_outside import client_of

    certificates = client_of(name, state.settings.home).get_cacerts()
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    record = connect_ca(workspace.inventory, name, profile_id, certificates, actor=workspace.actor, now=utc_now())
    if not dry_run:
        state.output.say(f"connected {record.id}; orders may name it: chargepki cert issue --ca {name} …")
    state.output.fields("chargepki/ca", {**ca_row(record), "fingerprint_sha256": _fingerprint(record)})


@ca.command("list", example="chargepki ca list --json")
@click.option("--foreign", is_flag=True, help="Also those known only as issuers of imported certificates.")
@row_options
@pass_state
def list_cas(
    state: GlobalState,
    foreign: bool,
    where: str | None,
    query: str | None,
    at: datetime | None,
    limit: int,
    after: str | None,
) -> None:
    """List every CA and generation by id, and where its key is."""
    from chargepki.pki.inventory.row_fields import keep_rows

    inventory = state.workspace.inventory
    asked = asked_of(state, "ca", where, query, at)
    if next(inventory.list_cas(foreign=foreign), None) is None:
        state.output.say("no CA yet; create some with: chargepki ca create-hierarchy STANDARD …")
    rows = keep_rows(map(ca_row, inventory.list_cas(foreign=foreign, after=after)), asked)
    show_page(state, "chargepki/ca-list", _COLUMNS, rows, key="cas", limit=limit)


@ca.command("show", example="chargepki ca show acme-sub")
@click.argument("name")
@pass_state
def show(state: GlobalState, name: str) -> None:
    """Show the newest generation of CA NAME, or the generation NAME@N."""
    inventory = state.workspace.inventory
    record = inventory.get_ca(name)
    row = ca_row(record)
    row["fingerprint_sha256"] = _fingerprint(record)
    row["certificates"] = _counts(inventory, record)
    latest = inventory.latest_crl(record.id)
    row["crl_number"] = latest.number if latest else None
    row["crl_next_update"] = latest.next_update if latest else None
    row["crl_shards"] = inventory.last_shard_number(record.id)
    if state.output.for_machines:
        # A person gets it from `ca chain`; here it would push everything else off the screen.
        row["certificate_pem"] = _pem(record)
    state.output.fields("chargepki/ca", row)


_COLUMNS = ("id", "profile", "state", "key", "issuer", "not_after", "subject")


def ca_row(record: CaRecord) -> dict[str, Any]:
    """Return *record* as the object that ``--json`` prints; never a key, only where it is."""
    return {
        "id": record.id,
        "name": record.name,
        "generation": record.generation,
        "profile": record.profile,
        "state": record.state,
        "issuer": record.issuer,
        "subject": record.subject,
        "not_before": record.not_before,
        "not_after": record.not_after,
        "key": record.key_uri,
        "public_url": record.public_url,
        "spki_sha256": record.spki_sha256,
        "created_at": record.created_at,
        "crl_shard_size": record.crl_shard_size,
        "crl_delta_hours": record.crl_delta_hours,
    }


def _pem(record: CaRecord) -> str | None:
    from chargepki.pki.der import to_pem

    return to_pem("CERTIFICATE", record.certificate_der) if record.certificate_der else None


def _fingerprint(record: CaRecord) -> str | None:
    import hashlib

    return hashlib.sha256(record.certificate_der).hexdigest() if record.certificate_der else None


def _counts(inventory: Inventory, record: CaRecord) -> dict[str, int]:
    return {state.value: count for state, count in inventory.count_certificates(record.id).items()}


add_chain(ca)
add_import(ca)
add_keys(ca)
add_rollover(ca)
add_plan(ca)
add_offline(ca)
add_ceremony(ca)
