"""A process that has imported the whole command line and forks a child per command: a test can afford hundreds.

The children run the real `chargepki.cli.main.main` on real files; only the half second of interpreter start and
imports is saved. Started as ``python -m testkit.preloaded SOCKET``; it ends when its standard input is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_PTRACER = 0x59616D61  # "Yama": who may attach to this process


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


def _cheapen_new_keys() -> None:
    """Let new key files cost their reader a millisecond; a crash does not care how dear a guess of a passphrase is."""
    from chargepki.pki import keys

    keys.MIN_SCRYPT_N = 2**8  # type: ignore[misc]  # for this process alone
    keys.encrypt_private_key.__defaults__ = (2**8,)


def _run(request: dict[str, Any]) -> NoReturn:
    """Become the command that *request* describes."""
    os.setsid()
    os.chdir(request["folder"])
    for fd, name, flags in (
        (0, request["stdin"], os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        handle = os.open(name, flags, 0o644)
        os.dup2(handle, fd)
        os.close(handle)
    os.environ.clear()
    os.environ.update(request["environment"])
    # As the interpreter makes them when standard output is a file.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    error = io.FileIO(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(error, "utf-8", "backslashreplace", write_through=True)
    code = 1
    try:
        from chargepki.cli.main import main

        if request["traced"]:
            # Wait until the tracer is there; sigwait takes the signal without running a handler.
            signal.sigwait({signal.SIGUSR1})
        main(request["arguments"])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # what the interpreter answers when its last flush fails
    os._exit(code)


def _handle(connection: socket.socket) -> None:
    """Fork the command, say its process id, wait for it and say how it ended."""
    # A test that is given up takes its command with it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile("rb").readline())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    pid = os.fork()
    if pid == 0:
        connection.close()
        # A tracer that is no ancestor may attach where the kernel is strict about it.
        _prctl(_PR_SET_PTRACER, -1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _run(request)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def serve(address: str) -> None:
    """Answer one command a connection until standard input ends."""
    sys.dont_write_bytecode = True
    _warm_up()
    _cheapen_new_keys()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the handlers
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in readable:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                _handle(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
