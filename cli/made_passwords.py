"""Make a password for an account and hand it out in a file, whatever crashes in between."""

from __future__ import annotations

import os
import re
import secrets
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chargepki.cli.globals import GlobalState
from chargepki.pki import files
from chargepki.pki.errors import Conflict, InputError

__all__ = ["PasswordFile", "make_password"]

_CHARACTERS: Final = string.ascii_letters + string.digits
_LENGTH: Final = 24
_MADE: Final = re.compile(rb"[A-Za-z0-9]{24}\n")


def make_password() -> str:
    """Return a new password of 142 bits."""
    return "".join(secrets.choice(_CHARACTERS) for _ in range(_LENGTH))


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """Where a made password goes: it waits beside the file until its account is durable, and then gets the name.

    The name of what waits holds the account's, so only a repeat of the same command takes it up.
    """

    path: Path
    account: str

    @classmethod
    def of(cls, path: str | None, account: str) -> PasswordFile | None:
        """Return the file that an option names; ``None`` when it names none, or standard output."""
        # Standard output is told last, for what it has said cannot be taken back.
        return None if path is None or path == "-" else cls(Path(path), account)

    @property
    def waiting(self) -> Path:
        """Where the password is while the account may not be durable."""
        return self.path.with_name(f".{self.path.name}.{self.account}.new")

    def find(self) -> str | None:
        """Return the password that an interrupted run left waiting; ``None`` when there is none.

        Raises:
            Conflict: the file itself exists, and is not what waits.
            InputError: what waits is no password of ours.
            SignerError: others can read it, or it is another user's.
        """
        if not os.path.lexists(self.waiting):
            if os.path.lexists(self.path):
                raise self._taken()
            return None
        if os.path.lexists(self.path) and not (self.path.exists() and self.path.samefile(self.waiting)):
            raise self._taken()
        content = files.read_private(self.waiting)
        if not _MADE.fullmatch(content):
            raise InputError(
                f"{self.waiting} is no password that was made here",
                why="an interrupted run of this command leaves one there, and something else has its place",
                fix="look at it and remove it, or name another file",
            )
        return content.decode("ascii").removesuffix("\n")

    def put(self, password: str) -> None:
        """Let *password* wait, durably, unless `find` has found it there.

        Raises:
            Conflict: another run of the same command does so right now.
            UnavailableError: the folder is not writable.
        """
        if self.find() == password:
            return
        files.write_new(self.waiting, password.encode("ascii") + b"\n", mode=0o600)

    def hand_out(self, state: GlobalState) -> None:
        """Give what waits its name, now that the account is durable; completes itself when interrupted.

        Raises:
            Conflict: the file was made by somebody else meanwhile; the password still waits.
            UnavailableError: the folder is not writable.
        """
        files.move_new(self.waiting, self.path)
        state.output.say(f"wrote {self.path}")

    def _taken(self) -> Conflict:
        return Conflict(f"{self.path} exists already", why="it is never overwritten", fix="choose another name")
