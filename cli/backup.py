"""``chargepki backup``: write a workspace to one encrypted file, and verify such a file without restoring it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chargepki.pki.backup import Recipients

__all__ = ["backup", "seal_of"]

_MAX_RECIPIENTS_BYTES = 1 << 20
_MAX_SEAL_BYTES = 65536


@group("backup", example="chargepki backup create --recipient age1… --out nightly.age")
def backup() -> None:
    """Back up a workspace, and verify a backup."""


@backup.command(
    "create",
    writes="change",
    example="chargepki backup create --recipients-file recipients.txt --out /mnt/backup/pki-2026-03-01.age",
)
@click.option("--recipient", "recipients", multiple=True, metavar="age1…", help="Who can open it; repeatable.")
@click.option("--recipients-file", "files_", multiple=True, metavar="F", help="A file of them, one a line; repeatable.")
@click.option("--out", "-o", required=True, metavar="F|-", help="The backup; an existing file is never overwritten.")
@click.option("--dry-run", is_flag=True, help="Do everything but write the file.")
@pass_state
def create(state: GlobalState, recipients: tuple[str, ...], files_: tuple[str, ...], out: str, dry_run: bool) -> None:
    """Write the inventory and the files of the workspace to one file, encrypted to age recipients.

    Others may go on working meanwhile. Each recipient alone can open it with his identity, so keep identities apart
    from backups. Not in it: keys in tokens, the passphrase of the key files, the PIN of a token.
    """
    from chargepki.cli.results import check_folder
    from chargepki.pki.authority import utc_now
    from chargepki.pki.backup import make_backup

    chosen = _recipients(recipients, files_)
    check_folder("--out", out)
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    inventory, settings = workspace.inventory, workspace.settings
    with _Target(out, is_rehearsal=dry_run) as target:
        made = make_backup(inventory, settings, chosen, target.write, actor=workspace.actor, now=utc_now())
        target.commit()
    if out != "-" and not dry_run:
        state.output.say(f"wrote {out}")
    for name, reason in made.left_out:
        state.output.say(f"not in it: {name}: {reason}")
    elsewhere = [ca.id for ca in inventory.list_cas() if not ca.key_uri.startswith("file:")]
    if elsewhere:
        state.output.say(f"not in it: the keys of {', '.join(elsewhere)}, which are in tokens or with somebody else")
    if out == "-":
        return
    row = {
        "id": made.id,
        "made_at": made.made_at,
        "out": out,
        "bytes": target.size,
        "sha256": target.sha256,
        "log_count": made.head.count,
        "log_hash": made.head.hash,
        "rows": made.rows,
        "files": made.files,
        "recipients": list(made.recipients),
    }
    if state.output.for_machines:
        row["left_out"] = [{"name": name, "reason": reason} for name, reason in made.left_out]
        row["keys_elsewhere"] = elsewhere
    state.output.fields("chargepki/backup", row)


class _Target:
    """Where the backup goes: a new file that appears whole or not at all, standard output, or nowhere."""

    def __init__(self, out: str, *, is_rehearsal: bool) -> None:
        import hashlib

        from chargepki.pki.errors import Conflict, InputError
        from chargepki.pki.files import NewFile

        self._digest = hashlib.sha256()
        self.size = 0
        self._file = None
        self._stream = out == "-" and not is_rehearsal
        if self._stream and sys.stdout.isatty():
            raise InputError("that does not belong on a terminal", fix="name a file: --out FILE")
        if out != "-":
            from pathlib import Path

            if Path(out).exists():
                raise Conflict(f"{out} exists already", why="it is never overwritten", fix="choose another name")
            if not is_rehearsal:
                self._file = NewFile(out)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
        elif self._stream:
            sys.stdout.buffer.write(data)

    def commit(self) -> None:
        if self._file is not None:
            self._file.commit()

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.abandon()


def _recipients(given: Sequence[str], paths: Sequence[str]) -> Recipients:
    from chargepki.pki import files
    from chargepki.pki.backup import parse_recipients
    from chargepki.pki.errors import InputError

    lines = list(given)
    for path in paths:
        data = files.read_limited(path, _MAX_RECIPIENTS_BYTES, "recipients file")
        try:
            lines += data.decode().splitlines()
        except UnicodeDecodeError as exc:
            raise InputError(f"{path} is no list of recipients", fix="one age1… a line") from exc
    return parse_recipients(lines)


def seal_of(checkpoint: str | None, log_key: str | None) -> tuple[Any, Any]:
    """Return the checkpoint and the public log key in the files of these names, each ``None`` where there is none."""
    from chargepki.pki import files
    from chargepki.pki.inventory.audit import AuditPublicKey, Checkpoint

    def read(path: str, what: str) -> bytes:
        return files.read_limited(path, _MAX_SEAL_BYTES, what)

    return (
        Checkpoint.parse(read(checkpoint, "checkpoint")) if checkpoint else None,
        AuditPublicKey.parse(read(log_key, "public log key")) if log_key else None,
    )


def passphrase_if_named(state: GlobalState) -> Callable[[], bytes] | None:
    """Return where the passphrase comes from, if the caller has named a file: nobody is asked for it here."""
    from chargepki.cli.passphrase import passphrase_source

    setting = state.settings.passphrase_file
    return passphrase_source(setting, warn=state.output.say) if setting is not None else None


def identities_of(paths: Sequence[str]) -> list[Any]:
    """Return the identities in the files *paths*."""
    from chargepki.pki.backup import load_identities

    return [identity for path in paths for identity in load_identities(path)]


@backup.command(
    "verify",
    verdict=True,
    example="chargepki backup verify nightly.age --identity identity.txt --checkpoint march.json",
)
@click.argument("file", metavar="FILE")
@click.option("--identity", "identities", multiple=True, required=True, metavar="F", help="age identity; repeatable.")
@click.option("--checkpoint", metavar="F", help="Head of the log from before the backup: it must be in it.")
@click.option("--log-key", metavar="F", help="Public log key (`audit log-key`); otherwise the one in the backup.")
@pass_state
def verify(
    state: GlobalState, file: str, identities: tuple[str, ...], checkpoint: str | None, log_key: str | None
) -> None:
    """Do all of a restore but the replacing, in a temporary folder: a drill. Exit 1 when it would not be restored.

    With --passphrase-file each key file is opened and held against its CA; so is each key in a token where a PKCS #11
    module is configured. No workspace is needed.
    """
    import tempfile
    from pathlib import Path

    from chargepki.cli.output import counted
    from chargepki.cli.restore import examined_row, opened
    from chargepki.pki.backup import examine, unpack

    seal, pinned = seal_of(checkpoint, log_key)
    keys = identities_of(identities)
    with opened(file) as stream, tempfile.TemporaryDirectory(prefix="chargepki-drill-") as folder:
        unpacked = unpack(stream, keys, Path(folder) / "workspace", Path(folder) / "rows.db")
        examined = examine(
            unpacked,
            passphrase=passphrase_if_named(state),
            checkpoint=seal,
            log_key=pinned,
            tokens=state.workspace.tokens if state.settings.pkcs11_module is not None else None,
        )
    findings = (*examined.findings, *examined.token_problems)
    row = {**examined_row(unpacked.header, examined), "files": len(unpacked.files)}
    if state.output.for_machines:
        row["findings"] = list(findings)
    else:
        for finding in findings:
            state.output.text(finding)
    state.output.fields("chargepki/backup-report", row)
    if not examined.keys_opened:
        state.output.say("the key files were not opened: pass --passphrase-file to see that they are the right ones")
    in_tokens = any(uri.startswith("pkcs11:") for _, uri in examined.keys_elsewhere) or examined.log_key_uri
    if in_tokens and not examined.tokens_checked:
        state.output.say("the keys in tokens were not looked for: set CHARGEPKI_PKCS11_MODULE where the token is")
    if seal is None:
        state.output.say("whether it is the newest was not tested: pass --checkpoint")
    if findings:
        state.output.say(f"{counted(len(findings), 'finding')}: it would not be restored")
        raise click.exceptions.Exit(1)
