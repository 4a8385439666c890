"""Kill a command of ours, or fail one of its system calls, at a chosen call.

The faults are injected by strace, which counts each kind of call: `Fault("fsync", 2, "signal=KILL")` ends the process
as it enters its second fsync, which is then not carried out. A kill before call n+1 is a kill after call n, so the
kills before every call are all the states that other processes can ever see.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from testkit.commands import CommandServer
from testkit.effort import CAMPAIGN
from testkit.preloaded import Request

__all__ = [
    "CHANGING_CALLS",
    "PASSPHRASE",
    "POINTS",
    "SEED",
    "Call",
    "Fault",
    "Outcome",
    "Place",
    "Runner",
    "choose",
    "need_strace",
]

PASSPHRASE = b"a passphrase of the tests"
# The processes of a campaign must choose alike, and each campaign otherwise; an ordinary run takes the same each time.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(random.SystemRandom().random())) if CAMPAIGN else ""
SEED = int(os.environ.get("CHARGEPKI_CRASH_SEED", zlib.crc32(_RUN.encode())))
"""Chooses the sampled calls, alike in all workers; printed with every failure, and may be given to repeat a run."""
POINTS = int(os.environ.get("CHARGEPKI_CRASH_POINTS", "1000000"))
"""A campaign of bounded time tries so many calls of each command, and others each time."""

CHANGING_CALLS = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "fsync", "fdatasync", "sync_file_range", "rename", "renameat",
    "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "truncate", "ftruncate", "fallocate",
    "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "open", "openat", "creat",
)  # fmt: skip
"""Calls that change what is on the disk; of the opening ones, only those that may create a file."""

_LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_QUOTED = re.compile(r'"([^"]*)"')
_RANDOM_PART = re.compile(r"[0-9a-f]{16}(?=\.tmp)")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call of an undisturbed run."""

    name: str
    nth: int
    """Which one of its name it was in its process, counted from 1; this is what strace counts."""
    target: str
    """The file that it was for, without random parts."""

    def __str__(self) -> str:
        return f"{self.name} #{self.nth} ({Path(self.target).name})"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which call; *action* is strace's: ``signal=KILL``, ``error=ENOSPC``, ``signal=STOP``."""

    name: str
    nth: int
    action: str
    lasting: bool = False
    """Every later call of the name fails as well: a disk that stays full."""

    def __str__(self) -> str:
        return f"{self.name}:{self.action}:when={self.nth}{'+' if self.lasting else ''}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    """Exit code, or minus the signal's number."""
    stdout: bytes
    stderr: str
    calls: tuple[Call, ...] = ()
    lines: tuple[str, ...] = ()
    """The traced calls as strace writes them."""
    fired: bool = False
    """Whether the fault was reached."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one run: the workspace, what is published, what the commands write, what they read."""

    root: Path
    database: str | None = None
    """A PostgreSQL URL; ``None`` is the workspace's own SQLite file."""

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def published(self) -> Path:
        return self.root / "www"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.home / 'inventory.db'}"

    def copy_to(self, root: Path) -> Place:
        """Return a copy in the new folder *root*; a PostgreSQL database is shared with it."""
        shutil.copytree(self.root, root, symlinks=True)
        return Place(root, self.database)

    @classmethod
    def new(cls, root: Path, database: str | None = None) -> Place:
        """Make the folders, without a workspace."""
        place = cls(root, database)
        place.out.mkdir(parents=True)
        (root / "passphrase").write_bytes(PASSPHRASE)
        return place


@cache
def _strace() -> str | None:
    """Return the reason why strace cannot be used, ``None`` when it can."""
    program = shutil.which("strace")
    if program is None:
        return "strace is not installed (Debian package strace)"
    probe = subprocess.run([program, "-o", "/dev/null", "-e", "trace=none", "true"], capture_output=True, text=True)
    return None if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()[:200]}"


def need_strace() -> None:
    """Skip the test where strace is missing or forbidden."""
    reason = _strace()
    if reason is not None:
        pytest.skip(reason)


@dataclass
class Runner:
    """Runs commands: forked from a preloaded process, or (``real=True``) as the installed ``chargepki`` program."""

    folder: Path
    server: CommandServer
    _numbers: Iterator[int] = field(init=False, default_factory=lambda: iter(range(1 << 30)))
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def run(
        self,
        place: Place,
        *arguments: str,
        fault: Fault | None = None,
        traced: bool = False,
        real: bool = False,
        calls: Sequence[str] = CHANGING_CALLS,
        meanwhile: Callable[[int, Path], None] | None = None,
        stdout: Path | None = None,
    ) -> Outcome:
        """Run one command at *place*.

        Args:
            traced: record the calls.
            meanwhile: called with the process id and the file that strace writes, once the command runs.
            stdout: a device that takes the output in place of `Outcome.stdout`.
        """
        with self._lock:
            scratch = self.folder / f"run{next(self._numbers)}"
        scratch.mkdir()
        if stdout is not None:
            (scratch / "stdout").symlink_to(stdout)
        log = scratch / "strace"
        options = ["-f", "-y", "-s", "200", "-o", str(log), "-e", f"trace={','.join(f'?{name}' for name in calls)}"]
        if fault is not None:
            options += ["-e", f"inject={fault}"]
        watched = traced or fault is not None
        if real:
            code = self._run_program(place, arguments, scratch, options if watched else None)
        else:
            code = self._run_forked(place, arguments, scratch, options if watched else None, meanwhile)
        lines = tuple(log.read_text(errors="replace").splitlines()) if watched else ()
        outcome = Outcome(
            code,
            (scratch / "stdout").read_bytes() if stdout is None else b"",
            (scratch / "stderr").read_text(errors="replace"),
            tuple(_calls(lines)),
            lines,
            fault is not None and _fired(fault, lines, code),
        )
        shutil.rmtree(scratch)
        return outcome

    def _run_forked(
        self,
        place: Place,
        arguments: Sequence[str],
        scratch: Path,
        options: Sequence[str] | None,
        meanwhile: Callable[[int, Path], None] | None,
    ) -> int:
        request: Request = {
            "arguments": list(arguments),
            "python": False,
            "folder": str(place.root),
            "umask": 0o022,
            "environment": _environment(place),
            "traced": options is not None,
            "quick": False,
        }
        with (
            open(os.devnull, "rb") as nothing,
            (scratch / "stdout").open("wb") as out,
            (scratch / "stderr").open("wb") as error,
            self.server.start(request, [nothing.fileno(), out.fileno(), error.fileno()]) as command,
            _attached(command.pid, options),
        ):
            if options is not None:
                os.kill(command.pid, signal.SIGUSR1)
            if meanwhile is not None:
                meanwhile(command.pid, scratch / "strace")
            return command.wait()

    @staticmethod
    def _run_program(place: Place, arguments: Sequence[str], scratch: Path, options: Sequence[str] | None) -> int:
        program = [str(Path(sys.executable).with_name("chargepki")), *arguments]
        command = ["strace", *options, *program] if options is not None else program
        with (scratch / "stdout").open("wb") as out, (scratch / "stderr").open("wb") as error:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                cwd=place.root,
                env=_environment(place),
                timeout=60,
            )
        return ended.returncode


@contextlib.contextmanager
def _attached(pid: int, options: Sequence[str] | None) -> Iterator[None]:
    if options is None:
        yield
        return
    tracer = subprocess.Popen(["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            os.kill(pid, signal.SIGKILL)
            pytest.skip(f"strace may not attach here: {said.strip()}")
        yield
        tracer.wait(60)
    finally:
        tracer.kill()
        tracer.wait(60)
        tracer.stderr.close()


def _environment(place: Place) -> dict[str, str]:
    """Return the variables of a command; nothing of the caller's settings gets in."""
    names = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HOME")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "CHARGEPKI_HOME": str(place.home),
        "CHARGEPKI_PASSPHRASE_FILE": str(place.root / "passphrase"),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example.org",
    }
    if place.database is not None:
        environment["CHARGEPKI_DATABASE"] = place.database
    return environment


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    """Yield the calls that change something; those that only open to read are counted, and left out."""
    # strace counts for each process by itself: those that a command starts begin anew.
    counts: dict[tuple[str, str], int] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        name, rest = match[2], match[3]
        nth = counts[match[1], name] = counts.get((match[1], name), 0) + 1
        if name in ("open", "openat") and "O_CREAT" not in rest:
            continue
        paths = _QUOTED.findall(rest) if not _DESCRIPTOR.match(rest) or name.endswith("at") else []
        descriptor = _DESCRIPTOR.match(rest)
        if paths:
            target = paths[-1]
        elif descriptor:
            target = {"1": "stdout", "2": "stderr"}.get(descriptor[1], descriptor[2])
        else:
            target = ""
        yield Call(name, nth, _RANDOM_PART.sub("RANDOM", target))


def _fired(fault: Fault, lines: Sequence[str], code: int) -> bool:
    if fault.action == "signal=KILL":
        return code == -signal.SIGKILL
    return any(fault.name in line and "INJECTED" in line for line in lines) or "signal" in fault.action


def choose(calls: Sequence[Call], *, sample: int, every: bool, most: int = 36) -> list[Call]:
    """Return the first and the last call of each unbroken run on one file and a random *sample* of the rest, or all.

    Args:
        most: of more than so many a random choice is returned, which another `SEED` makes differently.
    """
    if every:
        return list(calls) if len(calls) <= POINTS else random.Random(SEED).sample(calls, POINTS)
    chosen: set[Call] = set()
    for _, group in groupby(calls, key=lambda call: (call.name, call.target)):
        run = list(group)
        chosen |= {run[0], run[-1]}
    rest = [call for call in calls if call not in chosen]
    chosen |= set(random.Random(SEED).sample(rest, min(sample, len(rest))))
    found = [call for call in calls if call in chosen]
    if len(found) > most:
        kept = set(random.Random(SEED).sample(range(len(found)), most))
        found = [call for position, call in enumerate(found) if position in kept]
    return found
