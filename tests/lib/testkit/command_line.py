"""Run `chargepki` in this process, as a shell would: arguments, variables, standard input, exit code."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from chargepki.cli.main import main
from chargepki.pki.config import SETTINGS

__all__ = ["CommandLine", "Done", "snapshot", "without_privileges"]

_MAX_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What one invocation left behind."""

    arguments: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: str

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode()

    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def json_lines(self) -> list[dict[str, Any]]:
        """Standard output as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def check_one_error(self, code: int) -> Done:
        """Assert that this was refused with *code* and one error for people: what, then why and fix, nothing else."""
        assert self.code == code, (self.arguments, self.code, self.stderr)
        said = [line for line in self.stderr.splitlines() if not line.startswith(("dry run: ", "next: "))]
        labels = [line.partition(": ")[0] for line in said]
        assert labels[:1] == ["error"] and labels in (["error", "why", "fix"], ["error", "fix"]), self.stderr
        assert all(line.isprintable() and line.partition(": ")[2].strip() for line in said), self.stderr
        assert "Traceback" not in self.stderr and "a bug in chargepki" not in self.stderr
        return self


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A shell whose workspace is *home*; call it with the arguments of a command."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *arguments: str | Path,
        code: int = 0,
        stdin: bytes = b"",
        variables: Mapping[str, str | None] | None = None,
    ) -> Done:
        """Run a command and assert its exit code."""
        done = self.run(*arguments, stdin=stdin, variables=variables)
        assert done.code == code, (done.arguments, done.code, done.out[-2000:], done.stderr)
        return done

    def run(
        self, *arguments: str | Path, stdin: bytes = b"", variables: Mapping[str, str | None] | None = None
    ) -> Done:
        """Run a command; the exit code is the caller's to judge. It must end soon."""
        environment: dict[str, str | None] = {setting.variable: None for setting in SETTINGS}
        environment |= {"CHARGEPKI_HOME": str(self.home), **self.variables, **(variables or {})}
        texts = tuple(str(argument) for argument in arguments)
        begun = time.monotonic()
        with CliRunner().isolation(input=stdin, env=environment) as (stdout, stderr, _):
            try:
                main(list(texts))
            except SystemExit as exit_:
                code = exit_.code
        assert time.monotonic() - begun < _MAX_SECONDS, f"{texts} took too long"
        assert isinstance(code, int)
        return Done(texts, code, stdout.getvalue(), stderr.getvalue().decode())


def snapshot(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of everything below *folders*, so that two of them tell whether anything changed."""
    found: dict[str, tuple[int, bytes]] = {}
    for folder in folders:
        for path in [folder, *sorted(folder.rglob("*"))]:
            status = path.lstat()
            plain = stat.S_ISREG(status.st_mode)
            found[str(path)] = (status.st_mode, path.read_bytes() if plain else b"")
    return found


@contextlib.contextmanager
def without_privileges(*owned: Path) -> Iterator[None]:
    """Act as a user for whom permissions count; *owned* (trees) belong to that user meanwhile.

    Root may read and write everything, so tests that run as root (as in a container) step down to ``nobody``.
    """
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    for folder in owned:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, nobody, nobody, follow_symlinks=False)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
