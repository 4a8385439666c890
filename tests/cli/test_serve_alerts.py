"""What goes wrong in ``serve`` reaches the alert targets, from one process and from several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.pki.pem import to_pem
from testkit.command_line import CommandLine
from testkit.hierarchy import make_node

COMMAND = Path(sys.executable).parent / "chargepki"


def until(condition: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@pytest.mark.parametrize(("workers", "event"), [(1, "TlsCertificateNotLoaded"), (2, "ProcessEnded")])
def test_what_goes_wrong_in_serve_is_told_to_the_configured_target(
    run: CommandLine, place: Path, workers: int, event: str
) -> None:
    told, log = place / "told", place / "serve.log"
    teller = place / "teller"
    teller.write_text(f'#!/bin/sh\ncat > "{told}.part" && mv "{told}.part" "{told}"\n')
    teller.chmod(0o700)
    configuration = run.home / "chargepki.toml"
    before = configuration.read_text() if configuration.exists() else ""
    configuration.write_text(
        f'{before}\n[[alerts.target]]\nname = "me"\nkind = "exec"\ncommand = ["{teller}"]\n'
        '[[alerts.rule]]\nname = "pki"\nsource = "pki"\ntargets = ["me"]\n'
    )
    node = make_node("localhost", None, ca=False)
    key = node.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "tls.pem").write_text(to_pem("CERTIFICATE", node.der))
    (place / "tls.key").write_bytes(key)
    words: tuple[str, ...] = ("serve", "--listen", "127.0.0.1:0", "--workers", str(workers))
    if workers == 1:
        words += ("--tls-listen", "127.0.0.1:0", "--tls-cert", str(place / "tls.pem"))
        words += ("--tls-key", str(place / "tls.key"))
    environment = {**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables}
    with log.open("wb") as output:
        process = subprocess.Popen([COMMAND, *words], env=environment, stdout=output, stderr=output)
    try:
        until(lambda: "ready: " in log.read_text(), log.read_text)
        if workers == 1:
            (place / "tls.pem").write_text("nothing that is a certificate\n")
            process.send_signal(signal.SIGHUP)
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        until(told.exists, log.read_text)
    finally:
        process.terminate()
        process.wait(60)
        configuration.write_text(before)
    alert = json.loads(told.read_text())
    assert event in json.dumps(alert), alert
    assert process.returncode == 0, log.read_text()
