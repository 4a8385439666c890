"""`--database`: what is no inventory is refused and left alone; a password in the URL is never shown."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from testkit.command_line import CommandLine, snapshot

COMMANDS = (
    ("ca", "list"),
    ("station", "add", "X"),
    ("cert", "revoke", "1", "--reason", "superseded"),
    ("audit", "verify"),
)


def other_application(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()


FILES = {
    "text": b"this is no database",
    "binary": bytes(range(256)) * 64,
    "header alone": b"SQLite format 3\0",
    "header and garbage": b"SQLite format 3\0" + b"\xff" * 8192,
    "10 MB": b"x" * 10_000_000,
}


@pytest.mark.parametrize("content", FILES.values(), ids=list(FILES))
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_file_that_is_no_database_is_refused(
    run: CommandLine, tmp_path: Path, words: tuple[str, ...], content: bytes
) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    before = snapshot(run.home)
    run.run(*words, "--database", f"sqlite:///{path}").check_one_error(4)
    assert path.read_bytes() == content and snapshot(run.home) == before


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_database_of_another_application_is_refused(
    run: CommandLine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "other.db"
    other_application(path)
    refused = run.run(*words, "--database", f"sqlite:///{path}").check_one_error(3)
    assert "tables that are not an inventory's" in refused.stderr
    with sqlite3.connect(path) as database:
        assert [row[0] for row in database.execute("SELECT name FROM sqlite_master")] == ["recipes"]
    database.close()


URLS = {
    "empty": ("", 3),
    "path alone": ("/srv/x.db", 3),
    "other scheme": ("mysql://me:s3cret@h/x", 3),
    "in memory": ("sqlite://", 3),
    "memory by name": ("sqlite:///:memory:", 3),
    "query": ("sqlite:////srv/x.db?mode=ro", 3),
    "no such folder": ("sqlite:////no/such/folder/x.db", 4),
    "folder": ("sqlite:////usr", 4),
    "device": ("sqlite:////dev/null", 4),
    "bad bracket": ("postgresql+psycopg://me:s3cret@[::1/x", 3),
    "bad port": ("postgresql+psycopg://me:s3cret@h:99999/x", 3),
    "nobody listens": ("postgresql+psycopg://me:s3cret@127.0.0.1:1/x", 4),
    "password in the query": ("postgresql+psycopg://me@127.0.0.1:1/x?password=s3cret", 4),
    "unknown option": ("postgresql+psycopg://me:s3cret@127.0.0.1:1/x?nonsense=s3cret", 4),
    "socket": ("postgresql+psycopg://me:s3cret@/x?host=/no/such/folder", 4),
    "escape sequence": ("postgresql+psycopg://me:s3cret@127.0.0.1:1/\x1b[2J", 4),
    "line break": ("postgresql+psycopg://me:s3cret@127.0.0.1:1/a\nb", 4),
    "long": ("sqlite:////" + "x" * 100_000, 4),
}


@pytest.mark.as_shipped
@pytest.mark.parametrize(("url", "code"), URLS.values(), ids=list(URLS))
def test_a_bad_url_is_one_clear_error_without_its_password(run: CommandLine, url: str, code: int) -> None:
    before = snapshot(run.home)
    for words in (("ca", "list"), ("station", "add", "X")):
        done = run.run(*words, "--database", url).check_one_error(code)
        assert "s3cret" not in done.stderr
        machine = run.run(*words, "--database", url, "--json")
        assert machine.code == code and "s3cret" not in machine.out
        assert "s3cret" not in run.run(*words, "--database", url, "--debug").stderr
    assert snapshot(run.home) == before


def test_a_workspace_that_others_can_write_is_refused(run: CommandLine) -> None:
    run.home.chmod(0o777)
    before = snapshot(run.home)
    assert f"chmod 700 {run.home}" in run.run("station", "add", "X").check_one_error(3).stderr
    assert snapshot(run.home) == before


def test_a_home_that_is_a_file_is_one_clear_error(fresh: CommandLine, prepared: Path) -> None:
    for words in (("ca", "list"), ("station", "add", "X")):
        fresh.run(*words, "--home", prepared / "passphrase").check_one_error(4)


def test_a_home_that_is_a_loop_is_one_clear_error(fresh: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for words in (("ca", "list"), ("station", "add", "X")):
        fresh.run(*words, "--home", tmp_path / "loop").check_one_error(4)


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(200)], ids=["empty", "text", "NUL bytes"])
def test_a_damaged_log_key_is_one_clear_error(run: CommandLine, content: bytes) -> None:
    (run.home / "audit.key").write_bytes(content)
    before = snapshot(run.home)
    for words in (("station", "add", "X"), ("audit", "verify")):
        run.run(*words).check_one_error(4)
    assert snapshot(run.home) == before


def test_a_missing_log_key_is_not_replaced_by_verifying(run: CommandLine) -> None:
    (run.home / "audit.key").unlink()
    run.run("audit", "verify").check_one_error(4)
    assert not (run.home / "audit.key").exists()
