"""Tests of opening: versions, addresses, faults that are one clear error, and what a start need not load."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from chargepki.pki.errors import ChargePkiError, InputError, StateError, UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction, verify_log
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.codec import STATION, encode_time
from chargepki.pki.inventory.engine import Session
from testkit.databases import end_all_connections, libpq
from testkit.inventories import ACTOR, NOW, add_station, station_record

pytestmark = pytest.mark.as_shipped


def test_a_new_inventory_opens_again(database_url: str, log_key: AuditKey) -> None:
    with Inventory.open(database_url, log_key=log_key) as inventory:
        add_station(inventory)
    with Inventory.open(database_url, log_key=log_key, create=False) as inventory:
        assert inventory.get_station("CS-1").id == "CS-1"


def test_an_inventory_begun_without_a_key_gets_its_log_with_the_first_key(database_url: str, log_key: AuditKey) -> None:
    with Inventory.open(database_url, log_key=None) as inventory:
        assert inventory.audit_head() is None
        with pytest.raises(StateError, match="has no head"):
            add_station(inventory)
    with Inventory.open(database_url, log_key=log_key) as inventory:
        add_station(inventory)
        head = inventory.audit_head()
        assert head is not None
        assert head.count == 1


def test_sqlite_is_set_to_lose_nothing(sqlite_url: str, log_key: AuditKey) -> None:
    with Inventory.open(sqlite_url, log_key=log_key) as inventory, inventory.snapshot() as session:
        assert session.execute("PRAGMA journal_mode")[0][0] == "wal"
        assert session.execute("PRAGMA synchronous")[0][0] == 2
        assert session.execute("PRAGMA foreign_keys")[0][0] == 1


def test_a_connection_that_writes_in_bulk_copies_less_often_and_loses_nothing(
    sqlite_url: str, log_key: AuditKey
) -> None:
    def settings(session: Session) -> list[object]:
        return [session.execute(f"PRAGMA {name}")[0][0] for name in ("synchronous", "journal_mode", "cache_size")]

    stations = [
        (f"CS-{each}", f"SN-{each}", None, 3, "active", encode_time(NOW), None, None, None) for each in range(64)
    ]
    with Inventory.open(sqlite_url, log_key=log_key) as inventory, inventory.snapshot() as session:
        session.rollback()
        assert session.run_rows("station_insert", STATION.columns, stations[:63]) == 63
        assert settings(session) == [2, "wal", -2000]
        session.execute("DELETE FROM station")
        assert session.run_rows("station_insert", STATION.columns, stations) == 64
        assert settings(session) == [2, "wal", -16384]
        assert session.execute("SELECT created_at, state FROM station WHERE id = 'CS-63'") == [
            (encode_time(NOW), "active")
        ]
        with pytest.raises(ValueError, match="parameters of station_insert"):
            session.run_rows("station_insert", STATION.columns[::-1], stations)


def test_the_sqlite_file_is_nobody_elses_to_read(sqlite_url: str, log_key: AuditKey, tmp_path: Path) -> None:
    Inventory.open(sqlite_url, log_key=log_key).close()
    assert (tmp_path / "inventory.db").stat().st_mode & 0o777 == 0o600


def test_postgresql_commits_are_durable_even_where_the_server_is_lax(postgresql_url: str, log_key: AuditKey) -> None:
    Inventory.open(postgresql_url, log_key=log_key).close()
    with psycopg.connect(libpq(postgresql_url), autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
    with Inventory.open(postgresql_url, log_key=log_key) as inventory, inventory.snapshot() as session:
        assert session.execute("SHOW synchronous_commit")[0][0] == "on"


def test_a_missing_inventory_is_not_created_by_a_reader(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no inventory at"):
        Inventory.open(sqlite_url, log_key=None, create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_postgresql_database_is_no_inventory_to_a_reader(postgresql_url: str) -> None:
    with pytest.raises(UnavailableError, match="there is no inventory at"):
        Inventory.open(postgresql_url, log_key=None, create=False)


def test_a_newer_schema_is_refused(database_url: str, log_key: AuditKey) -> None:
    Inventory.open(database_url, log_key=log_key).close()
    _execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateError, match="has the schema 9999, which this program does not know") as caught:
        Inventory.open(database_url, log_key=log_key)
    assert "newer chargepki" in caught.value.fix


def _execute(url: str, statement: str) -> None:
    address = DatabaseAddress.parse(url)
    if address.path is not None:
        with sqlite3.connect(address.path) as connection:
            connection.execute(statement)
        connection.close()
        return
    with psycopg.connect(libpq(url), autocommit=True) as server:
        server.execute(statement.encode())


def test_somebody_elses_sqlite_database_is_left_alone(sqlite_url: str, log_key: AuditKey) -> None:
    path = DatabaseAddress.parse(sqlite_url).path
    assert path is not None
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id)")
    connection.close()
    with pytest.raises(StateError, match="holds tables that are not an inventory's"):
        Inventory.open(sqlite_url, log_key=log_key)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a database at all, but a long enough text" * 50, "is not an SQLite database"), (None, "cannot be opened")],
)
def test_a_file_that_is_no_database_is_one_clear_error(
    tmp_path: Path, log_key: AuditKey, content: bytes | None, message: str
) -> None:
    path = tmp_path / "inventory.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UnavailableError, match=message):
        Inventory.open(f"sqlite:///{path}", log_key=log_key)


def test_a_missing_folder_is_one_clear_error(tmp_path: Path, log_key: AuditKey) -> None:
    with pytest.raises(UnavailableError):
        Inventory.open(f"sqlite:///{tmp_path / 'none' / 'inventory.db'}", log_key=log_key)


def test_a_damaged_file_is_one_clear_error(sqlite_url: str, log_key: AuditKey, tmp_path: Path) -> None:
    with Inventory.open(sqlite_url, log_key=log_key) as inventory:
        for number in range(50):
            add_station(inventory, f"CS-{number}")
    path = tmp_path / "inventory.db"
    data = bytearray(path.read_bytes())
    for offset in range(4096, len(data), 4096):
        data[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(UnavailableError, match="is damaged"):
        list(Inventory.open(sqlite_url, log_key=log_key).list_stations())


def test_a_file_of_another_user_that_is_read_only_is_one_clear_error(sqlite_url: str, log_key: AuditKey) -> None:
    with Inventory.open(sqlite_url, log_key=log_key) as inventory:
        # Root may write whatever its mode is, so the connection itself is made read-only.
        with inventory._database.session() as session:
            session.execute("PRAGMA query_only=ON")
        with pytest.raises(UnavailableError, match="is read-only"):
            add_station(inventory)


def test_a_full_disk_is_one_clear_error_and_changes_nothing(sqlite_url: str, log_key: AuditKey) -> None:
    with Inventory.open(sqlite_url, log_key=log_key) as inventory:
        add_station(inventory)
        with inventory._database.session() as session:
            session.execute("PRAGMA max_page_count=1")
        with pytest.raises(UnavailableError, match="the disk is full"):
            for number in range(100):
                add_station(inventory, f"{number}-" + "x" * 500)
        with inventory._database.session() as session:
            session.execute("PRAGMA max_page_count=100000")
        add_station(inventory, "after")
        entries = inventory.list_audit()
        assert len(list(inventory.list_stations())) == len(entries)


def test_a_work_that_swallows_a_rollback_by_sqlite_writes_nothing_behind_the_log(
    sqlite_url: str, log_key: AuditKey
) -> None:
    with Inventory.open(sqlite_url, log_key=log_key) as inventory:
        add_station(inventory, "CS-1")

        def work(tx: Transaction) -> None:
            with contextlib.suppress(ChargePkiError):
                # As after an I/O error, SQLite ends the whole transaction here.
                tx._session.execute("INSERT OR ROLLBACK INTO station SELECT * FROM station")
            # Without a guard this row would be committed at once and alone.
            tx.add_station(station_record("CS-2"))
            tx.audit(ACTOR, "station.add", "CS-2", now=NOW)

        with pytest.raises(UnavailableError, match="given up this transaction"):
            inventory.write(work)
        assert inventory.find_station("CS-2") is None
        add_station(inventory, "CS-3")
        assert verify_log(inventory, pinned_keys=[log_key.public]).ok


def test_a_refused_connection_is_one_clear_error_without_the_password(log_key: AuditKey) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"postgresql+psycopg://alice:s3cr%40t@127.0.0.1:{port}/pki?connect_timeout=2"
    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        Inventory.open(url, log_key=log_key)
    assert f"postgresql+psycopg://alice@127.0.0.1:{port}/pki" in caught.value.what
    assert "s3cr" not in str(caught.value)


def test_a_missing_postgresql_database_is_one_clear_error(postgresql_url: str, log_key: AuditKey) -> None:
    url = postgresql_url.replace("/test_", "/none_")
    with pytest.raises(UnavailableError, match="does not exist"):
        Inventory.open(url, log_key=log_key)


def test_a_read_survives_a_restart_of_the_server_and_so_does_a_write(postgresql_url: str, log_key: AuditKey) -> None:
    with Inventory.open(postgresql_url, log_key=log_key) as inventory:
        for name in ("CS-1", "CS-2"):
            add_station(inventory, name)
            end_all_connections(postgresql_url)
            if name == "CS-1":
                assert inventory.get_station("CS-1").id == "CS-1"
        add_station(inventory, "CS-3")
        assert len(list(inventory.list_stations())) == 3


@pytest.mark.parametrize(
    "url",
    [
        "",
        "inventory.db",
        "mysql://host/name",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite:///a?b=c",
        "sqlite://host/a",
        "postgresql+psycopg://host:port/x",
        "postgresql+psycopg2://host/x",
        "\0\x1b[2J://",
    ],
)
def test_a_url_that_is_none_of_ours_is_one_clear_error(url: str, log_key: AuditKey) -> None:
    with pytest.raises(InputError):
        Inventory.open(url, log_key=log_key)


def test_an_address_shows_no_password_wherever_it_stands() -> None:
    for url in ("postgresql+psycopg://u:pass%21word@h:5433/n", "postgresql://u@h:5433/n?password=pass%21word"):
        address = DatabaseAddress.parse(url)
        assert address.dialect is Dialect.POSTGRESQL
        assert address.shown == "postgresql+psycopg://u@h:5433/n"
        assert address.secret == "pass!word"
        assert "pass" not in repr(address)


def test_a_relative_and_an_absolute_sqlite_path_are_told_apart() -> None:
    assert DatabaseAddress.parse("sqlite:///a/b.db").path == Path("a/b.db")
    assert DatabaseAddress.parse("sqlite:////a/b.db").path == Path("/a/b.db")


def _loaded_after(code: str, *arguments: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_records_are_importable_without_sqlalchemy() -> None:
    loaded = _loaded_after("import chargepki.pki.inventory.records")
    assert not loaded & {"sqlalchemy", "sqlmodel", "alembic", "sqlite3"}


def test_opening_and_writing_to_an_inventory_that_is_up_to_date_loads_no_orm(sqlite_url: str, tmp_path: Path) -> None:
    key = tmp_path / "audit.key"
    Inventory.open(sqlite_url, log_key=AuditKey.load_or_create(key)).close()
    code = f"""
sys.path.insert(0, {os.fspath(Path(__file__).parents[2] / "lib")!r})
from pathlib import Path
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from testkit.inventories import fill
key = AuditKey.load(Path(sys.argv[2]))
with Inventory.open(sys.argv[1], log_key=key) as inventory:
    fill(inventory)
    list(inventory.list_certificates())
    assert verify_log(inventory, pinned_keys=[key.public]).ok
"""
    loaded = _loaded_after(code, sqlite_url, str(key))
    assert not loaded & {"sqlalchemy", "sqlmodel", "alembic", "pydantic", "psycopg"}


def test_every_fault_of_opening_is_an_error_of_ours(tmp_path: Path) -> None:
    for name in ("a\nb.db", "ü€.db", "100%.db", "a b.db", "a#b.db"):
        try:
            Inventory.open(f"sqlite:///{tmp_path / name}", log_key=AuditKey.generate()).close()
        except ChargePkiError:
            pytest.fail(f"{name!r} is a good file name")
        assert (tmp_path / name).exists()
