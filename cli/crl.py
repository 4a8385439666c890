"""``chargepki crl``: publish and read certificate revocation lists."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["crl"]

_MAX_CRL_BYTES = 64 << 20


@group("crl", example="chargepki crl publish --ca acme-cso-sub --out cso.crl")
def crl() -> None:
    """Publish and read certificate revocation lists."""


@crl.command("publish", writes="change", example="chargepki crl publish --all --publish-dir /srv/www/pki")
@click.option("--ca", metavar="NAME", help="The CA whose CRL is signed.")
@click.option("--all", "every", is_flag=True, help="All active and retired CAs that have not expired.")
@click.option("--out", "-o", metavar="F", help="Also write the CRL of --ca to this file.")
@click.option("--pem", is_flag=True, help="Write PEM instead of DER to --out.")
@click.option("--dry-run", is_flag=True, help="Build and lint, print what would be published, change nothing.")
@pass_state
def publish(state: GlobalState, ca: str | None, every: bool, out: str | None, pem: bool, dry_run: bool) -> None:
    """Sign the next full CRL, record it, then write it to the publish folder and to --out."""
    from chargepki.cli.progress import progress
    from chargepki.cli.results import check_folder, write_result
    from chargepki.cli.revoking import tell_unwritten
    from chargepki.pki.der import to_pem

    if bool(ca) == every:
        raise click.UsageError("pass either --ca NAME or --all")
    if every and out:
        raise click.UsageError("--out belongs to --ca; with --all use --publish-dir")
    if pem and not out:
        raise click.UsageError("--pem belongs to --out")
    check_folder("--out", out)
    if dry_run:
        state.rehearse()
    authority = state.workspace.authority
    names = [ca] if ca else [item.id for item in authority.crl_issuers()]
    records = []
    with progress(state, "publishing CRLs") as advance:
        for done, name in enumerate(names):
            advance(done, len(names))
            records.append(authority.publish_crl(name))
    if out and not dry_run:
        der = records[0].der
        write_result(state, to_pem("X509 CRL", der).encode() if pem else der, out)
    rows = [
        {
            "ca": record.ca,
            "number": record.number,
            "entries": record.entries,
            "this_update": record.this_update,
            "next_update": record.next_update,
            "sha256": record.sha256,
        }
        for record in records
    ]
    state.output.rows("chargepki/crl-list", ("ca", "number", "entries", "this_update", "next_update"), rows, key="crls")
    if not dry_run and not out and state.settings.publish_dir is None:
        tell_unwritten(state, cure="pass --publish-dir" + (" or --out" if ca else ""))


@crl.command("show", example="chargepki crl show cso.crl")
@click.argument("file", metavar="F")
@pass_state
def show(state: GlobalState, file: str) -> None:
    """Show the CRL in the file F (DER or PEM)."""
    from chargepki.cli.describing import describe_crl
    from chargepki.pki import files

    state.output.fields("chargepki/crl", describe_crl(files.read_limited(file, _MAX_CRL_BYTES, "CRL file")))
