"""Where received logs lie in the workspace, and how one is copied out."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from chargepki.cli.globals import GlobalState
from chargepki.pki.errors import NotFound, StateError, UnavailableError
from chargepki.pki.files import NewFile
from chargepki.pki.inventory.event_records import RequestedLogRecord
from chargepki.pki.workspace import Workspace

__all__ = ["logs_folder", "save_log"]

_CHUNK = 1 << 20


def logs_folder(workspace: Workspace) -> Path:
    """Return the folder of received logs; it may not exist yet."""
    return workspace.settings.home / "logs"


def save_log(state: GlobalState, record: RequestedLogRecord, out: str) -> None:
    """Copy a received log to *out*, a new file or ``-``, if it is still what was received.

    Raises:
        StateError: it has not come.
        NotFound: it lies on another machine.
        Conflict: *out* exists.
        UnavailableError: it was changed since it was received, or a file cannot be read or written.
    """
    if record.file is None or record.sha256 is None:
        raise StateError(
            f"the log {record.id} has not come",
            why=f"its request is {record.state.value}",
            fix=f"see what the station reported: chargepki station logs show {record.id}",
        )
    source = logs_folder(state.workspace) / record.file
    try:
        digest = _digest(source)
    except FileNotFoundError as error:
        raise NotFound(
            f"{source} is not there",
            why="logs lie where they were received, which may be another machine, and may have been deleted",
            fix="look for it in the workspace of the CSMS process that took it",
        ) from error
    except OSError as error:
        raise UnavailableError(f"cannot read {source}", why=error.strerror or str(error)) from error
    if digest != record.sha256:
        raise UnavailableError(
            f"{source} is not what the station sent",
            why="its SHA-256 is another one by now",
            fix="ask the station for it again",
        )
    with source.open("rb") as stream:
        if out == "-":
            while chunk := stream.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        file = NewFile(Path(out))
        try:
            while chunk := stream.read(_CHUNK):
                file.write(chunk)
            file.commit()
        finally:
            file.abandon()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
