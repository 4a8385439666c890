"""Write what a command made: to a file, durably, or to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from chargepki.cli.globals import GlobalState

__all__ = ["check_folder", "write_result"]


def check_folder(option: str, path: str | None) -> None:
    """Refuse a file that cannot be written because its folder is not there, before anything is done for it.

    Raises:
        UnavailableError: the folder of *path* is missing, or *path* is a folder itself.
    """
    from chargepki.pki.errors import UnavailableError

    if path is None or path == "-":
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise UnavailableError(
            f"{option}: there is no folder {folder}", why="nothing was done yet", fix="create it, or name another file"
        )
    if Path(path).is_dir():
        raise UnavailableError(f"{option}: {path} is a folder", why="nothing was done yet", fix="name a file in it")


def write_result(state: GlobalState, data: bytes, out: str | None, *, private: bool = False) -> None:
    """Write *data* to the file *out*, or to stdout when it is ``None`` or ``-``.

    Args:
        private: a private key; mode 0600, and an existing file is never overwritten.

    Raises:
        InputError: binary data or a private key would go to a terminal.
    """
    from chargepki.pki import files
    from chargepki.pki.errors import InputError

    if out is not None and out != "-":
        path = Path(out)
        if private:
            files.write_new(path, data, mode=0o600)
        else:
            files.write_durable(path, data)
        state.output.say(f"wrote {path}")
        return
    if out is None and sys.stdout.isatty() and (private or not data.isascii()):
        raise InputError("that does not belong on a terminal", fix="pass --out FILE, or -o - to print it all the same")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
