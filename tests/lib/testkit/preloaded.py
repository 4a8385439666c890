"""A process that has imported the whole command line and forks a child per command: a test can afford hundreds.

The children run the real `chargepki.cli.main.main` on real files, with their own process id, descriptors, signals and
exit code; only the half second of interpreter start and imports is saved. ``python -m testkit.preloaded NAME`` returns
at once, and leaves it running for as long as somebody uses it. `testkit.commands` talks to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import marshal
import os
import runpy
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypedDict

from testkit.layout import module_names
from testkit.quick import be_quick, cheapen_secrets, prepare_migrated_file

__all__ = ["Request"]

_PR_SET_PDEATHSIG = 1
_PR_SET_PTRACER = 0x59616D61  # "Yama": who may attach to this process


class Request(TypedDict):
    """A command, as it is sent (`marshal`) after its length in four bytes, along with its three descriptors.

    A length of 0 asks for nothing: as long as such a connection is open, the server stays.
    """

    arguments: list[str]
    python: bool
    """Whether they are those of the interpreter (``-c``, ``-m`` or a file) in place of those of `chargepki`."""
    folder: str
    umask: int
    environment: dict[str, str]
    traced: bool
    """Whether it waits for SIGUSR1 before it begins."""
    quick: bool
    """Whether it copies a migrated database in place of migrating a new one."""


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _warm_up() -> None:
    """Run commands that load every module the tests need; nothing stays open, so a fork is safe afterwards."""
    import psycopg  # noqa: F401 - loaded for the children

    from chargepki.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "pass"
        secret.write_text("warm-up")
        os.environ["CHARGEPKI_HOME"] = str(Path(folder) / "home")
        os.environ["CHARGEPKI_PASSPHRASE_FILE"] = str(secret)
        subject = ["--subject", "CN=W,O=W,C=DE"]
        sink = ["--publish-dir", folder, "--out", f"{folder}/out"]
        for arguments in (
            ["ca", "create", "w", "--profile", "ocpp/cso-root", *subject],
            ["ca", "create", "x", "--profile", "ocpp/cso-sub", "--issuer", "w", *subject],
            ["cert", "issue", "--ca", "x", "--profile", "ocpp/csms", "--new-key", "--key-out", f"{folder}/key",
             "--dns", "csms.example.org", "--subject", "CN=csms.example.org,O=W,C=DE", "--out", f"{folder}/leaf"],
            ["crl", "publish", "--ca", "x", *sink],
            ["authority", "serve", "--once"],
            ["audit", "verify"],
        ):  # fmt: skip
            hushed = io.TextIOWrapper(io.BytesIO())
            with (
                contextlib.suppress(SystemExit),
                contextlib.redirect_stdout(hushed),
                contextlib.redirect_stderr(hushed),
            ):
                main(arguments)
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            main(["cert", "revoke", "none:1", "--reason", "superseded"])


def _import_everything() -> None:
    """Import what a command imports late, so that no child has to; a new module costs nobody a line here."""
    for name in module_names():
        importlib.import_module(name)


def _command(arguments: list[str]) -> int:
    from chargepki.cli.main import main

    sys.argv = ["chargepki", *arguments]
    try:
        main(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0


def _interpret(arguments: list[str]) -> int:
    """Do what the interpreter does with these arguments."""
    kind, *rest = arguments
    sys.argv = [kind, *rest[1:]] if kind in ("-c", "-m") else arguments
    try:
        if kind == "-c":
            sys.modules["__main__"] = module = ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), module.__dict__)
        elif kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(kind).parent))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
            return 1
        return leaving.code or 0
    return 0


def _become(request: Request, descriptors: list[int]) -> NoReturn:
    """Become the command that *request* describes, with these as standard input, output and error."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A tracer that is no ancestor may attach where the kernel is strict about it.
    _prctl(_PR_SET_PTRACER, -1)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    # As the interpreter makes them when standard output is a file.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    error = io.FileIO(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(error, "utf-8", "backslashreplace", write_through=True)
    code = 1
    try:
        if request["quick"]:
            be_quick()
        if request["traced"]:
            # Wait until the tracer is there; sigwait takes the signal without running a handler.
            signal.sigwait({signal.SIGUSR1})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        code = (_interpret if request["python"] else _command)(request["arguments"])
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # what the interpreter answers when its last flush fails
    os._exit(code)


class _Server:
    """Forks a command for each connection; says its process id, and when it has ended how."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._users: dict[int, socket.socket] = {}
        self._processes: dict[int, tuple[int, socket.socket]] = {}
        """Process id and connection of each command, by the descriptor of its process."""
        self._callers: dict[int, int] = {}
        """Process id by the descriptor of the connection, while somebody is there."""

    def serve(self) -> None:
        """Go on until the last user has gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._processes:
                    self._tell_the_end(descriptor)
                elif descriptor in self._callers:
                    # Who asked was killed or has given up; the command and what it has started go as well.
                    self._poll.unregister(descriptor)
                    os.killpg(self._callers.pop(descriptor), signal.SIGKILL)
                elif descriptor in self._users:
                    self._poll.unregister(descriptor)
                    self._users.pop(descriptor).close()
                    if not self._users:
                        return

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.geteuid():  # an abstract address is open to every user of the machine
            connection.close()
            return
        size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        if not any(size):
            self._users[connection.fileno()] = connection
            connection.sendall(b"ready\n")
        else:
            content = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
            self._start(content, descriptors, connection)
        self._poll.register(connection, 0)  # for its end: nothing more is read from it

    def _start(self, content: bytes, descriptors: list[int], connection: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                held = [connection, *self._users.values(), *(other for _, other in self._processes.values())]
                for one in (self._listener, *held):
                    one.close()
                for other in self._processes:
                    os.close(other)
                _become(marshal.loads(content), descriptors)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        process = os.pidfd_open(pid)
        self._processes[process] = pid, connection
        self._callers[connection.fileno()] = pid
        self._poll.register(process, select.POLLIN)
        with contextlib.suppress(OSError):
            connection.sendall(f"{pid}\n".encode())

    def _tell_the_end(self, process: int) -> None:
        pid, connection = self._processes.pop(process)
        _, status = os.waitpid(pid, 0)
        self._poll.unregister(process)
        os.close(process)
        if self._callers.pop(connection.fileno(), None) is not None:
            self._poll.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()

    def end_all(self) -> None:
        """End every command that still runs."""
        for pid, _ in self._processes.values():
            os.killpg(pid, signal.SIGKILL)


def main(address: str) -> None:
    """Listen at an abstract *address*, and return; a fork of this process makes itself ready and serves."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"\0{address}")
        except OSError:  # another one was faster
            return
        listener.listen(64)
        if os.fork():
            return
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.close(nothing)
        sys.dont_write_bytecode = True
        _import_everything()
        _warm_up()
        prepare_migrated_file()
        cheapen_secrets()
        gc.collect()
        gc.freeze()
        # A command takes it for the sign to begin, maybe before it waits for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        server = _Server(listener)
        server.serve()
        server.end_all()


if __name__ == "__main__":
    main(sys.argv[1])
