"""`restore` beside services that run: refused with what to stop, nothing changed; then no number is used twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from chargepki.pki.inventory import Inventory
from testkit.command_line import CommandLine, snapshot
from testkit.commands import forked_program
from testkit.databases import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]

SERVICES = {
    "chargepki serve": ("serve", "--listen", "127.0.0.1:0"),
    "chargepki authority serve": ("authority", "serve"),
    "chargepki csms serve": ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1"),
}


@contextlib.contextmanager
def service(run: CommandLine, folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service, until it says that it is ready."""
    log = folder / f"{words[0]}.log"
    environment = {**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables}
    with log.open("wb") as stream:
        process = subprocess.Popen([forked_program(), *words], env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while "ready" not in log.read_text() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert "ready" in log.read_text(), log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(60)


def prepared_backup(run: CommandLine, place: Path) -> tuple[str | Path, ...]:
    """Make a backup, and use numbers after it; return the words that restore it."""
    identity = pyrage.x25519.Identity.generate()
    (place / "identity").write_text(f"{identity}\n")
    (place / "identity").chmod(0o600)
    run("backup", "create", "--recipient", str(identity.to_public()), "--out", place / "b.age")
    issue(run, place, "late")
    run("crl", "publish", "--ca", "t-cso-sub")
    return ("restore", place / "b.age", "--identity", place / "identity", "--replace")


def issue(run: CommandLine, place: Path, request_id: str) -> None:
    words = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", place / "station.csr")
    run("cert", "issue", *words, "--request-id", request_id, "--out", place / f"{request_id}.pem")


def numbers(database: str) -> tuple[set[str], set[tuple[str, int]]]:
    """Return the certificates and the lists of an inventory."""
    with Inventory.open(database, log_key=None, create=False) as inventory:
        certificates = {each.id for each in inventory.list_certificates()}
        return certificates, {(crl.ca, crl.number) for crl in inventory.list_crls()}


def files(run: CommandLine) -> dict[str, object]:
    """Return what is in the workspace but the rows: a service tells there of itself."""
    return {name: each for name, each in snapshot(run.home).items() if "inventory.db" not in str(name)}


def refused_beside_each(run: CommandLine, place: Path, database: str) -> None:
    words = prepared_backup(run, place)
    used, lists = numbers(database)
    for told, command in SERVICES.items():
        with service(run, place, *command) as process:
            before = files(run)
            first, *more = run.run(*words).check_one_error(3).stderr.splitlines()
            assert "another process has the inventory" in first, first
            # A forked process of the tests has the command line of what it was forked from.
            assert (f"{told} from" if "postgresql" in database else "open: process ") in first, first
            assert "stop what uses it (chargepki serve, authority serve, csms serve" in more[-1]
            assert files(run).items() >= before.items(), "a service adds files of its own, at most"
            assert not [each.name for each in run.home.iterdir() if each.name.startswith((".restore-", "replaced-"))]
            assert not (run.home / "restore.json").exists()
            assert process.poll() is None, "it runs on"
            # Refused is refused: whoever writes goes on where it was.
            issue(run, place, f"beside-{command[0]}")
    assert numbers(database)[0] > used and numbers(database)[1] >= lists
    used, lists = numbers(database)
    floor = run(*words, "--json").json()["crl_floor"]
    held = numbers(database)
    issue(run, place, "restored")
    run("crl", "publish", "--all")
    made, published = numbers(database)
    assert made - held[0] and not (made - held[0]) & used
    assert published - held[1] and all(number > floor for _, number in published - held[1])
    assert not (published - held[1]) & lists
    run("audit", "verify")


@pytest.mark.campaign
def test_a_restore_beside_services_is_refused_and_names_them(run: CommandLine, place: Path) -> None:
    refused_beside_each(run, place, f"sqlite:///{run.home / 'inventory.db'}")


@pytest.mark.campaign
def test_a_restore_beside_services_is_refused_on_postgresql_too(
    run: CommandLine, place: Path, postgresql_url: str
) -> None:
    identity = pyrage.x25519.Identity.generate()
    (place / "identity").write_text(f"{identity}\n")
    (place / "identity").chmod(0o600)
    run("backup", "create", "--recipient", str(identity.to_public()), "--out", place / "move.age")
    shutil.rmtree(run.home)
    run = CommandLine(run.home, {**run.variables, "CHARGEPKI_DATABASE": postgresql_url})
    run("restore", place / "move.age", "--identity", place / "identity")
    refused_beside_each(run, place, postgresql_url)
