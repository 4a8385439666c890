"""Start commands of ours as processes at a twentieth of the price: a preloaded process forks them.

`forked_program` is a program named ``chargepki`` that stands for the installed one: it hands its arguments, folder,
variables and descriptors to the preloaded process, passes signals on, and ends as the command ended. What that leaves
untested is the start of the interpreter and what it imports; some tests of each kind start the installed one.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testkit.layout import ROOT
from testkit.preloaded import Request

__all__ = ["INSTALLED", "CommandServer", "Started", "command_server", "forked_program", "forked_python"]

INSTALLED = Path(sys.executable).with_name("chargepki")
"""The program as a user starts it."""

# Only modules that the interpreter loads in no time; -I and -S spare it the search for packages.
_PROGRAM = """\
#!{interpreter} -IS
import _signal, _socket, array, marshal, posix, sys
SIGNALS = {{_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2}}
_signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
server = _socket.socket(_socket.AF_UNIX)
server.connect({address!r})
def text(value):
    return value.decode("utf-8", "surrogateescape")
environment = {{text(name): text(value) for name, value in posix.environ.items()}}
umask = posix.umask(0o077)
content = marshal.dumps(
    dict(
        arguments=sys.argv[1:], python={python}, folder=posix.getcwd(), umask=umask, environment=environment,
        traced=False, quick=True,
    )
)
descriptors = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
server.sendmsg([len(content).to_bytes(4, "big")], [descriptors])
server.sendall(content)
said = b""
def line():
    global said
    while b"\\n" not in said:
        more = server.recv(64)
        if not more:
            posix._exit(70)
        said += more
    first, _, said = said.partition(b"\\n")
    return int(first)
pid = line()
for number in SIGNALS:
    _signal.signal(number, lambda number, frame: posix.kill(pid, number))
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)
code = line()
if code < 0:
    if -code != _signal.SIGKILL:
        _signal.signal(-code, _signal.SIG_DFL)
    posix.kill(posix.getpid(), -code)
posix._exit(code)
"""


@dataclass(slots=True)
class Started:
    """A command that runs."""

    pid: int
    _answers: Iterator[bytes]

    def wait(self) -> int:
        """Return its exit code, or minus the number of the signal that ended it."""
        return int(next(self._answers))


class CommandServer:
    """The process of `testkit.preloaded` that all processes of this test run share."""

    def __init__(self) -> None:
        """Start it, or use the one that another process has started; it runs until nobody uses it any more."""
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"process {os.getpid()}")
        # No file: the kernel forgets it with the process.
        self.address = f"\0tests of chargepki {run}"
        deadline = time.monotonic() + 60
        while not self._is_ready():
            assert time.monotonic() < deadline, "the preloaded process does not start"
            # Of several that are started at once one listens, and the others end.
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "lib")}
            subprocess.run([sys.executable, "-m", "testkit.preloaded", self.address[1:]], env=environment, check=True)

    def _is_ready(self) -> bool:
        """Wait until it serves and keep it; false when there is none, or it was just about to end."""
        self._hold = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(ConnectionError):
            self._hold.connect(self.address)
            self._hold.sendall(bytes(4))
            if self._hold.recv(64) == b"ready\n":
                return True
        self._hold.close()
        return False

    @contextlib.contextmanager
    def start(self, request: Request, descriptors: Sequence[int]) -> Iterator[Started]:
        """Start a command with these three descriptors; it is killed when the block ends before it does."""
        content = marshal.dumps(request)  # type: ignore[arg-type]  # a TypedDict, whose values are all marshal takes
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
            connection.connect(self.address)
            socket.send_fds(connection, [len(content).to_bytes(4, "big")], descriptors)
            connection.sendall(content)
            yield Started(int(next(answers)), answers)


@cache
def command_server() -> CommandServer:
    """Return the server of this process, which is started when it is first needed."""
    return CommandServer()


@cache
def forked_program() -> Path:
    """Return the program that stands for `INSTALLED`, or where a process cannot be handed over that itself."""
    return _write_program("chargepki", python=False) if sys.platform == "linux" else INSTALLED


@cache
def forked_python() -> Path:
    """Return a program that stands for the interpreter, for scripts of tests, files and modules that use ours."""
    return _write_program("python", python=True) if sys.platform == "linux" else Path(sys.executable)


def _write_program(name: str, *, python: bool) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="program-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / name
    text = _PROGRAM.format(interpreter=sys.executable, address=command_server().address, python=python)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path
