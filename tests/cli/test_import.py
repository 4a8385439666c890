"""`inventory import`: what others left becomes rows beside our own, once, with its place, and trusted for nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import AuthorityInformationAccessOID

from chargepki.pki.der import to_pem
from chargepki.pki.importing import Importer, Intake
from chargepki.pki.importing import run as importing_run
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.records import Actor, ActorKind
from testkit.command_line import CommandLine, snapshot
from testkit.databases import sqlite_url
from testkit.estate import BORN, Estate, name_of
from testkit.tls_server import tls_server

__all__ = ["sqlite_url"]

ESTATE = Estate()
EXPIRES = BORN + timedelta(days=365)


# The command, killed within the commit of its third certificate: no handler, no finally, no flush runs.
DOOMED = """
import os, signal
from chargepki.cli.main import main
from chargepki.pki.importing import run
from chargepki.pki.inventory.transaction import Transaction

run._BATCH = 1
store, calls = Transaction.import_certificates, []

def die_in_the_third(*given, **named):
    done = store(*given, **named)
    calls.append(done)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

Transaction.import_certificates = die_in_the_third
main()
"""


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an openssl CA: a root, three others, of which one was revoked, and a row without its file."""
    folder = tmp_path_factory.mktemp("estate")
    (folder / "newcerts").mkdir()
    rows = []
    for number, der in enumerate(ESTATE.certificates(3)):
        (folder / "newcerts" / f"{4096 + number:X}.pem").write_text(to_pem("CERTIFICATE", der))
        state = "R\t{}\t260301120000Z,keyCompromise" if number == 2 else "V\t{}\t"
        rows.append(f"{state.format(f'{EXPIRES:%y%m%d%H%M%SZ}')}\t{4096 + number:X}\tunknown\t/CN=x\n")
    (folder / "index.txt").write_text("".join(rows))
    (folder / "index.txt.old").write_text(rows[0])
    return folder


def take_in(run: CommandLine, *sources: str | Path, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = run("inventory", "import", *sources, "--json", code=code).json()
    return document


def imported(run: CommandLine) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run("cert", "list", "--where", "origin = 'imported'", "--json").json()["certificates"]
    return rows


def test_import_is_done_once_and_told_everywhere(run: CommandLine, estate: Path, place: Path) -> None:
    run("inventory", "import", estate, "--dry-run", "--json")
    assert not imported(run)
    expected = take_in(run, estate, "--dry-run")
    first = take_in(run, estate)
    assert first == expected
    assert (first["added"], first["places"], first["revoked"], first["known"]) == (4, 4, 1, 0)
    entries = run("audit", "show", "--json").json()["entries"]
    again = take_in(run, estate)
    assert (again["added"], again["places"], again["revoked"], again["known"]) == (0, 0, 0, 4)
    assert "nothing is new" in run("inventory", "import", estate).stderr
    assert run("audit", "show", "--json").json()["entries"] == entries, "nothing was written"

    rows = imported(run)
    assert [row["serial"] for row in rows] == ["1000", "1001", "1002", "1003"]
    dead = rows[2]
    assert (dead["state"], dead["revocation_reason"]) == ("revoked", "keyCompromise")
    assert dead["revoked_at"] == "2026-03-01T12:00:00Z"
    assert run("cert", "count", "--where", f"ca = '{dead['ca']}' and country = 'DE'").out == "4\n"
    assert run("inventory", "list", "--json").json()["imported_certificates"] == 4
    shown = run("cert", "show", dead["id"], "--json").json()
    (found,) = shown["found"]
    assert found["place"] == str(estate / "newcerts" / "1002.pem") and found["source"] == str(estate)
    assert found["command"] == "chargepki inventory import" and found["imported_by"] and found["imported_at"]
    assert "SHA-256" not in found and len(found["file_sha256"]) == 64
    assert run("cert", "show", found["place"], "--json").json()["origin"] == "imported"
    where = ("--where", f"source = '{estate}' and place like '%1002.pem' and imported_at > now - 1h")
    assert [row["id"] for row in run("cert", "list", *where, "--json").json()["certificates"]] == [dead["id"]]
    (told,) = run("inventory", "export", *where, "--with-provenance", "--json").json()["certificates"]
    assert {name: told[name] for name in ("place", "source", "role", "imported_at", "imported_by")} == {
        name: found[name] for name in ("place", "source", "role", "imported_at", "imported_by")
    }
    (run_,) = run("inventory", "list", "--json").json()["imports"]
    assert run_ == {
        "source": str(estate),
        "command": found["command"],
        "imported_by": found["imported_by"],
        "started_at": found["imported_at"],
    }
    run("audit", "verify", "--checkpoint", place / "checkpoint.json")


def test_imported_certificate_is_not_ours_to_change_or_to_trust(run: CommandLine, estate: Path) -> None:
    before = run("ca", "list", "--json").json()["cas"]
    take_in(run, estate)
    alive = imported(run)[1]["id"]
    refused = run("cert", "revoke", alive, "--reason", "superseded", code=3)
    assert "which is not ours" in refused.stderr and "--record-only" in refused.stderr
    run("cert", "revoke", alive, "--reason", "superseded", "--record-only")
    assert (
        run("cert", "list", "--profile", "foreign", "--state", "revoked", "--json").json()["certificates"][0]["id"]
        == alive
    )
    assert run("ca", "list", "--json").json()["cas"] == before, "nobody is asked to trust it"
    (foreign,) = [ca for ca in run("ca", "list", "--foreign", "--json").json()["cas"] if ca["state"] == "foreign"]
    run("cert", "issue", "--ca", foreign["name"], "--profile", "ocpp/csms", "--new-key", "--key-out", "k", code=3)


def issued_by(ca: x509.Certificate) -> bytes:
    """Return a certificate that names *ca* as its issuer, by name and key."""
    key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(ESTATE.key.public_key())
        .serial_number(0x7B)
        .not_valid_before(BORN)
        .not_valid_after(EXPIRES)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    )
    return builder.sign(ESTATE.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_our_ca_signed_without_a_record_is_told(run: CommandLine, place: Path) -> None:
    report = take_in(run, place / "live.pem", place / "chain.pem")
    assert (report["added"], report["ours"], report["orphans"]) == (0, 3, 0)
    assert run("cert", "show", place / "live.pem", "--json").json()["found"][0]["place"] == str(place / "live.pem")
    chain = x509.load_pem_x509_certificates((place / "chain.pem").read_bytes())
    (place / "orphan.der").write_bytes(issued_by(chain[0]))
    report = take_in(run, place / "orphan.der")
    assert (report["added"], report["orphans"]) == (1, 1) and "serial 7b of" in report["orphan_places"][0]
    assert "no record of it" in run("inventory", "import", place / "orphan.der").stderr


def test_layouts_name_roles_and_bad_files_give_the_exit_code(run: CommandLine, tmp_path: Path) -> None:
    tmp_path /= "certs"
    for name, number in (("ca/v2g/V2G_ROOT_CA.pem", 0), ("client/csms/CSMS_LEAF.pem", 1), ("other/x.pem", 2)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(to_pem("CERTIFICATE", ESTATE.certificate(number)))
    (tmp_path / "cut.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
    report = take_in(run, tmp_path, code=3)
    assert (report["added"], report["problem_count"]) == (3, 1)
    assert report["problems"][0]["place"] == str(tmp_path / "cut.pem")
    assert "cut.pem" in run("inventory", "import", tmp_path, code=3).stderr
    roles = [run("cert", "show", row["id"], "--json").json()["found"][0]["role"] for row in imported(run)]
    assert roles == ["v2g-root", "charging-station", None]
    (tmp_path / "new.pem").write_text(to_pem("CERTIFICATE", ESTATE.certificate(3)))
    run.run("inventory", "import", tmp_path / "new.pem", tmp_path / "none").check_one_error(4)
    run.run("inventory", "import", tmp_path / "new.pem", "tls://nowhere").check_one_error(3)
    assert len(imported(run)) == 3, "nothing is begun that names what is not there"


def test_sealed_bundle_is_opened_with_its_own_passphrase(run: CommandLine, tmp_path: Path) -> None:
    leaf = x509.load_der_x509_certificate(ESTATE.certificate(1))
    how = BestAvailableEncryption(b"its own")
    (tmp_path / "a.p12").write_bytes(pkcs12.serialize_key_and_certificates(b"x", ESTATE.key, leaf, None, how))
    (tmp_path / "word").write_text("its own\n")
    report = take_in(run, tmp_path / "a.p12", code=3)
    assert report["added"] == 0 and "--bundle-passphrase-file" in report["problems"][0]["reason"]
    report = take_in(run, tmp_path / "a.p12", "--bundle-passphrase-file", tmp_path / "word")
    assert (report["added"], report["private_keys"]) == (1, 1)
    copy = b"".join(content for _, content in snapshot(run.home).values())
    secret = ESTATE.key.private_numbers().private_value.to_bytes(32, "big")
    assert leaf.public_bytes(Encoding.DER) in copy and secret not in copy, "no private key gets in"


def test_live_endpoint_is_imported_and_no_other_address_is_asked(run: CommandLine, tmp_path: Path) -> None:
    elsewhere = socket.create_server(("127.0.0.1", 0))
    elsewhere.setblocking(False)
    root, leaf = ESTATE.certificate(0), pointing_at(f"http://127.0.0.1:{elsewhere.getsockname()[1]}/")
    chain = (to_pem("CERTIFICATE", leaf) + to_pem("CERTIFICATE", root)).encode()
    key = ESTATE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with elsewhere, tls_server(tmp_path, chain, key) as port:
        report = take_in(run, f"tls://127.0.0.1:{port}")
        assert (report["added"], report["private_keys"], report["problem_count"]) == (2, 0, 0)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    places = {run("cert", "show", row["id"], "--json").json()["found"][0]["place"] for row in imported(run)}
    assert places == {f"tls://127.0.0.1:{port}#1", f"tls://127.0.0.1:{port}#2"}
    report = take_in(run, f"tls://127.0.0.1:{port}", code=4)
    assert report["problem_count"] == 1 and "cannot see the certificates" in report["problems"][0]["reason"]


def pointing_at(url: str) -> bytes:
    """Make a certificate whose pointers are all *url*, which nobody may fetch."""
    where = x509.UniformResourceIdentifier(url)
    methods = (AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS)
    access = x509.AuthorityInformationAccess([x509.AccessDescription(each, where) for each in methods])
    lists = x509.CRLDistributionPoints([x509.DistributionPoint([where], None, None, None)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of("pointing"))
        .issuer_name(name_of(ESTATE.name))
        .public_key(ESTATE.key.public_key())
        .serial_number(9)
        .not_valid_before(BORN)
        .not_valid_after(EXPIRES)
        .add_extension(access, critical=False)
        .add_extension(lists, critical=False)
    )
    return builder.sign(ESTATE.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_dump_of_a_station_becomes_its_listing(run: CommandLine, tmp_path: Path) -> None:
    entry = {"hashAlgorithm": "SHA256", "issuerNameHash": "aa" * 32, "issuerKeyHash": "bb" * 32, "serialNumber": "1"}
    response = {
        "status": "Accepted",
        "certificateHashDataChain": [{"certificateType": "CSMSRootCertificate", "certificateHashData": entry}],
    }
    dump = {
        "schema": "chargepki/station-dump",
        "schema_version": 1,
        "station": "CS-0001",
        "reported_at": "2026-03-01T00:00:00Z",
        "response": response,
    }
    tmp_path /= "dumps"
    tmp_path.mkdir()
    lines = [dump, {**dump, "station": "CS-0002", "uses": ["v2g"]}, {**dump, "station": "CS-9999"}, {"schema": "x"}]
    (tmp_path / "dumps.ndjson").write_text("\n".join(map(json.dumps, lines)))
    report = take_in(run, tmp_path, code=3)
    assert report["dumps"] == 7 and "station add CS-9999" in report["problems"][0]["reason"]
    assert report["problem_count"] == 2
    (listed,) = run("station", "roots", "CS-0001", "--json").json()["roots"]
    assert listed["use"] == "csms" and listed["finding"] == "unexplained"
    assert take_in(run, tmp_path, code=3)["dumps"] == 0
    (tmp_path / "dumps.ndjson").write_text(json.dumps({**dump, "reported_at": "2999-01-01T00:00:00Z"}))
    assert "future" in take_in(run, tmp_path, code=3)["problems"][0]["reason"]


def test_interrupted_import_goes_on(estate: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing_run, "_BATCH", 2)
    key, actor = AuditKey.generate(), Actor("alice", ActorKind.OS_USER, authenticated=False)
    with Inventory.open(sqlite_url, log_key=key) as inventory:
        importers = [Importer(inventory, actor, lambda: datetime.now(UTC), "estate", "import") for _ in range(2)]
        assert list(islice(importers[0].take(Intake().path(str(estate))), 1)) == [2]
        intake = Intake()
        assert list(importers[1].take(intake.path(str(estate)))) == [2, 4]
        assert (importers[1].tally.known, importers[1].tally.added) == (2, 2)
        assert inventory.count_imported() == 4 and len(inventory.list_import_runs()) == 2
        assert not verify_log(inventory, pinned_keys=[key.public]).findings


def test_killed_import_is_continued_by_the_same_command(run: CommandLine, estate: Path) -> None:
    environ = {**os.environ, **run.variables, "CHARGEPKI_HOME": str(run.home)}
    command = [sys.executable, "-c", DOOMED, "inventory", "import", str(estate)]
    killed = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [row["serial"] for row in imported(run)] == ["1000", "1001"], "what was committed is there, and no half"
    rest = take_in(run, estate)
    assert (rest["known"], rest["added"], rest["places"], rest["revoked"]) == (2, 2, 2, 1)
    assert len(imported(run)) == 4
    run("audit", "verify")
