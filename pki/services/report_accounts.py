"""Who may read reports: a file of names and password hashes, one account a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chargepki.pki import files
from chargepki.pki.errors import InputError, NotFound, UnavailableError
from chargepki.pki.services.accounts import check_account_name, hash_account_password

__all__ = ["check_account", "put_account", "read_accounts", "remove_account"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"\$argon2id\$[A-Za-z0-9$+/=,]{20,200}")


def read_accounts(path: Path) -> Mapping[str, str]:
    """Return the password hashes of a file that only its owner can read, by name; lines with # are none.

    Raises:
        UnavailableError: there is no such file.
        SignerError: it cannot be read, or others can read it.
        InputError: a line is no account, or there is none.
    """
    if not path.exists():
        raise UnavailableError(
            f"there is no file of accounts {path}",
            why="it says who may read reports",
            fix=f"make one with: chargepki inventory report-account NAME --file {path}",
        )
    found: dict[str, str] = {}
    for number, line in enumerate(files.read_private(path).splitlines(), start=1):
        text = line.decode("ascii", "replace").strip()
        if not text or text.startswith("#"):
            continue
        name, colon, stored = text.partition(":")
        if not colon or not _NAME.fullmatch(name) or not _HASH.fullmatch(stored) or name in found:
            raise InputError(
                f"{path}: line {number} is no account",
                why="each line is NAME:HASH with an argon2id hash, each name once",
                fix=f"write it with: chargepki inventory report-account NAME --file {path}",
            )
        found[name] = stored
    if not found:
        raise InputError(
            f"{path} holds no account",
            why="nobody could read the reports",
            fix=f"add one with: chargepki inventory report-account NAME --file {path}",
        )
    return found


def check_account(name: str, password: bytes) -> str:
    """Return the hash of an account's password.

    Raises:
        InputError: name or password do not fit.
    """
    check_account_name(name)
    return hash_account_password(password)


def put_account(path: Path, name: str, password: bytes) -> None:
    """Add an account to the file, which is made when it is missing, or give it another password.

    Raises:
        InputError: name or password do not fit, or the file holds what is no account.
    """
    stored = check_account(name, password)
    known = dict(read_accounts(path)) if path.exists() else {}
    _write(path, {**known, name: stored})


def remove_account(path: Path, name: str, *, dry_run: bool = False) -> None:
    """Take an account out of the file; a `serve` that reads it refuses it from its next request on.

    Args:
        dry_run: only look whether it can be done.

    Raises:
        NotFound: there is none of that name.
        InputError: it is the last one: `serve` needs one.
    """
    known = dict(read_accounts(path))
    if name not in known:
        raise NotFound(f"{path} has no account {name[:70]}", fix=f"its accounts are {', '.join(sorted(known))}")
    del known[name]
    if not known:
        raise InputError(
            f"{name} is the last account of {path}",
            why="serve --reports needs one",
            fix="add another one first, or delete the file and start serve without --reports",
        )
    if not dry_run:
        _write(path, known)


def _write(path: Path, accounts: Mapping[str, str]) -> None:
    lines = "".join(f"{name}:{stored}\n" for name, stored in sorted(accounts.items()))
    files.write_durable(path, lines.encode(), mode=0o600)
