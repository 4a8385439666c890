"""``chargepki crl``: publish and read certificate revocation lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import DURATION

if TYPE_CHECKING:
    from datetime import timedelta

    from chargepki.pki.authority.publication import Published
    from chargepki.pki.inventory.records import CrlDeltaRecord, CrlRecord

__all__ = ["crl"]

_MAX_CRL_BYTES = 64 << 20


@group("crl", example="chargepki crl publish --ca acme-cso-sub --out cso.crl")
def crl() -> None:
    """Publish, configure, check and read certificate revocation lists."""


@crl.command("publish", writes="change", example="chargepki crl publish --all --publish-dir /srv/www/pki")
@click.option("--ca", metavar="NAME", help="The CA whose CRL is signed.")
@click.option("--all", "every", is_flag=True, help="All active and retired CAs that have not expired.")
@click.option("--out", "-o", metavar="F", help="Also write the CRL of --ca to this file.")
@click.option("--validity", type=DURATION, metavar="180d", help="With --ca: valid so long; a week otherwise.")
@click.option("--pem", is_flag=True, help="Write PEM instead of DER to --out.")
@click.option("--dry-run", is_flag=True, help="Build and lint, print what would be published, change nothing.")
@pass_state
def publish(
    state: GlobalState,
    ca: str | None,
    every: bool,
    out: str | None,
    validity: timedelta | None,
    pem: bool,
    dry_run: bool,
) -> None:
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
    if every and validity:
        raise click.UsageError("--validity belongs to --ca: it is for a CA whose key is rarely at hand")
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
                published.append(authority.publish_lists(name, validity=validity))
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


@crl.command("configure", writes="change", example="chargepki crl configure --ca acme-cso-sub --shard-size 750")
@click.option("--ca", required=True, metavar="NAME", help="The CA whose lists are cut in another way.")
@click.option("--shard-size", metavar="N|off", help="Certificates to a shard (750 at most) from now on.")
@click.option("--delta", metavar="24h|off", help="Publish delta CRLs that are valid for so long (1h to 7d).")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def configure(state: GlobalState, ca: str, shard_size: str | None, delta: str | None, dry_run: bool) -> None:
    """Choose how the lists of a CA are cut: shards for certificates issued from now on, deltas for its full lists.

    What is left out stays as it is. Certificates that were issued keep the list that they name.
    """
    from chargepki.cli.ca import ca_row
    from chargepki.cli.values import DURATION, whole_hours
    from chargepki.pki.authority.shards import CrlSettings

    if shard_size is None and delta is None:
        raise click.UsageError("pass --shard-size, --delta, or both")
    size = None if shard_size is None or shard_size == "off" else _whole(shard_size)
    hours = None if delta in (None, "off") else whole_hours(DURATION.convert(delta, None, None))
    if dry_run:
        state.rehearse()
    authority = state.workspace.authority
    before = authority.inventory.get_ca(ca)
    settings = CrlSettings(
        before.crl_shard_size if shard_size is None else size, before.crl_delta_hours if delta is None else hours
    )
    changed = authority.configure_crls(ca, settings)
    if not dry_run:
        state.output.say(f"configured the lists of {changed.id}; next: chargepki crl publish --ca {changed.id}")
    state.output.fields("chargepki/ca", ca_row(changed))


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise click.UsageError(f"--shard-size {text[:20]!r} is neither a whole number nor off")
    return int(text)


@crl.command("check", writes="change", example="chargepki crl check --all")
@click.option("--ca", metavar="NAME", help="The CA whose lists are checked.")
@click.option("--all", "every", is_flag=True, help="All CAs.")
@click.option("--repair", is_flag=True, help="Make the stored entries anew from the certificates; audited.")
@pass_state
def check(state: GlobalState, ca: str | None, every: bool, repair: bool) -> None:
    """Hold the newest lists, and the stored entries that they are joined from, against the certificates.

    Ends with 1 when something contradicts them. `audit verify` says whether anybody changed rows behind our back.
    """
    if bool(ca) == every:
        raise click.UsageError("pass either --ca NAME or --all")
    authority = state.workspace.authority
    inventory = authority.inventory
    names = [inventory.get_ca(ca).id] if ca else [item.id for item in inventory.list_cas()]
    rows: list[dict[str, Any]] = []
    for name in names:
        if repair:
            count = authority.repair_entries(name)
            state.output.say(f"made {count} stored entries of {name} anew; next: chargepki crl publish --ca {name}")
        rows += [{"ca": name, "problem": problem} for problem in authority.check_lists(name)]
    state.output.rows("chargepki/crl-check", ("ca", "problem"), rows, key="problems")
    if rows:
        state.output.say("next: chargepki audit verify; then chargepki crl check --all --repair")
        raise click.exceptions.Exit(1)
    state.output.say(f"checked the lists of {len(names)} CAs: nothing contradicts the certificates")


@crl.command("show", example="chargepki crl show cso.crl")
@click.argument("file", metavar="F")
@pass_state
def show(state: GlobalState, file: str) -> None:
    """Show the CRL in the file F (DER or PEM)."""
    from chargepki.cli.describing import describe_crl
    from chargepki.pki import files

    state.output.fields("chargepki/crl", describe_crl(files.read_limited(file, _MAX_CRL_BYTES, "CRL file")))


@crl.command("import", writes="change", example="chargepki crl import acme-root.crl --publish-dir /srv/www/pki")
@click.argument("file", metavar="F")
@click.option("--dry-run", is_flag=True, help="Verify the list, change nothing.")
@pass_state
def import_list(state: GlobalState, file: str, dry_run: bool) -> None:
    """Take over a list that a CA signed whose key is offline, and publish it like our own.

    Its signature, number and times are verified first. What it revokes is revoked here too.
    """
    from chargepki.pki import files
    from chargepki.pki.authority.offline_lists import import_crl
    from chargepki.pki.der import decode_der_or_pem

    data = decode_der_or_pem(
        files.read_limited(file, _MAX_CRL_BYTES, "CRL file"), ("X509 CRL",), "a CRL", _MAX_CRL_BYTES
    )
    if dry_run:
        state.rehearse()
    record = import_crl(state.workspace.authority, data)
    if not dry_run:
        state.output.say(f"list {record.number} of {record.ca} is on record; it ends {record.next_update:%Y-%m-%d}")
    state.output.fields("chargepki/crl-record", list_row(record))
