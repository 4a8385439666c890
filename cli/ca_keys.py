"""``chargepki ca change-passphrase``: another passphrase for all software keys."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state

__all__ = ["add_keys"]


@click.option("--new-passphrase-file", "new_file", metavar="PATH|-", help="File with the new one; asked for otherwise.")
@click.option("--dry-run", is_flag=True, help="Open every key, change none.")
@pass_state
def change_passphrase(state: GlobalState, new_file: str | None, dry_run: bool) -> None:
    """Change the passphrase of all software keys of the workspace; the old one opens none of them afterwards.

    Each key file is replaced as a whole, after it was opened anew. When this was interrupted, the same command goes on.
    Old backups and copies of the files keep the old passphrase. Restart services: they read it when they open a key.
    """
    from chargepki.cli.passphrase import read_new_passphrase
    from chargepki.pki.authority import utc_now

    if dry_run:
        state.rehearse()
    workspace = state.workspace
    inventory = workspace.inventory  # opened first: an act that cannot be recorded is not done
    workspace.check_key_files()
    old = workspace.passphrase()
    new = read_new_passphrase(new_file, old_file=state.settings.passphrase_file, warn=state.output.say)
    done = workspace.change_passphrase(old, new, rehearse=dry_run)
    details = {"changed": list(done.changed), "had_it": list(done.had_it)}
    inventory.write(
        lambda tx: tx.audit(
            workspace.actor, "keys.change-passphrase", str(state.settings.home), now=utc_now(), details=details
        )
    )
    if not dry_run:
        state.output.say("the old passphrase opens no key of this workspace any more; those in older backups it does")
    state.output.fields("chargepki/passphrase-change", details)


def add_keys(group: Any) -> None:
    """Register the commands with the noun ``ca``."""
    example = "chargepki ca change-passphrase --passphrase-file old.txt --new-passphrase-file new.txt"
    group.command("change-passphrase", writes="change", example=example)(change_passphrase)
