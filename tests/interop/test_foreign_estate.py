"""Estates that openssl, easy-rsa and cfssl left behind, made when the test runs: imported, and judged as expected."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from testkit.command_line import CommandLine
from testkit.foreign import missing

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
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 365
policy = any
unique_subject = no
[any]
commonName = supplied
"""


@pytest.fixture
def fresh(tmp_path: Path) -> CommandLine:
    """Runs commands on an inventory that the first import makes."""
    return CommandLine(tmp_path / "fresh")


def tool(folder: Path, *words: str | Path, variables: dict[str, str] | None = None) -> str:
    """Run a tool in *folder*; it must succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C", **(variables or {})},
    )
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
    return done.stdout


def taken(run: CommandLine, folder: Path, *, code: int = 0) -> dict[str, dict[str, object]]:
    """Import a folder into a fresh inventory, and return its certificates by CN."""
    report = run("inventory", "import", folder, "--json", code=code).json()
    rows = run("cert", "list", "--where", "origin = 'imported'", "--json").json()["certificates"]
    assert report["added"] == len(rows)
    return {row["subject"].rpartition("CN=")[2]: row for row in rows}


def doctored(run: CommandLine, folder: Path) -> dict[str, set[str]]:
    """Return the files with the key of each leaf, by its CN, as the doctor matches them; openssl and Java accept it."""
    found = run.run("doctor", folder, "--json").json()
    subjects = {each["object"]: each["says"] for each in found["objects"]}
    keys = {}
    for chain in found["chains"]:
        if len(chain["path"]) > 1:
            told = {each["party"]: each["objections"] for each in chain["parties"]}
            assert told["openssl"] == told["Java"] == []
            keys[subjects[chain["path"][0]].rpartition("CN=")[2]] = {Path(each).name for each in chain["keys"]}
    return keys


def judged(run: CommandLine) -> dict[str, int]:
    """Return how often each rule is broken by what was imported."""
    found = run.run("inventory", "check", "--jobs", "1", "--json").json()
    return {each["rule"]: each["count"] for each in found["findings"]}


def test_openssl_ca_is_taken_over(fresh: CommandLine, tmp_path: Path) -> None:
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    folder = tmp_path / "demoCA"
    (folder / "newcerts").mkdir(parents=True)
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1000\n")
    (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    tool(folder, "openssl", "req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Old Root")
    for name in ("one", "two", "three"):
        tool(
            folder, "openssl", "req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        tool(
            folder,
            "openssl",
            "ca",
            "-config",
            "ca.cnf",
            "-batch",
            "-notext",
            "-in",
            f"{name}.csr",
            "-out",
            f"{name}.pem",
        )
    revoke = ("openssl", "ca", "-config", "ca.cnf", "-revoke")
    tool(folder, *revoke, "two.pem", "-crl_reason", "superseded")
    tool(folder, *revoke, "three.pem", "-crl_compromise", "20260201000000Z")
    (folder / "newcerts" / "1000.pem").unlink()
    (folder / "one.pem").unlink()

    found = taken(fresh, folder, code=3)
    assert {name: row["state"] for name, row in found.items()} == {
        "Old Root": "issued",
        "two": "revoked",
        "three": "revoked",
    }
    assert found["two"]["revocation_reason"] == "superseded"
    assert found["three"]["revocation_reason"] == "keyCompromise"
    assert found["three"]["invalidity_date"] == "2026-02-01T00:00:00Z"
    assert doctored(fresh, folder) == {"two": {"two.key"}, "three": {"three.key"}}
    # No extensions without a section of them in its configuration, and a root for thirty days.
    assert judged(fresh) == {
        "e_ku_ca_certsign": 1,
        **dict.fromkeys(("e_aki_missing", "e_child_outlives_issuer", "e_version_v3", "w_ski_missing_leaf"), 2),
        "w_serial_low_entropy": 2,
    }
    report = fresh("inventory", "import", folder, "--json", code=3).json()
    assert (report["added"], report["places"], report["revoked"], report["private_keys"]) == (0, 0, 0, 4)
    assert "1 of its 3 certificates are not beside it: 1000" in report["problems"][0]["reason"]
    tool(folder, "openssl", "ca", "-config", "ca.cnf", "-gencrl", "-crldays", "7", "-out", "crl.pem")
    assert fresh("inventory", "import", folder, "--json", code=3).json()["added"] == 0
    exported = fresh("inventory", "export", "--format", "pem", "--where", "origin = 'imported'").out
    (tmp_path / "all.pem").write_text(exported)
    subjects = tool(tmp_path, "openssl", "storeutl", "-noout", "-certs", "all.pem")
    assert "Total found: 3" in subjects
    fresh("lint", tmp_path / "all.pem", code=1)


def test_easy_rsa_is_taken_over(fresh: CommandLine, tmp_path: Path) -> None:
    if not EASY_RSA.exists():
        pytest.skip("easy-rsa is not installed; on Debian: apt-get install easy-rsa")
    pki = tmp_path / "pki"
    variables = {"EASYRSA_BATCH": "1", "EASYRSA_PKI": str(pki), "EASYRSA_ALGO": "ec", "EASYRSA_CURVE": "prime256v1"}
    tool(tmp_path, EASY_RSA, "init-pki", variables=variables)
    tool(tmp_path, EASY_RSA, "build-ca", "nopass", variables={**variables, "EASYRSA_REQ_CN": "Old VPN"})
    for name in ("one", "two"):
        tool(tmp_path, EASY_RSA, "build-client-full", name, "nopass", variables=variables)
    tool(tmp_path, EASY_RSA, "revoke", "two", "cessationOfOperation", variables=variables)
    found = taken(fresh, pki)
    assert {name: row["state"] for name, row in found.items()} == {
        "Old VPN": "issued",
        "one": "issued",
        "two": "revoked",
    }
    assert found["two"]["revocation_reason"] == "cessationOfOperation"
    assert found["two"]["ca"] == found["one"]["ca"]
    serial = str(found["two"]["serial"]).upper().zfill(32)
    assert doctored(fresh, pki) == {"one": {"one.key"}, "two": {f"{serial}.key"}}, "it renames what it revokes"
    # Its clients pass for charging stations, which name their operator as O.
    broken = {"e_basic_constraints_ca_not_critical": 1, "e_cs_cn_missing": 2, "w_aki_issuer_serial_form": 2}
    assert judged(fresh) == broken


def test_cfssl_is_taken_over(fresh: CommandLine, tmp_path: Path) -> None:
    if reason := missing("cfssl", "golang-cfssl"):
        pytest.skip(reason)
    folder = tmp_path / "cfssl"
    folder.mkdir()
    key = {"algo": "ecdsa", "size": 256}
    (folder / "ca.json").write_text(json.dumps({"CN": "Old cfssl CA", "key": key}))
    made = json.loads(tool(folder, "cfssl", "gencert", "-initca", "ca.json"))
    (folder / "ca.pem").write_text(made["cert"])
    (folder / "ca-key.pem").write_text(made["key"])
    (folder / "db.json").write_text(json.dumps({"driver": "sqlite3", "data_source": str(folder / "certs.db")}))
    with sqlite3.connect(folder / "certs.db") as database:  # the table of cfssl's first migration
        database.execute(
            "CREATE TABLE certificates (serial_number blob NOT NULL, authority_key_identifier blob NOT NULL,"
            " ca_label blob, status blob NOT NULL, reason int, expiry timestamp, revoked_at timestamp,"
            " pem blob NOT NULL, PRIMARY KEY(serial_number, authority_key_identifier))"
        )
    for name in ("one", "two"):
        (folder / f"{name}.json").write_text(json.dumps({"CN": name, "key": key, "hosts": [f"{name}.example"]}))
        signing = ("-ca", "ca.pem", "-ca-key", "ca-key.pem", "-db-config", "db.json")
        tool(folder, "cfssl", "gencert", *signing, f"{name}.json")
    with sqlite3.connect(folder / "certs.db") as database:
        # This cfssl stores no key identifier with what `gencert` makes, and revokes nothing without one.
        database.execute("UPDATE certificates SET authority_key_identifier = 'aa'")
        rows = database.execute("SELECT serial_number, pem FROM certificates").fetchall()
    named = {x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string(): number for number, pem in rows}
    serial = named["CN=two"]
    tool(folder, "cfssl", "revoke", "-db-config", "db.json", "-serial", serial, "-aki", "aa", "-reason", "superseded")
    found = taken(fresh, folder)
    assert {name: row["state"] for name, row in found.items()} == {
        "Old cfssl CA": "issued",
        "one": "issued",
        "two": "revoked",
    }
    assert found["two"]["revocation_reason"] == "superseded" and found["two"]["serial"] == f"{int(serial):x}"
    assert doctored(fresh, folder) == {"one": set(), "two": set()}, "the doctor sees PEM in a database too, and no keys"
    assert judged(fresh) == {}


def test_key_stores_of_keytool_are_imported_and_their_keys_left(fresh: CommandLine, tmp_path: Path) -> None:
    if reason := missing("keytool", "default-jdk-headless"):
        pytest.skip(reason)
    keytool = ("keytool", "-J-XX:TieredStopAtLevel=1")
    (tmp_path / "word").write_text("correct horse\n")
    secret = ("-genseckey", "-keyalg", "AES", "-keysize", "128", "-alias", "0", "-storetype", "jceks")
    tool(tmp_path, *keytool, *secret, "-keystore", tmp_path / "store.jceks", "-storepass", "correct horse")
    for kind in ("jks", "pkcs12", "jceks"):
        where = ("-storetype", kind, "-keystore", tmp_path / f"store.{kind}", "-storepass", "correct horse")
        entry = ("-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-alias", kind, "-dname", f"CN={kind}")
        tool(tmp_path, *keytool, *entry, *where, *(() if kind == "pkcs12" else ("-keypass", "correct horse")))
    exported = ("-exportcert", "-alias", "jks", "-keystore", tmp_path / "store.jks", "-storepass", "correct horse")
    tool(tmp_path, *keytool, *exported, "-file", tmp_path / "jks.der")
    closed = fresh("inventory", "import", tmp_path / "store.pkcs12", "--json", code=3).json()
    assert closed["added"] == 0 and "--bundle-passphrase-file" in closed["problems"][0]["reason"]
    word = ("--bundle-passphrase-file", tmp_path / "word")
    for kind, keys in (("jks", 1), ("pkcs12", 1), ("jceks", 1)):
        report = fresh("inventory", "import", tmp_path / f"store.{kind}", *word, "--json").json()
        assert (report["added"], report["private_keys"], report["problem_count"]) == (1, keys, 0)
    rows = fresh("cert", "list", "--where", "origin = 'imported'", "--json").json()["certificates"]
    assert {row["subject"] for row in rows} == {"CN=jks", "CN=pkcs12", "CN=jceks"}
    jks = hashlib.sha256((tmp_path / "jks.der").read_bytes()).hexdigest()
    assert jks in {row["sha256"] for row in rows}, "the very certificate that Java gives out"
