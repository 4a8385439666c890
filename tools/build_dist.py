"""Build the wheel and the sdist twice and refuse to hand them out unless both builds are the same, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pki", "ocpp_security", "cli")


def source_date_epoch() -> str:
    """Return the instant that the archives' time stamps get: the caller's, else that of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # 1980-01-01 is the earliest time that a zip entry can carry; it serves where there is no repository.
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "315532800"


def build(target: Path, epoch: str) -> dict[str, Path]:
    """Build both archives into *target* and return them by file name."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(target), str(ROOT)],
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {path.name: path for path in sorted(target.iterdir())}


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that lacks a package, or that would install a file outside ``chargepki/``."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for package in PACKAGES:
        for needed in ("__init__.py", "py.typed"):
            if f"chargepki/{package}/{needed}" not in names:
                raise SystemExit(f"error: {wheel.name} lacks chargepki/{package}/{needed}")
    strays = [name for name in names if not name.startswith("chargepki/") and ".dist-info/" not in name]
    if strays or "chargepki/__init__.py" in names:
        raise SystemExit(f"error: {wheel.name} would write outside its own packages: {strays}")


def main(arguments: list[str]) -> int:
    """Build into the folder that the one argument names, and print the digests."""
    if len(arguments) != 1:
        print("usage: build_dist.py FOLDER", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    epoch = source_date_epoch()
    with tempfile.TemporaryDirectory() as scratch:
        first = build(Path(scratch) / "1", epoch)
        second = build(Path(scratch) / "2", epoch)
        for name, path in first.items():
            if path.read_bytes() != second[name].read_bytes():
                raise SystemExit(f"error: two builds of {name} differ; nothing was written")
            if path.suffix == ".whl":
                check_wheel(path)
        target.mkdir(parents=True, exist_ok=True)
        for name, path in first.items():
            shutil.copyfile(path, target / name)
            print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {target / name}")
    print(f"built twice, identical (SOURCE_DATE_EPOCH={epoch})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
