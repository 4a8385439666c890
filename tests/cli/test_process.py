"""The command as a process: what only a real one has — signals, pipes, bytes on its streams."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from chargepki.pki.config import SETTINGS
from testkit.command_line import CommandLine

COMMAND = Path(sys.executable).parent / "chargepki"


def environment(run: CommandLine) -> dict[str, str]:
    names = {setting.variable for setting in SETTINGS}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "CHARGEPKI_HOME": str(run.home), **run.variables}


def start(run: CommandLine, *words: str | Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *words], env=environment(run), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell that runs the tests in the background has the interruption ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_service_takes_an_interruption_as_the_order_to_stop(run: CommandLine) -> None:
    process = start(run, "authority", "serve")
    assert process.stderr is not None
    assert b"authority ready: 3 CAs" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and b"stopped" in said


def reads_its_input(process: subprocess.Popen[bytes]) -> bool:
    """Whether the pipe is empty: what was written has been taken, so the command waits for the rest."""
    assert process.stdin is not None
    waiting = array.array("i", [0])
    fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
    return waiting[0] == 0


def test_an_interrupted_command_exits_130_without_a_traceback(run: CommandLine) -> None:
    process = start(run, "csr", "check", "-", "--profile", "ocpp/charging-station", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"-----BEGIN")
    process.stdin.flush()
    while not reads_its_input(process):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said.strip()) == (130, b"", b"interrupted")


def test_a_reader_that_goes_away_is_no_error(run: CommandLine) -> None:
    script = f"'{COMMAND}' audit export | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment(run), capture_output=True, timeout=100, check=True)
    assert done.stderr == b"" and done.stdout.endswith(b"\n0\n")


def test_exit_codes_reach_the_shell(run: CommandLine, place: Path) -> None:
    for words, code in {
        ("ca", "list"): 0,
        ("lint", "live.pem", "--profile", "iso15118-2/cpo-sub1"): 1,
        ("ca", "list", "--bogus"): 2,
        ("ca", "show", "none"): 3,
        ("lint", "none.pem"): 4,
    }.items():
        done = subprocess.run(
            [COMMAND, *words], env=environment(run), cwd=place, capture_output=True, timeout=100, check=False
        )
        assert done.returncode == code, done.stderr


def test_binary_output_is_whole_on_standard_output(run: CommandLine) -> None:
    process = start(run, "crl", "publish", "--ca", "t-cso-sub", "--out", "-", "-q")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0 and said == b""
    assert out[:1] == b"\x30" and len(out) > 200
