"""One prepared workspace per process: software keys cost 0.1 s each by design, so tests copy it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from chargepki.pki import names
from testkit.command_line import CommandLine
from testkit.requests import make_csr

PASSPHRASE = b"correct horse battery staple"
PUBLIC_URL = "http://pki.test"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workspace ``home`` (hierarchy of OCPP, two stations, two certificates, CRLs) and files."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "passphrase").write_bytes(PASSPHRASE + b"\n")
    (folder / "passphrase").chmod(0o600)
    (folder / "station.csr").write_bytes(make_csr(names.parse_rdns("CN=CS-0001,O=Acme Charging")))
    run = CommandLine(
        folder / "home",
        {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"), "CHARGEPKI_PUBLIC_URL": PUBLIC_URL},
    )
    run("ca", "create-hierarchy", "ocpp", "--prefix", "t", "--organization", "Acme Charging", "--country", "DE")
    run("station", "add", "CS-0001", "--organization", "Acme Charging")
    run("station", "add", "CS-0002")
    request = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", folder / "station.csr")
    run("cert", "issue", *request, "--request-id", "live", "--out", folder / "live.pem")
    run("cert", "issue", *request, "--request-id", "dead", "--out", folder / "dead.pem")
    run("ca", "chain", "t-cso-sub", "--out", folder / "chain.pem")
    serial = run("cert", "list", "--ca", "t-cso-sub", "--json").json()["certificates"]
    dead = next(row["id"] for row in serial if row["request_key"] == "id:dead")
    run("cert", "revoke", dead, "--reason", "superseded")
    run("crl", "publish", "--ca", "t-cso-sub", "--out", folder / "sub.crl")
    run("audit", "checkpoint", "--out", folder / "checkpoint.json")
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder that the test may change."""
    copy = tmp_path / "place"
    shutil.copytree(prepared, copy, symlinks=True)
    return copy


@pytest.fixture
def run(place: Path) -> CommandLine:
    """Runs commands on the copied workspace, with its passphrase and a public URL in the environment."""
    return CommandLine(
        place / "home",
        {"CHARGEPKI_PASSPHRASE_FILE": str(place / "passphrase"), "CHARGEPKI_PUBLIC_URL": PUBLIC_URL},
    )


@pytest.fixture
def fresh(tmp_path: Path) -> CommandLine:
    """Runs commands without workspace, passphrase or URL."""
    return CommandLine(tmp_path / "fresh")


@pytest.fixture(scope="session")
def sarif_schema(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The schema out of the npm package that its authors publish; fetched once, kept in pytest's cache."""
    folder = Path(request.config.cache.mkdir("sarif"))
    path = folder / "sarif-2.1.0.json"
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("needs npm, to fetch the SARIF schema")
        package = "@microsoft/sarif-multitool-linux@5.7.0"
        done = subprocess.run([npm, "pack", package], cwd=folder, capture_output=True, check=False, timeout=100)
        archives = list(folder.glob("*.tgz"))
        if done.returncode or not archives:
            pytest.skip("npm could not fetch the SARIF schema")
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile("package/sarif-2.1.0.json")
            assert member is not None
            path.write_bytes(member.read())
        archives[0].unlink()
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return schema
