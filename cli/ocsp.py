"""``chargepki ocsp``: prepare and read OCSP responses."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["ocsp"]

_MAX_RESPONSE_BYTES = 256 * 1024


@group("ocsp", example="chargepki ocsp presign --all --out-dir staples")
def ocsp() -> None:
    """Prepare and read OCSP responses."""


@ocsp.command("presign", writes="change", example="chargepki ocsp presign --ca acme-cpo-sub2 --out-dir staples")
@click.option("--ca", metavar="NAME", help="The CA whose certificates are answered for.")
@click.option("--all", "every", is_flag=True, help="All active and retired CAs that have not expired.")
@click.option("--out-dir", metavar="DIR", help="Also write each response as DIR/CA/SERIAL.ocsp (DER), for stapling.")
@click.option(
    "--hash",
    "hash_name",
    type=click.Choice(["sha1", "sha256"]),
    default="sha1",
    help="How certificates are named in the files of --out-dir (default sha1, which every client finds).",
)
@click.option("--dry-run", is_flag=True, help="Sign and lint, print what would be prepared, change nothing.")
@pass_state
def presign(
    state: GlobalState, ca: str | None, every: bool, out_dir: str | None, hash_name: str, dry_run: bool
) -> None:
    """Sign a response for each certificate that has no fresh one, and hand them out for stapling.

    A response is valid for seven days at most [V2G20-1021] and replaced at half of that. `serve` does the same by
    itself; run this where nothing serves, or to write the files.
    """
    from chargepki.cli.presigning import presign_cas

    if bool(ca) == every:
        raise click.UsageError("pass either --ca NAME or --all")
    presign_cas(state, ca, out_dir=out_dir, hash_name=hash_name, dry_run=dry_run)


@ocsp.command("show", example="chargepki ocsp show staples/acme-cpo-sub2@1/5f0c.ocsp")
@click.argument("file", metavar="F")
@pass_state
def show(state: GlobalState, file: str) -> None:
    """Show the OCSP response in the file F (DER). Its signature is not verified; `lint` and `cert verify` do."""
    from chargepki.cli.presigning import describe_response
    from chargepki.pki import files

    data = files.read_limited(file, _MAX_RESPONSE_BYTES, "OCSP response")
    state.output.fields("chargepki/ocsp-response", describe_response(data))
