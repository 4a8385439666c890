"""`chargepki ca`: create, list, show, chain; what is refused creates nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki.authority import creation
from chargepki.pki.errors import ProfileViolation
from testkit.command_line import CommandLine, snapshot

SUBJECT = "CN=New Root,O=Acme,C=DE"
CA_FIELDS = {
    "id", "name", "generation", "profile", "state", "issuer", "subject", "not_before", "not_after", "key",
    "public_url", "spki_sha256", "created_at", "crl_shard_size", "crl_delta_hours",
}  # fmt: skip


def test_the_first_ca_creates_the_workspace_for_its_owner_alone(fresh: CommandLine, prepared: Path) -> None:
    passphrase = ("--passphrase-file", prepared / "passphrase")
    done = fresh("ca", "create", "r", "--profile", "ocpp/cso-root", "--subject", SUBJECT, *passphrase)
    assert "created r@1" in done.stderr and "C=DE,O=Acme,CN=New Root" in done.out
    assert fresh.home.stat().st_mode & 0o777 == 0o700
    for path in fresh.home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    key = fresh.home / "keys" / "r@1.key"
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_create_prints_one_documented_object(run: CommandLine) -> None:
    options = ("--issuer", "t-cso-root", "--subject", "CN=Sub,O=Acme,C=DE", "--validity", "2y", "--key", "secp384r1")
    row = run("ca", "create", "s", "--profile", "ocpp/cso-sub", *options, "--json").json()
    assert row.keys() == CA_FIELDS | {"schema", "schema_version", "warnings"}
    assert (row["schema"], row["id"], row["issuer"], row["state"]) == ("chargepki/ca", "s@1", "t-cso-root@1", "active")
    shown = run("ca", "show", "s", "--json").json()
    certificate = x509.load_pem_x509_certificate(shown["certificate_pem"].encode())
    assert certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z") == row["not_after"]
    assert row["key"] == "file:s@1.key"


def test_a_created_ca_is_never_overwritten(run: CommandLine) -> None:
    before = snapshot(run.home / "keys")
    again = run.run("ca", "create", "t-cso-root", "--profile", "ocpp/cso-root", "--subject", SUBJECT)
    assert "exists already" in again.check_one_error(3).stderr
    assert snapshot(run.home / "keys") == before


def test_an_unknown_key_file_is_never_overwritten(run: CommandLine) -> None:
    path = run.home / "keys" / "zz@1.key"
    path.write_bytes(b"somebody else's")
    path.chmod(0o600)
    before = snapshot(run.home)
    refused = run.run("ca", "create", "zz", "--profile", "ocpp/cso-root", "--subject", SUBJECT).check_one_error(3)
    assert "a key for zz@1 exists" in refused.stderr
    assert snapshot(run.home) == before


def test_create_hierarchy_repeated_changes_nothing(run: CommandLine) -> None:
    words = ("ca", "create-hierarchy", "ocpp", "--prefix", "t", "--organization", "Acme Charging", "--country", "DE")
    before = snapshot(run.home)
    rows = run(*words, "--json").json()["cas"]
    assert [row["name"] for row in rows] == ["t-cso-root", "t-cso-sub", "t-manufacturer-root"]
    assert snapshot(run.home) == before


@pytest.mark.parametrize("standard", ["nosuch", "", "ocpp/", "\x1b[2J", "common"])
def test_create_hierarchy_of_no_standard_is_refused(fresh: CommandLine, prepared: Path, standard: str) -> None:
    words = ("ca", "create-hierarchy", standard, "--prefix", "p", "--organization", "A", "--country", "DE")
    fresh.run(*words, "--passphrase-file", prepared / "passphrase").check_one_error(3)
    assert not fresh.home.exists()


def test_chain_is_pem_with_the_ca_first_and_its_root_last(run: CommandLine, tmp_path: Path) -> None:
    pem = run("ca", "chain", "t-cso-sub").stdout
    first, last = x509.load_pem_x509_certificates(pem)
    assert first.issuer == last.subject == last.issuer
    run("ca", "chain", "t-cso-sub@1", "-o", tmp_path / "chain.pem")
    assert (tmp_path / "chain.pem").read_bytes() == pem
    assert run("ca", "chain", "t-cso-sub", "--out", "-").stdout == pem


def test_show_tells_what_a_ca_has_issued_and_leaves_pem_to_chain(run: CommandLine) -> None:
    shown = run("ca", "show", "t-cso-sub").out
    assert "issued: 1" in shown and "revoked: 1" in shown and "BEGIN CERTIFICATE" not in shown
    row = run("ca", "show", "t-cso-sub", "--json").json()
    assert row["certificates"] == {"issued": 1, "revoked": 1}
    assert row["crl_number"] > 2 and row["certificate_pem"].startswith("-----BEGIN CERTIFICATE-----\n")


def test_list_has_every_field_of_every_ca(run: CommandLine) -> None:
    listed = run("ca", "list", "--json").json()
    assert listed["schema"] == "chargepki/ca-list" and listed["schema_version"] == 1
    assert all(row.keys() == CA_FIELDS for row in listed["cas"])


def test_reading_creates_no_workspace(fresh: CommandLine) -> None:
    for words in (("ca", "list"), ("cert", "list"), ("station", "list"), ("audit", "show"), ("inventory", "list")):
        assert "there is no inventory" in fresh.run(*words).check_one_error(4).stderr
    assert not fresh.home.exists()


def test_changing_what_is_not_there_creates_no_workspace(fresh: CommandLine, prepared: Path) -> None:
    for words in (
        ("cert", "revoke", "x:1", "--reason", "superseded"),
        ("crl", "publish", "--all"),
        ("station", "remove", "x", "--yes"),
        ("station", "set-password", "x"),
        ("authority", "serve", "--once"),
        ("cert", "issue", "--ca", "x", "--profile", "ocpp/charging-station", "--csr", str(prepared / "station.csr")),
    ):
        assert "there is no inventory" in fresh.run(*words).check_one_error(4).stderr
    assert not fresh.home.exists()


REFUSED = {
    "unknown profile": (["x", "--profile", "ocpp/none"], 3, "there is no profile"),
    "leaf profile": (["x", "--profile", "ocpp/charging-station"], 3, "is not a CA profile"),
    "sub-CA without issuer": (["x", "--profile", "ocpp/cso-sub"], 3, "needs an issuer"),
    "root with issuer": (["x", "--profile", "ocpp/cso-root", "--issuer", "t-cso-root"], 3, "takes no issuer"),
    "unknown issuer": (["x", "--profile", "ocpp/cso-sub", "--issuer", "none"], 3, "there is no CA none"),
    "wrong issuer": (["x", "--profile", "ocpp/cso-sub", "--issuer", "t-cso-sub"], 3, ""),
    "unknown key algorithm": (["x", "--profile", "ocpp/cso-root", "--key", "rot13"], 3, "unknown key algorithm"),
    "forbidden key algorithm": (
        ["x", "--profile", "iso15118-2/v2g-root", "--key", "rsa2048", "--subject", "CN=x,O=A,C=DE"],
        3,
        "is not allowed",
    ),
    "outlives issuer": (["x", "--profile", "ocpp/cso-sub", "--issuer", "t-cso-root", "--validity", "40y"], 3, ""),
    "endless validity": (["x", "--profile", "ocpp/cso-root", "--validity", "99999y"], 3, ""),
    "no duration": (["x", "--profile", "ocpp/cso-root", "--validity", "-1d"], 2, "is no duration"),
    "zero duration": (["x", "--profile", "ocpp/cso-root", "--validity", "0d"], 2, "is no duration"),
    "duration with line": (["x", "--profile", "ocpp/cso-root", "--validity", "1d\n"], 2, "is no duration"),
    "no subject": (["x", "--profile", "ocpp/cso-root", "--subject", "nonsense"], 2, "--subject"),
    "country of three": (["x", "--profile", "ocpp/cso-root", "--subject", "CN=x,O=y,C=DEU"], 2, "C is 'DEU'"),
    "control characters": (["x", "--profile", "ocpp/cso-root", "--subject", "CN=\x1b[2J,O=y"], 2, "--subject"),
    "NUL": (["x", "--profile", "ocpp/cso-root", "--subject", "CN=a\0b,O=y"], 2, "NUL"),
    "65 characters": (["x", "--profile", "ocpp/cso-root", "--subject", f"CN={'x' * 65},O=y"], 2, "--subject"),
    "a long subject": (["x", "--profile", "ocpp/cso-root", "--subject", "CN=" + "x" * 100_000], 2, "--subject"),
    "surrogate": (["x", "--profile", "ocpp/cso-root", "--subject", "CN=\udcff,O=y"], 2, "--subject"),
    "name with slash": (["../x", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "name with generation": (["x@2", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "empty name": (["", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "name with escape": (["a\x1b[2J", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "name with line": (["a\n", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "long name": (["a" * 65, "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
    "non-ASCII name": (["ä", "--profile", "ocpp/cso-root"], 3, "is not a valid name"),
}


@pytest.mark.parametrize(("words", "code", "said"), REFUSED.values(), ids=list(REFUSED))
def test_a_refused_ca_leaves_the_workspace_as_it_was(run: CommandLine, words: list[str], code: int, said: str) -> None:
    before = snapshot(run.home)
    assert said in run.run("ca", "create", *words).check_one_error(code).stderr
    assert snapshot(run.home) == before


@pytest.mark.parametrize(("words", "code", "said"), REFUSED.values(), ids=list(REFUSED))
def test_a_refused_first_ca_creates_no_workspace(
    fresh: CommandLine, prepared: Path, words: list[str], code: int, said: str
) -> None:
    fresh.run("ca", "create", *words, "--passphrase-file", prepared / "passphrase").check_one_error(code)
    assert not fresh.home.exists()


def test_a_certificate_that_breaks_its_profile_leaves_neither_ca_nor_key(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only linting finds is found before the name is reserved and the key is made."""

    def refuse(*_: object, **__: object) -> None:
        raise ProfileViolation("the certificate would break its profile", fix="none")

    monkeypatch.setattr(creation, "judge_tbs", refuse)
    before = snapshot(run.home)
    run.run("ca", "create", "x", "--profile", "ocpp/cso-root", "--subject", SUBJECT).check_one_error(3)
    assert snapshot(run.home) == before


@pytest.mark.parametrize("name", ["none", "t-cso-sub@2", "", "\x1b[2J", "x" * 100_000])
def test_showing_what_is_not_there_is_refused(run: CommandLine, name: str) -> None:
    for verb in ("show", "chain"):
        run.run("ca", verb, name).check_one_error(3)


@pytest.mark.parametrize(("name", "said"), [("\udcff", "is not valid UTF-8"), ("a\0b", "holds a NUL character")])
def test_an_argument_that_is_no_text_is_a_usage_error(run: CommandLine, name: str, said: str) -> None:
    for words in (("ca", "show", name), ("station", "show", name), ("cert", "list", "--station", name)):
        assert said in run.run(*words).check_one_error(2).stderr


def test_a_hierarchy_says_what_it_made_and_warns_once(fresh: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"a passphrase")
    (tmp_path / "p").chmod(0o600)
    words = ("--passphrase-file", tmp_path / "p", "--prefix", "h", "--organization", "Acme")
    create = ("ca", "create-hierarchy", "ocpp", *words)
    assert "no country code" in fresh.run(*create, "--country", "Germany").check_one_error(3).stderr
    assert not fresh.home.exists()
    done = fresh(*create, "--country", "DE")
    assert "created 3 CAs\n" in done.stderr
    assert "created 0 CAs, 3 existed already" in fresh(*create, "--country", "DE").stderr
    assert "another subject" in fresh.run(*create, "--country", "FR").check_one_error(3).stderr
    https = ("--public-url", "https://pki.acme.com", "--country", "DE")
    words = ("--passphrase-file", tmp_path / "p", "--prefix", "i", "--organization", "Acme")
    done = fresh("ca", "create-hierarchy", "iso15118-20", *words, *https)
    assert done.stderr.count("is an https URL") == 1, "one rule, one warning"
