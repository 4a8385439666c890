"""An auditor may read and no more: every read command works, also while others write, and nothing can be changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from testkit.databases import copy_rows, libpq, postgresql_server, postgresql_url
from testkit.inventories import add_station, fill

__all__ = ["postgresql_server", "postgresql_url"]

OPERANDS: dict[tuple[str, ...], list[str]] = {
    ("audit", "verify"): ["--log-key", "log-key.pem"],
    ("ca", "chain"): ["t-cso-sub"],
    ("ca", "rollover-plan"): ["t-cso-root"],
    ("ca", "show"): ["t-cso-sub"],
    ("campaign", "show"): ["spring"],
    ("campaign", "stations"): ["spring"],
    ("cert", "count"): ["--where", "state = 'issued'"],
    ("cert", "show"): ["live.pem"],
    ("contract", "show"): ["DE8AA001234567"],
    ("firmware", "show"): ["r1"],
    ("inventory", "check"): ["--jobs", "1"],
    ("inventory", "impact"): ["t-cso-root"],
    ("inventory", "report"): ["--findings", "questions", "--log-key", "log-key.pem"],
    ("inventory", "show"): ["CS-0001"],
    ("query", "show"): ["soon"],
    ("station", "events"): ["CS-1"],
    ("station", "logs", "list"): ["CS-1"],
    ("station", "logs", "show"): ["o9"],
    ("station", "migrate"): ["--plan", "--to", "3"],
    ("station", "roots"): ["CS-1"],
    ("station", "show"): ["CS-1"],
    ("vehicle", "show"): ["WAUABC12345678901D"],
}
"""What a command is asked about. A new one that takes an operand fails the test until it has one here."""
SAYS_NO = {"inventory check": 1}
"""Commands that find something wrong with what is asked about."""
FILES_ALONE = {
    *("approval sign", "backup verify", "ca ceremony sign", "ca ceremony verify", "cert verify", "crl show"),
    *("csr check", "doctor", "firmware mutate", "firmware sign", "firmware verify", "inventory report-account"),
    *("lint", "ocsp show", "profile show", "restore", "station logs save"),
}
"""What reads and writes files that the operator names (the tests of each show that), and of the inventory at most a
row besides."""
PEERS = {"demo", "est", "exi", "station simulate", "vehicle open", "vehicle request", "vehicle roots"}
"""What talks to a server, or is a vehicle."""
OWNERS = {"audit checkpoint", "audit log-key"}
"""What takes the log key, which stays at home."""
POSTGRESQL_ALONE = {"inventory grant-reader"}


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

    others = FILES_ALONE | PEERS | OWNERS | POSTGRESQL_ALONE
    return [path for path in walk(command_line.cli, ()) if not {path[0], " ".join(path)} & others]


def read_everything(run: CommandLine, folder: Path, between: Callable[[], None]) -> dict[str, str]:
    """Run every read command, and return what each printed; *between* is called after each."""
    told = {}
    for path in read_commands():
        operands = [str(folder / each) if each.endswith(".pem") else each for each in OPERANDS.get(path, [])]
        name = " ".join(path)
        done = run.run(*path, *operands)
        assert done.code == SAYS_NO.get(name, 0), (name, done.stderr)
        told[name] = done.out
        between()
    return told


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
    with Inventory.open(f"sqlite:///{place}/home/inventory.db", log_key=AuditKey.load(place / "home/audit.key")) as own:
        fill(own)
    shutil.copy(place / "home" / "inventory.db", folder)
    CommandLine(place / "home")("audit", "log-key", "--out", place / "log-key.pem")
    for name in ("live.pem", "log-key.pem"):
        shutil.copy(place / name, above)
        (above / name).chmod(0o644)
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


def as_stranger() -> AbstractContextManager[None]:
    """Act as somebody who owns nothing here."""
    if os.geteuid() != 0:
        pytest.skip("only root can step down to somebody who may not write")
    return without_privileges()


def test_every_read_command_works_while_others_write(auditor: CommandLine, shared: Path, place: Path) -> None:
    # Loads what it needs of an interpreter that may not be readable here without privileges.
    auditor("inventory", "report", "--findings", "questions")
    url = f"sqlite:///{shared}/inventory.db"
    with writing(url, place / "home" / "audit.key") as process, as_stranger():
        told = read_everything(auditor, shared.parent, lambda: write_once(process))
        rows = auditor("station", "list", "--json").json()["stations"]
    assert f"W-{len(told) + 1}" in {row["id"] for row in rows}, "what others wrote is seen at once"
    assert len(told) > 40


def test_file_that_nobody_has_open_is_read_and_left_as_it_is(auditor: CommandLine, shared: Path) -> None:
    before = snapshot(shared)
    with as_stranger():
        assert len(auditor("cert", "list", "--json").json()["certificates"]) == 8
        assert auditor("inventory", "export", "--format", "csv").out.count("\n") == 9
        for words in (("inventory", "import", shared), ("station", "add", "NEW"), ("query", "save", "x", "ca = 'y'")):
            auditor.run(*words).check_one_error(4)
    assert snapshot(shared) == before


def test_reader_of_a_file_that_others_begin_to_write_is_not_given_half_of_it(shared: Path, place: Path) -> None:
    url = f"sqlite:///{shared}/inventory.db"
    with as_stranger():
        reader = Inventory.open(url, log_key=None, create=False)
        stations = reader.list_stations()
        assert next(stations).id == "CS-0001"
    with reader.snapshot() as session, writing(url, place / "home" / "audit.key"):
        with pytest.raises(UnavailableError, match="was changed while"):
            session.execute("SELECT count(*) FROM station")
        with as_stranger():
            assert reader.find_station("W-1") is not None, "the next read goes through what the writer made"
    reader.close()


def test_login_with_the_grants_reads_everything_and_changes_nothing(
    postgresql_url: str, shared: Path, place: Path
) -> None:
    copy_rows(shared / "inventory.db", postgresql_url)
    role = f"auditor_{os.getpid()}"
    key = AuditKey.load(place / "home" / "audit.key")
    with (
        Inventory.open(postgresql_url, log_key=key) as owner,
        psycopg.connect(libpq(postgresql_url), autocommit=True) as administrator,
    ):
        name = administrator.info.dbname
        administrator.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            administrator.execute(reader_grants(role, database=name).encode())
            where = f"host={administrator.info.host}&port={administrator.info.port}"
            _read(f"postgresql+psycopg://{role}@/{name}?{where}", owner, shared)
            _try_to_change(administrator, role)
        finally:
            administrator.execute(f"DROP OWNED BY {role}".encode())
            administrator.execute(f"ALTER ROLE {role} RESET ALL".encode())
            administrator.execute(f"DROP ROLE {role}".encode())


def _read(url: str, owner: Inventory, shared: Path) -> None:
    """Run every read command as the login, and hold what it says against the same rows on SQLite."""
    run = CommandLine(shared.parent / "nowhere", {"CHARGEPKI_DATABASE": url, "CHARGEPKI_PUBLIC_URL": "http://x"})
    told = read_everything(run, shared.parent, lambda: None)
    other = CommandLine(run.home, {**run.variables, "CHARGEPKI_DATABASE": f"sqlite:///{shared}/inventory.db"})
    says = read_everything(other, shared.parent, lambda: None)
    differing = {name for name, text in told.items() if text != says[name]}
    assert differing <= {"config show", "inventory report"}, "they name the database, and the second"
    add_station(owner, "W-1")
    assert "W-1" in run("station", "list").out, "what others wrote is seen at once"
    assert "GRANT SELECT" in run("inventory", "grant-reader", "x").out
    assert run.run("query", "delete", "soon").code in (3, 4)
    with Inventory.open(url, log_key=AuditKey.generate(), create=False) as reader:
        with pytest.raises(UnavailableError):
            add_station(reader, "X-2")
        assert reader.find_station("X-2") is None


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
