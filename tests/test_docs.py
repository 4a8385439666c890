"""What the documentation says is so: links resolve, commands have help and examples, marked blocks run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from testkit.commands import INSTALLED, forked_program
from testkit.layout import ROOT, tracked_files
from tools.make_reference import commands, pages

PAGES = tuple(path for path in tracked_files() if path.suffix == ".md")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)

FRONT_PAGE = Path("README.md")
# It shows the first ten minutes of three users; each is one block of commands, or several, run in turn.
USERS = {"engineer", "csms-team", "auditor"}
AS_INSTALLED = "engineer"
"""The first block that a reader tries is tried as the reader does; elsewhere the commands are forks of one process."""


@dataclass(frozen=True, slots=True)
class Story:
    """All blocks of one page that are marked `sh run=NAME` with the same name: one script."""

    page: Path
    name: str
    script: str


def prose(page: Path) -> str:
    return FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that a code host makes of the headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE):
        text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def local_links(page: Path) -> list[tuple[Path, str]]:
    """Return (target inside the repository, anchor) of every link that is not to another host."""
    links = []
    for target in (first or second for first, second in LINK.findall(prose(page))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = unquote(target).partition("#")
        resolved = (ROOT / page).parent / path if path else ROOT / page
        links.append((resolved.resolve(), anchor))
    return links


def stories() -> list[Story]:
    scripts: dict[tuple[Path, str], list[str]] = {}
    for page in PAGES:
        for match in FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
            language, *marks = match["info"].split() or [""]
            names = [mark.removeprefix("run=") for mark in marks if mark.startswith("run=")]
            if language == "sh" and names:
                scripts.setdefault((page, names[0]), []).append(match["body"])
    return [Story(page, name, "".join(bodies)) for (page, name), bodies in scripts.items()]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target, anchor in local_links(page):
        if not target.exists():
            broken.append(f"{target.relative_to(ROOT)} does not exist")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.relative_to(ROOT)):
            broken.append(f"{target.relative_to(ROOT)} has no heading for #{anchor}")
    assert not broken


def test_every_page_is_reachable_from_the_front_page() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        waiting += [
            target for target, _ in local_links(page.relative_to(ROOT)) if target.suffix == ".md" and target.exists()
        ]
    lost = {path for path in PAGES if path.parts[0] == "docs" or len(path.parts) == 1} - {
        page.relative_to(ROOT) for page in seen
    }
    assert not lost


def test_every_command_has_help_and_an_example() -> None:
    lacking = []
    for command, context in commands():
        if not (command.help or "").strip():
            lacking.append(f"{context.command_path}: no help")
        example = command.get_help(context).partition("Example")[2]
        if not isinstance(command, click.Group) and context.command_path not in example:
            lacking.append(f"{context.command_path}: no example")
    assert not lacking


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{context.command_path} {parameter.opts[0]}"
        for command, context in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden and not (parameter.help or "").strip()
    ]
    assert not silent


@pytest.mark.parametrize("name", ["cli.md", "library.md", "profiles.md"])
def test_generated_page_is_up_to_date(name: str) -> None:
    committed = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert committed == pages()[name], "run: make reference"


def test_make_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (page, target)
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named
    assert not {(str(page), target) for page, target in named if target not in targets}


def test_front_page_has_commands_for_each_of_its_users() -> None:
    assert {story.name for story in stories() if story.page == FRONT_PAGE} >= USERS


@pytest.mark.slow
@pytest.mark.parametrize("story", stories(), ids=lambda story: f"{story.page}:{story.name}")
def test_commands_of_the_page_run(story: Story, tmp_path: Path) -> None:
    program = INSTALLED if story.name == AS_INSTALLED else forked_program()
    environment = {
        "PATH": os.pathsep.join((str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
    }
    with (tmp_path / "output").open("w+b") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", story.script],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=250)
        finally:
            # What the block left running in the background ends with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        output.seek(0)
        assert code == 0, output.read().decode(errors="replace")[-4000:]
