"""Where the passphrase of the software keys comes from: a file, standard input or a prompt; never an option value."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable

from chargepki.pki.errors import InputError, StateError

__all__ = ["ask_token_pin", "passphrase_source", "read_new_passphrase", "read_passphrase"]

_MAX_BYTES = 4096


def passphrase_source(setting: str | None, *, warn: Callable[[str], None] | None = None) -> Callable[[], bytes]:
    """Return a function that obtains the passphrase once and then remembers it.

    Args:
        setting: path of a file, ``-`` for standard input, ``None`` to ask on a terminal.
        warn: is told when others than the owner can read the file.
    """
    remembered: list[bytes] = []

    def obtain() -> bytes:
        if not remembered:
            remembered.append(_checked(_read(setting, warn)))
        return remembered[0]

    return obtain


def read_passphrase(path: str, *, warn: Callable[[str], None] | None = None) -> bytes:
    """Return the passphrase in the file *path* (``-`` is standard input), without the newline at its end.

    Raises:
        InputError: it is empty or holds a NUL byte.
        UnavailableError: the file cannot be read.
    """
    return _checked(_read(path, warn))


def read_new_passphrase(path: str | None, *, old_file: str | None, warn: Callable[[str], None]) -> bytes:
    """Return a new passphrase: from the file *path*, or typed twice on a terminal.

    Raises:
        InputError: it is empty, was typed in two ways, or comes from where the old one came from.
        StateError: there is no file and no terminal.
    """
    if path is not None:
        if path == old_file:
            raise InputError(
                f"{path} is named for both passphrases",
                why="one of them would be changed into itself",
                fix="use two files",
            )
        return read_passphrase(path, warn=warn)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(
            "no new passphrase", why="there is no terminal to ask on", fix="pass --new-passphrase-file PATH"
        )
    import getpass

    first = _checked(getpass.getpass("New passphrase: ", stream=sys.stderr).encode())
    if getpass.getpass("The same once more: ", stream=sys.stderr).encode() != first:
        raise InputError("the two are not the same", fix="repeat the command")
    return first


def _read(setting: str | None, warn: Callable[[str], None] | None) -> bytes:
    from chargepki.pki import files

    if setting is not None:
        data = files.read_limited(setting, _MAX_BYTES, "passphrase file")
        if warn is not None:
            _judge_permissions(setting, warn)
        # An editor's newline at the end is not part of the passphrase.
        return data.removesuffix(b"\n").removesuffix(b"\r")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(
            "no passphrase for the software keys",
            why="there is no terminal to ask on",
            fix="pass --passphrase-file PATH, or set CHARGEPKI_PASSPHRASE_FILE",
        )
    import getpass

    return getpass.getpass("Passphrase of the CA keys: ", stream=sys.stderr).encode()


def ask_token_pin(token: str) -> bytes:
    """Ask for the PIN of *token* on the terminal.

    Raises:
        StateError: there is none to ask on.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(
            f"no PIN for the token {token}",
            why="there is no terminal to ask on",
            fix="set CHARGEPKI_PKCS11_PIN_FILE, or write ?pin-source=/path/of/the/file behind the URI of the key",
        )
    import getpass

    return getpass.getpass(f"PIN of the token {token}: ", stream=sys.stderr).encode()


def _judge_permissions(setting: str, warn: Callable[[str], None]) -> None:
    """Warn when group or others can read the plain file *setting*; a pipe of a shell has no such readers."""
    try:
        mode = os.stat(setting).st_mode  # noqa: PTH116 - a name as it was typed, "-" included
    except OSError:
        return
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        warn(f"warning: others can read the passphrase file {setting} (mode {stat.S_IMODE(mode):04o})")
        warn(f"cure: chmod 600 {setting}")


def _checked(passphrase: bytes) -> bytes:
    if not passphrase:
        raise InputError("the passphrase is empty", why="it protects every CA key", fix="choose a long one")
    if b"\0" in passphrase:
        raise InputError("the passphrase holds a NUL byte", why="other tools would cut it there", fix="use text")
    return passphrase
