"""An estate that certomancer made, most of it broken on purpose: imported, checked and doctored as the table says.

`broken_estate.yml` is what certomancer makes it of, `broken_estate.toml` what is to be found in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testkit.command_line import CommandLine
from testkit.foreign import missing

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((HERE / "broken_estate.toml").read_text())
AT = ("--at", "2026-11-01T00:00:00Z")
EPOCH = "1793491200"  # the same


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of what certomancer made, one certificate a file."""
    home = tmp_path_factory.mktemp("broken")
    (home / "keys").mkdir()
    for name in ("root", "sub", "stranger", "leaf", "short"):
        # A key this short is one of the faults.
        short = name == "short"
        key = rsa.generate_private_key(65537, 1024) if short else ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (home / "keys" / f"{name}.pem").write_bytes(pem)
    shutil.copy(HERE / "broken_estate.yml", home / "certomancer.yml")
    command = [sys.executable, "-m", "certomancer", "mass-summon", "broken", "made", "--flat", "--no-pfx"]
    subprocess.run(command, cwd=home, check=True, capture_output=True, timeout=120)
    return home / "made"


def test_broken_estate_is_imported_and_each_fault_found(estate: Path, tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "fresh")
    report = run("inventory", "import", estate, "--json").json()
    assert (report["added"], report["problem_count"]) == (len(EXPECTED), 0)
    rows = run("cert", "list", "--where", "origin = 'imported'", "--json").json()["certificates"]
    names = {row["id"]: row["subject"].rpartition("CN=")[2] for row in rows}
    checked = run("inventory", "check", "--json", "--examples", "100", *AT, code=1).json()
    found: dict[str, dict[str, set[str]]] = {"error": {}, "warning": {}}
    for finding in checked["findings"]:
        for example in finding["examples"]:
            name = names.get(example["name"], example["name"])
            found[finding["severity"]].setdefault(name, set()).add(finding["rule"])
    assert {name: sorted(found["error"].get(name, ())) for name in EXPECTED} == {
        name: each["check"] for name, each in EXPECTED.items()
    }
    assert not found["error"].keys() - EXPECTED.keys()
    assert "w_issuer_unknown" in found["warning"]["by-a-leaf"]
    assert "e_child_outlives_issuer" in found["warning"]["outlives"]


def test_doctor_tells_who_signed_what_has_no_issuer(estate: Path, tmp_path: Path) -> None:
    diagnosis = CommandLine(tmp_path)("doctor", estate, "--json", *AT, code=1).json()
    found = {
        Path(chain["path"][0]).name.partition(".")[0]: {each["rule"] for each in chain["findings"]}
        for chain in diagnosis["chains"]
    }
    assert "issuer-no-ca" in found["by-a-leaf"] and "issuer-unverifiable" in found["sha1"]
    assert "issuer-other-key" in found["stranger-signed"]
    for name in ("by-a-leaf", "sha1"):
        assert not found[name] & {"issuer-missing", "issuer-other-key"}
    assert not found["sound"] - {"chain-in-pieces"}
    refused = {
        Path(chain["path"][0]).name.partition(".")[0]
        for chain in diagnosis["chains"]
        if any(party["objections"] for party in chain["parties"] if party["party"] == "openssl")
    }
    # OpenSSL at security level 1, as its TLS is, and not at that of `openssl verify`.
    strict = {"sha1", "short-key"}
    assert refused == {file_name(name) for name, each in EXPECTED.items() if not each["openssl"]} | strict


def file_name(subject: str) -> str:
    """Return how certomancer calls the file of a certificate."""
    return subject.lower().replace(" ", "-")


def test_table_says_what_openssl_says(estate: Path) -> None:
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    others = [word for path in sorted(estate.iterdir()) for word in ("-untrusted", str(path))]
    trust = ("-attime", EPOCH, "-CAfile", str(estate / "root.cert.pem"), *others)
    for name, each in EXPECTED.items():
        path = estate / f"{file_name(name)}.cert.pem"
        command = ["openssl", "verify", *trust, str(path)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert (done.returncode == 0) is each["openssl"], f"{name}: {done.stderr.decode()}"
