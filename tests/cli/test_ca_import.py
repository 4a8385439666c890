"""`chargepki ca import`: what is refused, what is told, and that a run that stopped is completed by the next."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from chargepki.pki.adopting import adopt
from chargepki.pki.inventory import Inventory
from chargepki.pki.names import parse_rdns
from testkit.command_line import CommandLine, snapshot
from testkit.requests import make_csr

DAY = timedelta(days=1)


def name(text: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Acme"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
    ])  # fmt: skip


class OldCa:
    """A CA that is not ours, made by a builder that is not ours."""

    def __init__(self, folder: Path, common_name: str, above: OldCa | None = None, **options: Any) -> None:
        self.folder, self.name = folder, name(common_name)
        self.key = options.get("key") or ec.generate_private_key(ec.SECP256R1())
        self.above = above or self
        own_identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        begin = datetime.now(UTC) - options.get("age", 30) * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.above.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + options.get("days", 3000) * DAY)
            .add_extension(x509.BasicConstraints(ca=options.get("ca", True), path_length=None), critical=True)
            .add_extension(options.get("ski") or own_identifier, False)
        )
        if "usage" in options:
            builder = builder.add_extension(options["usage"], critical=True)
        self.certificate = builder.sign(self.above.key, hashes.SHA256())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(self.certificate.public_bytes(Encoding.PEM))
        self.write_key(folder / "ca.key")

    def write_key(self, path: Path, passphrase: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> None:
        how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        path.write_bytes(self.key.private_bytes(Encoding.PEM, form, how))

    def issue(self, text: str) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(name(text))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - DAY)
            .not_valid_after(datetime.now(UTC) + 90 * DAY)
            .sign(self.key, hashes.SHA256())
        )
        (self.folder / f"{text}.crt").write_bytes(made.public_bytes(Encoding.PEM))
        return made

    def list(self, number: int, *revoked: int) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        builder = builder.add_extension(x509.CRLNumber(number), False)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - 2 * DAY).build()
            builder = builder.add_revoked_certificate(entry)
        (self.folder / f"{number}.crl").write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER))


WORDS = ("ca", "import", "old")
ROOT = ("--profile", "ocpp/cso-root")


@pytest.mark.parametrize(
    ("options", "profile", "word"),
    [
        ({"age": 400, "days": 100}, "ocpp/cso-root", "the CA is valid from"),
        ({"ca": False}, "ocpp/cso-root", "no CA with its key"),
        ({}, "ocpp/cso-sub", "is not the profile of one"),
        ({}, "ocpp/charging-station", "no profile of a CA"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "ocpp/cso-root", "RSA of 1024 bits"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "ocpp/cso-root", "secp256k1"),
        (
            {"usage": x509.KeyUsage(True, *[False] * 8)},
            "ocpp/cso-root",
            "may not sign certificates and lists",
        ),
    ],
    ids=["expired", "no CA", "profile of a sub-CA", "profile of a leaf", "rsa1024", "secp256k1", "usage"],
)
def test_a_ca_that_must_not_go_on_is_refused_and_nothing_is_made(
    fresh: CommandLine, tmp_path: Path, options: Mapping[str, Any], profile: str, word: str
) -> None:
    OldCa(tmp_path / "old", "Old", **options)
    refused = fresh.run(*WORDS, tmp_path / "old", "--profile", profile).check_one_error(3)
    assert word in refused.stderr
    assert not fresh.home.exists()


def test_a_key_that_does_not_fit_or_does_not_open_is_refused(run: CommandLine, place: Path) -> None:
    old, other = OldCa(place / "old", "Old"), OldCa(place / "other", "Other")
    before = snapshot(run.home / "keys")
    refused = run.run(*WORDS, place / "old", *ROOT, "--key", place / "other" / "ca.key").check_one_error(3)
    assert "is not the key of the CA" in refused.stderr
    old.write_key(place / "old" / "ca.key", b"old", PrivateFormat.TraditionalOpenSSL)
    assert "--key-passphrase-file" in run.run(*WORDS, place / "old", *ROOT).check_one_error(4).stderr
    words = (*WORDS, place / "old", *ROOT, "--key-passphrase-file", place / "passphrase")
    assert "wrong passphrase" in run.run(*words).check_one_error(4).stderr
    other.write_key(place / "old" / "other.key")
    (place / "old" / "other.crt").write_bytes((place / "other" / "ca.crt").read_bytes())
    old.write_key(place / "old" / "ca.key")
    assert "2 CAs with their keys" in run.run(*WORDS, place / "old", *ROOT).check_one_error(3).stderr
    assert snapshot(run.home / "keys") == before


def test_a_folder_of_step_ca_goes_on_under_its_own_key_identifier(run: CommandLine, place: Path) -> None:
    """Root and intermediate with keys in the older encrypted form, an identifier that is no SHA-1, lists alone.

    The names are those that `step ca init` gives, the form of the keys that of its public sources.
    """
    ski = x509.SubjectKeyIdentifier(b"another way to do it"[:20])
    root = OldCa(place / "made" / "root", "Old Root")
    sub = OldCa(place / "made" / "sub", "Old Sub", root, ski=ski)
    step = place / "step"
    for name in ("certs", "secrets", "config", "db"):
        (step / name).mkdir(parents=True)
    for each, name in ((root, "root_ca"), (sub, "intermediate_ca")):
        each.write_key(step / "secrets" / f"{name}_key", b"step", PrivateFormat.TraditionalOpenSSL)
        shutil.move(each.folder / "ca.crt", step / "certs" / f"{name}.crt")
    (step / "config" / "ca.json").write_text('{"root": "certs/root_ca.crt", "db": {"type": "badgerv2"}}')
    (step / "db" / "MANIFEST").write_bytes(b"Bdgr" + bytes(60))
    root_crt, sub_crt = (step / "certs" / f"{name}.crt" for name in ("root_ca", "intermediate_ca"))
    (place / "pass").write_bytes(b"step")
    (place / "pass").chmod(0o600)
    gone = sub.issue("gone")
    sub.list(5, gone.serial_number)
    sub.list(9, gone.serial_number, 0xBEEF)
    kept = ("--key-passphrase-file", place / "pass", "--certificate")
    # Issued certificates are in its own kind of database; lists and files are what it published and handed out.
    shutil.copytree(sub.folder, step / "published", ignore=shutil.ignore_patterns("ca.key"))
    sub_words = ("ca", "import", "sub", step, "--profile", "ocpp/cso-sub", *kept, sub_crt)
    assert "no CA here has issued it" in run.run(*sub_words).check_one_error(3).stderr
    run(*WORDS, step, *ROOT, *kept, root_crt)
    row = run(*sub_words, "--json").json()
    assert (row["issuer"], row["revoked"], row["crl_number"]) == ("old@1", 2, 9)
    run("crl", "publish", "--ca", "sub", "--out", place / "new.crl")
    new = x509.load_der_x509_crl((place / "new.crl").read_bytes())
    assert {each.serial_number for each in new} == {gone.serial_number, 0xBEEF}
    (place / "s.csr").write_bytes(make_csr(parse_rdns("CN=CS-0001,O=Acme Charging")))
    issue = ("cert", "issue", "--ca", "sub", "--profile", "ocpp/charging-station", "--csr", place / "s.csr")
    run(*issue, "--out", place / "leaf.pem")
    leaf = x509.load_pem_x509_certificate((place / "leaf.pem").read_bytes())
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == ski.digest
    trust = ("--trust", root_crt, "--untrusted", sub_crt)
    run("cert", "verify", *trust, place / "leaf.pem")
    run(
        "cert",
        "verify",
        *trust,
        "--crl",
        place / "new.crl",
        "--revocation",
        "if-present",
        sub.folder / "gone.crt",
        code=1,
    )
    run("audit", "verify")


def test_a_run_that_stopped_before_the_end_signs_nothing_and_is_completed(
    run: CommandLine, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = OldCa(place / "old", "Old")
    certificates = [old.issue(f"c{number}") for number in range(5)]
    old.list(3, certificates[0].serial_number)
    write, left = Inventory.write, [2]

    def failing(self: Inventory, work: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(adopt, "_BATCH", 2)
        patch.setattr(Inventory, "write", failing)
        assert run.run(*WORDS, place / "old", *ROOT).code == 130
    assert run("ca", "show", "old", "--json").json()["state"] == "pending"
    run("crl", "publish", "--ca", "old", code=3)
    row = run(*WORDS, place / "old", *ROOT, "--json").json()
    assert row["state"] == "active" and row["added"] < 6
    listed = run("cert", "list", "--ca", "old", "--json").json()["certificates"]
    assert len(listed) == 6 and [each["state"] for each in listed].count("revoked") == 1
    later = old.issue("later")
    assert run(*WORDS, place / "old", *ROOT, "--json").json()["added"] == 1
    assert run("cert", "show", f"old@1:{later.serial_number:x}", "--json").json()["origin"] == "imported"
    assert "exists already" in run.run(*WORDS, OldCa(place / "x", "X").folder, *ROOT).check_one_error(3).stderr
    assert "has this key already" in run.run("ca", "import", "twin", place / "old", *ROOT).check_one_error(3).stderr


def test_certificates_of_others_and_forgeries_are_told_apart(run: CommandLine, place: Path) -> None:
    old, forger = OldCa(place / "old", "Old"), OldCa(place / "forger", "Old")
    mine = old.issue("mine")
    forged = forger.issue("forged")
    (place / "old" / "forged.crt").write_bytes(forged.public_bytes(Encoding.PEM))
    forger.list(99)
    (place / "old" / "forged.crl").write_bytes((place / "forger" / "99.crl").read_bytes())
    row = run(*WORDS, place / "old", *ROOT, "--json").json()
    assert (row["certificates"], row["others"], row["crl_number"]) == (1, 1, None)
    assert any("is not signed by the CA" in problem for problem in row["problems"])
    ids = {each["serial"] for each in run("cert", "list", "--ca", "old", "--json").json()["certificates"]}
    assert f"{mine.serial_number:x}" in ids and f"{forged.serial_number:x}" not in ids
