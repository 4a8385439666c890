"""Where things are in the repository, and which modules the packages consist of."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "module_names", "tracked_files"]

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pki", "ocpp_security", "cli")


@cache
def module_names() -> tuple[str, ...]:
    """Return the long name of every module and package, sorted; ``__main__`` modules are left out (they run)."""
    names = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] == "__main__" or "migrations" in parts[:-1]:
                # Alembic's environment and revisions run inside a migration only.
                continue
            names.append(".".join(("chargepki", *(parts[:-1] if parts[-1] == "__init__" else parts))))
    return tuple(sorted(names))


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every file that is, or is about to be, in the repository (relative paths); ignored files are left out."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return tuple(path for name in sorted(set(listing.split("\0"))) if name and (ROOT / (path := Path(name))).is_file())
