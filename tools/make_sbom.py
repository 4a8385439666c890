"""Write the CycloneDX bill of materials of what a user installs: chargepki and its runtime pins, no tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".boot" / "bin" / "uv"


def make_environment(folder: Path) -> Path:
    """Install exactly the hashed runtime requirements into a new environment and return its interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    python = folder / "bin" / "python"
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        ["pip", "sync", "--quiet", "--python", str(python), "--require-hashes", "requirements/runtime.txt"],
    ):
        subprocess.run([str(UV), *arguments], cwd=ROOT, env=environment, check=True)
    return python


def describe(python: Path, output: Path) -> None:
    """Let cyclonedx-py describe the environment of *python*; it validates the result against the schema itself."""
    subprocess.run(
        [
            sys.executable, "-m", "cyclonedx_py", "environment",
            "--pyproject", str(ROOT / "pyproject.toml"),
            "--mc-type", "application",
            "--spec-version", "1.6",
            "--output-reproducible",
            "--validate",
            "--output-file", str(output),
            str(python),
        ],
        # The document's time stamp; without one it carries none, which is reproducible as well.
        env={key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
        check=True,
    )  # fmt: skip


def check(document: Path) -> int:
    """Refuse a bill that lacks a pinned package; return how many components it names."""
    bill = json.loads(document.read_text(encoding="utf-8"))
    named = {component["name"].lower().replace("_", "-") for component in bill["components"]}
    if bill["metadata"]["component"]["name"] != "chargepki" or "cryptography" not in named:
        raise SystemExit(f"error: {document} does not describe chargepki and what it depends on")
    return len(named)


def main(arguments: list[str]) -> int:
    """Write the bill to the file that the one argument names."""
    if len(arguments) != 1:
        print("usage: make_sbom.py FILE", file=sys.stderr)
        return 2
    output = Path(arguments[0])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        describe(make_environment(Path(scratch) / "env"), output)
    print(f"{output}: {check(output)} components", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
