"""Several processes on one port: fork them, start dead ones again, pass signals on, end together."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

__all__ = ["supervise"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 5.0
_SOUND_SECONDS = 10.0


@dataclass(slots=True)
class _Child:
    name: str
    run: Callable[[], int]
    pid: int = 0
    started: float = 0.0
    pause: float = 0.0


def supervise(children: Sequence[tuple[str, Callable[[], int]]], *, ready: Callable[[], None]) -> None:
    """Run each of *children* in a process of its own until SIGTERM or SIGINT; SIGHUP is passed on.

    A child that dies is started again, at once the first time and ever more slowly if it keeps dying. Call it before
    any thread was started or any connection opened: forked processes would share them.

    Args:
        ready: called once all children have been started.
    """
    running = [_Child(name, run) for name, run in children]
    stopping = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if number != signal.SIGHUP:
            stopping = True
        for child in running:
            if child.pid:
                _kill(child.pid, signal.SIGTERM if number == signal.SIGINT else number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    for child in running:
        _start(child)
    ready()
    while any(child.pid for child in running):
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        ended = [each for each in running if each.pid == pid]
        if not ended:
            continue
        child = ended[0]
        child.pid = 0
        if stopping:
            continue
        lived = time.monotonic() - child.started
        child.pause = 0.0 if lived > _SOUND_SECONDS else min(_LONGEST_PAUSE, child.pause * 2 or 0.1)
        _log.error("the %s process ended (%s); starting another", child.name, _word(status), extra={"alert": "process"})
        time.sleep(child.pause)
        if not stopping:
            _start(child)


def _start(child: _Child) -> None:
    child.started = time.monotonic()
    # Blocked until the child has handlers of its own: a signal in between would run the parent's in it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED)
    pid = os.fork()
    if pid:
        child.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED)
        return
    code = 70
    try:
        for number in _PASSED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED)
        code = child.run()
    except BaseException:  # noqa: BLE001 - the end of this process: nothing may run on into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _word(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.WEXITSTATUS(status)}"
