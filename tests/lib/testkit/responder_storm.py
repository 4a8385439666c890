"""`serve` under load while processes and databases die and certificates are revoked; every answer is judged."""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.x509 import ocsp as foreign

from chargepki.pki import keys
from chargepki.pki.authority import CaOrder, IssueOrder
from chargepki.pki.config import load_settings
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.workspace import Workspace
from testkit.pki_server import ocsp_request

__all__ = ["Storm", "resident_bytes"]

COMMAND = Path(sys.executable).parent / "chargepki"
PASSPHRASE = b"storm"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Storm:
    """A running `serve` with *count* certificates, clients that never stop asking, and what they were told.

    An answer is wrong if it says `good` to a request that was sent after the revocation of its certificate had been
    acknowledged.
    """

    folder: Path
    database: str
    count: int = 24
    workers: int = 2
    options: tuple[str, ...] = ()
    """More options of `serve`."""
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Issue the certificates and start the server."""
        (self.folder / "passphrase").write_bytes(PASSPHRASE)
        (self.folder / "passphrase").chmod(0o600)
        home = self.folder / "home"
        flags = {"home": str(home), "database": self.database, "public_url": "http://pki.example"}
        self.workspace = Workspace(load_settings(flags, {}, default_home=home), passphrase=lambda: PASSPHRASE)
        authority = self.workspace.authority
        subject = (("CN", "Storm"), ("O", "Storm"), ("C", "DE"))
        authority.create_ca(CaOrder("s-root", "ocpp/cso-root", subject=subject))
        authority.create_ca(CaOrder("s-sub", "ocpp/cso-sub", issuer="s-root", subject=subject))
        self._spki = keys.spki_der(keys.generate_private_key(keys.KeyAlgorithm.SECP256R1))
        self.certificates = [self.issue(number) for number in range(self.count)]
        self.requests = {each: ocsp_request(self.workspace.inventory, each) for each in self.certificates}
        self._log = self.folder / "serve.log"
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--listen", "127.0.0.1:0", "--workers", str(self.workers), "--database",
                 self.database, "--home", home, "--passphrase-file", self.folder / "passphrase", *self.options],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_for("every published artefact is there")
        self.port = int(self.said().partition("ready: http://127.0.0.1:")[2].split()[0])
        # The probe passes over certificates that were issued just now.
        deadline = time.monotonic() + 60
        while self._ask_once(self.requests[self.certificates[-1]]) is not foreign.OCSPCertStatus.GOOD:
            assert time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.05)

    def issue(self, number: int) -> str:
        """Issue one more certificate and return its id."""
        subject = (("CN", f"CS-{number}"), ("O", "Storm"))
        order = IssueOrder("s-sub", "ocpp/charging-station", spki=self._spki, subject=subject)
        return self.workspace.authority.issue(order).record.id

    def gauge(self, name: str) -> float:
        """Return a metric of the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"chargepki_{name} "))

    def _ask_once(self, request: bytes) -> foreign.OCSPCertStatus | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/ocsp", request)
            response = foreign.load_der_ocsp_response(connection.getresponse().read())
        finally:
            connection.close()
        if response.response_status is not foreign.OCSPResponseStatus.SUCCESSFUL:
            return None
        return response.certificate_status

    def said(self) -> str:
        """Return what the server has logged."""
        return self._log.read_text()

    def wait_for(self, words: str, seconds: float = 60) -> None:
        """Wait until the server says so."""
        deadline = time.monotonic() + seconds
        while words not in self.said():
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()[-3000:]
            time.sleep(0.05)

    def children(self) -> list[int]:
        """Return the processes of the server."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill_one(self, chance: random.Random) -> None:
        """Kill one of its processes outright."""
        if children := self.children():
            os.kill(chance.choice(children), signal.SIGKILL)

    def revoke(self, certificate: str) -> bool:
        """Revoke a certificate; true when that was acknowledged."""
        try:
            self.workspace.authority.revoke(certificate, "superseded")
        except ChargePkiError:
            return False
        self.acknowledged.setdefault(certificate, time.monotonic())
        return True

    def ask_for_ever(self, clients: int = 4, *, pause: float = 0.0) -> None:
        """Start the clients.

        Args:
            pause: seconds that each waits between an answer and its next question.
        """
        for number in range(clients):
            thread = threading.Thread(target=self._ask, args=(random.Random(number), pause))
            thread.start()
            self._threads.append(thread)

    def _ask(self, chance: random.Random, pause: float) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            certificate = chance.choice(self.certificates)
            body = self.requests[certificate]
            if chance.random() < 0.3:
                body = _with_nonce(body, chance.randbytes(32))
            sent = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", "/ocsp", body)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException):
                self.statuses["no answer"] += 1
                connection = None
                time.sleep(0.02)
                continue
            self._judge(certificate, sent, answer.status, data)
            if pause:
                time.sleep(pause)
        if connection is not None:
            connection.close()

    def _judge(self, certificate: str, sent: float, status: int, data: bytes) -> None:
        if status != 200:
            self.wrong.append(f"HTTP {status}")
            return
        response = foreign.load_der_ocsp_response(data)
        if response.response_status is not foreign.OCSPResponseStatus.SUCCESSFUL:
            self.statuses[response.response_status.name] += 1
            return
        word = response.certificate_status.name
        self.statuses[word] += 1
        revoked = self.acknowledged.get(certificate)
        if word == "GOOD" and revoked is not None and sent > revoked:
            self.wrong.append(f"{certificate} was good {sent - revoked:.3f} s after its revocation was acknowledged")
        if word == "UNKNOWN":
            self.wrong.append(f"{certificate} was unknown")

    def stop(self) -> None:
        """Stop clients and server."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        self.workspace.close()


def _with_nonce(request: bytes, nonce: bytes) -> bytes:
    """Return a request with a nonce added."""
    from chargepki.pki.ocsp import build_single_request, parse_ocsp_request

    return build_single_request(parse_ocsp_request(request).cert_ids[0].raw, nonce=nonce)
