"""Durable writes and guarded reads; the only place that writes files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, Final

from chargepki.pki.errors import Conflict, InputError, SignerError, StateError, UnavailableError

try:
    import fcntl
except ImportError:  # Windows has no flock; there one process publishes at a time
    fcntl = None  # type: ignore[assignment]  # a module, to mypy

__all__ = [
    "NewFile",
    "flush_folder",
    "locked",
    "make_folder",
    "make_private_folder",
    "move_new",
    "read_limited",
    "read_private",
    "remove_durable",
    "turn",
    "write_durable",
    "write_new",
    "write_new_folder",
    "write_stream",
]

_MAX_PRIVATE_BYTES: Final = 1 << 20
_MAX_TURN_SECONDS: Final = 10.0


def write_durable(path: Path | str, data: bytes, *, mode: int = 0o644) -> None:
    """Replace *path* by *data* so that a crash at any instant leaves the old or the new content, whole and on disk.

    A file beside it takes the data, is flushed to the disk and renamed over *path*; then the folder is flushed. After
    a crash a file named ``.NAME.XXXX.tmp`` may remain; it is never read. A symbolic link is replaced, not followed;
    a device or pipe is written as it is.

    Args:
        mode: permissions of the new file, less the umask.

    Raises:
        UnavailableError: the folder is missing or not writable, or the disk is full; *path* is unchanged.
    """
    path = Path(path)
    try:
        if _is_stream(path):
            # Renaming over /dev/null or a pipe would take it away from everyone else.
            with path.open("wb") as stream:
                stream.write(data)
            return
        temporary = _write_beside(path, data, mode)
        try:
            os.replace(temporary, path)  # noqa: PTH105 - one primitive for each step that a crash test interrupts
        except OSError:
            _discard(temporary)
            raise
        flush_folder(path.parent)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def write_stream(path: Path | str, chunks: Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace *path* by what *chunks* give, as durably as `write_durable` and without holding it in memory.

    Raises:
        UnavailableError: the folder is missing or not writable, or the disk is full; *path* is unchanged.
    """
    path = Path(path)
    try:
        temporary = _write_beside(path, chunks, mode)
        try:
            os.replace(temporary, path)  # noqa: PTH105 - one primitive for each step that a crash test interrupts
        except OSError:
            _discard(temporary)
            raise
        flush_folder(path.parent)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def write_new(path: Path | str, data: bytes, *, mode: int = 0o600) -> None:
    """Create *path* with *data*, durably and complete or not at all; never overwrites, whoever races.

    Args:
        mode: permissions of the file, less the umask.

    Raises:
        Conflict: *path* exists; it is unchanged.
        UnavailableError: the folder is missing or not writable, or the disk is full; *path* does not exist.
    """
    path = Path(path)
    try:
        temporary = _write_beside(path, data, mode)
        try:
            # A link fails when the name is taken, where a rename would silently replace it.
            os.link(temporary, path)
        finally:
            _discard(temporary)
        flush_folder(path.parent)
    except FileExistsError as exc:
        raise Conflict(f"{path} exists already", why="it is never overwritten", fix="choose another name") from exc
    except OSError as exc:
        raise _unwritable(path, exc) from exc


class NewFile:
    """A new file that is written piece by piece, and appears under its name complete and on disk, or not at all.

    Example:
        file = NewFile(path)
        try:
            file.write(b"...")
            file.commit()
        finally:
            file.abandon()
    """

    __slots__ = ("_handle", "_path", "_temporary")

    def __init__(self, path: Path | str, *, mode: int = 0o600) -> None:
        """Begin; nothing has the name yet.

        Raises:
            UnavailableError: the folder is missing or not writable.
        """
        self._path = Path(path)
        self._temporary = self._path.with_name(f".{self._path.name[:200]}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._handle = os.open(self._temporary, flags, mode)
        except OSError as exc:
            raise _unwritable(self._path, exc) from exc

    def write(self, data: bytes) -> None:
        """Append *data*.

        Raises:
            UnavailableError: the disk is full.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as exc:
            raise _unwritable(self._path, exc) from exc

    def commit(self) -> None:
        """Flush it to the disk and give it its name.

        Raises:
            Conflict: the name is taken; that file is unchanged.
            UnavailableError: the disk is full.
        """
        try:
            os.fsync(self._handle)
            # A link fails when the name is taken, where a rename would silently replace it.
            os.link(self._temporary, self._path)
            flush_folder(self._path.parent)
        except FileExistsError as exc:
            what = f"{self._path} exists already"
            raise Conflict(what, why="it is never overwritten", fix="choose another name") from exc
        except OSError as exc:
            raise _unwritable(self._path, exc) from exc

    def abandon(self) -> None:
        """Close it; without `commit` before, nothing of it stays. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            _discard(self._temporary)


def move_new(source: Path | str, path: Path | str) -> None:
    """Rename *source* to *path* in the same folder, durably; never overwrites. Completes itself when interrupted.

    Raises:
        Conflict: *path* exists and is another file.
        UnavailableError: the folder is not writable.
    """
    source, path = Path(source), Path(path)
    try:
        if not (path.exists() and path.samefile(source)):
            os.link(source, path)
        flush_folder(path.parent)
        source.unlink()
        flush_folder(path.parent)
    except FileExistsError as exc:
        raise Conflict(f"{path} exists already", why="it is never overwritten", fix="choose another name") from exc
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def write_new_folder(path: Path | str, entries: Iterable[tuple[PurePath, bytes, int]]) -> None:
    """Create the folder *path* with everything that is in it, durably, or not at all; never adds to one with content.

    The files are written into a folder ``.NAME.partial`` beside it, which is then renamed. What a crash leaves of that
    folder is removed by the next call for the same *path*, and is private to its owner until then.

    Args:
        entries: relative paths, contents, and modes less the umask; folders between are for the owner alone.

    Raises:
        Conflict: *path* has content, or another process is writing it.
        StateError: the folder beside it is another user's.
        UnavailableError: the folder above is missing or not writable, or the disk is full; *path* does not exist.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    make_private_folder(partial)
    with _locked_folder(partial):
        try:
            for leftover in partial.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
            for name, data, mode in entries:
                write_new(make_private_folder((partial / name).parent) / name.name, data, mode=mode)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            partial.rename(path)
            flush_folder(path.parent)
        except BaseException as exc:  # what gives the entries may fail in any way
            shutil.rmtree(partial, ignore_errors=True)
            if not isinstance(exc, OSError):
                raise
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise Conflict(f"{path} exists already", why="it is not empty", fix="choose another name") from exc
            raise _unwritable(path, exc) from exc


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes of this machine; the kernel releases it when the process ends."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise Conflict(f"another process is writing {folder}", fix="wait until it is done") from exc
        yield


def remove_durable(path: Path | str) -> None:
    """Remove the file at *path* durably; nothing is wrong when there is none.

    Raises:
        UnavailableError: it cannot be removed.
    """
    path = Path(path)
    try:
        path.unlink(missing_ok=True)
        flush_folder(path.parent)
    except OSError as exc:
        raise UnavailableError(f"cannot remove {path}", why=exc.strerror or type(exc).__name__) from exc


def _is_stream(path: Path) -> bool:
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(kind) or stat.S_ISFIFO(kind)


def _write_beside(path: Path, data: bytes | Iterable[bytes], mode: int) -> Path:
    """Write *data*, whole or in pieces, to a new file beside *path*, flush it, return its name; or leave nothing."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(temporary, flags, mode)
    try:
        try:
            for piece in (data,) if isinstance(data, bytes) else data:
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:  # what gives the pieces may fail in any way
        _discard(temporary)
        raise
    return temporary


def _discard(temporary: Path) -> None:
    # A leftover is harmless, and this error must not hide the one that led here.
    with contextlib.suppress(OSError):
        temporary.unlink()


def flush_folder(folder: Path) -> None:
    """Make the names in *folder* durable; a file system that cannot flush folders has nothing to flush."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, exc: OSError) -> UnavailableError:
    reason = exc.strerror or type(exc).__name__
    return UnavailableError(f"cannot write {path}", why=reason, fix="check that the folder exists and has space")


def read_limited(path: Path | str, max_bytes: int, what: str) -> bytes:
    """Return the content of *path*, or of standard input for ``-``.

    Args:
        max_bytes: largest content accepted; never is more than this (and one octet) held.
        what: the content in words for errors, such as ``certificate request``.

    Raises:
        UnavailableError: the file cannot be opened or read.
        InputError: larger than *max_bytes*, or a folder.
    """
    try:
        if str(path) == "-":
            data = _read_up_to(sys.stdin.buffer, max_bytes + 1)
        else:
            with Path(path).open("rb") as stream:
                data = _read_up_to(stream, max_bytes + 1)
    except IsADirectoryError as exc:
        raise InputError(f"{path} is a folder", why=f"{what} is read from a file") from exc
    except OSError as exc:
        raise UnavailableError(f"cannot read {what} {path}", why=exc.strerror or type(exc).__name__) from exc
    except ValueError as exc:  # a NUL in the name
        raise InputError(f"{path} is not a file name", why=str(exc)) from exc
    if len(data) > max_bytes:
        raise InputError(f"{what} {path} is larger than {max_bytes} bytes", fix="check that it is the right file")
    return data


def _read_up_to(stream: BinaryIO, limit: int) -> bytes:
    """Read until the end or *limit*; one read() of a pipe may return less than there will be."""
    chunks: list[bytes] = []
    left = limit
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def make_private_folder(path: Path | str) -> Path:
    """Create *path* for its owner alone (0700) unless it exists, check who can write to it, and return it.

    Raises:
        StateError: it exists and belongs to someone else, or others can write to it: they could plant files.
        UnavailableError: it cannot be created, or is a file.
    """
    path = Path(path)
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in missing:
            flush_folder(folder.parent)  # or a crash could take the folder with everything durable in it
        status = path.stat()
    except OSError as exc:
        raise UnavailableError(f"cannot create the folder {path}", why=exc.strerror or type(exc).__name__) from exc
    if os.name == "posix":
        if status.st_uid not in (os.geteuid(), 0):
            raise StateError(
                f"the folder {path} belongs to another user", why="they could replace keys in it", fix="use your own"
            )
        if status.st_mode & 0o022:
            raise StateError(
                f"others can write to the folder {path}",
                why=f"its mode is {stat.S_IMODE(status.st_mode):04o}, so they could replace keys in it",
                fix=f"chmod 700 {path}",
            )
    return path


def read_private(path: Path | str) -> bytes:
    """Return the content (at most 1 MiB) of a file that only its owner can read.

    Raises:
        SignerError: the file is absent or unreadable, not a plain file, or readable by group or others.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            # The open file is judged, not its name, so that nobody swaps it between check and use.
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SignerError(f"{path} is not a plain file", fix="keep private keys in plain files")
            if os.name == "posix" and status.st_mode & 0o077:
                raise SignerError(
                    f"others can read {path}",
                    why=f"its mode is {stat.S_IMODE(status.st_mode):04o}; it may have been copied",
                    fix=f"chmod 600 {path}",
                )
            data = _read_up_to(stream, _MAX_PRIVATE_BYTES + 1)
    except OSError as exc:
        raise SignerError(f"cannot read {path}", why=exc.strerror or type(exc).__name__) from exc
    if len(data) > _MAX_PRIVATE_BYTES:
        raise SignerError(f"{path} is larger than {_MAX_PRIVATE_BYTES} bytes", fix="check that it is the right file")
    return data


def make_folder(path: Path | str) -> Path:
    """Create *path* and its parents for public files (mode 0755 less the umask) unless it exists, and return it.

    Raises:
        UnavailableError: it cannot be created, or is a file.
    """
    path = Path(path)
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            flush_folder(folder.parent)
    except OSError as exc:
        raise UnavailableError(f"cannot create the folder {path}", why=exc.strerror or type(exc).__name__) from exc
    return path


@contextlib.contextmanager
def locked(path: Path | str, *, mode: int = 0o644) -> Iterator[None]:
    """Hold an exclusive lock on the file *path* (created when absent) against other processes of this machine.

    The kernel releases the lock when the process ends, however it ends.

    Args:
        mode: permissions of a file that is created, less the umask.

    Raises:
        UnavailableError: the file cannot be created.
    """
    path = Path(path)
    try:
        # Whoever can write to the folder must not choose with a link which file we create.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags, mode)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def turn(path: Path | str) -> Iterator[None]:
    """Hold the file *path*, which is there already and is only read, against others of this machine that do the same.

    Where there is no such file, or its file system has no locks, nobody is waited for; nor for longer than ten seconds
    for one that stands still while it has its turn.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            _wait_for_turn(handle)
        yield
    finally:
        if fcntl is not None:
            # Told, not left to the closing: a child that was forked meanwhile has the handle as well.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _wait_for_turn(handle: int) -> None:
    ends = time.monotonic() + _MAX_TURN_SECONDS
    while time.monotonic() < ends:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
        except OSError:
            return
        else:
            return
