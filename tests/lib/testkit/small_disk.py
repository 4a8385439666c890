"""A disk that is really full, where the tests may mount one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["do_without_mount", "fill_but", "small_disk"]


@contextlib.contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path | None]:
    """Mount a small file system in memory at *folder*; gives ``None`` where this process may not mount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k,mode=700", "none", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def do_without_mount(instead: str) -> None:
    """Skip, visibly; in CI only warn: not every CI may mount, and nothing that could be installed would change that."""
    reason = f"this process may not mount a small file system; {instead}"
    if "CI" not in os.environ:
        pytest.skip(reason)
    warnings.warn(reason, stacklevel=2)


def fill_but(filler: Path, free: int) -> None:
    """Let *filler* grow or shrink so that *free* octets are left on its disk."""
    filler.write_bytes(b"")
    filler.write_bytes(bytes(max(0, shutil.disk_usage(filler.parent).free - free)))
