"""`inventory export`: JSON, CSV, PEM and PKCS#12 of all certificates or of those that a filter asks for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from chargepki.pki import names
from testkit.command_line import CommandLine

REVOKED = ("--where", "state = 'revoked'")


def test_export_tells_the_same_in_every_form(run: CommandLine, tmp_path: Path) -> None:
    listed = {row["id"]: row for row in run("cert", "list", "--json").json()["certificates"]}
    whole = run("inventory", "export", "--json", "--with-pem").json()
    assert (whole["schema"], whole["schema_version"]) == ("chargepki/inventory-export", 1)
    assert [len(whole[name]) for name in ("cas", "certificates", "stations")] == [3, 5, 2]
    for row in whole["certificates"]:
        assert {name: row[name] for name in listed[row["id"]]} == listed[row["id"]]
        assert row["issuer"] == names.text(x509.load_pem_x509_certificate(row["certificate_pem"].encode()).issuer)
    lines = [json.loads(line) for line in run("inventory", "export", "--with-pem").out.splitlines()]
    assert [{**row, "kind": "certificate"} for row in whole["certificates"]] == [
        line for line in lines if line["kind"] == "certificate"
    ]
    table = list(csv.DictReader(io.StringIO(run("inventory", "export", "--format", "csv").out)))
    assert [row["id"] for row in table] == sorted(listed)
    assert table[0].keys() == whole["certificates"][0].keys() - {"certificate_pem"}
    run("inventory", "export", "--format", "pem", "--out", tmp_path / "all.pem")
    assert (tmp_path / "all.pem").read_text() == "".join(row["certificate_pem"] for row in whole["certificates"])


def test_verdict_of_each_rule_comes_with_the_certificates_that_were_asked_for(run: CommandLine) -> None:
    rows = run("inventory", "export", "--json", "--with-verdict", "--with-pem").json()["certificates"]
    for row in rows:
        shown = run("cert", "show", row["id"], "--json").json()
        assert (row["verdict"], row["certificate_pem"]) == (shown["verdict"], shown["certificate_pem"])
    assert any(rule["outcome"] == "pass" for row in rows for rule in row["verdict"])


def test_filter_narrows_the_export_to_certificates(run: CommandLine) -> None:
    (line,) = run("inventory", "export", *REVOKED).out.splitlines()
    assert json.loads(line)["revocation_reason"] == "superseded" and json.loads(line)["kind"] == "certificate"
    document = run("inventory", "export", "--format", "json", *REVOKED).json()
    assert not document["cas"] and not document["stations"] and len(document["certificates"]) == 1
    assert run("inventory", "export", "--format", "csv", "--where", "state = 'voided'").out.count("\n") == 1


def test_pkcs12_holds_certificates_alone_under_the_passphrase(run: CommandLine, place: Path) -> None:
    for options, secret in (((), None), (("--pkcs12-passphrase-file", place / "passphrase"), b"correct horse")):
        run("inventory", "export", "--format", "pkcs12", "--out", place / "all.p12", *options)
        word = None if secret is None else (place / "passphrase").read_bytes().strip()
        key, own, others = pkcs12.load_key_and_certificates((place / "all.p12").read_bytes(), word)
        assert key is None and own is None and len(others) == 5
    none = ("--where", "state = 'voided'")
    run("inventory", "export", "--format", "pkcs12", "--out", place / "x.p12", *none, code=3).check_one_error(3)
    assert not (place / "x.p12").exists()


def test_options_that_do_not_go_together_are_refused(run: CommandLine, tmp_path: Path) -> None:
    for option in ("--with-pem", "--with-verdict"):
        run("inventory", "export", "--format", "csv", option, code=2)
    run("inventory", "export", "--format", "pem", "--with-provenance", code=2)
    run("inventory", "export", "--pkcs12-passphrase-file", tmp_path / "p", code=2)
    run("inventory", "export", "--out", tmp_path / "none" / "x", code=4).check_one_error(4)
