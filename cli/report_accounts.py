"""``chargepki inventory report-account``: who may read the reports that ``serve --reports`` hands out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState, pass_state

__all__ = ["add_report_account"]


@click.argument("name", metavar="NAME")
@click.option("--file", "file", required=True, metavar="F", help="The file that `serve --reports` is given.")
@click.option("--password-file", metavar="PATH|-", help="Its password, of 16 octets or more; else one is made.")
@click.option("--password-out", metavar="F", help="Write the password that is made there, instead of showing it once.")
@click.option("--remove", is_flag=True, help="Take the account out of the file.")
@click.option("--dry-run", is_flag=True, help="Check, and write no file.")
@pass_state
def report_account(
    state: GlobalState,
    name: str,
    file: str,
    password_file: str | None,
    password_out: str | None,
    remove: bool,
    dry_run: bool,
) -> None:
    """Let somebody read the reports of `serve --reports`, give them another password, or let them no more.

    The file holds a name and an argon2id hash a line. `serve` reads it at each request: no restart is needed.
    """
    from chargepki.cli.made_passwords import PasswordFile, make_password
    from chargepki.cli.passphrase import read_passphrase
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki.services.accounts import check_account_name
    from chargepki.pki.services.report_accounts import check_account, put_account, read_accounts, remove_account

    path = Path(file)
    check_folder("--file", file)
    if remove:
        if password_file is not None or password_out is not None:
            raise click.UsageError("--remove takes no password")
        remove_account(path, name, dry_run=dry_run)
        state.output.fields("chargepki/report-account", {"name": name, "file": file, "state": "removed"})
        return
    if password_file is not None and password_out is not None:
        raise click.UsageError("--password-out is for a password that is made here")
    check_folder("--password-out", password_out)
    check_account_name(name)
    handed = PasswordFile.of(password_out, name)
    made = None
    if password_file is not None:
        password = read_passphrase(password_file, warn=state.output.say)
    else:
        made = (None if handed is None else handed.find()) or make_password()
        password = made.encode()
    check_account(name, password)
    if path.exists():
        read_accounts(path)
    if not dry_run:
        if handed is not None and made is not None:
            # The file first: a password that nobody could read would have to be made again.
            handed.put(made)
        put_account(path, name, password)
        if handed is not None and made is not None:
            handed.hand_out(state)
        elif made is not None and password_out is not None:
            write_result(state, made.encode() + b"\n", password_out, private=True)
        elif made is not None:
            state.output.say(f"its password, shown this once: {made}")
    state.output.fields("chargepki/report-account", {"name": name, "file": file, "state": "active"})


def add_report_account(group: Any) -> None:
    """Register the command with the noun ``inventory``."""
    example = "chargepki inventory report-account auditor --file readers.txt"
    group.command("report-account", example=example)(report_account)
