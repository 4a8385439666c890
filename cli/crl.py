"""``chargepki crl``: publish and read certificate revocation lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from chargepki.pki.authority.publication import Published
    from chargepki.pki.inventory.records import CrlDeltaRecord, CrlRecord

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
    """Sign the next CRLs, record them, then write them to the publish folder, and the full one to --out.

    With --all, a CA whose key does not open is reported, and the others go on.
    """
    from chargepki.cli.progress import progress
    from chargepki.cli.results import check_folder, write_result
    from chargepki.cli.revoking import tell_unwritten
    from chargepki.pki.der import to_pem
    from chargepki.pki.errors import ChargePkiError, SignerError, UnavailableError

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
    published: list[Published] = []
    failed: list[tuple[str, ChargePkiError]] = []
    with progress(state, "publishing CRLs") as advance:
        for done, name in enumerate(names):
            advance(done, len(names))
            try:
                published.append(authority.publish_lists(name))
            except ChargePkiError as error:
                if not every or isinstance(error, UnavailableError):
                    raise  # Nothing can be written, for no CA.
                # One lost key file must not let the lists of all other CAs expire.
                failed.append((name, error))
    if out and not dry_run:
        full = published[0].full
        assert full is not None
        write_result(state, to_pem("X509 CRL", full.der).encode() if pem else full.der, out)
    rows = [list_row(record) for found in published for record in found.lists]
    columns = ("ca", "kind", "number", "entries", "this_update", "next_update")
    state.output.rows("chargepki/crl-list", columns, rows, key="crls")
    if not dry_run and not out and state.settings.publish_dir is None:
        tell_unwritten(state, cure="pass --publish-dir" + (" or --out" if ca else ""))
    for name, problem in failed:
        state.output.say(f"error: the CRL of {name} was not renewed: {problem.what}")
        state.output.say(f"next: {problem.fix or f'chargepki crl publish --ca {name}'}")
    if failed:
        # All lists that could be published are printed; the exit code says that some could not.
        raise click.exceptions.Exit(4 if any(isinstance(problem, SignerError) for _, problem in failed) else 3)


def list_row(record: CrlRecord | CrlDeltaRecord) -> dict[str, Any]:
    """Return *record* as the object that ``--json`` prints."""
    from chargepki.pki.inventory.records import CrlRecord

    shard = record.shard if isinstance(record, CrlRecord) else None
    return {
        "ca": record.ca,
        "kind": "delta" if not isinstance(record, CrlRecord) else "full" if shard is None else "shard",
        "shard": shard,
        "number": record.number,
        "base": None if isinstance(record, CrlRecord) else record.base,
        "entries": record.entries,
        "this_update": record.this_update,
        "next_update": record.next_update,
        "bytes": len(record.der),
        "sha256": record.sha256,
    }


@crl.command("show", example="chargepki crl show cso.crl")
@click.argument("file", metavar="F")
@pass_state
def show(state: GlobalState, file: str) -> None:
    """Show the CRL in the file F (DER or PEM)."""
    from chargepki.cli.describing import describe_crl
    from chargepki.pki import files

    state.output.fields("chargepki/crl", describe_crl(files.read_limited(file, _MAX_CRL_BYTES, "CRL file")))
