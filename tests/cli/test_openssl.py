"""Requests of `openssl req`, issued from the command line, judged by `openssl verify` before and after revocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.command_line import CommandLine
from testkit.foreign import Tool, need
from testkit.foreign import run as run_tool

pytestmark = pytest.mark.foreign

KEYS = {
    "EC P-256": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "EC P-384": ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "RSA 2048": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "Ed25519": ("ED25519",),
}


def openssl(*arguments: str | Path) -> str:
    done = run_tool("openssl", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_request(folder: Path, algorithm: tuple[str, ...], form: str) -> Path:
    key, request = folder / "key.pem", folder / "request"
    openssl("genpkey", "-algorithm", *algorithm, "-out", key)
    openssl("req", "-new", "-key", key, "-subj", "/O=Acme Charging/CN=CS-0077", "-outform", form, "-out", request)
    return request


def verify(folder: Path) -> tuple[bool, str]:
    done = run_tool(
        "openssl", "verify", "-no-CApath", "-no-CAstore", "-x509_strict", "-crl_check", "-CRLfile", folder / "crl.pem",
        "-CAfile", folder / "root.pem", "-untrusted", folder / "chain.pem", folder / "leaf.pem",
    )  # fmt: skip
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", ["PEM", "DER"])
@pytest.mark.parametrize("algorithm", KEYS.values(), ids=list(KEYS))
def test_openssl_accepts_the_certificate_until_it_is_revoked(
    run: CommandLine, tmp_path: Path, algorithm: tuple[str, ...], form: str
) -> None:
    need(Tool.OPENSSL)
    request = make_request(tmp_path, algorithm, form)
    run("csr", "check", request, "--profile", "ocpp/charging-station")
    words = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", request)
    files = ("--out", tmp_path / "leaf.pem", "--chain-out", tmp_path / "chain.pem")
    row = run("cert", "issue", *words, *files, "--json").json()
    run("ca", "chain", "t-cso-root", "--out", tmp_path / "root.pem")
    run("crl", "publish", "--ca", "t-cso-sub", "--out", tmp_path / "crl.pem", "--pem")
    assert verify(tmp_path) == (True, f"{tmp_path / 'leaf.pem'}: OK\n")
    assert row["serial"].upper() in openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-serial").replace(
        "=0", "="
    )
    key = openssl("pkey", "-in", tmp_path / "key.pem", "-pubout")
    assert openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-pubkey") == key

    run("cert", "revoke", row["id"], "--reason", "keyCompromise")
    run("crl", "publish", "--ca", "t-cso-sub", "--out", tmp_path / "crl.pem", "--pem")
    accepted, said = verify(tmp_path)
    assert not accepted and "certificate revoked" in said
    assert "Key Compromise" in openssl("crl", "-in", tmp_path / "crl.pem", "-noout", "-text")


def test_openssl_opens_a_key_made_here_and_a_ca_key_with_its_passphrase(
    run: CommandLine, place: Path, tmp_path: Path
) -> None:
    need(Tool.OPENSSL)
    words = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--subject", "CN=x,O=y")
    run(*words, "--new-key", "--key-out", tmp_path / "new.key", "--out", tmp_path / "leaf.pem")
    public = openssl("pkey", "-in", tmp_path / "new.key", "-pubout")
    assert openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-pubkey") == public
    ca_key = run.home / "keys" / "t-cso-sub@1.key"
    public = openssl("pkey", "-in", ca_key, "-passin", f"file:{place / 'passphrase'}", "-pubout")
    run("ca", "chain", "t-cso-sub", "--out", tmp_path / "sub.pem")
    assert openssl("x509", "-in", tmp_path / "sub.pem", "-noout", "-pubkey") == public


@pytest.mark.parametrize("extension", ["basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign"])
def test_a_request_of_openssl_to_be_a_ca_is_refused(run: CommandLine, tmp_path: Path, extension: str) -> None:
    need(Tool.OPENSSL)
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", tmp_path / "key.pem")
    subject = ("-subj", "/O=Acme/CN=CS-1", "-addext", extension)
    openssl("req", "-new", "-key", tmp_path / "key.pem", *subject, "-out", tmp_path / "ca.csr")
    words = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", tmp_path / "ca.csr")
    assert "asks for" in run.run("cert", "issue", *words).check_one_error(3).stderr
