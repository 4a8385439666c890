"""OCSP answers per CPU-second and their latency: `serve` against cfssl's responder and `openssl ocsp`.

All three are processes of their own, asked by the same client over loopback: bare sockets, eight connections, POST,
the next request as soon as the answer is there; connections are kept where the server keeps them. cfssl gets
exactly the responses that we have prepared. CPU time is what /proc says of the server, its threads included. The
client is Python and takes as much CPU as the servers, so answers per second of wall time are a property of the pair and
are not reported; latencies include the client's own share, alike for all.
"""

from __future__ import annotations

import base64
import contextlib
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from pathlib import Path

from benchmarks.harness import Comparison, Limit, Timing, main
from chargepki.pki import keys, private_keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.ocsp import OcspAuthority, find_delegate
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.config import load_settings
from chargepki.pki.der import to_pem
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.ocsp import build_cert_id, build_single_request, issuer_hashes
from chargepki.pki.workspace import Workspace

CERTIFICATES = 1000
CONNECTIONS = 8
REQUESTS = 5000
OPENSSL_REQUESTS = 1500
ROUNDS = 5
PASSPHRASE = b"benchmark passphrase"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A responder that runs."""

    name: str
    pid: int
    port: int
    path: bytes

    def cpu(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


@dataclass(frozen=True, slots=True)
class Run:
    """One round: CPU per answer, and the latencies."""

    cpu: float
    wall: float
    latencies: list[float]


@dataclass(frozen=True, slots=True)
class Material:
    """A workspace with certificates, and the same for the other two."""

    folder: Path
    home: Path
    serials: list[int]
    hashes: tuple[bytes, bytes]

    def requests(self, *, nonce: bool) -> list[bytes]:
        """One request for each certificate."""
        ids = [build_cert_id("sha1", *self.hashes, serial) for serial in self.serials]
        return [build_single_request(each, nonce=os.urandom(32) if nonce else None) for each in ids]


def prepare(folder: Path) -> Material:
    """Issue the certificates, prepare their answers, and write what the other responders need."""
    home, passphrase = folder / "home", folder / "passphrase"
    passphrase.write_bytes(PASSPHRASE)
    passphrase.chmod(0o600)
    settings = load_settings({"home": str(home), "public_url": "http://127.0.0.1"}, {}, default_home=home)
    workspace = Workspace(settings, passphrase=lambda: PASSPHRASE)
    authority: Authority = workspace.authority
    subject = (("CN", "Bench"), ("O", "Bench"), ("C", "DE"))
    authority.create_ca(CaOrder("b-root", "ocpp/cso-root", subject=subject))
    authority.create_ca(CaOrder("b-sub", "ocpp/cso-sub", issuer="b-root", subject=subject))
    spki = keys.spki_der(keys.generate_private_key(keys.KeyAlgorithm.SECP256R1))
    for start in range(0, CERTIFICATES, 250):
        orders = [
            IssueOrder("b-sub", "ocpp/charging-station", spki=spki, subject=(("CN", f"CS-{n}"), ("O", "Bench")))
            for n in range(start, start + 250)
        ]
        assert all(not isinstance(answer, Exception) for answer in authority.issue_many(orders))
    ca = workspace.inventory.get_ca("b-sub")
    OcspAuthority(authority).presign(ca)
    signer = find_delegate(workspace.inventory, workspace.keystore, ca, authority.now())
    assert signer is not None and ca.certificate_der is not None
    (folder / "ca.pem").write_text(to_pem("CERTIFICATE", ca.certificate_der))
    (folder / "signer.pem").write_text(to_pem("CERTIFICATE", signer.certificates[0]))
    (folder / "signer.key").write_bytes(private_keys.serialise_private_key(signer.signer.private_key))
    records = [r for r in workspace.inventory.list_ocsp_responses_of(ca.id, "sha1")]
    (folder / "responses").write_bytes(b"\n".join(base64.b64encode(record.der) for record in records) + b"\n")
    issued = list(workspace.inventory.list_certificates(ca=ca.id, state=CertificateState.ISSUED))
    (folder / "index.txt").write_text("".join(index_line(r.serial, r.not_after, r.subject) for r in issued))
    hashes = issuer_hashes("sha1", ca.subject_der, view_certificate(ca.certificate_der).key.der)
    workspace.close()
    return Material(folder, home, [int(record.serial, 16) for record in issued], hashes)


def index_line(serial: str, not_after: datetime, subject: str) -> str:
    """Return a line of OpenSSL's database of certificates."""
    padded = serial.upper() if len(serial) % 2 == 0 else f"0{serial.upper()}"
    return f"V\t{not_after:%y%m%d%H%M%SZ}\t\t{padded}\tunknown\t/{subject.replace(',', '/')}\n"


# ---------------------------------------------------------------- servers


def free_port() -> int:
    """Return a port of loopback that nobody uses at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    name: str, arguments: Sequence[str | Path], port: int, path: bytes, *, says: bytes = b"", **variables: str
) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        says: what it says when it listens; a connection that is closed again tells the same, yet stops `openssl ocsp`.
    """
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [str(each) for each in arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if not says:
                        socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    elif says not in Path(log.name).read_bytes():
                        raise OSError("it does not listen yet")
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise RuntimeError(f"{name} did not start: {log.read().decode()[-500:]}") from None
                    time.sleep(0.05)
            yield Server(name, process.pid, port, path)
        finally:
            process.terminate()
            process.wait(20)


def serve(material: Material, *words: str) -> contextlib.AbstractContextManager[Server]:
    """Our responder, one process."""
    port = free_port()
    command = Path(sys.executable).parent / "chargepki"
    return running(
        "chargepki serve", [command, "serve", "--listen", f"127.0.0.1:{port}", "-q", *words], port, b"/ocsp",
        CHARGEPKI_HOME=str(material.home), CHARGEPKI_PASSPHRASE_FILE=str(material.folder / "passphrase"),
    )  # fmt: skip


def cfssl(material: Material, processors: int) -> contextlib.AbstractContextManager[Server]:
    """The responder of cfssl with our prepared answers."""
    port = free_port()
    arguments: list[str | Path] = [
        "cfssl",
        "ocspserve",
        "-port",
        str(port),
        "-responses",
        material.folder / "responses",
        "-loglevel",
        "4",
    ]
    name = f"cfssl ocspserve (GOMAXPROCS={processors})"
    return running(name, arguments, port, b"/", GOMAXPROCS=str(processors))


def openssl(material: Material) -> contextlib.AbstractContextManager[Server]:
    """The responder of OpenSSL: it signs every answer."""
    port, folder = free_port(), material.folder
    return running(
        "openssl ocsp",
        ["openssl", "ocsp", "-index", folder / "index.txt", "-port", str(port), "-rsigner", folder / "signer.pem",
         "-rkey", folder / "signer.key", "-CA", folder / "ca.pem", "-ndays", "7"],
        port, b"/", says=b"ACCEPT",
    )  # fmt: skip


# ---------------------------------------------------------------- client


class Peer:
    """One connection that asks again as soon as it is answered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket: socket.socket | None = None
        self.buffer = b""
        self.asked = 0.0

    def ask(self, selector: selectors.BaseSelector, request: bytes) -> None:
        """Send a request, over a new connection if the server closed the last one."""
        self.buffer = b""
        self.asked = time.perf_counter()
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(request)

    def read(self, selector: selectors.BaseSelector) -> bytes | None:
        """Return the body of the answer when it is complete."""
        assert self.socket is not None
        data = self.socket.recv(65536)
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        length = None
        if blank:
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
        if blank and length is not None and len(body) >= length:
            if head.startswith(b"HTTP/1.0") or b"connection: close" in head.lower():
                self.close(selector)
            assert b" 200 " in head.split(b"\r\n")[0] + b" ", head
            return body[:length]
        if not data:
            self.close(selector)
            raise RuntimeError(f"{self.server.name} hung up: {self.buffer[:200]!r}")
        return None

    def close(self, selector: selectors.BaseSelector) -> None:
        """Close the connection."""
        if self.socket is not None:
            selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


def load(server: Server, bodies: Sequence[bytes], count: int, connections: int) -> Run:
    """Ask *count* times and return what it cost the server."""
    messages = cycle(
        [
            b"POST " + server.path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
            for body in bodies
        ]
    )
    latencies: list[float] = []
    cpu, wall = server.cpu(), time.perf_counter()
    with selectors.DefaultSelector() as selector:
        peers = [Peer(server) for _ in range(connections)]
        sent = 0
        for peer in peers:
            peer.ask(selector, next(messages))
            sent += 1
        while len(latencies) < count:
            for key, _ in selector.select(30):
                peer = key.data
                body = peer.read(selector)
                if body is None:
                    continue
                # Anything but a successful response would be cheap to give.
                assert body[2:5] == b"\x0a\x01\x00" or b"\x0a\x01\x00" in body[:8], body[:16]
                latencies.append(time.perf_counter() - peer.asked)
                if sent < count:
                    peer.ask(selector, next(messages))
                    sent += 1
        for peer in peers:
            peer.close(selector)
    spent = time.perf_counter() - wall
    return Run((server.cpu() - cpu) / count, spent / count, latencies)


def measure() -> list[Comparison]:
    """Measure all of it in one run, rounds of the servers in turn."""
    for tool in ("cfssl", "openssl"):
        if shutil.which(tool) is None:
            raise SystemExit(f"error: {tool} is not installed (Debian: golang-cfssl, openssl)")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        material = prepare(Path(folder))
        ours = stack.enter_context(serve(material))
        one = stack.enter_context(cfssl(material, 1))
        two = stack.enter_context(cfssl(material, os.cpu_count() or 2))
        signing = stack.enter_context(openssl(material))
        plain, nonces = material.requests(nonce=False), material.requests(nonce=True)
        jobs = {
            "ours": (ours, plain, REQUESTS, CONNECTIONS),
            "ours live": (ours, nonces, OPENSSL_REQUESTS, CONNECTIONS),
            "cfssl 1": (one, plain, REQUESTS, CONNECTIONS),
            "cfssl n": (two, plain, REQUESTS, CONNECTIONS),
            # It serves one connection at a time; more would wait in line and be counted as slow.
            "openssl": (signing, plain, OPENSSL_REQUESTS, 1),
            "openssl live": (signing, nonces, OPENSSL_REQUESTS, 1),
        }
        for job in jobs.values():
            load(job[0], job[1], 1000, job[3])
        runs: dict[str, list[Run]] = {name: [] for name in jobs}
        for number in range(ROUNDS):
            for name in jobs if number % 2 == 0 else reversed(jobs):
                runs[name].append(load(*jobs[name]))
    cheaper = min(("cfssl 1", "cfssl n"), key=lambda name: statistics.median(run.cpu for run in runs[name]))
    quicker = min(("cfssl 1", "cfssl n"), key=lambda name: p99(runs[name]))
    return [
        compared(
            "OCSP: a prepared answer, against cfssl's responder", runs["ours"], runs[cheaper],
            f"cfssl ocspserve, the cheaper of two settings ({cheaper})", 1 / 1.2, "at least 1.2 x as many",
        ),
        compared(
            "OCSP: a prepared answer, against openssl ocsp", runs["ours"], runs["openssl"],
            "openssl ocsp, which signs", 1 / 3, "at least 3 x as many",
        ),
        compared(
            "OCSP: a live answer with nonce, against openssl ocsp", runs["ours live"], runs["openssl live"],
            "openssl ocsp, with nonce", 1 / 1.3, "at least 1.3 x as many",
        ),
        latency(runs["ours"], runs[quicker], f"cfssl ocspserve, the quicker of two settings ({quicker})"),
    ]  # fmt: skip


def p99(runs: Sequence[Run]) -> float:
    """Return the median over the rounds of the 99th percentile of a round, in seconds."""
    return statistics.median(sorted(run.latencies)[int(len(run.latencies) * 0.99)] for run in runs)


def compared(
    question: str, ours: Sequence[Run], theirs: Sequence[Run], reference: str, limit: float, why: str
) -> Comparison:
    """Compare CPU per answer."""
    ratios = [a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)]
    return Comparison(
        question=question,
        subject=timing("chargepki serve", ours),
        reference=timing(reference, theirs),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=len(ratios),
        limit=Limit(round(limit, 3), f"{why} answers per CPU-second"),
        note="8 connections, POST, 1,000 certificates, SQLite; openssl closes every connection",
    )


def latency(ours: Sequence[Run], theirs: Sequence[Run], reference: str) -> Comparison:
    """Compare the 99th percentile of the time to an answer; wall time stands where CPU time usually does."""
    pairs = [(p99([a]), p99([b])) for a, b in zip(ours, theirs, strict=True)]

    def percentile(name: str, values: list[float], runs: Sequence[Run]) -> Timing:
        count = sum(len(run.latencies) for run in runs)
        return Timing(name, count, statistics.median(values), min(values), statistics.median(r.wall for r in runs))

    ratios = [a / b for a, b in pairs]
    return Comparison(
        question="OCSP: p99 of the latency at 8 connections (wall time)",
        subject=percentile("chargepki serve", [a for a, _ in pairs], ours),
        reference=percentile(reference, [b for _, b in pairs], theirs),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=len(ratios),
        limit=Limit(1.0, "not above cfssl's"),
        note="the columns of CPU time show the p99 in wall seconds; the Python client's own time is part of both",
    )


def timing(name: str, runs: Sequence[Run]) -> Timing:
    """Sum up the rounds of one server."""
    cpu = [run.cpu for run in runs]
    wall = statistics.median(run.wall for run in runs)
    return Timing(name, sum(len(run.latencies) for run in runs), statistics.median(cpu), min(cpu), wall)


if __name__ == "__main__":
    raise SystemExit(main("ocsp", measure))
