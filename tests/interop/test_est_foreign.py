"""`chargepki serve` as an EST server for curl and openssl, and as the CA of somebody else for another chargepki.

It serves from two processes over PostgreSQL, as a site of some size would; the guide shows one process over SQLite.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.errors import InputError
from chargepki.pki.services.est_client import EstClient, EstCredentials
from testkit.command_line import CommandLine
from testkit.commands import forked_program
from testkit.databases import fresh_database, postgresql_server
from testkit.foreign import missing

__all__ = ["postgresql_server"]

pytestmark = [pytest.mark.foreign, pytest.mark.slow]

_PEM = Encoding.PEM
PASSPHRASE = "a passphrase for tests"


@dataclass(frozen=True, slots=True)
class Site:
    """A workspace with `serve` running over it."""

    run: CommandLine
    url: str
    root: Path
    folder: Path

    def est(self, label: str) -> str:
        return f"{self.url}/.well-known/est/{label}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgresql_server: str) -> Iterator[Site]:
    with fresh_database(postgresql_server) as url:
        yield from running_site(tmp_path_factory.mktemp("est-site"), url)


def running_site(folder: Path, database: str) -> Iterator[Site]:
    home = folder / "home"
    (folder / "pass").write_text(PASSPHRASE)
    (folder / "pass").chmod(0o600)
    variables = {
        "CHARGEPKI_PASSPHRASE_FILE": str(folder / "pass"),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example.org",
        "CHARGEPKI_DATABASE": database,
    }
    run = CommandLine(home, variables)
    make_cas(run, folder)
    (home / "chargepki.toml").write_text(
        """
[est.label.cpo]
ca = "sub2"
profile = "iso15118-2/secc"
aliases = ["cpo/ISO15118-2"]

[est.label.slow]
ca = "sub2"
profile = "iso15118-2/secc"
approval = true
"""
    )
    (folder / "secret").write_text("the password of acme")
    run("est", "account", "add", "acme", "--label", "cpo", "--label", "slow", "--password-file", folder / "secret")
    process = subprocess.Popen(
        [
            *(str(forked_program()), "--home", str(home), "--json", "serve", "--issue-here"),
            *("--workers", "2", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"),
            *("--tls-cert", str(folder / "tls.pem"), "--tls-key", str(folder / "tls.key")),
        ],
        env={"PATH": "/usr/bin:/bin", **run.variables},
        stdout=subprocess.PIPE,
        stderr=(folder / "serve.log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    text = ""
    try:
        while True:
            line = process.stdout.readline()
            assert line, (folder / "serve.log").read_text()
            text += line
            try:
                url = json.loads(text)["tls_url"].replace("127.0.0.1", "localhost")
                break
            except ValueError:
                continue
        yield Site(run, url, folder / "root.pem", folder)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
    log = (folder / "serve.log").read_text()
    assert "Traceback" not in log and "the password of acme" not in log


def make_cas(run: CommandLine, folder: Path) -> None:
    """Make the CAs that EST is asked for, and what the server shows on TLS."""
    for name, profile, issuer in (
        ("v2g", "iso15118-2/v2g-root", ""),
        ("sub1", "iso15118-2/cpo-sub1", "v2g"),
        ("sub2", "iso15118-2/cpo-sub2", "sub1"),
        ("tls", "ocpp/cso-root", ""),
        ("tls-sub", "ocpp/cso-sub", "tls"),
    ):
        subject = f"CN={name},O=V2G Operator,C=DE" + (",DC=V2G" if "15118" in profile else "")
        above = ("--issuer", issuer) if issuer else ()
        run("ca", "create", name, "--profile", profile, *above, "--subject", subject)
    run(
        *("cert", "issue", "--ca", "tls-sub", "--profile", "ocpp/csms", "--new-key"),
        *("--subject", "CN=localhost,O=V2G Operator", "--dns", "localhost"),
        *("--key-out", folder / "tls.key", "--chain-out", folder / "tls.pem", "--out", folder / "leaf.pem"),
    )
    run("ca", "chain", "tls", "--out", folder / "root.pem")


def curl(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    reason = missing("curl", "curl")
    if reason is not None:
        pytest.skip(reason)
    options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--write-out", "%{stderr}%{http_code}"]
    return subprocess.run(["curl", *options, *map(str, arguments)], capture_output=True)


def make_request(folder: Path, name: str, subject: str) -> Path:
    """Make key and request with openssl; return the base64 body that EST wants."""
    subprocess.run(
        [
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{name}.key", "-outform", "DER", "-out", f"{name}.der", "-subj", subject),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / f"{name}.key").chmod(0o600)
    (folder / f"{name}.b64").write_bytes(base64.encodebytes((folder / f"{name}.der").read_bytes()))
    return folder / f"{name}.b64"


def certificates_of(body: bytes, folder: Path) -> list[x509.Certificate]:
    """Read a certs-only answer with openssl."""
    done = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs"],
        input=base64.b64decode(body),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return x509.load_pem_x509_certificates(done.stdout)


SECC = "/DC=CPO/CN=DE*ACM*E{}/O=Acme/C=DE"


def test_curl_and_openssl_enrol_and_renew(site: Site, tmp_path: Path) -> None:
    body = make_request(tmp_path, "secc", SECC.format(1))
    head = ("--cacert", site.root, "--header", "Content-Type: application/pkcs10", "--data-binary", f"@{body}")
    first = curl(*head, "--user", "acme:the password of acme", f"{site.est('cpo')}/simpleenroll")
    assert first.stderr.endswith(b"200"), (first.stderr, first.stdout)
    (leaf,) = certificates_of(first.stdout, tmp_path)
    answer = curl("--cacert", site.root, f"{site.est('cpo')}/cacerts")
    above = certificates_of(answer.stdout, tmp_path)
    assert len(above) == 3
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(_PEM))
    bundle = b"".join(each.public_bytes(_PEM) for each in (leaf, *above))
    (tmp_path / "chain.pem").write_bytes(bundle)
    # The new certificate authenticates its own renewal, over the path that charging back ends call as well.
    subject = "/" + "/".join(f"{each.rfc4514_attribute_name}={each.value!s}" for each in leaf.subject)
    renewal = make_request(tmp_path, "again", subject.replace("domainComponent", "DC"))
    own = ("--cert", tmp_path / "chain.pem", "--key", tmp_path / "secc.key")
    for url in (f"{site.est('cpo')}/simplereenroll", f"{site.url}/cpo/simplereenroll/ISO15118-2"):
        done = curl(
            *("--cacert", site.root, *own, "--header", "Content-Type: application/pkcs10"),
            *("--data-binary", f"@{renewal}", url),
        )
        assert done.stderr.endswith(b"200"), (done.stderr, done.stdout)
        assert certificates_of(done.stdout, tmp_path)[0].serial_number != leaf.serial_number


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--user", "acme:wrong password here", "--data-binary", "x"), b"401"),
        (("--user", "acme:the password of acme", "--data-binary", "x"), b"400"),
        (("--user", "acme:the password of acme"), b"405"),
    ],
)
def test_curl_is_told_what_is_wrong(site: Site, arguments: tuple[str, ...], status: bytes) -> None:
    head = ("--cacert", site.root, "--header", "Content-Type: application/pkcs10")
    done = curl(*head, *arguments, f"{site.est('cpo')}/simpleenroll")
    assert done.stderr.endswith(status), (done.stderr, done.stdout)


def guess(site: Site, source: str, password: str) -> tuple[int, str]:
    """Ask with a password over a connection of its own; return the status and which process answered."""
    context = ssl.create_default_context(cafile=str(site.root))
    host, _, port = site.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context, source_address=(source, 0))
    word = base64.b64encode(f"acme:{password}".encode()).decode()
    try:
        connection.request("POST", "/.well-known/est/cpo/simpleenroll", b"", {"Authorization": f"Basic {word}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, str(answer.headers["X-Request-Id"])[:8]
    finally:
        connection.close()


def test_guesses_are_counted_by_both_processes_together_and_lock_nobody_out(site: Site) -> None:
    right = "the password of acme"
    assert guess(site, "127.0.0.3", right)[0] == 400  # let in: the request is empty
    told = [guess(site, "127.0.0.2", f"guess number {number}") for number in range(30)]
    assert [status for status, _ in told] == [401] * 10 + [429] * 20
    assert len({process for _, process in told}) == 2
    assert guess(site, "127.0.0.4", right)[0] == 400
    # Who shares an address with the account does not lock it out either, once it was let in from there.
    assert [guess(site, "127.0.0.3", f"guess number {number}")[0] for number in range(11)] == [401] * 10 + [429]
    assert {guess(site, "127.0.0.3", right)[0] for _ in range(12)} == {400}


def test_our_client_enrols_waits_for_an_approval_and_renews(site: Site, tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "home")
    who = ("--trust", site.root, "--user", "acme", "--password-file", site.folder / "secret")
    made = ("--new-key", "--subject", "CN=DE*ACM*E7,O=Acme,C=DE,DC=CPO", "--key-out", tmp_path / "k")
    run("est", "cacerts", site.est("cpo"), "--trust", site.root, "--out", tmp_path / "cas.pem")
    assert len(x509.load_pem_x509_certificates((tmp_path / "cas.pem").read_bytes())) == 3
    out = ("--out", tmp_path / "c.pem", "--chain-out", tmp_path / "chain.pem")
    run("est", "enrol", site.est("cpo"), *who, *made, *out)
    chain = x509.load_pem_x509_certificates((tmp_path / "chain.pem").read_bytes())
    assert [each.issuer for each in chain[:-1]] == [each.subject for each in chain[1:]]
    assert len(chain) == 3
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    own = ("--trust", site.root, "--cert", tmp_path / "chain.pem", "--key", tmp_path / "k")
    run("est", "renew", site.est("cpo"), *own, "--out", tmp_path / "c2.pem")
    renewed = x509.load_pem_x509_certificate((tmp_path / "c2.pem").read_bytes())
    assert renewed.subject == chain[0].subject
    assert renewed.serial_number != chain[0].serial_number
    # A request that waits is no error of the client; once approved, the same request is answered.
    body = make_request(tmp_path, "slow", SECC.format(8))
    waits = ("est", "enrol", site.est("slow"), *who, "--csr", tmp_path / "slow.der", "--out", tmp_path / "s.pem")
    assert body.exists()
    run.run(*waits, "--wait", "1s").check_one_error(3)
    waiting = site.run("est", "request", "list", "--json").json()["requests"]
    assert [each["account"] for each in waiting] == ["acme"]
    site.run("est", "request", "approve", waiting[0]["id"][:12])
    run(*waits, "--wait", "1s")
    assert b"BEGIN CERTIFICATE" in (tmp_path / "s.pem").read_bytes()
    for arguments in (
        (*waits[:3], *who[:4], "--password-file", site.root, "--csr", tmp_path / "slow.der"),
        (*waits[:2], site.est("nowhere"), *who, "--csr", tmp_path / "slow.der"),
        (*waits[:2], site.est("cpo").replace("https", "http"), *who, "--csr", tmp_path / "slow.der"),
    ):
        run.run(*arguments).check_one_error(3)
    lost = (*waits[:2], "https://127.0.0.1:9/.well-known/est", *who, "--csr", tmp_path / "slow.der")
    run.run(*lost).check_one_error(4)
    run.run(*waits[:3], *who[2:], "--csr", tmp_path / "slow.der").check_one_error(4)  # not our anchor: the system's


def test_the_ca_of_somebody_else_signs_for_us_and_nothing_foreign_is_taken(site: Site, tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "home", {**site.run.variables, "CHARGEPKI_DATABASE": f"sqlite:///{tmp_path}/own.db"})
    run("ca", "create", "own", "--profile", "ocpp/cso-root", "--subject", "CN=Own,O=Acme,C=DE")
    shutil.copy(site.folder / "secret", tmp_path / "home" / "secret")
    (tmp_path / "home" / "chargepki.toml").write_text(
        f"""
[est.ca.hub]
url = "{site.est("cpo")}"
trust = "{site.root}"
user = "acme"
password_file = "secret"
"""
    )
    made = run("ca", "connect", "hub", "--profile", "iso15118-2/cpo-sub2", "--json").json()
    assert (made["id"], made["profile"], made["key"]) == ("hub@1", "iso15118-2/cpo-sub2", "est:hub")
    assert run("ca", "connect", "hub", "--profile", "iso15118-2/cpo-sub2", "--json").json()["id"] == "hub@1"
    make_request(tmp_path, "r", SECC.format(9))
    order = ("cert", "issue", "--ca", "hub", "--profile", "iso15118-2/secc", "--csr", tmp_path / "r.der")
    run(*order, "--out", tmp_path / "r.pem", "--chain-out", tmp_path / "r-chain.pem")
    chain = x509.load_pem_x509_certificates((tmp_path / "r-chain.pem").read_bytes())
    assert len(chain) == 3
    serial = f"{chain[0].serial_number:x}"
    shown = run("cert", "show", f"hub:{serial}", "--json").json()
    assert (shown["state"], shown["ca"]) == ("issued", "hub@1")
    # Theirs and ours agree on what was issued, and repeating the order brings the same certificate.
    assert site.run("cert", "show", serial, "--json").json()["sha256"] == shown["sha256"]
    run(*order, "--out", tmp_path / "r2.pem")
    assert (tmp_path / "r2.pem").read_bytes() == (tmp_path / "r.pem").read_bytes()
    # We sign no lists for it, and what only a CA of ours can do is refused.
    run.run("crl", "publish", "--ca", "hub", "--out", tmp_path / "l").check_one_error(4)
    run("crl", "publish", "--all")
    run.run(*order, "--validity", "3d").check_one_error(3)
    # It is theirs to revoke; what they did can be put on record, and is taken for no act of ours.
    revoke = ("cert", "revoke", f"hub:{serial}", "--reason", "certificateHold")
    refused = run.run(*revoke).check_one_error(3)
    assert "its operator has to revoke it" in refused.stderr and "--record-only" in refused.stderr
    assert run("cert", "show", f"hub:{serial}", "--json").json()["state"] == "issued"
    recorded = run(*revoke, "--record-only", "--json")
    assert recorded.json()["state"] == "revoked" and "crl publish" not in recorded.stderr
    run.run("cert", "release", f"hub:{serial}").check_one_error(3)
    assert run("cert", "release", f"hub:{serial}", "--record-only", "--json").json()["state"] == "issued"
    run.run(*revoke, "--record-only", "--publish").check_one_error(2)
    site.run.run("cert", "revoke", f"sub2:{serial}", "--reason", "superseded", "--record-only").check_one_error(3)
    run("audit", "verify")
    kinds = [entry["action"] for entry in run("audit", "show", "--json").json()["entries"]]
    assert kinds.count("certificate.ask") == 1


def test_credentials_go_to_the_server_that_they_are_for_alone() -> None:
    for other in ("https://b.example/cacerts", "http://a.example/cacerts", "https://a.example:444/cacerts"):
        with pytest.raises(InputError, match="not on the server"):
            EstClient("https://a.example/est", trust_file=None, credentials=EstCredentials(), cacerts_url=other)
