"""The commands with a hierarchy of ML-DSA: all that reads, checks and publishes works, and TLS is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from chargepki.pki import keys
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import parse_rdns
from testkit.command_line import CommandLine
from testkit.requests import make_csr

STATION = "ocpp/charging-station"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A root and a sub-CA of ML-DSA-44, a leaf with its key, a request, and a list: files beside the workspace."""
    place = tmp_path_factory.mktemp("quantum")
    (place / "passphrase").write_bytes(b"correct horse")
    (place / "passphrase").chmod(0o600)
    variables = {"CHARGEPKI_PASSPHRASE_FILE": str(place / "passphrase"), "CHARGEPKI_PUBLIC_URL": "http://pki.test"}
    made = CommandLine(place / "home", variables)
    key = ("--key", "ml-dsa-44")
    made("ca", "create", "r", "--profile", "ocpp/cso-root", *key, "--subject", "CN=R,O=Acme,C=DE")
    made("ca", "create", "s", "--profile", "ocpp/cso-sub", "--issuer", "r", *key, "--subject", "CN=S,O=Acme,C=DE")
    new = ("--new-key", *key, "--key-out", place / "leaf.key", "--subject", "CN=CS-1,O=Acme")
    out = ("--out", place / "leaf.pem", "--chain-out", place / "all.pem")
    made("cert", "issue", "--ca", "s", "--profile", STATION, *new, *out)
    made("ca", "chain", "s", "--out", place / "sub.pem")
    made("ca", "chain", "r", "--out", place / "root.pem")
    made("crl", "publish", "--ca", "s", "--out", place / "s.crl")
    request = make_csr(parse_rdns("CN=CS-2,O=Acme"), keys.generate_private_key(KeyAlgorithm.ML_DSA_44))
    (place / "cs2.csr").write_bytes(request)
    return made


def test_what_reads_and_checks_knows_it(run: CommandLine, tmp_path: Path) -> None:
    place = run.home.parent
    leaf, sub, root = (place / f"{name}.pem" for name in ("leaf", "sub", "root"))
    words = ("--trust", f"cso={root}", "--untrusted", sub, "--purpose", "charging-station")
    assert run("cert", "verify", leaf, *words, "--json").json()["valid"] is True
    run("cert", "verify", leaf, *words, "--crl", place / "s.crl", "--at", "2040-01-01T00:00:00Z", code=1)
    linted = run("lint", leaf, place / "s.crl", "--profile", STATION, "--json").json()
    assert "n_ocpp_post_quantum" in str(linted)
    checked = run("inventory", "check", "--json").json()
    assert checked["errors"] == 0 and "n_ocpp_post_quantum" in str(checked)
    told = run("doctor", leaf, sub, root, place / "leaf.key", code=1).out
    assert "ml-dsa-44" in told and "the field holds 10000" in told
    assert run("csr", "check", place / "cs2.csr", "--profile", STATION, "--json").json()["accepted"] is True
    run("ocsp", "presign", "--all", "--out-dir", tmp_path)
    answer = next((tmp_path / "s@1").iterdir())
    assert run("ocsp", "show", answer, "--json").json()["answers"][0]["status"] == "good"
    run("crl", "check", "--all")


def test_it_goes_out_and_comes_in_again(run: CommandLine, tmp_path: Path) -> None:
    run("inventory", "export", "--format", "pem", "--out", tmp_path / "all.pem")
    other = CommandLine(tmp_path / "other", run.variables)
    row = other("inventory", "import", tmp_path / "all.pem", "--json").json()
    assert row["added"] >= 3, row
    other("inventory", "check", "--json")


TLS = ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "3")


@pytest.mark.parametrize(
    "case", ["server certificate", "server issued here", "stations' roots", "what stations are issued by", "responder"]
)
def test_tls_is_refused_by_name_before_anything_is_issued(run: CommandLine, prepared_ec: Path, case: str) -> None:
    place = run.home.parent
    pair = ("--tls-cert", place / "all.pem", "--tls-key", place / "leaf.key")
    good = ("--tls-cert", prepared_ec / "ec.pem", "--tls-key", prepared_ec / "ec.key")
    words: dict[str, tuple[str | Path, ...]] = {
        "server certificate": (*TLS, *pair, "--client-trust", prepared_ec / "ca.pem"),
        "server issued here": (
            *TLS, "--tls-ca", "s", "--dns", "localhost", "--client-trust", prepared_ec / "ca.pem", "--issue-here"
        ),
        "stations' roots": (*TLS, *good, "--client-trust", place / "root.pem"),
        "what stations are issued by": (*TLS, *good, "--issue", f"ChargingStationCertificate=s:{STATION}"),
        "responder": ("serve", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", *pair),
    }  # fmt: skip
    before = len(run("cert", "list", "--json").json()["certificates"])
    done = run(*words[case], code=3)
    assert "has a key of ML-DSA, which is not used in TLS here" in done.stderr
    assert len(run("cert", "list", "--json").json()["certificates"]) == before


@pytest.fixture(scope="module")
def prepared_ec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server certificate with an EC key, its CA's certificate, and its key."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from testkit.hierarchy import make_node

    folder = tmp_path_factory.mktemp("ec")
    ca = make_node("ca", None, ca=True)
    leaf = make_node("localhost", ca, ca=False)
    (folder / "ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    (folder / "ec.pem").write_bytes(leaf.certificate.public_bytes(Encoding.PEM))
    (folder / "ec.key").write_bytes(leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "ec.key").chmod(0o600)
    return folder
