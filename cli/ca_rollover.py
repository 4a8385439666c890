"""``chargepki ca rollover`` and ``ca cross-sign``: new generations of a CA, and certificates between roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION, parse_algorithm

if TYPE_CHECKING:
    from datetime import timedelta

    from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["add_rollover"]

_CRITICALITY = click.option(
    "--extension-criticality",
    "criticality",
    type=click.Choice(["profile", "rfc5280"]),
    default="profile",
    show_default=True,
    help="rfc5280 overrides what a profile marks critical against it; audited.",
)


@click.argument("name")
@click.option(
    "--issuer", metavar="NAME", help="CA that signs it; the newest generation of the present issuer otherwise."
)
@click.option("--validity", type=DURATION, metavar="4y", help="90s 60m 12h 30d 4y; the profile's default otherwise.")
@click.option("--key", "algorithm", metavar="ALG", help="Key algorithm; the present one otherwise.")
@click.option("--key-uri", metavar="pkcs11:…", help="Use this key of a token (RFC 7512) instead of making one.")
@click.option("--cross/--no-cross", default=True, help="Two generations of a root certify each other (default).")
@click.option("--cross-validity", type=DURATION, metavar="4y", help="How long; never beyond either CA.")
@click.option("--again", is_flag=True, help="Make another generation although the newest has certified nothing yet.")
@_CRITICALITY
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge and lint, print what would be signed, change nothing.")
@pass_state
def rollover(
    state: GlobalState,
    /,
    name: str,
    algorithm: str | None,
    approvals: tuple[str, ...],
    request_approval: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make the next generation of CA NAME, with a new key under the same subject, and move issuing to it.

    The generation before issues no more; it signs CRLs and OCSP answers until its certificate ends. Two generations of
    a root certify each other's keys, so that stations that hold only one of them believe what is below both. CAs below
    a root go on; each is moved by a rollover of its own.

    An interrupted rollover is completed by the same command. See `ca rollover-plan` for what stations need first.
    """
    from chargepki.cli.cautions import ca_warnings, tell_warnings
    from chargepki.pki.authority.rollover import RolloverOrder, preview_rollover, roll_over

    order = RolloverOrder(name=name, key_algorithm=parse_algorithm(algorithm), **options)
    if dry_run:
        from chargepki.cli.describing import describe_tbs

        state.rehearse()
        authority = state.workspace.authority
        profile = authority.inventory.get_ca(name).profile
        described = describe_tbs(preview_rollover(authority, order), profile=profile)
        state.output.fields("chargepki/certificate-preview", described)
        return
    with approving(state, approvals=approvals, request_approval=request_approval):
        if options["key_uri"] is None and request_approval is None:
            state.workspace.check_passphrase()
        found = roll_over(state.workspace.authority, order)
    before = found.before
    if found.repeated:
        state.output.say(
            f"{found.ca.id} follows {before.id} already and has certified nothing yet; --again makes another"
        )
    else:
        state.output.say(
            f"{found.ca.id} follows {before.id}, which is {before.state.value} and goes on for CRLs and OCSP"
        )
    warnings = ca_warnings(state.workspace.inventory, found.ca)
    tell_warnings(state, warnings)
    _tell_next(state, found.ca.name, is_root=found.ca.issuer is None)
    from chargepki.cli.ca import ca_row

    row = {
        **ca_row(found.ca),
        "succeeds": before.id,
        "succeeded_state": before.state,
        "new_with_old": _id(found.new_with_old),
        "old_with_new": _id(found.old_with_new),
        "repeated": found.repeated,
    }
    if state.output.for_machines:
        row["warnings"] = warnings
    state.output.fields("chargepki/ca-rollover", row)


def _id(record: CertificateRecord | None) -> str | None:
    return None if record is None else record.id


def _tell_next(state: GlobalState, name: str, *, is_root: bool) -> None:
    state.output.say(f"next: chargepki crl publish --ca {name}")
    if is_root:
        state.output.say(f"then: chargepki ca rollover-plan {name}")


@click.argument("name")
@click.option("--issuer", required=True, metavar="ROOT", help="The root that certifies it.")
@click.option("--validity", type=DURATION, metavar="4y", help="Never beyond either CA; four years at most otherwise.")
@click.option("--out", "-o", metavar="F", help="Also write the certificate to this file (PEM).")
@_CRITICALITY
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge and lint, print what would be signed, change nothing.")
@pass_state
def cross_sign(
    state: GlobalState,
    /,
    name: str,
    issuer: str,
    validity: timedelta | None,
    out: str | None,
    criticality: Any,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Have ROOT certify the key of the root NAME: whoever trusts ROOT then believes what is below NAME.

    Both are ours; NAME@N names a generation. A repeat returns the same certificate while it is valid. For the root of
    somebody else, pass its request to: chargepki cert issue --profile iso15118-20/cross (or common/cross).
    """
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki.authority.rollover import cross_sign_cas
    from chargepki.pki.der import to_pem

    check_folder("--out", out)
    if dry_run:
        from chargepki.cli.describing import describe_tbs
        from chargepki.pki.authority.rollover import preview_cross

        state.rehearse()
        tbs, profile = preview_cross(
            state.workspace.authority, name, issuer, validity=validity, criticality=criticality
        )
        state.output.fields("chargepki/certificate-preview", describe_tbs(tbs, profile=profile))
        return
    authority = state.workspace.authority
    with approving(state, **brought):
        record = cross_sign_cas(authority, name, issuer, validity=validity, criticality=criticality)
    assert record.der is not None
    if out is not None:
        write_result(state, to_pem("CERTIFICATE", record.der).encode(), out)
    state.output.say(f"{authority.inventory.get_ca(issuer).id} certifies {authority.inventory.get_ca(name).id}")
    row = {
        "id": record.id,
        "subject_ca": authority.inventory.get_ca(name).id,
        "issuer_ca": record.ca,
        "profile": record.profile,
        "subject": record.subject,
        "not_before": record.not_before,
        "not_after": record.not_after,
    }
    if state.output.for_machines:
        row["certificate_pem"] = to_pem("CERTIFICATE", record.der)
    state.output.fields("chargepki/cross-certificate", row)


def add_rollover(group: Any) -> None:
    """Register the commands with the noun ``ca``."""
    group.command("rollover", writes="change", example="chargepki ca rollover acme-cso-root --cross-validity 4y")(
        rollover
    )
    example = "chargepki ca cross-sign acme-emsp-root --issuer acme-v2g-root --out cross.pem"
    group.command("cross-sign", writes="change", example=example)(cross_sign)
