"""Run docs/examples/own_csms.py as it is, in a process of its own, over the workspace of a rig."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from chargepki.pki.pem import to_pem
from testkit.commands import forked_python
from testkit.csms_rig import Rig
from testkit.layout import ROOT

__all__ = ["EXAMPLE", "RunningCsms", "running_csms"]

EXAMPLE = ROOT / "docs" / "examples" / "own_csms.py"


@dataclass(frozen=True, slots=True)
class RunningCsms:
    """The ports of the running example, its process and its log."""

    tls_port: int
    plain_port: int
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, profile: int) -> str:
        """Base URL for *profile*, by the name in the server certificate."""
        return f"ws://localhost:{self.plain_port}" if profile == 1 else f"wss://localhost:{self.tls_port}"

    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def running_csms(rig: Rig, folder: Path) -> Iterator[RunningCsms]:
    """Start the example and end it with SIGTERM, which it must obey."""
    chain, key, passphrase = folder / "server.pem", folder / "server.key", folder / "pass.txt"
    chain.write_text("".join(to_pem("CERTIFICATE", der) for der in rig.server_identity.chain_der))
    pem = rig.server_identity.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, content in ((key, pem), (passphrase, b"test passphrase\n")):
        path.touch(mode=0o600)
        path.write_bytes(content)
    environment = {
        **os.environ, "CHARGEPKI_HOME": str(rig.folder), "CHARGEPKI_PASSPHRASE_FILE": str(passphrase),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example",
    }  # fmt: skip
    arguments = [
        "--port",
        "0",
        "--plain-port",
        "0",
        "--ca",
        "t-cso-sub",
        "--tls-cert",
        str(chain),
        "--tls-key",
        str(key),
    ]
    log = folder / "csms.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [forked_python(), EXAMPLE, *arguments], env=environment, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            ports = _await_ports(process, log)
            yield RunningCsms(ports[0], ports[1], process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()[-4000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def _await_ports(process: subprocess.Popen[bytes], log: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.findall(r"port (\d+) is ready", log.read_text())
        if len(found) == 2:
            return [int(port) for port in found]
        time.sleep(0.05)
    raise AssertionError(f"the example is not ready: {log.read_text()[-4000:]}")
