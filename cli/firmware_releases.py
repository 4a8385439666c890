"""The catalogue of firmware: ``firmware add``, ``approve``, ``list``, ``show``, ``withdraw`` and its approvers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from chargepki.cli.approving import approval_options
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.row_filtering import asked_of, behind, row_options, show_page
from chargepki.cli.values import INSTANT

__all__ = ["add_release_commands"]

_COLUMNS = ("name", "vendor", "model", "version", "state", "approved_by", "running_on")
_MAX_NOTES_BYTES = 16_000


@click.argument("name", metavar="NAME")
@click.argument("image", metavar="IMAGE")
@click.option("--signature", required=True, metavar="F|BASE64", help="Base64, or a file with base64 or raw octets.")
@click.option("--cert", required=True, metavar="F", help="Firmware signing certificate.")
@click.option("--vendor", metavar="V", help="Vendor as stations tell it in BootNotification; any by default.")
@click.option("--model", metavar="M", help="Model as stations tell it in BootNotification; any by default.")
@click.option("--version", metavar="X.Y.Z", help="Version, which decides what is a rollback; NAME by default.")
@click.option("--hardware", default="", metavar="H", help="Hardware revision that it is for; all by default.")
@click.option("--trust", multiple=True, metavar="F", help="Manufacturer root; by default those of the workspace.")
@click.option("--crl", "crls", multiple=True, metavar="F", help="Revocation list; repeatable.")
@click.option("--location", metavar="URL", help="Where stations fetch it; without it the workspace keeps a copy.")
@click.option("--notes-file", metavar="F|-", help="Release notes, text.")
@click.option(
    "--quirk",
    "quirks",
    multiple=True,
    type=click.Choice(("pkcs1-v15",)),
    help="pkcs1-v15: RSA signatures as some stations want them, against the standard.",
)
@click.option("--at", type=INSTANT, metavar="T", help="Judge as of T; now by default.")
@click.option("--dry-run", is_flag=True, help="Verify it, print what would be recorded, change nothing.")
@pass_state
def add(state: GlobalState, /, **options: Any) -> None:
    """Verify IMAGE as a station must, and add it to the catalogue as the release NAME.

    No operation may use it before a second person has approved it. Exit 3 when a station would refuse it.
    """
    from chargepki.cli.firmware_store import add_release

    at: datetime | None = options.pop("at")
    add_release(state, options, at=at, read_notes=_read_notes)


@click.argument("name", metavar="NAME")
@click.option("--approver", required=True, metavar="A", help="Who approves, see `chargepki firmware approvers`.")
@click.option("--key", metavar="F|URI", help="Private key of the approver; signs here.")
@click.option("--signature", metavar="F|BASE64", help="A signature made elsewhere, in place of --key.")
@click.option("--dry-run", is_flag=True, help="Verify the signature, change nothing.")
@pass_state
def approve(
    state: GlobalState, name: str, approver: str, key: str | None, signature: str | None, dry_run: bool
) -> None:
    """Approve the release NAME with the signature of a second person's registered key.

    What is signed is the line that `chargepki firmware show NAME --statement` prints: ECDSA with the hash of the
    curve, RSA-PSS with SHA-256, or Ed25519.
    """
    from chargepki.cli.firmware_store import approve_release

    if (key is None) == (signature is None):
        raise click.UsageError("pass either --key or --signature")
    approve_release(state, name, approver, key=key, signature=signature, dry_run=dry_run)


@click.option("--vendor", metavar="V", help="Only those of this vendor.")
@click.option("--model", metavar="M", help="Only those for this model.")
@click.option("--state", "wanted", type=click.Choice(("proposed", "approved", "withdrawn")), help="Only those.")
@row_options
@pass_state
def list_releases(
    state: GlobalState,
    vendor: str | None,
    model: str | None,
    wanted: str | None,
    where: str | None,
    query: str | None,
    at: datetime | None,
    limit: int,
    after: str | None,
) -> None:
    """List the releases by vendor, model and version, the newest last, and how many stations run each."""
    from chargepki.cli.firmware_store import release_rows
    from chargepki.pki.inventory.row_fields import keep_rows

    asked = asked_of(state, "firmware-release", where, query, at)
    found = release_rows(state.workspace.inventory, vendor=vendor, model=model, wanted=wanted)
    rows = keep_rows(behind(found, after, cursor="name", noun="release"), asked)
    show_page(state, "chargepki/firmware-release-list", _COLUMNS, rows, key="releases", limit=limit, cursor="name")


@click.argument("name", metavar="NAME")
@click.option("--statement", is_flag=True, help="Print only the line that an approver signs.")
@pass_state
def show(state: GlobalState, name: str, statement: bool) -> None:
    """Show a release: its image, signer, approvals and the stations that run it."""
    from chargepki.cli.firmware_store import show_release

    show_release(state, name, statement=statement)


@click.argument("name", metavar="NAME")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to whoever tries to send it.")
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def withdraw(state: GlobalState, name: str, reason: str, dry_run: bool) -> None:
    """Withdraw the release NAME for good: it is never sent again, also by operations that wait."""
    from chargepki.cli.firmware_store import withdraw_release

    withdraw_release(state, name, reason=reason, dry_run=dry_run)


@click.argument("name", metavar="NAME")
@click.option("--public-key", required=True, metavar="F", help="Public key (PEM or DER), or a certificate with it.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def register_approver(state: GlobalState, /, name: str, public_key: str, dry_run: bool, **brought: Any) -> None:
    """Register the person NAME as one who may approve releases, by the public key of that person.

    NAME is compared with the user who adds a release: nobody approves what they added. Approvals are verified with
    the key, so who carries them here does not matter.
    """
    from chargepki.cli.firmware_store import register

    register(state, name, public_key, dry_run=dry_run, brought=brought)


@click.argument("name", metavar="NAME")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def remove_approver(state: GlobalState, /, name: str, dry_run: bool, **brought: Any) -> None:
    """Let the person NAME approve no more; approvals given before stand."""
    from chargepki.cli.firmware_store import remove

    remove(state, name, dry_run=dry_run, brought=brought)


@pass_state
def approvers(state: GlobalState) -> None:
    """List who may approve releases."""
    from chargepki.cli.firmware_store import approver_row

    rows = (approver_row(item) for item in state.workspace.inventory.list_approvers())
    columns = ("name", "active", "spki_sha256", "registered_by", "registered_at")
    state.output.rows("chargepki/firmware-approver-list", columns, rows, key="approvers")


def add_release_commands(group: Any) -> None:
    """Register the commands with the noun ``firmware``."""
    changing: list[tuple[str, Callable[..., Any], str]] = [
        ("add", add, "chargepki firmware add m1-1.4.0 image.bin --signature image.sig --cert fw.pem --vendor Acme \\\n"
         "    --model M1 --version 1.4.0"),
        ("approve", approve, "chargepki firmware approve m1-1.4.0 --approver bob --key bob.key"),
        ("withdraw", withdraw, "chargepki firmware withdraw m1-1.4.0 --reason 'bricks stations without a meter'"),
        ("register-approver", register_approver, "chargepki firmware register-approver bob --public-key bob.pub"),
        ("remove-approver", remove_approver, "chargepki firmware remove-approver bob"),
    ]  # fmt: skip
    for name, function, example in changing:
        group.command(name, writes="change", example=example)(function)
    group.command("list", example="chargepki firmware list --model M1")(list_releases)
    group.command("show", example="chargepki firmware show m1-1.4.0")(show)
    group.command("approvers", example="chargepki firmware approvers")(approvers)


def _read_notes(path: str | None) -> str:
    if path is None:
        return ""
    from chargepki.pki import files
    from chargepki.pki.errors import InputError

    try:
        return files.read_limited(path, _MAX_NOTES_BYTES, "release notes").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InputError(f"the release notes {path} are not UTF-8", why=f"octet {exc.start}") from exc
