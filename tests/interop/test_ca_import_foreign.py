"""CAs of openssl, easy-rsa and cfssl are taken over; openssl judges old and new certificates and the lists."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.names import parse_rdns
from testkit.command_line import CommandLine
from testkit.foreign import missing
from testkit.requests import make_csr

pytestmark = pytest.mark.foreign
EASY_RSA = Path("/usr/share/easy-rsa/easyrsa")
CONFIG = """
[ca]
default_ca = ours
[ours]
dir = {folder}
database = $dir/index.txt
new_certs_dir = $dir/newcerts
serial = $dir/serial
crlnumber = $dir/crlnumber
certificate = $dir/ca.pem
private_key = $dir/private/ca.key
default_md = sha256
default_days = 365
default_crl_days = 30
policy = any
unique_subject = no
[any]
organizationName = supplied
commonName = supplied
"""


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    (tmp_path / "passphrase").write_bytes(b"ours")
    (tmp_path / "passphrase").chmod(0o600)
    variables = {
        "CHARGEPKI_PASSPHRASE_FILE": str(tmp_path / "passphrase"),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example",
    }
    return CommandLine(tmp_path / "home", variables)


def tool(folder: Path, *words: str | Path, code: int = 0, variables: dict[str, str] | None = None) -> str:
    """Run a tool in *folder* and assert its exit code."""
    environment = {**os.environ, "LC_ALL": "C", **(variables or {})}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == code, f"{words}: {done.stderr}{done.stdout}"
    return done.stdout + done.stderr


def openssl_ca(folder: Path) -> None:
    """Make a root with `openssl ca`, whose key is encrypted; it issued three certificates and revoked two."""
    (folder / "newcerts").mkdir(parents=True)
    (folder / "private").mkdir()
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1000\n")
    (folder / "crlnumber").write_text("7F\n")
    (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
    (folder / "pass").write_text("old\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    root = ("-keyout", "private/ca.key", "-passout", "file:pass", "-out", "ca.pem", "-days", "3000")
    tool(folder, "openssl", "req", "-x509", *new_key, *root, "-subj", "/C=DE/O=Acme/CN=Old Root")
    ca = ("openssl", "ca", "-config", "ca.cnf", "-batch", "-passin", "file:pass")
    for name in ("one", "two", "three"):
        request = ("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=Acme/CN={name}")
        tool(folder, "openssl", "req", *new_key, *request)
        tool(folder, *ca, "-in", f"{name}.csr", "-out", f"{name}.pem")
    tool(folder, *ca, "-revoke", "two.pem", "-crl_reason", "superseded")
    tool(folder, *ca, "-revoke", "three.pem", "-crl_reason", "keyCompromise")
    (folder / "newcerts" / "1002.pem").unlink()  # of "three" the index alone tells
    for name in ("three.pem", "three.key"):
        (folder / name).unlink()
    tool(folder, *ca, "-gencrl", "-out", "old.crl")


def test_a_ca_of_openssl_goes_on_and_openssl_believes_both_halves(run: CommandLine, tmp_path: Path) -> None:
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    folder = tmp_path / "demoCA"
    openssl_ca(folder)
    (folder / "pass").chmod(0o600)
    words = ("ca", "import", "old", folder, "--profile", "ocpp/cso-root", "--key-passphrase-file", folder / "pass")
    dry = run(*words, "--dry-run", "--json").json()
    assert (dry["added"], dry["revocations"]) == (3, 2) and not run.home.exists()
    row = run(*words, "--json").json()
    assert (row["state"], row["added"], row["revoked"], row["certificates"]) == ("active", 4, 2, 2), row
    assert row["crl_number"] == 0x7F and row["missing"] == [] and row["lint_issued"]
    again = run(*words, "--json").json()
    assert (again["added"], again["revoked"]) == (0, 0)
    # The old half: its lists must still name what it revoked, also what is known by its serial alone.
    run("crl", "publish", "--ca", "old", "--out", tmp_path / "new.crl", "--pem")
    new = x509.load_pem_x509_crl((tmp_path / "new.crl").read_bytes())
    old = x509.load_pem_x509_crl((folder / "old.crl").read_bytes())
    assert {(each.serial_number, each.revocation_date_utc) for each in old} == {
        (each.serial_number, each.revocation_date_utc) for each in new
    }
    number = new.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number > 0x7F
    # The new half: below it as before.
    run("ca", "create", "sub", "--profile", "ocpp/cso-sub", "--issuer", "old", "--subject", "CN=Sub,O=Acme,C=DE")
    (tmp_path / "s.csr").write_bytes(make_csr(parse_rdns("CN=CS-1,O=Acme")))
    request = ("--ca", "sub", "--profile", "ocpp/charging-station", "--csr", tmp_path / "s.csr")
    run("cert", "issue", *request, "--out", tmp_path / "leaf.pem")
    run("ca", "chain", "sub", "--out", tmp_path / "chain.pem")
    verify = ("openssl", "verify", "-CAfile", folder / "ca.pem")
    checked = (*verify, "-crl_check", "-CRLfile", tmp_path / "new.crl")
    assert "OK" in tool(tmp_path, *checked, folder / "one.pem")
    assert "revoked" in tool(tmp_path, *checked, folder / "two.pem", code=2)
    assert "OK" in tool(tmp_path, *verify, "-untrusted", tmp_path / "chain.pem", tmp_path / "leaf.pem")
    # What it had issued is ours to revoke.
    one = next(
        each["id"] for each in run("cert", "list", "--json").json()["certificates"] if "CN=one" in each["subject"]
    )
    run("cert", "revoke", one, "--reason", "superseded")
    run("crl", "publish", "--ca", "old", "--out", tmp_path / "new.crl", "--pem")
    assert "revoked" in tool(tmp_path, *checked, folder / "one.pem", code=2)
    run("audit", "verify")


def test_a_ca_of_cfssl_is_taken_over_with_its_database(run: CommandLine, tmp_path: Path) -> None:
    if reason := missing("cfssl", "golang-cfssl"):
        pytest.skip(reason)
    folder = tmp_path / "cfssl"
    folder.mkdir()
    request = {"CN": "Old cfssl", "key": {"algo": "ecdsa", "size": 256}, "names": [{"O": "Acme", "C": "DE"}]}
    (folder / "root.json").write_text(json.dumps(request))
    made = json.loads(tool(folder, "sh", "-c", "cfssl gencert -initca root.json 2>/dev/null"))
    (folder / "ca.pem").write_text(made["cert"])
    (folder / "ca-key.pem").write_text(made["key"])
    issued = by_cfssl_server(folder, 3)
    revoked = issued[0]
    row = run("ca", "import", "old", folder, "--profile", "ocpp/cso-root", "--json").json()
    assert (row["state"], row["added"], row["revoked"], row["missing"]) == ("active", 4, 1, []), row
    again = run("ca", "import", "old", folder, "--profile", "ocpp/cso-root", "--json").json()
    assert (again["added"], again["revoked"]) == (0, 0)
    run("crl", "publish", "--ca", "old", "--out", tmp_path / "new.crl", "--pem")
    said = tool(tmp_path, "openssl", "crl", "-in", tmp_path / "new.crl", "-CAfile", folder / "ca.pem", "-noout")
    assert "verify OK" in said
    (entry,) = x509.load_pem_x509_crl((tmp_path / "new.crl").read_bytes())
    assert entry.serial_number == revoked.serial_number
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.superseded
    ours = {each["serial"] for each in run("cert", "list", "--ca", "old", "--json").json()["certificates"]}
    assert {f"{each.serial_number:x}" for each in issued} <= ours
    run("audit", "verify")


def by_cfssl_server(folder: Path, count: int) -> list[x509.Certificate]:
    """Have `cfssl serve` issue, and revoke the first, with a database of its own; return what it issued."""
    signing = {"signing": {"default": {"expiry": "8760h", "usages": ["digital signature"]}}}
    (folder / "cfssl.json").write_text(json.dumps(signing))
    (folder / "db.json").write_text(json.dumps({"driver": "sqlite3", "data_source": str(folder / "certs.db")}))
    with contextlib.closing(sqlite3.connect(folder / "certs.db")) as database:  # the table of cfssl's first migration
        database.execute(
            "CREATE TABLE certificates (serial_number blob NOT NULL, authority_key_identifier blob NOT NULL,"
            " ca_label blob, status blob NOT NULL, reason int, expiry timestamp, revoked_at timestamp,"
            " pem blob NOT NULL, PRIMARY KEY(serial_number, authority_key_identifier))"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["cfssl", "serve", "-address", "127.0.0.1", "-port", str(port), "-ca", "ca.pem", "-ca-key", "ca-key.pem",
         "-config", "cfssl.json", "-db-config", "db.json", "-loglevel", "4"],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < deadline and server.poll() is None, "cfssl serve does not listen"
            time.sleep(0.02)
        found = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for number in range(count):
                csr = x509.load_der_x509_csr(make_csr(parse_rdns(f"CN=old-{number},O=Acme")))
                body = json.dumps({"certificate_request": csr.public_bytes(Encoding.PEM).decode()})
                connection.request("POST", "/api/v1/cfssl/sign", body, {"Content-Type": "application/json"})
                answer = json.loads(connection.getresponse().read())
                assert answer["success"], answer
                found.append(x509.load_pem_x509_certificate(answer["result"]["certificate"].encode()))
            # It finds a row by the key identifier, which this release stores as an empty text.
            row = {"serial": str(found[0].serial_number), "authority_key_id": "", "reason": "superseded"}
            connection.request("POST", "/api/v1/cfssl/revoke", json.dumps(row), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            assert answer["success"], answer
        return found
    finally:
        server.terminate()
        server.wait(60)


def test_a_ca_of_easy_rsa_is_taken_over(run: CommandLine, tmp_path: Path) -> None:
    if not EASY_RSA.exists():
        pytest.skip("easyrsa is not installed (Debian package easy-rsa)")
    pki = tmp_path / "pki"
    variables = {"EASYRSA_PKI": str(pki), "EASYRSA_BATCH": "1", "EASYRSA_ALGO": "ec", "EASYRSA_CURVE": "prime256v1"}
    steps = [("init-pki",), ("build-ca", "nopass"), ("gen-req", "one", "nopass"), ("sign-req", "client", "one")]
    for words in [*steps, ("revoke", "one"), ("gen-crl",)]:
        tool(tmp_path, EASY_RSA, *words, variables=variables)
    row = run("ca", "import", "old", pki, "--profile", "ocpp/cso-root", "--json").json()
    assert (row["state"], row["revoked"], row["missing"]) == ("active", 1, []), row
    run("crl", "publish", "--ca", "old", "--out", tmp_path / "new.crl", "--pem")
    (gone,) = x509.load_pem_x509_crl((tmp_path / "new.crl").read_bytes())
    (old,) = x509.load_pem_x509_crl((pki / "crl.pem").read_bytes())
    assert (gone.serial_number, gone.revocation_date_utc) == (old.serial_number, old.revocation_date_utc)
