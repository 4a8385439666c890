"""The table [csms] of chargepki.toml: every key, errors with their place, secrets by reference, reload on SIGHUP."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.cli.csms_settings import SETTINGS, Secret, changed_settings, load_csms_settings
from chargepki.ocpp_security.csms import CsmsLimits
from chargepki.pki.errors import InputError
from testkit.command_line import CommandLine
from testkit.commands import forked_program
from testkit.hierarchy import Node, make_node

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = """\
[csms]
listen = "127.0.0.1:8443"
security_profile = [2, 3]
tls_cert = ["ec.pem", "rsa.pem"]
tls_key = ["ec.key", {env = "RSA_KEY"}]
tls_ca = "acme-cso-sub"
dns = "csms.example.org"
client_trust = "stations.pem"
client_crl = ["stations.crl"]
issue = {ChargingStationCertificate = "acme-cso-sub", V2GCertificate = "acme-cpo-sub2:iso15118-2/secc"}
issue_here = true
forward_secrecy_only = true
duplicate = "probe"
allow_unsecured = ["OLD-*"]
metrics_listen = "127.0.0.1:9443"
upload_listen = "127.0.0.1:9444"
upload_url = "https://logs.example.org"
behind_proxy = ["10.0.0.5", "fd00::/64"]
proxy_secret = {file = "/run/secrets/proxy"}
log_json = true
ocsp_allow = ["http://ocsp.example/"]
ocsp_network = "10.0.0.0/8"
status_trust = "others.pem"
contract_trust = "mo.pem"
contract_sub_cas = "mo-subs.pem"
contract_token_status = "Accepted"
contract_ca = ["acme-mo-sub2"]
cps_ca = ["acme-cps-sub2"]
cps_cert = "cps.pem"
cps_key = "cps.key"
exi_response_limit = 7500

[csms.limits]
tls_handshake = "3s"
failed_attempts = 4
"""


def read(tmp_path: Path, text: str, **given: object) -> dict[str, Any]:
    (tmp_path / "chargepki.toml").write_text(text)
    return load_csms_settings(given, tmp_path / "chargepki.toml")


def test_every_key_is_read_and_documented(tmp_path: Path) -> None:
    options = read(tmp_path, EVERYTHING)
    assert options["profiles"] == "2,3"
    assert options["tls_keys"] == ("ec.key", Secret(env="RSA_KEY"))
    assert options["issue_plans"][1] == "V2GCertificate=acme-cpo-sub2:iso15118-2/secc"
    assert options["limits"] == CsmsLimits(tls_handshake=timedelta(seconds=3), failed_attempts=4)
    assert all(options[setting.option] != setting.default for setting in SETTINGS)
    documented = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    assert [s.key for s in SETTINGS if f"| `{s.key}` |" not in documented] == []
    assert [name for name in CsmsLimits.__dataclass_fields__ if f"`{name}`" not in documented] == []


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    options = read(tmp_path, EVERYTHING, listen="127.0.0.1:1", tls_certs=("other.pem",), issue_here=False)
    assert (options["listen"], options["tls_certs"], options["issue_here"]) == ("127.0.0.1:1", ("other.pem",), True)
    assert read(tmp_path, "", listen="h:1", profiles="2")["duplicate"] == "newest"
    with pytest.raises(click.UsageError, match="--security-profile"):
        read(tmp_path, '[csms]\nlisten = "127.0.0.1:1"\n')


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('[csms]\nlisen = "x"', "line 2, column 1", "did you mean listen"),
        ("[csms]\n\n  zzz = 1", "line 3, column 3", "known are"),
        ("[csms]\nlisten = 8443", "line 2, column 1", "must be text"),
        ('[csms]\ntls_cert = ["a.pem",\n  7]', "line 3, column 3", "must be text"),
        ('[csms]\nissue = "acme"', "line 2, column 1", "must be a table"),
        ('[csms]\nissue = {A = "x", B = 3}', "line 2, column 19", "B must be text"),
        ('[csms]\nissue_here = "yes"', "line 2, column 1", "true or false"),
        ('[csms]\nduplicate = "oldest"', "line 2, column 1", "newest"),
        ('[csms]\nproxy_secret = "hunter2hunter2hunter2"', "line 2, column 1", "say where the secret is"),
        ('[csms]\nproxy_secret = {file = "a", env = "b"}', "line 2, column 1", "say where the secret is"),
        ('[csms.limits]\ntls_handshake = "3 parsecs"', "line 2, column 1", "no duration"),
        ("[csms.limits]\nfailed_attempts = 0", "line 2, column 1", "above zero"),
        ("[csms.limits]\nfailed_atempts = 3", "line 2, column 1", "did you mean failed_attempts"),
        ("csms = 3", "line 1, column 1", "must be a table"),
        ("[csms]\nlisten = x", "line 2, column", "not valid TOML"),
    ],
)
def test_every_error_names_its_line_and_its_cure_and_no_secret(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, text)
    assert place in str(refused.value) and words in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_secret_comes_from_a_private_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret-s3cret-s3cret\n")
    path.chmod(0o600)
    assert Secret(file=str(path)).read("it") == b"s3cret-s3cret-s3cret"
    monkeypatch.setenv("A_SECRET", "from the environment")
    assert Secret(env="A_SECRET").read("it") == b"from the environment"
    with pytest.raises(InputError, match="variable NOT_SET"):
        Secret(env="NOT_SET").read("it")


def test_what_needs_a_restart_is_told_apart(tmp_path: Path) -> None:
    before = read(tmp_path, EVERYTHING)
    after = read(tmp_path, EVERYTHING.replace("stations.pem", "new.pem").replace(":8443", ":9").replace("3s", "4s"))
    assert changed_settings(before, after) == (["client_trust"], ["listen", "limits"])


def write_identity(place: Path, node: Node) -> None:
    (place / "server.key").touch(mode=0o600)
    (place / "server.key").write_bytes(node.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (place / "server.pem").write_bytes(node.certificate.public_bytes(Encoding.PEM))


class Serving:
    """`csms serve` from its configuration alone."""

    def __init__(self, run: CommandLine, place: Path) -> None:
        self.log = place / "csms.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [forked_program(), "csms", "serve"],
                env={**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables}, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_for(self, words: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while words not in (said := self.log.read_text()):
            assert time.monotonic() < deadline and self.process.poll() is None, said
            time.sleep(0.05)
        return said


@pytest.fixture
def serving(run: CommandLine, place: Path) -> Iterator[tuple[Serving, int, int]]:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    write_identity(place, make_node("localhost", None, ca=False))
    (run.home / "chargepki.toml").write_text(
        f'[csms]\nlisten = "127.0.0.1:{ports[0]}"\nsecurity_profile = 2\nmetrics_listen = "127.0.0.1:{ports[1]}"\n'
        f'tls_cert = "{place}/server.pem"\ntls_key = {{file = "{place}/server.key"}}\n'
    )
    service = Serving(run, place)
    service.wait_for("ready: ")
    yield service, ports[0], ports[1]
    service.process.terminate()
    service.process.wait(60)
    (run.home / "chargepki.toml").unlink()


def served_certificate(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return der


def test_a_new_certificate_file_and_sighup_are_applied_while_connections_live_on(
    run: CommandLine, place: Path, serving: tuple[Serving, int, int]
) -> None:
    service, port, metrics = serving
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
        text = answer.read().decode()
    not_after = x509.load_der_x509_certificate(served_certificate(port)).not_valid_after_utc.timestamp()
    (line,) = [line for line in text.splitlines() if 'certificate_not_after_seconds{key="ec"}' in line]
    assert float(line.split()[-1]) == not_after
    for path in ("healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/{path}") as answer:
            assert answer.status == 200
    # Nobody tells it; it looks.
    renewed = make_node("localhost", None, ca=False)
    write_identity(place, renewed)
    service.wait_for("the files changed")
    assert served_certificate(port) == renewed.der
    # A configuration that cannot be read changes nothing, and one that can says what it cannot do yet.
    settings = run.home / "chargepki.toml"
    good = settings.read_text()
    settings.write_text(good + "lisen = 3\n")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for("did you mean listen")
    assert served_certificate(port) == renewed.der
    settings.write_text(
        good + 'duplicate = "probe"\nforward_secrecy_only = true\nlog_json = true\nallow_unsecured = "OLD-*"\n'
    )
    service.process.send_signal(signal.SIGHUP)
    said = service.wait_for("applied from chargepki.toml: forward_secrecy_only, duplicate, allow_unsecured")
    assert "warning: log_json has changed in chargepki.toml; restart to apply it" in said
    service.wait_for("(SIGHUP)")
    assert served_certificate(port) == renewed.der
