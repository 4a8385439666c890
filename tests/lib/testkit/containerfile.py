"""Read a Containerfile, and carry out its instructions on a copy of this machine's own system, without its base image.

The copy is an overlay in a mount namespace: what a step changes stays in a folder of the test. It stands for the image
that FROM names, so that everything but that image is exercised; root and `unshare` are needed for it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Image", "Instruction", "build", "parse_containerfile"]


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Containerfile, continuation lines joined."""

    name: str
    rest: str

    def words(self) -> list[str]:
        """Return its arguments: those of the JSON form, or the words of the other."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


def parse_containerfile(text: str) -> list[Instruction]:
    """Return the instructions in their order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


@dataclass(slots=True)
class Image:
    """A stage: what its steps have changed, and what the container is started with."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    work: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(parents=True)

    @property
    def upper(self) -> Path:
        """What differs from the machine's own system."""
        return self.folder / "upper"

    def path(self, name: str) -> Path:
        """Return where what the image changed at *name* is; a relative one is below its working folder."""
        return self.upper / os.path.normpath(os.path.join(self.work, name)).lstrip("/")

    def words(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs *command* in the image, as its user, with its variables alone."""
        layers = f"lowerdir=/,upperdir={self.upper},workdir={self.folder / 'work'}"
        merged = self.folder / "merged"
        variables = shlex.join(f"{key}={value}" for key, value in self.variables.items())
        script = (
            f"mount -t overlay overlay -o {layers} {merged} && mount --rbind /proc {merged}/proc"
            f" && mount --rbind /dev {merged}/dev"
            f" && exec chroot --userspec={self.user}:{self.user} {merged} env -i PATH={_PATH} HOME=/root {variables}"
            f' sh -c \'cd "$0" && exec "$@"\' {shlex.join([self.work, *command])}'
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def run(self, command: Sequence[str]) -> None:
        """Run a step; its changes stay."""
        done = subprocess.run(self.words(command), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])


def build(instructions: Sequence[Instruction], context: Path, folder: Path) -> Image:
    """Carry out *instructions*; return the last stage."""
    stages: dict[str, Image] = {}
    image = Image(folder / "none")
    for each in instructions:
        words = each.words() if each.name != "RUN" else []
        match each.name:
            case "FROM":
                # What the base image is for: the words of the file have to suit it, not the other way round.
                assert words[0].startswith("python:"), words
                image = stages[words[-1] if "AS" in words else "last"] = Image(folder / f"stage{len(stages)}")
                image.path("/usr/local/bin").mkdir(parents=True)
                image.path("/usr/local/bin/python").symlink_to("/usr/bin/python3")
            case "WORKDIR":
                image.work = words[0]
                image.path(words[0]).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(image, words, context, stages)
            case "RUN":
                image.run(["sh", "-c", each.rest])
            case "ENV":
                image.variables |= dict(word.split("=", 1) for word in words)
            case "USER":
                image.user = words[0]
            case "ENTRYPOINT":
                image.entrypoint = words
            case "CMD":
                image.command = words
            case "HEALTHCHECK":
                image.health = json.loads(each.rest.partition(" CMD ")[2])
            case "VOLUME" | "EXPOSE" | "STOPSIGNAL":
                pass
            case other:
                raise AssertionError(f"unknown instruction {other}")
    return image


def _copy(image: Image, words: list[str], context: Path, stages: dict[str, Image]) -> None:
    stage = next((stages[word.removeprefix("--from=")] for word in words if word.startswith("--from=")), None)
    *names, target = (word for word in words if not word.startswith("--"))
    for name in names:
        source = context / name if stage is None else stage.path(name)
        if source.is_dir():
            shutil.copytree(source, image.path(target), dirs_exist_ok=True, symlinks=True)
        else:
            image.path(target).mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, image.path(target) / source.name)
