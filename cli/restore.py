"""``chargepki restore``: put a backup in the place of a workspace, after it was judged."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, asked
from chargepki.cli.backup import identities_of, passphrase_if_named, seal_of
from chargepki.cli.globals import GlobalState, command, pass_state

if TYPE_CHECKING:
    from chargepki.pki.backup import BackupHeader, Examined, Restored

__all__ = ["examined_row", "opened", "restore"]


@command("restore", example="chargepki restore nightly.age --identity identity.txt --home /var/lib/chargepki")
@click.argument("file", metavar="FILE|-", required=False)
@click.option("--identity", "identities", multiple=True, metavar="F", help="age identity; repeatable.")
@click.option("--replace", is_flag=True, help="Set aside the workspace that is there; nothing of it is deleted.")
@click.option("--checkpoint", metavar="F", help="Head of the log from before the backup: it must be in it.")
@click.option("--log-key", metavar="F", help="Public log key (`audit log-key`); otherwise the one in the backup.")
@click.option("--accept-findings", is_flag=True, help="Restore a backup with findings; they go into the log.")
@click.option("--resume", is_flag=True, help="Complete a restore that was interrupted; takes no FILE.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Do everything but replace.")
@pass_state
def restore(
    state: GlobalState,
    /,
    file: str | None,
    identities: tuple[str, ...],
    replace: bool,
    checkpoint: str | None,
    log_key: str | None,
    accept_findings: bool,
    resume: bool,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Restore the workspace (--home) and its inventory (--database) from the backup FILE.

    The backup is verified first, with every row, every key file and every key in a token; until then nothing is
    touched. Serial numbers and CRL numbers used since the backup are never used again. What was issued and revoked
    since is not known any more: publish CRLs, and revoke anew what was revoked since. Stop the services first. A
    PostgreSQL inventory may be restored into SQLite, and the other way round.
    """
    if resume:
        if file is not None:
            raise click.UsageError("--resume completes the restore that was interrupted, and takes no FILE")
        _resume(state)
        return
    if file is None or not identities:
        raise click.UsageError("name the backup FILE and an --identity, or pass --resume")
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.approvals import load_approval_settings
    from chargepki.pki.authority.four_eyes import FourEyes
    from chargepki.pki.backup import RestoreOrder
    from chargepki.pki.backup import restore as put_back
    from chargepki.pki.config import CONFIG_FILE
    from chargepki.pki.workspace import os_actor

    seal, pinned = seal_of(checkpoint, log_key)
    if dry_run:
        state.output.say("dry run: nothing is changed")
    four_eyes = FourEyes(load_approval_settings(state.settings.home / CONFIG_FILE))
    order = RestoreOrder(
        settings=state.settings,
        identities=identities_of(identities),
        actor=os_actor(),
        now=utc_now(),
        replace=replace,
        accept_findings=accept_findings,
        rehearse=dry_run,
        passphrase=passphrase_if_named(state),
        checkpoint=seal,
        log_key=pinned,
        four_eyes=four_eyes,
        tokens=state.workspace.tokens,
    )
    with asked(state, four_eyes, **brought), opened(file) as stream:
        done = put_back(stream, order)
    _tell(state, done, is_rehearsal=dry_run)


def _resume(state: GlobalState) -> None:
    from chargepki.pki import files
    from chargepki.pki.backup import carry_out, read_journal
    from chargepki.pki.errors import StateError

    home = state.settings.home
    if not home.is_dir() or read_journal(home) is None:
        raise StateError(f"no restore was interrupted in {home}", fix="look with: chargepki audit show --last 5")
    with files.locked(home / "restore.lock", mode=0o600):
        journal = read_journal(home)
        if journal is not None:  # else another process has completed it meanwhile
            carry_out(home, journal, state.settings.database)
    restoration, backup = ("", "") if journal is None else (journal.restoration, journal.backup)
    state.output.fields("chargepki/restore-resumed", {"id": restoration, "backup": backup, "home": home})


@contextlib.contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """Open a backup, or standard input for ``-``.

    Raises:
        UnavailableError: it cannot be read.
    """
    from pathlib import Path

    from chargepki.pki.errors import UnavailableError

    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below; what is raised inside is not about opening it
    except OSError as exc:
        raise UnavailableError(f"cannot read the backup {file}", why=exc.strerror or type(exc).__name__) from exc
    with stream:
        yield stream


def examined_row(header: BackupHeader, examined: Examined) -> dict[str, Any]:
    """Return what a backup holds, as it is printed."""
    return {
        "backup": header.id,
        "made_at": header.made_at,
        "made_by": header.made_by,
        "program": header.program,
        "schema_of_rows": header.schema,
        "log_count": header.log_count,
        "log_key": examined.log_key,
        "cas": examined.cas,
        "certificates": examined.certificates,
        "keys": examined.keys,
        "keys_opened": examined.keys_opened,
        "keys_elsewhere": [f"{ca}: {uri}" for ca, uri in examined.keys_elsewhere],
        "log_key_uri": examined.log_key_uri,
        "tokens_checked": examined.tokens_checked,
    }


def _tell(state: GlobalState, done: Restored, *, is_rehearsal: bool) -> None:
    output = state.output
    row = {
        "id": done.id,
        **examined_row(done.header, done.examined),
        "findings": [*done.examined.findings, *done.examined.token_problems],
        "home": state.settings.home,
        "crl_floor": done.crl_floor,
        "voided": done.voided,
        "ended": done.ended,
        "set_aside": list(done.set_aside),
        "set_aside_schema": done.set_aside_schema,
        "unplaced_config": done.unplaced_config,
    }
    output.fields("chargepki/restoration", row)
    if is_rehearsal:
        return
    output.say(f"restored {state.settings.home} from the backup of {done.header.made_at:%Y-%m-%d %H:%M:%S} UTC")
    if done.unplaced_config:
        output.say(f"the configuration of the backup leads elsewhere, and is in {done.unplaced_config}")
    for owner, uri in (*done.examined.keys_elsewhere, ("the log", done.examined.log_key_uri)):
        if uri is not None:
            output.say(f"the key of {owner} was not in the backup: {uri}")
    output.say("what was issued and revoked after the backup is not known here:")
    output.say("next: revoke anew what was revoked since, then run: chargepki crl publish --all")
    output.say(
        "next: chargepki audit checkpoint --out F, since older checkpoints from after the backup contradict the log"
    )
