"""`ocsp presign`, `ocsp show`, and `serve` as a process."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp as foreign

from chargepki.pki.ocsp import build_cert_id, build_single_request, issuer_hashes
from testkit.command_line import CommandLine
from testkit.commands import INSTALLED, forked_program


class Serve:
    """`serve` on a free port of 127.0.0.1, ready."""

    def __init__(self, run: CommandLine, place: Path, *words: str | Path, installed: bool = False) -> None:
        self.log = place / "serve.log"
        environment = {**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables}
        program = INSTALLED if installed else forked_program()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "serve", "--listen", "127.0.0.1:0", *words], env=environment, stdout=log, stderr=log
            )
        self.wait_for("ready: ")
        said = self.log.read_text().partition("ready: http://127.0.0.1:")[2]
        self.port = int(said.split()[0])

    def wait_for(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.log.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while (answer := self.ask("GET", "/readyz"))[0] != 200:
            assert time.monotonic() < deadline, (answer, self.log.read_text())
            time.sleep(0.1)

    def status_of(self, request: bytes) -> foreign.OCSPCertStatus:
        return foreign.load_der_ocsp_response(self.ask("POST", "/ocsp", request)[1]).certificate_status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def started(run: CommandLine, place: Path) -> Iterator[list[Serve]]:
    """Whatever the test appends is stopped in the end."""
    servers: list[Serve] = []
    yield servers
    for server in servers:
        server.stop()


def request_about(place: Path, name: str) -> bytes:
    leaf = x509.load_pem_x509_certificates((place / name).read_bytes())[0]
    issuer = x509.load_pem_x509_certificates((place / "chain.pem").read_bytes())[0]
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    hashes = issuer_hashes("sha1", issuer.subject.public_bytes(), spki)
    return build_single_request(build_cert_id("sha1", *hashes, leaf.serial_number))


def test_presign_signs_once_and_hands_out_what_can_be_stapled(run: CommandLine, place: Path) -> None:
    rehearsed = run("ocsp", "presign", "--all", "--dry-run", "--json").json()["cas"]
    assert all(row["signed"] > 0 and row["written"] == 0 for row in rehearsed)
    rows = run("ocsp", "presign", "--all", "--out-dir", place / "staples", "--json").json()["cas"]
    assert {row["ca"] for row in rows} >= {"t-cso-root@1", "t-cso-sub@1"}
    again = run("ocsp", "presign", "--ca", "t-cso-sub", "--json").json()["cas"]
    assert again == [{"ca": "t-cso-sub@1", "signed": 0, "written": 0}]
    for name, word in (("live.pem", "good"), ("dead.pem", "revoked")):
        serial = x509.load_pem_x509_certificates((place / name).read_bytes())[0].serial_number
        shown = run("ocsp", "show", place / "staples" / "t-cso-sub@1" / f"{serial:x}.ocsp", "--json").json()
        assert [answer["status"] for answer in shown["answers"]] == [word]
        assert shown["signed_by"][0]["subject"].endswith("OCSP 1")


def test_presign_wants_one_ca_or_all(run: CommandLine) -> None:
    run("ocsp", "presign", code=2)
    run("ocsp", "presign", "--all", "--ca", "t-cso-sub", code=2)
    run.run("ocsp", "presign", "--ca", "nobody").check_one_error(3)


def test_show_refuses_what_is_no_response(run: CommandLine, place: Path) -> None:
    run.run("ocsp", "show", place / "live.pem").check_one_error(3)
    run.run("ocsp", "show", place / "missing").check_one_error(4)


def test_serve_refuses_at_once_what_cannot_work(run: CommandLine, place: Path, fresh: CommandLine) -> None:
    run("serve", "--listen", "nowhere", code=2)
    run("serve", "--listen", "127.0.0.1:0", "--tls-cert", "x", code=2)
    (place / "wrong").write_text("wrong passphrase")
    (place / "wrong").chmod(0o600)
    run.run("serve", "--listen", "127.0.0.1:0", "--passphrase-file", place / "wrong").check_one_error(4)
    files = ("--tls-listen", "127.0.0.1:0", "--tls-cert", place / "live.pem", "--tls-key", place / "live.pem")
    run.run("serve", "--listen", "127.0.0.1:0", *files).check_one_error(3)
    fresh.run("serve", "--listen", "127.0.0.1:0", "--presigned-only").check_one_error(4)


def test_one_process_serves_everything_and_a_revocation_holds_at_once(
    run: CommandLine, place: Path, started: list[Serve]
) -> None:
    server = Serve(run, place, "--log-json")
    started.append(server)
    server.until_ready()
    request = request_about(place, "live.pem")
    assert server.status_of(request) is foreign.OCSPCertStatus.GOOD
    run("cert", "revoke", f"{x509.load_pem_x509_certificates((place / 'live.pem').read_bytes())[0].serial_number:x}",
        "--reason", "keyCompromise")  # fmt: skip
    assert server.status_of(request) is foreign.OCSPCertStatus.REVOKED
    assert server.ask("GET", "/crl/t-cso-sub@1.crl")[0] == 200
    assert server.ask("GET", "/ca/t-cso-sub%401.cer")[0] == 200
    assert b"chargepki_leader 1.0" in server.ask("GET", "/metrics")[1]
    assert server.ask("GET", "/elsewhere")[0] == 404
    server.stop()
    assert server.process.returncode == 0
    assert '"message": "this process does the background work' in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_workers_share_a_port_and_dead_ones_are_replaced(run: CommandLine, place: Path, started: list[Serve]) -> None:
    # Whose children are looked at.
    server = Serve(run, place, "--workers", "2", installed=True)
    started.append(server)
    server.until_ready()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    before = [int(pid) for pid in children.read_text().split()]
    assert len(before) == 4  # two that serve, one for the background, one for alerts
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    request = request_about(place, "live.pem")
    deadline = time.monotonic() + 60
    while len([pid for pid in children.read_text().split() if int(pid) not in before]) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(20):
        assert server.status_of(request) is foreign.OCSPCertStatus.GOOD
    server.stop()
    assert server.process.returncode == 0
    assert server.log.read_text().count("starting another") == 4


@pytest.mark.slow
def test_a_process_without_keys_serves_what_another_has_signed(
    run: CommandLine, place: Path, started: list[Serve]
) -> None:
    run("ocsp", "presign", "--all")
    run("crl", "publish", "--all")
    nobody = CommandLine(run.home, {"CHARGEPKI_PASSPHRASE_FILE": str(place / "not-there")})
    server = Serve(nobody, place, "--presigned-only")
    started.append(server)
    server.until_ready()
    assert server.status_of(request_about(place, "live.pem")) is foreign.OCSPCertStatus.GOOD
    assert server.status_of(request_about(place, "dead.pem")) is foreign.OCSPCertStatus.REVOKED
