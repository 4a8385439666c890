"""What ``chargepki doctor`` reads and writes: files, folders, the passphrase of encrypted keys, the bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from chargepki.cli.globals import GlobalState
from chargepki.cli.linting import file_mode
from chargepki.cli.results import check_folder, write_result
from chargepki.pki import files
from chargepki.pki.doctor import ChainReport, Heap, Limits, corrected_bundle
from chargepki.pki.errors import Conflict, InputError, UnavailableError

__all__ = ["check_target", "read_heap", "write_bundle"]

_LIMITS: Final = Limits()
_MAX_PASSPHRASE_BYTES: Final = 4096


def read_heap(state: GlobalState, paths: Sequence[str]) -> Heap:
    """Take in every file of *paths*; in a folder a file that cannot be read is passed over and told of.

    Raises:
        InputError: nothing of it is known to the doctor, or it is too much.
        UnavailableError: a path that was named cannot be read.
    """
    heap = Heap(_passphrases(state))
    for path in paths:
        if path != "-" and Path(path).is_dir():
            for file in _walk(Path(path)):
                try:
                    data = files.read_limited(file, _LIMITS.file_bytes, "file")
                except (InputError, UnavailableError) as error:
                    heap.skipped.append((str(file), error.what))
                    continue
                heap.add(data, str(file), mode=file_mode(str(file)))
        else:
            heap.add(files.read_limited(path, _LIMITS.file_bytes, "file"), path, mode=file_mode(path))
    if not heap.files:
        reason = heap.skipped[0][1] if heap.skipped else "there is no file"
        raise InputError(
            f"nothing that the doctor knows in {', '.join(paths)[:200]}",
            why=reason,
            fix="point it at certificates, requests, keys, PKCS#7, PKCS#12 or JKS files",
        )
    return heap


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below *folder*, sorted; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _passphrases(state: GlobalState) -> Callable[[], Sequence[bytes]]:
    """Return a function that obtains the passphrase once, when something encrypted is met."""

    @cache
    def obtain() -> Sequence[bytes]:
        setting = state.settings.passphrase_file
        if setting is not None:
            data = files.read_limited(setting, _MAX_PASSPHRASE_BYTES, "passphrase file")
            return (data.removesuffix(b"\n").removesuffix(b"\r"),)
        if state.output.for_machines or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ()
        import getpass

        typed = getpass.getpass("Passphrase of the encrypted keys (empty: leave them closed): ", stream=sys.stderr)
        return (typed.encode(),) if typed else ()

    return obtain


def check_target(out: str, *, force: bool) -> None:
    """Refuse a file that would be overwritten, before anything is read.

    Raises:
        Conflict: it exists and *force* is false, or it holds a private key.
    """
    check_folder("--write", out)
    path = Path(out)
    if out == "-" or not path.exists():
        return
    if not force:
        raise Conflict(f"{out} exists", why="it may be the only copy of something", fix="pass --force, or another name")
    if b"PRIVATE KEY-----" in files.read_limited(out, _LIMITS.file_bytes, "file"):
        raise Conflict(f"{out} holds a private key", why="--force is for certificates", fix="write to another file")


def write_bundle(state: GlobalState, report: ChainReport, out: str, *, with_root: bool) -> None:
    """Write the chain of *report*, and tell what it still lacks."""
    gap = report.chain.gap
    write_result(state, corrected_bundle(report, with_root=with_root).encode("ascii"), out)
    if gap is not None:
        state.output.say(
            f"warning: it ends below {gap.issuer}, which is not here; if that is no root of the peers, it is too short"
        )
