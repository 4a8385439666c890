"""An auditor may read and no more: every read command works, also while others write, and nothing can be changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import pytest

import chargepki.pki.importing  # noqa: F401 - who has no privileges may not be able to read the interpreter's files
from chargepki.cli import main as command_line
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.readers import reader_grants
from testkit.command_line import CommandLine, snapshot, without_privileges
from testkit.databases import libpq, postgresql_server, postgresql_url
from testkit.inventories import add_station, fill

__all__ = ["postgresql_server", "postgresql_url"]

OPERANDS: dict[tuple[str, ...], list[str]] = {
    ("audit", "verify"): ["--log-key", "log-key.pem"],
    ("ca", "chain"): ["t-cso-sub"],
    ("ca", "show"): ["t-cso-sub"],
    ("cert", "count"): ["--where", "state = 'issued'"],
    ("cert", "show"): ["live.pem"],
    ("inventory", "show"): ["CS-0001"],
    ("inventory", "grant-reader"): ["x"],
    ("inventory", "report"): ["--findings", "questions", "--log-key", "log-key.pem"],
    ("station", "events"): ["CS-0001"],
    ("station", "roots"): ["CS-0001"],
    ("station", "show"): ["CS-0001"],
}
NOT_READERS = {
    *("demo", "est", "exi", "vehicle request", "vehicle open", "vehicle roots", "station simulate"),
    "audit log-key",
    "inventory check",
}
"""Commands that are a peer of some server, or work on files alone; what shows the log key, which stays at home;
and the check, whose worker processes need an interpreter that may not be readable here without privileges."""

WRITER = """
import sys
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.inventories import add_station
with Inventory.open(sys.argv[1], log_key=AuditKey.load(sys.argv[2]), create=False) as inventory:
    number = 0
    while True:
        number += 1
        add_station(inventory, f"W-{number}")
        print(number, flush=True)
        if not sys.stdin.readline():
            break
"""


def read_commands() -> list[tuple[str, ...]]:
    """Return every command that says of itself that it only reads."""

    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), name)
                assert found is not None
                yield from walk(found, (*path, name))
        elif not getattr(command, "writes", ""):
            yield path

    found = walk(command_line.cli, ())
    return [path for path in found if path[0] not in NOT_READERS and " ".join(path) not in NOT_READERS]


@contextmanager
def writing(url: str, log_key: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has the inventory open and has written to it; a line on its input has it write once more."""
    folder = str(Path(__file__).resolve().parents[1] / "lib")
    variables = {**os.environ, "PYTHONPATH": folder}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(log_key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables,
    ) as process:
        try:
            write_once(process, first=True)
            yield process
        finally:
            process.communicate("", timeout=60)


def write_once(process: subprocess.Popen[str], *, first: bool = False) -> None:
    """Have the other process write, and wait until it has."""
    assert process.stdin is not None and process.stdout is not None
    if not first:
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline().strip().isdigit()


@pytest.fixture
def shared(place: Path) -> Iterator[Path]:
    """A folder with the inventory, readable for everybody and writable for its owner alone.

    Not below pytest's own folder, which each further pytest of the same user closes to others as it starts.
    """
    above = Path(tempfile.mkdtemp(prefix="readers-"))
    folder = above / "shared"
    folder.mkdir()
    shutil.copy(place / "home" / "inventory.db", folder)
    (folder / "inventory.db").chmod(0o644)
    for each in (above, folder):
        each.chmod(0o755)
    yield folder
    shutil.rmtree(above)


@pytest.fixture
def auditor(shared: Path, place: Path) -> CommandLine:
    """Runs commands on the shared inventory, from an empty home."""
    address = f"sqlite:///{shared}/inventory.db"
    return CommandLine(shared.parent / "nowhere", {"CHARGEPKI_DATABASE": address, "CHARGEPKI_PUBLIC_URL": "http://x"})


def as_stranger() -> object:
    """Act as somebody who owns nothing here."""
    if os.geteuid() != 0:
        pytest.skip("only root can step down to somebody who may not write")
    return without_privileges()


def test_every_read_command_works_while_others_write(auditor: CommandLine, shared: Path, place: Path) -> None:
    url = f"sqlite:///{shared}/inventory.db"
    owner = CommandLine(place / "home")
    owner("audit", "log-key", "--out", place / "log-key.pem")
    # Loads what it needs of an interpreter that may not be readable here without privileges.
    owner("inventory", "report", "--findings", "questions")
    for name in ("live.pem", "log-key.pem"):
        shutil.copy(place / name, shared.parent)
        (shared.parent / name).chmod(0o644)
    commands = read_commands()
    assert len(commands) > 30
    with writing(url, place / "home" / "audit.key") as process, as_stranger():  # type: ignore[attr-defined]
        for path in commands:
            operands = [str(shared.parent / each) if each.endswith(".pem") else each for each in OPERANDS.get(path, [])]
            done = auditor.run(*path, *operands)
            assert "read-only" not in done.stderr and "cannot be opened" not in done.stderr, (path, done.stderr)
            wanted = (0,) if path in OPERANDS or path[-1] == "list" else (0, 1, 2, 3)
            if path != ("inventory", "grant-reader"):
                assert done.code in wanted, (path, done.stderr)
            write_once(process)
        listed = auditor("station", "list", "--json").json()["stations"]
        assert f"W-{len(commands)}" in {row["id"] for row in listed}, "what others wrote is seen at once"


def test_file_that_nobody_has_open_is_read_and_left_as_it_is(auditor: CommandLine, shared: Path) -> None:
    before = snapshot(shared)
    with as_stranger():  # type: ignore[attr-defined]
        assert len(auditor("cert", "list", "--json").json()["certificates"]) == 5
        assert auditor("inventory", "export", "--format", "csv").out.count("\n") == 6
        for words in (("inventory", "import", shared), ("station", "add", "NEW"), ("query", "save", "x", "ca = 'y'")):
            auditor.run(*words).check_one_error(4)
    assert snapshot(shared) == before


def test_reader_of_a_file_that_others_begin_to_write_is_not_given_half_of_it(shared: Path, place: Path) -> None:
    url = f"sqlite:///{shared}/inventory.db"
    with as_stranger():  # type: ignore[attr-defined]
        reader = Inventory.open(url, log_key=None, create=False)
        stations = reader.list_stations()
        assert next(stations).id == "CS-0001"
    with reader.snapshot() as session, writing(url, place / "home" / "audit.key"):
        with pytest.raises(UnavailableError, match="was changed while"):
            session.execute("SELECT count(*) FROM station")
        with as_stranger():  # type: ignore[attr-defined]
            assert reader.find_station("W-1") is not None, "the next read goes through what the writer made"
    reader.close()


def test_login_with_the_grants_reads_everything_and_changes_nothing(postgresql_url: str) -> None:
    key = AuditKey.generate()
    role = f"auditor_{os.getpid()}"
    with (
        Inventory.open(postgresql_url, log_key=key) as owner,
        psycopg.connect(libpq(postgresql_url), autocommit=True) as administrator,
    ):
        fill(owner)
        name = administrator.info.dbname
        administrator.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            administrator.execute(reader_grants(role, database=name).encode())
            where = f"host={administrator.info.host}&port={administrator.info.port}"
            _read_everything(f"postgresql+psycopg://{role}@/{name}?{where}", owner)
            _try_to_change(administrator, role)
        finally:
            administrator.execute(f"DROP OWNED BY {role}".encode())
            administrator.execute(f"ALTER ROLE {role} RESET ALL".encode())
            administrator.execute(f"DROP ROLE {role}".encode())


def _read_everything(url: str, owner: Inventory) -> None:
    run = CommandLine(Path("/nonexistent"), {"CHARGEPKI_DATABASE": url})
    for words in (("inventory", "export"), ("cert", "list"), ("station", "list"), ("inventory", "list")):
        run(*words)
    add_station(owner, "W-1")
    assert "W-1" in run("station", "list").out
    assert run.run("query", "delete", "soon").code in (3, 4)
    with Inventory.open(url, log_key=AuditKey.generate(), create=False) as reader:
        with pytest.raises(UnavailableError):
            add_station(reader, "W-2")
        assert reader.find_station("W-2") is None


def _try_to_change(administrator: psycopg.Connection, role: str) -> None:
    tables = [row[0] for row in administrator.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert len(tables) > 40
    with psycopg.connect(administrator.info.dsn, user=role, autocommit=True) as login:
        assert login.execute("SHOW transaction_read_only").fetchone() == ("on",)
        # What the role defaults to can be turned off by whoever has it; what it may do cannot.
        login.execute("SET default_transaction_read_only = off")
        for table in tables:
            for change in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"INSERT INTO {table} DEFAULT VALUES"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    login.execute(change.encode())
        for change in ("CREATE TABLE x (y int)", "DROP TABLE station", "ALTER TABLE station DROP COLUMN state"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                login.execute(change.encode())
