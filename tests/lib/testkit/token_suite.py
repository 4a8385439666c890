"""Every command that signs, run once in workspaces whose keys all lie in a token; see the tests of these."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyrage
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.cli.main import cli
from chargepki.pki import keys
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import build_name
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
from testkit.command_line import CommandLine, Done
from testkit.commands import forked_program
from testkit.foreign import run as run_tool
from testkit.requests import make_csr
from testkit.tokens import PIN, Token

__all__ = ["EMAID", "PCID", "Service", "TokenSuite", "commands", "run_every_command_that_signs", "run_main_part"]

P256 = KeyAlgorithm.SECP256R1
URL = "http://pki.test"
PCID, EMAID = "WAUABC12345678901D", "DE8AAA1B2C3D4E"


def commands() -> dict[str, bool]:
    """Return every command, and whether it writes to the inventory, which means: signs a head of its log."""

    def walk(command: click.Command, path: str) -> Iterator[tuple[str, bool]]:
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), name)
                assert found is not None
                yield from walk(found, f"{path} {name}".strip())
        else:
            yield path, bool(getattr(command, "writes", ""))

    return dict(walk(cli, ""))


class TokenSuite:
    """Runs commands in a workspace in the token, and remembers which of them did what they are for."""

    def __init__(self, token: Token, folder: Path, *, database: str | None = None) -> None:
        self.token, self.folder = token, folder
        self._databases = {} if database is None else {"home": {"CHARGEPKI_DATABASE": database}}
        self.known = commands()
        self.done: set[str] = set()
        self.run = self.workspace("home")

    def workspace(self, name: str) -> CommandLine:
        """Return a command line for a workspace of that name, without any passphrase."""
        variables = {"CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM", "CHARGEPKI_PUBLIC_URL": URL}
        return CommandLine(self.folder / name, {**self.token.variables, **variables, **self._databases.get(name, {})})

    def __call__(self, *arguments: str | Path, code: int = 0, at: CommandLine | None = None, **options: Any) -> Done:
        """Run a command, assert its exit code, and note it."""
        done = (at or self.run)(*arguments, code=code, **options)
        self.note(arguments)
        return done

    def note(self, arguments: tuple[str | Path, ...]) -> None:
        """Remember the command that these arguments begin with."""
        words = [str(each) for each in arguments]
        self.done |= {" ".join(words[:length]) for length in (1, 2, 3)} & self.known.keys()

    def file(self, name: str) -> Path:
        """Return the path of a file beside the workspace."""
        return self.folder / name

    def issue(self, ca: str, profile: str, subject: str, name: str, *more: str) -> str:
        """Issue a certificate for a new key, into ``NAME.key``, ``NAME.pem`` and ``NAME-chain.pem``."""
        return str(
            self(
                "cert", "issue", "--ca", ca, "--profile", profile, "--subject", subject, "--new-key", "--key-out",
                self.file(f"{name}.key"), "--out", self.file(f"{name}.pem"),
                "--chain-out", self.file(f"{name}-chain.pem"), *more, "--json",
            ).json()["id"]
        )  # fmt: skip


def certify(suite: TokenSuite) -> None:
    """CAs, their generations, and what they issue, one by one and by two processes."""
    suite("ca", "create-hierarchy", "ocpp", "--prefix", "t", "--organization", "Acme", "--country", "DE")
    suite("ca", "create", "t-rsa", "--profile", "ocpp/cso-sub", "--issuer", "t-cso-root", "--key", "rsa2048",
          "--subject", "CN=RSA,O=Acme")  # fmt: skip
    suite("ca", "chain", "t-cso-root", "--out", suite.file("root.pem"))
    suite("ca", "chain", "t-cso-sub", "--out", suite.file("sub.pem"))
    suite("station", "add", "CS-1", "--organization", "Acme")
    suite.issue("t-rsa", "ocpp/charging-station", "CN=CS-0,O=Acme", "rsa")
    leaf = suite.issue("t-cso-sub", "ocpp/charging-station", "CN=CS-1,O=Acme", "leaf")
    csms = suite.issue("t-cso-sub", "ocpp/csms", "CN=localhost,O=Acme", "csms", "--dns", "localhost")
    suite("cert", "renew", csms, "--out", suite.file("csms-2.pem"))
    suite("cert", "renew", "--due", "--out-dir", suite.file("renewed"), "--limit", "10")
    suite("cert", "revoke", leaf, "--reason", "certificateHold")
    suite("cert", "release", leaf)
    suite("cert", "revoke", suite.issue("t-cso-sub", "ocpp/charging-station", "CN=CS-1,O=Acme", "dead"),
          "--reason", "superseded")  # fmt: skip
    suite.file("csrs").mkdir()
    for number in range(66):
        csr = make_csr(build_name([("CN", f"CS-{number}"), ("O", "Acme")]), keys.generate_private_key(P256))
        (suite.file("csrs") / f"{number}.csr").write_bytes(csr)
    # Two processes: each opens a session of its own behind the fork.
    suite("cert", "issue-batch", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--jobs", "2",
          "--csr-dir", suite.file("csrs"), "--out-dir", suite.file("out"))  # fmt: skip
    suite("ca", "rollover", "t-cso-root")


def publish(suite: TokenSuite) -> None:
    """Lists, prepared answers, and the configuration of both."""
    suite("crl", "configure", "--ca", "t-cso-sub", "--shard-size", "750")
    suite("crl", "publish", "--all", "--publish-dir", suite.file("www"))
    suite("crl", "publish", "--ca", "t-cso-sub", "--out", suite.file("sub.crl"), "--publish-dir", suite.file("www"))
    suite("crl", "check", "--all", "--repair", "--publish-dir", suite.file("www"))
    suite("ocsp", "presign", "--all", "--out-dir", suite.file("staples"))
    suite("authority", "serve", "--once")


def sign_with_keys_of_people(suite: TokenSuite) -> None:
    """Firmware with the maker's key, approvals and a ceremony with a person's, both in the token."""
    maker, uri = suite.token.uri("ec256"), suite.token.uri("ec384")
    store = Pkcs11KeyStore(suite.token.module, lambda label: PIN.encode())
    signer = store.open(maker)
    for name, key in (("bob", store.open(uri)), ("carol", signer)):
        public = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        suite.file(f"{name}.pub").write_bytes(public)
    suite.file("one.csr").write_bytes(make_csr(build_name([("CN", "F"), ("O", "Acme")]), signer.private_key))
    suite("cert", "issue", "--ca", "t-manufacturer-root", "--profile", "ocpp/firmware-signing", "--csr",
          suite.file("one.csr"), "--out", suite.file("fw.pem"))  # fmt: skip
    suite.file("image").write_bytes(os.urandom(5000))
    suite("firmware", "sign", suite.file("image"), "--key", maker, "--cert", suite.file("fw.pem"), "--out",
          suite.file("image.sig"))  # fmt: skip
    suite("firmware", "register-approver", "bob", "--public-key", suite.file("bob.pub"))
    suite("firmware", "add", "m1", suite.file("image"), "--signature", suite.file("image.sig"), "--cert",
          suite.file("fw.pem"), "--location", "https://images.example/m1.img")  # fmt: skip
    suite("firmware", "approve", "m1", "--approver", "bob", "--key", uri)
    suite("station", "update-firmware", "CS-1", "--release", "m1", "--no-wait")
    suite("firmware", "withdraw", "m1", "--reason", "test over")
    suite("firmware", "remove-approver", "bob")
    suite("approval", "register", "carol", "--public-key", suite.file("carol.pub"))
    act = ("ca", "rollover", "t-manufacturer-root")
    suite.run(*act, "--request-approval", suite.file("request.json"))
    suite("approval", "sign", suite.file("request.json"), "--approver", "carol", "--key", maker, "--out",
          suite.file("carol.json"))  # fmt: skip
    suite(*act, "--approval", suite.file("carol.json"))
    suite.file("script.toml").write_text(
        'title = "A root"\nwitnesses = ["carol"]\n[[step]]\nrun = ["ca", "create", "x-root", "--profile", '
        '"ocpp/cso-root", "--subject", "CN=X,O=Acme,C=DE"]\n'
    )
    transcript = suite.file("transcript.json")
    suite("ca", "ceremony", "run", suite.file("script.toml"), "--transcript", transcript)
    suite("ca", "ceremony", "sign", transcript, "--witness", "carol", "--key", maker)


def provide_for_vehicles(suite: TokenSuite) -> None:
    """Contracts: signed by a CA of the operator and by the provisioning service, both in the token."""
    above = {"cps-sub2": "v2g-root", "mo-sub2": "mo-root", "oem-sub2": "oem-root"}
    for role in ("v2g-root", "cps-sub2", "mo-root", "mo-sub2", "oem-root", "oem-sub2"):
        issuer = ("--issuer", f"p-{above[role]}") if role in above else ()
        suite("ca", "create", f"p-{role}", "--profile", f"iso15118-2/{role}", *issuer, "--subject",
              f"CN=P {role},O=Acme,DC={role.partition('-')[0].upper()}")  # fmt: skip
    suite("ca", "cross-sign", "p-mo-root", "--issuer", "p-v2g-root", "--out", suite.file("cross.pem"))
    suite("approval", "require", "ca.cross-sign", "1")
    suite.issue("p-oem-sub2", "iso15118-2/oem-provisioning", f"CN={PCID},O=Acme", "car")
    suite("ca", "chain", "p-v2g-root", "--out", suite.file("v2g.pem"))
    car = ("--cert", suite.file("car-chain.pem"), "--key", suite.file("car.key"), "--v2g-root", suite.file("v2g.pem"))
    suite("vehicle", "import", suite.file("car-chain.pem"))
    suite("contract", "create", EMAID, "--ends", "2099-01-01")
    suite("contract", "offer", EMAID, "--vehicle", PCID)
    suite.run("vehicle", "request", *car, "--out", suite.file("request.exi"))
    suite("contract", "provision", suite.file("request.exi"), "--contract-ca", "p-mo-sub2", "--cps-ca", "p-cps-sub2",
          "--out", suite.file("response.exi"))  # fmt: skip
    suite.run("vehicle", "open", suite.file("response.exi"), *car, "--key-out", suite.file("contract.key"),
              "--chain-out", suite.file("contract.pem"))  # fmt: skip
    root = x509.load_pem_x509_certificate(suite.file("v2g.pem").read_bytes()).public_bytes(Encoding.DER)
    digest = hashlib.sha256(root).hexdigest()
    suite("vehicle", "add-root", suite.file("v2g.pem"), "--use", "v2g", "--source", "letter", "--fingerprint", digest)
    suite("vehicle", "withdraw-root", digest)


def steer_stations(suite: TokenSuite) -> None:
    """What is ordered for stations: each order is an entry of the log."""
    later = ("CS-1", "--no-wait")
    suite("station", "set", "CS-1", "--serial-number", "SN-1")
    suite("station", "set-password", "CS-1", "--record-only")
    suite("station", "set-profile", "CS-1", "2", "--record-only")
    suite("station", "trigger-renewal", *later)
    suite("station", "install-root", *later[:1], suite.file("root.pem"), "--use", "csms", "--no-wait")
    suite("station", "delete-root", *later[:1], suite.file("root.pem"), "--use", "csms", "--yes", "--no-wait")
    suite("station", "get-log", *later, "--type", "security")
    suite("station", "add", "CS-2")
    suite("station", "remove", "CS-2", "--yes")
    suite("campaign", "create", "spring", "--kind", "trigger-renewal", "--station", "CS-1")
    suite("campaign", "pause", "spring")
    suite("campaign", "resume", "spring")
    suite("campaign", "cancel", "spring")
    leaf = x509.load_pem_x509_certificate(suite.file("leaf.pem").read_bytes())
    one = ("--certificate", f"t-cso-sub@1:{leaf.serial_number:x}", "--reason", "keyCompromise")
    suite("campaign", "replace", "leak", *one, "--paused")


def keep_and_watch(suite: TokenSuite) -> None:
    """Queries, accounts, alerts, and what is taken in."""
    suite("query", "save", "soon", "state = 'issued'")
    suite("query", "save", "gone", "state = 'revoked'")
    suite("query", "delete", "gone")
    suite("inventory", "import", suite.file("out"))
    (suite.run.home / "chargepki.toml").write_text(
        '[[alerts.target]]\nname = "log"\nkind = "log"\n'
        '[[alerts.watch]]\nname = "ends"\nkind = "expiry"\nwithin = ["3650d"]\ntargets = ["log"]\n'
        "where = \"profile = 'ocpp/charging-station'\"\n"
    )
    alert = suite("inventory", "watch", "--json").json()["alerts"][0]["id"]
    suite("alerts", "ack", alert)
    suite("alerts", "test", "log")


def go_offline(suite: TokenSuite) -> None:
    """A sub-CA here of a root in a workspace of its own, whose keys are in the token as well."""
    root = suite.workspace("offline")
    request, answer, crl = (suite.file(name) for name in ("ca-request.json", "answer.json", "off.crl"))
    suite("ca", "create", "off-root", "--profile", "ocpp/cso-root", "--subject", "CN=Off,O=Acme,C=DE", at=root)
    made = suite("ca", "request", "s", "--profile", "ocpp/cso-sub", "--subject", "CN=S,O=Acme,C=DE", "--out", request,
                 "--json").json()  # fmt: skip
    answered = suite("ca", "sign-request", request, "--issuer", "off-root", "--sha256", made["sha256"], "--out", answer,
                     "--json", at=root).json()  # fmt: skip
    suite("ca", "accept", answer, "--root-sha256", answered["root_sha256"])
    suite("crl", "publish", "--ca", "off-root", "--validity", "180d", "--out", crl, at=root)
    suite("crl", "import", crl)


class Service:
    """A command that serves, as a process."""

    def __init__(self, suite: TokenSuite, *words: str | Path) -> None:
        self.log = suite.file(f"{words[0]}.log")
        environment = {**os.environ, "CHARGEPKI_HOME": str(suite.run.home), **suite.run.variables}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([forked_program(), *words], env=environment, stdout=log, stderr=log)
        try:
            self.until(lambda: "ready: " in self.said())
        except AssertionError:
            self.stop()
            raise
        suite.note(words)

    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()
            time.sleep(0.05)

    def url(self, scheme: str) -> str:
        """Return what it said that it listens to, without a path."""
        return next(word for word in self.said().split() if word.startswith(f"{scheme}://"))

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(120) == 0, self.said()


def serve_endpoints(suite: TokenSuite) -> None:
    """OCSP, lists and EST by two processes, each with sessions of its own, and the endpoint of stations."""
    with (suite.run.home / "chargepki.toml").open("a") as config:
        for label, approval in (("open", "false"), ("asked", "true")):
            config.write(f'[est.label.{label}]\nca = "t-cso-sub"\nprofile = "ocpp/charging-station"\n')
            config.write(f"approval = {approval}\n")
    suite("est", "account", "add", "acme", "--label", "open", "--label", "asked", "--common-name", "*",
          "--password-out", suite.file("acme.txt"))  # fmt: skip
    serving = Service(suite, "serve", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--workers", "2",
                      "--tls-cert", suite.file("csms-chain.pem"), "--tls-key", suite.file("csms.key"),
                      "--issue-here")  # fmt: skip
    try:
        ask_ocsp(suite, serving)
        # The processes that run go on with the new log key.
        suite("audit", "rotate-log-key")
        enrol(suite, serving.url("https").replace("127.0.0.1", "localhost"))
    finally:
        serving.stop()
        assert "Traceback" not in serving.said(), serving.said()
    suite("est", "account", "remove", "acme")
    serve_stations(suite)


def ask_ocsp(suite: TokenSuite, serving: Service) -> None:
    """A nonce is answered live: the key of the responder is in the token."""

    def ask(name: str, *more: str) -> str:
        done = run_tool(
            "openssl", "ocsp", "-issuer", suite.file("sub.pem"), "-cert", suite.file(f"{name}.pem"), *more,
            "-url", f"{serving.url('http')}/ocsp", "-CAfile", suite.file("root.pem"),
            "-verify_other", suite.file("sub.pem"),
        )  # fmt: skip
        return done.stdout + done.stderr

    def is_live(name: str, status: str) -> bool:
        said = ask(name, "-nonce")
        return f"{name}.pem: {status}" in said and "verify OK" in said and "no nonce" not in said

    def is_prepared(name: str, status: str) -> bool:
        said = ask(name, "-no_nonce")
        return f"{name}.pem: {status}" in said and "verify OK" in said

    # The signers are made in the background when they are first needed.
    for name, status in (("leaf", "good"), ("dead", "revoked")):
        serving.until(lambda name=name, status=status: is_live(name, status))
        serving.until(lambda name=name, status=status: is_prepared(name, status))
    serving.until(lambda: "background" not in readiness(serving))
    processes = children(serving)
    with suite.token.away():
        serving.until(lambda: "background work fails" in readiness(serving))
        serving.until(lambda: not is_live("leaf", "good"))
        # What was signed before is answered on, also to who asked for more.
        assert is_prepared("leaf", "good") and is_prepared("dead", "revoked"), serving.said()
        said = ask("leaf", "-nonce")
        assert "leaf.pem: good" in said and "no nonce" in said, (said, serving.said())
    serving.until(lambda: is_live("leaf", "good"))
    serving.until(lambda: "background" not in readiness(serving))
    assert children(serving) == processes and "Traceback" not in serving.said(), serving.said()


def readiness(serving: Service) -> str:
    try:
        with urllib.request.urlopen(f"{serving.url('http')}/readyz") as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as refused:
        return refused.read().decode().strip()


def children(serving: Service) -> str:
    """Return the processes of a service: none of them may have died and been replaced."""
    return Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text()


def enrol(suite: TokenSuite, url: str) -> None:
    """A client enrols over EST, renews, and waits for a decision; then a CA behind EST is connected."""
    est = f"{url}/.well-known/est"
    account = ("--user", "acme", "--password-file", suite.file("acme.txt"), "--trust", suite.file("root.pem"))
    suite.run("est", "cacerts", f"{est}/open", "--trust", suite.file("root.pem"), "--out", suite.file("cas.pem"))
    suite.run("est", "enrol", f"{est}/open", *account, "--new-key", "--key-out", suite.file("e.key"), "--subject",
              "CN=CS-77,O=Acme", "--chain-out", suite.file("e-chain.pem"), "--out", suite.file("e.pem"))  # fmt: skip
    suite.run("est", "renew", f"{est}/open", "--trust", suite.file("root.pem"), "--cert", suite.file("e-chain.pem"),
              "--key", suite.file("e.key"), "--out", suite.file("e-2.pem"))  # fmt: skip
    for decision, number in (("approve", 1), ("reject", 2)):
        suite.run.run("est", "enrol", f"{est}/asked", *account, "--csr", suite.file("csrs") / f"{number}.csr",
                      "--out", suite.file("x.pem"), "--wait", "1s")  # fmt: skip
        pending = suite.run("est", "request", "list", "--json").json()["requests"]
        (mine,) = [row["id"] for row in pending if row["state"] == "waiting"]
        suite("est", "request", decision, mine)
    branch = suite.workspace("branch")
    branch("ca", "create", "branch", "--profile", "ocpp/cso-root", "--subject", "CN=Branch,O=Acme,C=DE")
    (branch.home / "chargepki.toml").write_text(
        f'[est.ca.hub]\nurl = "{est}/open/{{operation}}"\ncacerts_url = "{est}/open/cacerts"\n'
        f'trust = "{suite.file("root.pem")}"\nuser = "acme"\npassword_file = "{suite.file("acme.txt")}"\n'
    )
    suite("ca", "connect", "hub", "--profile", "ocpp/cso-sub", at=branch)


def serve_stations(suite: TokenSuite) -> None:
    """A station gets its certificate from a CA in the token, and a campaign comes to its end."""
    suite.file("password").write_text("a-password-of-20-chr")
    suite("station", "add", "CS-9", "--security-profile", "1", "--password-file", suite.file("password"))
    suite("campaign", "cancel", "leak")
    serving = Service(suite, "csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1", "--issue",
                      "ChargingStationCertificate=t-cso-sub:ocpp/charging-station", "--issue-here",
                      "--contract-ca", "p-mo-sub2", "--cps-ca", "p-cps-sub2", "--allow-unsecured", "CS-9")  # fmt: skip
    enrolled = (
        "station", "simulate", serving.url("ws").removesuffix("/ocpp"), "--id", "CS-9", "--store",
        suite.file("CS-9"), "--protocol", "ocpp2.0.1", "--password-file", suite.file("password"),
        "--trust", suite.file("root.pem"), "--organization", "Acme", "--until", "certificate-installed",
        "--allow-unsecured", "--timeout",
    )  # fmt: skip
    try:
        # Without the token nothing can be written; the service stays, and goes on when the token is back.
        with suite.token.away():
            suite.run(*enrolled, "2s", code=4)
        suite.run(*enrolled, "60s")
        for name in ("spring", "leak"):
            serving.until(lambda name=name: campaign_state(suite, name) == "cancelled")
    finally:
        serving.stop()
    assert "Traceback" not in serving.said(), serving.said()
    suite("campaign", "retry", "spring", "--state", "cancelled")
    suite("campaign", "revoke-rest", "leak", "--yes")
    suite("contract", "revoke", EMAID)
    suite("vehicle", "remove", PCID)


def campaign_state(suite: TokenSuite, name: str) -> str:
    return str(suite.run("campaign", "show", name, "--json").json()["state"])


def back_up(suite: TokenSuite) -> None:
    """A backup holds no key of the token; restoring it somewhere else takes the token."""
    identity = pyrage.x25519.Identity.generate()
    suite.file("identity").write_text(f"{identity}\n")
    suite.file("identity").chmod(0o600)
    suite("backup", "create", "--recipient", str(identity.to_public()), "--out", suite.file("b.age"))
    suite("restore", suite.file("b.age"), "--identity", suite.file("identity"), at=suite.workspace("restored"))


def run_every_command_that_signs(suite: TokenSuite) -> None:
    """Run them, each in a state in which it does what it is for."""
    certify(suite)
    publish(suite)
    sign_with_keys_of_people(suite)
    provide_for_vehicles(suite)
    steer_stations(suite)
    keep_and_watch(suite)
    go_offline(suite)
    serve_endpoints(suite)
    back_up(suite)


def run_main_part(suite: TokenSuite) -> None:
    """Run what makes keys, certificates, lists, answers and heads of the log, and the endpoints."""
    certify(suite)
    publish(suite)
    sign_with_keys_of_people(suite)
    provide_for_vehicles(suite)
    steer_stations(suite)
    serve_endpoints(suite)
    back_up(suite)
