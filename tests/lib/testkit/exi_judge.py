"""The EXI codec of PyPI's iso15118 as a judge of ours: one Java machine, asked line by line."""

from __future__ import annotations

import base64
import subprocess
from types import TracebackType

import pytest

from testkit.foreign import missing
from testkit.layout import ROOT

__all__ = ["JAR", "ExiJudge", "need_exi_judge"]

PROGRAM = ROOT / "tests" / "interop" / "java" / "JudgeExi.java"
JAR = ROOT / ".judges" / "iso15118" / "shared" / "EXICodec.jar"


def need_exi_judge() -> None:
    """Skip the calling test, visibly, when Java or the codec is not there."""
    if reason := missing("javac", "default-jdk-headless"):
        pytest.skip(reason)
    if not JAR.is_file():
        pytest.skip("the EXI codec of iso15118 is not there; run: make judges")


class ExiJudge:
    """A running judge; a context manager."""

    def __init__(self) -> None:
        # The client compiler starts faster, and the default heap would be a quarter of the machine.
        command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", str(JAR), str(PROGRAM)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> ExiJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def ask(self, operation: str, message_set: str, data: bytes) -> bytes | str:
        """Return what *operation* makes of *data*; text is the reason of a refusal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{operation}\t{message_set}\t{base64.b64encode(data).decode()}\n")
        self._process.stdin.flush()
        outcome, _, rest = self._process.stdout.readline().rstrip("\n").partition("\t")
        assert outcome in {"ok", "refused"}, "the judge has ended"
        return base64.b64decode(rest) if outcome == "ok" else rest
