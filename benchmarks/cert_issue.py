"""What does one `chargepki cert issue` cost beyond importing what it needs and decrypting the CA's key once?"""

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

REFERENCE = """
import importlib, json, pathlib, sys
for name in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # a name that a package made up in sys.modules
from chargepki.pki.keys import decrypt_private_key
decrypt_private_key(pathlib.Path(sys.argv[2]).read_bytes(), b"benchmark")
"""


def run(folder: Path, *arguments: str) -> None:
    """Run a child in the environment of the throw-away workspace; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CHARGEPKI_")} | {
        "CHARGEPKI_HOME": str(folder / "home"),
        "CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"),
    }
    done = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"error: {' '.join(arguments[-8:])} ended with {done.returncode}: {done.stderr.decode()[-800:]}"
        )


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
        imports = folder / "imports.json"
        run(folder, sys.executable, "-c", RECORD, str(imports), *issue)
        assert "chargepki.pki.authority" in json.loads(imports.read_text())
        (key,) = (folder / "home" / "keys").glob("sub*.key")
        return [
            compare(
                "one chargepki cert issue",
                subject=Case("chargepki cert issue", lambda: run(folder, chargepki, *issue)),
                reference=Case(
                    "the same imports and one key decryption",
                    lambda: run(folder, sys.executable, "-c", REFERENCE, str(imports), str(key)),
                ),
                limit=Limit(1.3, "issuing one certificate should cost little more than starting up"),
            )
        ]


if __name__ == "__main__":
    raise SystemExit(main("cert_issue", measure))
