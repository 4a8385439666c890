"""Clients that are not ours ask the running `serve`: openssl, GnuTLS, Java and curl, also through nginx."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.command_line import CommandLine
from testkit.commands import INSTALLED, forked_program
from testkit.foreign import java_program
from testkit.layout import ROOT

pytestmark = pytest.mark.foreign
NGINX = ROOT / "docs" / "deploy" / "nginx.conf"


# A CSMS behind nginx: what the guide "Run the responder" says about stapling.
STAPLING = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate     {folder}/csms-chain.pem;
        ssl_certificate_key {folder}/csms.key;
        ssl_stapling on;
        ssl_stapling_file   {staple}/csms.ocsp;
        return 204;
    }}
"""


def need(command: str, package: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed (Debian: {package})")


def run(*words: str | Path) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def serial_of(certificate: Path) -> str:
    """Return the serial of NAME.pem as paths of staples name it: lower-case hex without leading zeros."""
    said = run("openssl", "x509", "-in", certificate.with_suffix(".pem"), "-noout", "-serial")
    return said.partition("=")[2].strip().lower().lstrip("0")


def is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Pki:
    """A workspace whose certificates point to the `serve` that runs."""

    folder: Path
    url: str

    def file(self, name: str) -> Path:
        return self.folder / name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    folder = tmp_path_factory.mktemp("responder")
    url = f"http://127.0.0.1:{free_port()}"
    (folder / "passphrase").write_text("a passphrase")
    (folder / "passphrase").chmod(0o600)
    variables = {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"), "CHARGEPKI_PUBLIC_URL": url}
    chargepki = CommandLine(folder / "home", variables)
    chargepki("ca", "create-hierarchy", "ocpp", "--prefix", "f", "--organization", "Acme", "--country", "DE")
    for name in ("good", "revoked"):
        chargepki(
            "cert", "issue", "--ca", "f-cso-sub", "--profile", "ocpp/charging-station", "--new-key", "--key-out",
            folder / f"{name}.key", "--subject", f"CN={name},O=Acme", "--out", folder / f"{name}.pem",
        )  # fmt: skip
    chargepki(
        "cert", "issue", "--ca", "f-cso-sub", "--profile", "ocpp/csms", "--new-key", "--key-out", folder / "csms.key",
        "--subject", "CN=localhost,O=Acme", "--out", folder / "csms.pem", "--chain-out", folder / "csms-chain.pem",
    )  # fmt: skip
    chargepki("ca", "chain", "f-cso-sub", "--out", folder / "chain.pem")
    blocks = (folder / "chain.pem").read_text().split("-----END CERTIFICATE-----\n")
    for name, block in zip(("sub", "root"), blocks, strict=False):
        (folder / f"{name}.pem").write_text(block + "-----END CERTIFICATE-----\n")
    chargepki("cert", "revoke", serial_of(folder / "revoked"), "--reason", "keyCompromise")
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [forked_program(), "serve", "--listen", url.removeprefix("http://")], stdout=log, stderr=log,
            env={**os.environ, "CHARGEPKI_HOME": str(folder / "home"), **variables},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "every published artefact is there" not in (folder / "serve.log").read_text():
            assert time.monotonic() < deadline and process.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.1)
        # The probe passes over what was issued in the last minute: answers about it may still have to be prepared.
        for name in ("good", "revoked", "csms"):
            staple = f"{url}/staples/f-cso-sub@1/{serial_of(folder / name)}.ocsp"
            while not is_there(staple):
                assert time.monotonic() < deadline, (folder / "serve.log").read_text()
                time.sleep(0.1)
        yield Pki(folder, url)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("words", [(), ("-no_nonce",), ("-sha256",)], ids=["nonce", "plain", "sha256"])
def test_openssl_verifies_what_it_is_answered(pki: Pki, words: tuple[str, ...]) -> None:
    need("openssl", "openssl")
    for name in ("good", "revoked"):
        before, after = (words, ()) if words == ("-sha256",) else ((), words)
        said = run(
            "openssl", "ocsp", "-issuer", pki.file("sub.pem"), *before, "-cert", pki.file(f"{name}.pem"), "-url",
            f"{pki.url}/ocsp", "-CAfile", pki.file("root.pem"), "-verify_other", pki.file("sub.pem"), *after,
        )  # fmt: skip
        assert "Response verify OK" in said and f"{name}.pem: {name}" in said, said
        assert "nonce" not in said.lower(), said


@pytest.mark.parametrize("nonce", ["--nonce", "--no-nonce"])
def test_gnutls_verifies_what_it_is_answered(pki: Pki, nonce: str) -> None:
    need("ocsptool", "gnutls-bin")
    for name in ("good", "revoked"):
        said = run(
            "ocsptool", f"--ask={pki.url}/ocsp", nonce, "--load-issuer", pki.file("sub.pem"), "--load-cert",
            pki.file(f"{name}.pem"), "--load-trust", pki.file("sub.pem"),
        )  # fmt: skip
        assert f"Certificate Status: {name}" in said and "Verifying OCSP Response: Success" in said, said


@pytest.mark.slow
def test_java_validates_the_chain_by_the_pointers_in_it(pki: Pki) -> None:
    need("javac", "default-jdk-headless")
    program = java_program("CheckByOcsp")
    for name in ("good", "revoked"):
        said = run(*program, pki.file("root.pem"), pki.file(f"{name}.pem"), pki.file("sub.pem"))
        assert said.split() == [name.upper()], said


def test_curl_gets_answers_and_is_told_when_they_are_unchanged(pki: Pki) -> None:
    need("curl", "curl")
    request = pki.file("request.der")
    run(
        "openssl",
        "ocsp",
        "-issuer",
        pki.file("sub.pem"),
        "-cert",
        pki.file("good.pem"),
        "-no_nonce",
        "-reqout",
        request,
    )
    path = base64.b64encode(request.read_bytes()).decode().replace("/", "%2F").replace("+", "%2B").replace("=", "%3D")
    url = f"{pki.url}/ocsp/{path}"
    headers = run("curl", "-sS", "-D", "-", "-o", pki.file("answer.der"), url)
    assert headers.startswith("HTTP/1.1 200") and "application/ocsp-response" in headers
    tag = next(line.partition(": ")[2] for line in headers.splitlines() if line.lower().startswith("etag:"))
    again = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"If-None-Match: {tag}", url)
    assert again == "304"
    crl = run("curl", "-sS", "-o", pki.file("sub.crl"), "-w", "%{content_type}", f"{pki.url}/crl/f-cso-sub@1.crl")
    assert crl == "application/pkix-crl"
    said = run("openssl", "crl", "-inform", "DER", "-in", pki.file("sub.crl"), "-CAfile", pki.file("sub.pem"), "-noout")
    assert "verify OK" in said


def test_nginx_in_front_serves_caches_and_staples_what_we_answer(pki: Pki, tmp_path: Path) -> None:
    need("nginx", "nginx-light")
    port, tls_port = free_port(), free_port()
    serial = serial_of(pki.file("csms"))
    staple = f"/staples/f-cso-sub@1/{serial}.ocsp"
    assert run("curl", "-sSf", "-o", tmp_path / "csms.ocsp", f"{pki.url}{staple}") == ""
    text = NGINX.read_text()
    for old, new in (
        ("/var/cache/nginx/chargepki", str(tmp_path / "cache")),
        ("127.0.0.1:8080", pki.url.removeprefix("http://")),
        ("listen 80 default_server", f"listen 127.0.0.1:{port} default_server"),
        ("listen [::]:80 default_server;", ""),
        ("    server {\n", STAPLING.format(port=tls_port, folder=pki.folder, staple=tmp_path) + "    server {\n"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        text = text.replace("http {", f"http {{\n    {kind}_temp_path {tmp_path}/{kind};", 1)
    conf = tmp_path / "nginx.conf"
    # Its workers would otherwise be of a user who may not enter the test's folder.
    user = "user root;\n" if os.getuid() == 0 else ""
    conf.write_text(f"{user}pid {tmp_path}/nginx.pid;\ndaemon off;\n" + text)
    words = ("nginx", "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(conf))
    assert "test is successful" in run(*words, "-t")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/readyz") != "404":
            assert time.monotonic() < deadline, (tmp_path / "error.log").read_text()
            time.sleep(0.1)
        said = run(
            "openssl", "ocsp", "-issuer", pki.file("sub.pem"), "-cert", pki.file("good.pem"), "-url",
            f"http://127.0.0.1:{port}/ocsp", "-CAfile", pki.file("root.pem"), "-verify_other", pki.file("sub.pem"),
        )  # fmt: skip
        assert "good.pem: good" in said, said
        url = f"http://127.0.0.1:{port}/crl/f-cso-sub@1.crl"
        states = [run("curl", "-sS", "-o", "/dev/null", "-D", "-", url) for _ in range(2)]
        assert "X-Cache: MISS" in states[0] and "X-Cache: HIT" in states[1], states
        front = f"http://127.0.0.1:{port}"
        codes = [run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", front + path) for path in
                 (staple, "/staples/f-cso-sub@1", "/metrics")]  # fmt: skip
        assert codes == ["200", "404", "404"]
        told = run(
            "openssl", "s_client", "-connect", f"127.0.0.1:{tls_port}", "-status", "-CAfile", pki.file("root.pem"),
            "-verify_return_error", "-servername", "localhost",
        )  # fmt: skip
        assert "OCSP Response Status: successful" in told and "Cert Status: good" in told, told
        octets = serial.upper().zfill(len(serial) + len(serial) % 2)
        assert f"Serial Number: {octets}" in told and "Verify return code: 0 (ok)" in told, told
    finally:
        process.terminate()
        process.wait(60)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    need("systemd-analyze", "systemd")
    text = (ROOT / "docs" / "deploy" / "chargepki-serve.service").read_text()
    unit = tmp_path / "chargepki-serve.service"
    # The program has to exist for this check, and so has the user.
    unit.write_text(
        text.replace("/opt/chargepki/bin/chargepki", str(INSTALLED)).replace("=chargepki\nGroup=chargepki", "=root")
    )
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "chargepki-serve" in line]
    assert done.returncode == 0 and not about_ours, done.stderr
    # Its judgement of what a break-in would be worth, 0 (nothing) to 10, of the unit as it is.
    unit.write_text(text)
    judged = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    assert float(judged.rpartition("chargepki-serve.service: ")[2].split()[0]) <= 2.0, judged
