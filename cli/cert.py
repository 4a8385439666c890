"""``chargepki cert``: issue, renew, list, show, revoke, release and verify certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.cert_batch import add_issue_batch
from chargepki.cli.cert_renew import add_renew
from chargepki.cli.counting import add_count
from chargepki.cli.filtering import before, combined, equals, wanted_of
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.row_filtering import row_options, show_page
from chargepki.cli.values import DURATION, INSTANT, SUBJECT, find_certificate, read_certificate_file
from chargepki.cli.verifying import add_verify

if TYPE_CHECKING:
    from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["cert"]

_COLUMNS = ("id", "profile", "state", "not_after", "subject", "station")


@group("cert", example="chargepki cert issue --ca acme-cso-sub --profile ocpp/charging-station --csr station.csr")
def cert() -> None:
    """Issue, renew, list, show, revoke, release and verify certificates."""


add_verify(cert)
add_count(cert)
add_issue_batch(cert)
add_renew(cert)


@cert.command(
    "issue",
    writes="change",
    example="chargepki cert issue --ca acme-cso-sub --profile ocpp/charging-station --csr station.csr --out leaf.pem",
)
@click.option("--ca", required=True, metavar="NAME", help="Issuing CA; there is no default.")
@click.option("--profile", required=True, metavar="ID", help="Certificate profile, see `chargepki profile list`.")
@click.option("--csr", metavar="FILE|-", help="PKCS#10 request, PEM or DER.")
@click.option("--new-key", is_flag=True, help="Make a key here instead of taking a CSR; needs --key-out.")
@click.option("--key", "algorithm", metavar="ALG", help="Algorithm of the new key.")
@click.option(
    "--key-out",
    metavar="F",
    help="File for the new key (PKCS#8, mode 0600, never overwritten); F.part until the certificate is written.",
)
@click.option("--subject", type=SUBJECT, metavar="RDNS", help="Replaces the subject of the request.")
@click.option("--validity", type=DURATION, metavar="60d", help="90s 60m 12h 30d 4y.")
@click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)
@click.option("--dns", "dns_names", multiple=True, metavar="NAME", help="dNSName (profile ocpp/csms); repeatable.")
@click.option("--station", metavar="ID", help="Station that the certificate belongs to.")
@click.option("--request-id", metavar="ID", help="A repeat with the same id returns the same certificate.")
@click.option("--again", is_flag=True, help="Make another certificate for a request that was answered.")
@click.option("--out", "-o", metavar="F", help="File for the leaf (PEM).")
@click.option("--chain-out", metavar="F", help="File for the chain (PEM): leaf first, no root.")
@click.option("--dry-run", is_flag=True, help="Judge and lint, print what would be signed, change nothing.")
@pass_state
def issue(state: GlobalState, /, **options: Any) -> None:
    """Issue one certificate from a CSR, or for a key made here.

    The certificate is durable in the inventory before it is written anywhere. The same request again returns the
    same certificate while it is valid and unrevoked.
    """
    from chargepki.cli.issuing import (
        explain_unwritten,
        hand_out_key,
        key_for,
        make_order,
        preview,
        read_csr,
        write_issued,
    )
    from chargepki.cli.results import check_folder

    if {options["csr"], state.settings.passphrase_file} == {"-"}:
        raise click.UsageError("standard input cannot be both the request and the passphrase")
    order = make_order(options, read_csr=read_csr)
    for option in ("key_out", "out", "chain_out"):
        check_folder(f"--{option.replace('_', '-')}", options[option])
    if options["dry_run"]:
        state.rehearse()
        preview(state, order, options)
        return
    authority = state.workspace.authority
    # What a crash left reserved is completed first, so that the inventory is whole before it grows.
    authority.recover(order.ca)
    order = key_for(state, order, options)
    issued = authority.issue(order)
    with explain_unwritten(issued, options):
        by_default = options["validity"] is None and not issued.repeated
        write_issued(state, issued, out=options["out"], chain_out=options["chain_out"], by_default=by_default)
        hand_out_key(state, options)


@cert.command(
    "list",
    example="chargepki cert list --ca acme-cso-sub --state issued --expires-before 2027-01-01T00:00:00Z\n"
    "chargepki cert list --where \"profile = 'ocpp/charging-station' and not_after < now + 30d and country = 'DE'\"",
)
@click.option("--ca", metavar="NAME", help="Only certificates of this CA.")
@click.option("--profile", metavar="ID", help="Only certificates of this profile.")
@click.option("--state", "wanted_state", metavar="STATE", help="reserved, issued, revoked or voided.")
@click.option("--station", metavar="ID", help="Only certificates of this station.")
@click.option("--expires-before", type=INSTANT, metavar="T", help="Only those whose notAfter lies before T.")
@row_options
@click.option("--with-verdict", is_flag=True, help="JSON holds what each rule said when a certificate was requested.")
@pass_state
def list_certificates(
    state: GlobalState,
    /,
    ca: str | None,
    profile: str | None,
    wanted_state: str | None,
    station: str | None,
    expires_before: datetime | None,
    where: str | None,
    query: str | None,
    at: datetime | None,
    limit: int,
    after: str | None,
    with_verdict: bool,
) -> None:
    """List certificates, by issuing CA and serial."""
    if with_verdict and not state.output.for_machines:
        raise click.UsageError("--with-verdict goes with --json and --json-lines; `cert show` tells it to people")
    if profile is not None and profile != "foreign":  # the profile of what was imported
        from chargepki.pki.profiles import get_profile

        get_profile(profile)  # A misspelt one would be answered by an empty list.
    inventory = state.workspace.inventory
    issuer = inventory.get_ca(ca).id if ca else None
    chosen = _state(wanted_state)
    if where is None and query is None and expires_before is None:
        records = inventory.list_certificates(
            ca=issuer, profile=profile, state=chosen, station=station, after=after, limit=limit + 1
        )
    else:
        wanted = wanted_of(state, where, query, at)
        for name, value in (("ca", issuer), ("profile", profile), ("state", chosen), ("station", station)):
            wanted += equals(name, value)
        wanted += before("not_after", expires_before)
        records = inventory.find_certificates(combined(wanted), after=after, limit=limit + 1)
    rows: Iterable[dict[str, Any]] = map(certificate_row, records)
    if with_verdict:
        rows = ({**row, "verdict": verdict_rows(inventory.get_certificate(row["id"]).verdict)} for row in rows)
    show_page(state, "chargepki/certificate-list", _COLUMNS, rows, key="certificates", limit=limit)


@cert.command("show", example="chargepki cert show acme-cso-sub:5f0c9a")
@click.argument("certificate", metavar="SERIAL|FILE")
@pass_state
def show(state: GlobalState, certificate: str) -> None:
    """Show a certificate of the inventory by its serial, or the one in a file (any issuer)."""
    from chargepki.cli.describing import describe_certificate
    from chargepki.cli.revoking import describe_ours, describe_places

    found = read_certificate_file(certificate)
    if found is not None:
        described = describe_certificate(found)
        state.output.fields("chargepki/certificate", described | describe_ours(state, described["sha256"]))
        return
    record = find_certificate(state.workspace.inventory, certificate)
    row = certificate_row(record) | {"verdict": verdict_rows(record.verdict)}
    if record.der is not None:
        row |= describe_certificate(record.der)
        if record.origin == "issued":
            del row["looks_like"]  # A guess for foreign certificates; of ours the profile is known.
    row |= describe_places(state.workspace.inventory, record.id)
    state.output.fields("chargepki/certificate", row)


@cert.command("revoke", writes="change", example="chargepki cert revoke acme-cso-sub:5f0c9a --reason keyCompromise")
@click.argument("certificate", metavar="SERIAL|FILE")
@click.option(
    "--reason",
    required=True,
    metavar="R",
    help="RFC 5280 name, for example keyCompromise or superseded; certificateHold can be released again.",
)
@click.option("--revoked-at", type=INSTANT, metavar="T", help="When it became invalid; now by default.")
@click.option(
    "--invalidity-date", type=INSTANT, metavar="T", help="Since when the key may have been compromised; not later."
)
@click.option("--publish", is_flag=True, help="Return only when what is served tells of it; otherwise fail (exit 4).")
@click.option(
    "--wait",
    type=DURATION,
    metavar="60s",
    default="60s",
    show_default=True,
    help="With --publish: how long another process may take that holds the key.",
)
@click.option(
    "--record-only", is_flag=True, help="The CA is not ours (`ca connect`) and has revoked it: put that on record."
)
@click.option("--yes", is_flag=True, help="Do not ask before a CA certificate is revoked.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def revoke(state: GlobalState, /, certificate: str, reason: str, **options: Any) -> None:
    """Revoke a certificate, named by its serial or by a file that holds it, and publish its CA's CRL.

    A station that is connected with it loses its connection at once. Repeating it is harmless. Another reason is
    refused, unless it was certificateHold, or the key turns out to be compromised. What the CA of somebody else has
    issued is for that CA to revoke; --record-only tells our record of it.
    """
    _check_publish(options)
    from chargepki.cli.revoking import (
        confirm_ca_revocation,
        find_operand,
        tell_other_certificates,
    )

    dry_run: bool = options["dry_run"]
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    record = find_operand(workspace.inventory, certificate)
    brought = {name: options.pop(name) for name in ("approvals", "request_approval")}
    is_asking = brought["request_approval"] is not None
    radius = confirm_ca_revocation(state, record, yes=options["yes"] or is_asking, dry_run=dry_run)
    with approving(state, **brought):
        revoked = workspace.authority.revoke(
            record.id,
            reason,
            revoked_at=options["revoked_at"],
            invalidity_date=options["invalidity_date"],
            record_only=options["record_only"],
        )
    row = certificate_row(revoked)
    if radius is not None:
        row["untrusted"] = {"certificates": radius.certificates, "sub_cas": list(radius.sub_cas)}
    if dry_run:
        state.output.fields("chargepki/certificate", row)
        return
    if record.revoked_at is not None and revoked == record:
        state.output.say(
            f"{revoked.id} was already revoked on {record.revoked_at:%Y-%m-%d %H:%M:%S}Z ({revoked.revocation_reason})"
        )
    else:
        state.output.say(f"revoked {revoked.id} ({revoked.revocation_reason})")
    row["crl_number"] = _publish(state, revoked, options)
    tell_other_certificates(state, revoked)
    state.output.fields("chargepki/certificate", row)


@cert.command("release", writes="change", example="chargepki cert release acme-cso-sub:5f0c9a")
@click.argument("certificate", metavar="SERIAL|FILE")
@click.option("--publish", is_flag=True, help="Return only when what is served tells of it; otherwise fail (exit 4).")
@click.option(
    "--wait",
    type=DURATION,
    metavar="60s",
    default="60s",
    show_default=True,
    help="With --publish: how long another process may take that holds the key.",
)
@click.option(
    "--record-only", is_flag=True, help="The CA is not ours (`ca connect`) and has released it: put that on record."
)
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def release(state: GlobalState, /, certificate: str, **options: Any) -> None:
    """Take a certificate off hold, so that it is valid again, and publish its CA's CRL.

    Only what was revoked with the reason certificateHold can be released. Repeating it is harmless.
    """
    from chargepki.cli.revoking import find_operand

    _check_publish(options)
    if options["dry_run"]:
        state.rehearse()
    record = find_operand(state.workspace.inventory, certificate)
    with approving(state, approvals=options["approvals"], request_approval=options["request_approval"]):
        released = state.workspace.authority.release(record.id, record_only=options["record_only"])
    row = certificate_row(released)
    if not options["dry_run"]:
        was_held = record.revoked_at is not None
        state.output.say(f"released {released.id}" if was_held else f"{released.id} is not on hold: nothing was done")
        row["crl_number"] = _publish(state, released, options)
    state.output.fields("chargepki/certificate", row)


def _check_publish(options: dict[str, Any]) -> None:
    if options["publish"] and options["record_only"]:
        raise click.UsageError("--publish does not go with --record-only: the lists are another CA's to publish")


def _publish(state: GlobalState, record: CertificateRecord, options: dict[str, Any]) -> int | None:
    from chargepki.cli.revoking import publish_or_explain, wait_until_published

    if options["record_only"]:
        state.output.say(f"recorded here; the lists of {record.ca} are its own to publish")
        return None
    crl = publish_or_explain(state, record.ca)
    if options["publish"]:
        wait_until_published(state, record, options["wait"])
        crl = state.workspace.inventory.latest_crl(record.ca)
        state.output.say(f"served: CRL {crl.number if crl else '-'} of {record.ca} tells of it")
    return crl.number if crl else None


def certificate_row(record: CertificateRecord) -> dict[str, Any]:
    """Return *record* as the object that ``--json`` prints."""
    return {
        "id": record.id,
        "ca": record.ca,
        "serial": record.serial,
        "origin": record.origin,
        "profile": record.profile,
        "state": record.state,
        "subject": record.subject,
        "not_before": record.not_before,
        "not_after": record.not_after,
        "sha256": record.sha256,
        "station": record.station,
        "delivery": record.delivery,
        "requester": record.requester,
        "request_key": record.request_key,
        "issued_at": record.issued_at,
        "revoked_at": record.revoked_at,
        "revocation_reason": record.revocation_reason,
        "invalidity_date": record.invalidity_date,
        "crl_shard": record.shard,
    }


def verdict_rows(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what every rule of the request policy said when a certificate was issued with this verdict."""
    request = verdict.get("request") or {}
    kept = verdict.get("record", ())
    return [
        *request.get("rules", ()),
        *({"rule": each, "outcome": "pass"} if isinstance(each, str) else each for each in kept),
    ]


def _state(text: str | None) -> Any:
    from chargepki.pki.errors import InputError
    from chargepki.pki.inventory.records import CertificateState

    if text is None:
        return None
    try:
        return CertificateState(text)
    except ValueError as error:
        known = ", ".join(item.value for item in CertificateState)
        raise InputError(f"unknown state {text[:40]!r}", why=f"known are {known}", fix="use one of these") from error
