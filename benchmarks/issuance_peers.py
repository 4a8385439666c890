"""Peers of the issuance benchmark: other CAs that are durable for each certificate, asked as their users ask them.

Each takes the same requests, checks the signature in them and keeps what it issued: `openssl ca` and cfssl in their
databases, `certtool` in the file that it writes. CPU time is that of the tools' processes alone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.issuance_django_ca import find_python, issue

__all__ = ["Peer", "find_peers"]

CONFIGURATION = """
[ca]
default_ca = own
[own]
dir = {folder}
database = {folder}/index.txt
new_certs_dir = {folder}/issued
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
rand_serial = yes
unique_subject = no
default_md = sha256
default_days = 365
policy = any
x509_extensions = leaf
[any]
commonName = supplied
organizationName = optional
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
TEMPLATE = "cn = ignored\nexpiration_days = 365\nsigning_key\n"


@dataclass(frozen=True, slots=True)
class Peer:
    """One other CA."""

    name: str
    requests: int
    """How many it is given in a round: enough to measure, few enough to wait for."""
    issue: Callable[[Sequence[Path]], float]
    """Issues a certificate for each request file and returns the CPU seconds that its processes took."""


def find_peers(folder: Path) -> list[Peer]:
    """Return those whose tools are installed, ready to issue from one P-256 CA in *folder*."""
    make_ca(folder)
    found = []
    if shutil.which("openssl"):
        found += [
            Peer("openssl ca, one call for all", 400, lambda files: openssl(folder, [files])),
            Peer("openssl ca, a call for each", 20, lambda files: openssl(folder, [[file] for file in files])),
        ]
    if shutil.which("certtool"):
        found.append(Peer("certtool, a call for each", 40, lambda files: certtool(folder, files)))
    if shutil.which("cfssl"):
        found.append(Peer("cfssl serve with SQLite", 400, lambda files: cfssl(folder, files)))
    if python := find_python():
        django = folder / "django-ca"
        found.append(Peer("django-ca, in one process", 100, lambda files: issue(python, django, files)))
    return found


def make_ca(folder: Path) -> None:
    """Make the CA of the peers, and the files in which they keep what they issue."""
    (folder / "issued").mkdir(parents=True)
    (folder / "index.txt").touch()
    (folder / "openssl.cnf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "template").write_text(TEMPLATE)
    key, ca = folder / "ca.key", folder / "ca.pem"
    ecparam = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    subprocess.run(ecparam, check=True, capture_output=True)
    signed = ("openssl", "req", "-x509", "-new", "-key", str(key), "-subj", "/CN=Peer CA", "-days", "3650")
    subprocess.run((*signed, "-out", str(ca)), check=True, capture_output=True)
    usages = ["digital signature"]
    signing = {"signing": {"default": {"expiry": "8760h", "usages": usages}}}
    (folder / "cfssl.json").write_text(json.dumps(signing))
    (folder / "db.json").write_text(json.dumps({"driver": "sqlite3", "data_source": str(folder / "certs.db")}))
    with contextlib.closing(sqlite3.connect(folder / "certs.db")) as database:  # the table of cfssl's first migration
        database.execute(
            "CREATE TABLE certificates (serial_number blob NOT NULL, authority_key_identifier blob NOT NULL,"
            " ca_label blob, status blob NOT NULL, reason int, expiry timestamp, revoked_at timestamp,"
            " pem blob NOT NULL, PRIMARY KEY(serial_number, authority_key_identifier))"
        )


def spent(process: subprocess.Popen[bytes]) -> float:
    """Wait for *process* and return the CPU seconds that it took."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def run(*arguments: str | Path) -> float:
    """Run a tool that must succeed and return the CPU seconds that it took."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(arguments, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    used = spent(process)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments[:3]))} failed")
    return used


def openssl(folder: Path, calls: Sequence[Sequence[Path]]) -> float:
    """Issue by `openssl ca`, one process for each of *calls*."""
    return sum(run("openssl", "ca", "-batch", "-config", folder / "openssl.cnf", "-infiles", *call) for call in calls)


def certtool(folder: Path, files: Sequence[Path]) -> float:
    """Issue by GnuTLS's certtool, one process for each request."""
    used = 0.0
    for number, file in enumerate(files):
        used += run(
            "certtool", "--generate-certificate", "--load-request", file, "--load-ca-certificate", folder / "ca.pem",
            "--load-ca-privkey", folder / "ca.key", "--template", folder / "template",
            "--outfile", folder / "issued" / f"{number}.pem",
        )  # fmt: skip
    return used


def cfssl(folder: Path, files: Sequence[Path]) -> float:
    """Issue by cfssl's server over one connection; what it takes to start and to end is not counted."""
    return serve_cfssl(folder, files) - serve_cfssl(folder, files[:1])


def serve_cfssl(folder: Path, files: Sequence[Path]) -> float:
    """Start the server, have it answer, end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            "cfssl", "serve", "-address", "127.0.0.1", "-port", str(port), "-ca", folder / "ca.pem",
            "-ca-key", folder / "ca.key", "-config", folder / "cfssl.json", "-db-config", folder / "db.json",
            "-loglevel", "4",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for file in files:
                body = json.dumps({"certificate_request": file.read_text()})
                connection.request("POST", "/api/v1/cfssl/sign", body, {"Content-Type": "application/json"})
                answer = json.loads(connection.getresponse().read())
                assert answer["success"], answer
                x509.load_pem_x509_certificate(answer["result"]["certificate"].encode()).public_bytes(Encoding.DER)
    finally:
        process.terminate()
        used = spent(process)
    return used


def wait_for(port: int) -> None:
    """Return once somebody listens on *port*."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")
