"""One preloaded process and one prepared workspace for all crash tests of a pytest process."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.commands import command_server
from testkit.crash import Place, Runner
from testkit.crash_commands import ALL
from testkit.crash_postgresql import PostgresqlServer
from testkit.crash_scenarios import build_template
from testkit.databases import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]


SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: what a killed process leaves does not depend on how slow the disk is."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 64 << 20
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=SHARED_MEMORY if roomy else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def runner(fast_folder: Path) -> Runner:
    """Run commands of ours, hundreds if need be."""
    (fast_folder / "runs").mkdir()
    return Runner(fast_folder / "runs", command_server())


@pytest.fixture
def folder(fast_folder: Path) -> Iterator[Path]:
    """A fresh folder for one test, in memory where possible."""
    fresh = Path(tempfile.mkdtemp(dir=fast_folder))
    yield fresh
    shutil.rmtree(fresh, ignore_errors=True)


@pytest.fixture(scope="session")
def templates(runner: Runner, fast_folder: Path) -> dict[str, Place]:
    """Workspaces to be copied: ``empty`` and ``ready``."""
    folder = fast_folder / "templates"
    ready = Place.new(folder / "ready")
    build_template(runner, ready)
    return {"empty": Place.new(folder / "empty"), "ready": ready}


@pytest.fixture(scope="session")
def start_of(runner: Runner, templates: dict[str, Place], fast_folder: Path) -> Callable[[str], Place]:
    """Return the workspace that the command of that name starts from, to be copied."""

    @functools.cache
    def start(name: str) -> Place:
        row = ALL[name]
        place = templates[row.start].copy_to(fast_folder / "starts" / name)
        row.setup(runner, place)
        return place

    return start


@pytest.fixture(scope="session")
def only_server() -> Iterator[PostgresqlServer]:
    """The PostgreSQL server of this pytest process that may be killed."""
    running = PostgresqlServer()
    yield running
    running.close()


@pytest.fixture
def server(only_server: PostgresqlServer) -> PostgresqlServer:
    """The same, running: the test before may have failed while it was down."""
    only_server.start()
    return only_server


@pytest.fixture(scope="session")
def postgresql_template(only_server: PostgresqlServer, runner: Runner, fast_folder: Path) -> tuple[Place, str]:
    """A workspace to be copied, and the name of its database, which nobody uses."""
    only_server.start()
    name, url = only_server.new_database()
    place = Place.new(fast_folder / "templates-postgresql", url)
    build_template(runner, place)
    return place, name
