"""What does one `chargepki cert issue` cost beyond importing what it needs and decrypting the CA's key once?

The limit counts our own modules among what it needs to import. The second reference leaves them out (it imports the
standard library, cryptography, click, orjson, sqlite3 ... alone): the distance between the two is what our modules cost
to load, nearly all of it the definition of dataclasses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Case, Comparison, Limit, compare, main
from benchmarks.material import make_request

# Runs the command and then writes the names of all modules that it imported, in the order in which that happened.
RECORD = """
import json, sys
from chargepki.cli.main import main
try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as file:
        json.dump([name for name in sys.modules if not name.startswith("_")], file)
"""

# As plain as can be: import statements, and the library's own reader for the encrypted key.
REFERENCE = """
{imports}
from cryptography.hazmat.primitives.serialization import load_pem_private_key
load_pem_private_key(open({key!r}, "rb").read(), b"benchmark")
"""

FINDABLE = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    print(name)
"""


def run(folder: Path, *arguments: str) -> None:
    """Run a child in the environment of the throw-away workspace; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CHARGEPKI_")} | {
        "CHARGEPKI_HOME": str(folder / "home"),
        "CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"),
    }
    done = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} failed: {done.stderr.decode(errors='replace')[-500:]}")


def write_reference(path: Path, modules: Sequence[str], key: Path) -> None:
    """Write the program that imports *modules*, as far as they can be imported by name, and decrypts *key*."""
    # Some packages put names into sys.modules that no import statement finds.
    done = subprocess.run([sys.executable, "-c", FINDABLE, *modules], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    path.write_text(REFERENCE.format(imports="\n".join(f"import {name}" for name in found), key=str(key)))


def measure() -> Sequence[Comparison]:
    """Compare whole processes over one workspace with a root and a sub-CA."""
    chargepki = str(Path(sys.executable).parent / "chargepki")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "passphrase").write_text("benchmark\n")
        (folder / "request.csr").write_bytes(make_request("STATION-0001"))
        subject = ("--subject", "CN=Benchmark,O=Example")
        run(folder, chargepki, "ca", "create", "root", "--profile", "ocpp/cso-root", *subject)
        run(folder, chargepki, "ca", "create", "sub", "--profile", "ocpp/cso-sub", "--issuer", "root", *subject)
        issue = ["cert", "issue", "--ca", "sub", "--profile", "ocpp/charging-station", "--again"]
        issue += ["--csr", str(folder / "request.csr"), "--out", str(folder / "leaf.pem")]
        recorded = folder / "imports.json"
        run(folder, sys.executable, "-c", RECORD, str(recorded), *issue)
        modules = json.loads(recorded.read_text())
        assert "chargepki.pki.authority" in modules and "sqlalchemy" not in modules
        (key,) = (folder / "home" / "keys").glob("sub*.key")
        references = (
            (
                "all its imports",
                modules,
                Limit(1.3, "issuing one certificate should cost little more than starting"),
            ),
            ("other people's imports", [name for name in modules if name.split(".")[0] != "chargepki"], None),
        )
        comparisons: list[Comparison] = []
        for label, names, limit in references:
            script = folder / f"{len(comparisons)}.py"
            write_reference(script, names, key)
            comparisons.append(
                compare(
                    f"one chargepki cert issue, against {label}",
                    subject=Case("chargepki cert issue", lambda: run(folder, chargepki, *issue)),
                    reference=Case(
                        f"{label} and one key decryption",
                        lambda script=script: run(folder, sys.executable, str(script)),  # type: ignore[misc]  # binds the loop's value
                    ),
                    limit=limit,
                    rounds=9,
                )
            )
        return comparisons


if __name__ == "__main__":
    raise SystemExit(main("cert_issue", measure))
