"""Reports as pages of `serve`: behind a password, never made for one request alone, and nothing but text."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chargepki.pki.errors import ChargePkiError, InputError, NotFound, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.services import reports
from chargepki.pki.services.report_accounts import put_account, read_accounts, remove_account
from chargepki.pki.services.report_shelf import MAX_REPORT_BYTES, ReportShelf
from chargepki.pki.services.reports import ReportPages, make_reports
from testkit.pki_server import LiveServer, live_server

PASSWORD = b"correct horse battery"
FORMS = {"html": b"<!doctype html>", "json": b"{}", "csv": b"section\r\n"}


def basic(name: str = "auditor", password: bytes = PASSWORD) -> Mapping[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(name.encode() + b":" + password).decode()}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "readers.txt"
    put_account(path, "auditor", PASSWORD)
    return path


@contextlib.contextmanager
def serving(
    inventory: Inventory, readers: Path, make: Callable[[], Mapping[str, bytes]], rest: float = 600.0
) -> Iterator[LiveServer]:
    """Serve reports that a thread makes, which rests so many seconds after each."""
    shelf, stop = ReportShelf(), threading.Event()
    pages = ReportPages(shelf, lambda: read_accounts(readers), policy="default-src 'none'")
    least = reports._LEAST_REST_SECONDS
    reports._LEAST_REST_SECONDS = rest  # type: ignore[misc]  # for this test alone
    maker = threading.Thread(target=make_reports, args=(shelf, make), kwargs={"parent": os.getppid(), "stop": stop})
    maker.start()
    try:
        with live_server(inventory, routes=pages.routes()) as server:
            yield server
    finally:
        stop.set()
        maker.join(60)
        pages.close()
        reports._LEAST_REST_SECONDS = least  # type: ignore[misc]  # Final, to mypy


def test_pages_are_for_accounts_alone_and_safe_in_a_browser(inventory: Inventory, readers: Path) -> None:
    with serving(inventory, readers, lambda: FORMS) as server:
        for path, form, kind in (
            ("/reports/", "html", "text/html; charset=utf-8"),
            ("/reports", "html", "text/html; charset=utf-8"),
            ("/reports/report.json", "json", "application/json"),
            ("/reports/report.csv", "csv", "text/csv; charset=utf-8; header=present"),
        ):
            answer = server.ask("GET", path, headers=basic())
            assert (answer.status, answer.body) == (200, FORMS[form])
            headers = {name.lower(): value for name, value in answer.headers.items()}
            assert headers["content-type"] == kind
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers
        refused = [
            server.ask("GET", path, headers=given)
            for path in ("/reports/", "/reports/report.json", "/reports/nothing")
            for given in ({}, basic("nobody"), basic(password=b"wrong password"), {"Authorization": "Bearer x"})
        ]
        assert {answer.status for answer in refused} == {401}
        assert all("basic realm=" in str(answer.headers).lower() for answer in refused)
        assert server.ask("GET", "/reports/nothing", headers=basic()).status == 404
        assert server.ask("GET", "/reportsx", headers=basic()).status == 404
        for method in ("POST", "PUT", "DELETE"):
            assert server.ask(method, "/reports/", b"", basic()).status == 405
        assert server.ask("HEAD", "/reports/", headers=basic()).status == 200


def test_guessing_is_slowed_down_and_a_removed_account_is_out_at_once(inventory: Inventory, tmp_path: Path) -> None:
    readers = tmp_path / "readers.txt"
    for name in ("auditor", "other"):
        put_account(readers, name, PASSWORD)
    with serving(inventory, readers, lambda: FORMS) as server:
        assert server.ask("GET", "/reports/", headers=basic()).status == 200
        guesses = [server.ask("GET", "/reports/", headers=basic("other", b"guess")).status for _ in range(12)]
        assert guesses == [401] * 10 + [429] * 2
        assert server.ask("GET", "/reports/", headers=basic()).status == 200
        remove_account(readers, "auditor")
        assert server.ask("GET", "/reports/", headers=basic()).status == 401
        readers.write_text("nonsense\n")
        assert server.ask("GET", "/reports/", headers=basic()).status == 503


def test_however_many_ask_one_report_is_made(inventory: Inventory, readers: Path) -> None:
    made: list[int] = []

    def make() -> Mapping[str, bytes]:
        made.append(len(made))
        return {**FORMS, "html": f"number {len(made)}".encode()}

    with serving(inventory, readers, make) as server, ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: server.ask("GET", "/reports/", headers=basic()), range(12)))
        assert {answer.body for answer in answers} == {b"number 1"}
    assert made == [0]
    with serving(inventory, readers, make, rest=0.0) as server:
        first = server.ask("GET", "/reports/", headers=basic()).body
        server.until(lambda: server.ask("GET", "/reports/", headers=basic()).body > first)


def test_a_report_that_cannot_be_made_is_told_and_the_last_one_stays(inventory: Inventory, readers: Path) -> None:
    broken = threading.Event()

    def make() -> Mapping[str, bytes]:
        if broken.is_set():
            raise UnavailableError("the inventory is away: /secret/path")
        return FORMS

    broken.set()
    with serving(inventory, readers, make) as server:
        answer = server.ask("GET", "/reports/", headers=basic())
        assert answer.status == 503 and b"secret" not in answer.body
    broken.clear()
    with serving(inventory, readers, make, rest=0.0) as server:
        assert server.ask("GET", "/reports/", headers=basic()).status == 200
        broken.set()
        for _ in range(3):
            assert server.ask("GET", "/reports/", headers=basic()).body == FORMS["html"]


def test_who_comes_while_the_first_report_is_made_is_told_to_come_again(
    inventory: Inventory, readers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_PATIENCE_SECONDS", 0.2)
    go = threading.Event()

    def make() -> Mapping[str, bytes]:
        assert go.wait(60)
        return FORMS

    with serving(inventory, readers, make) as server:
        answer = server.ask("GET", "/reports/", headers=basic())
        headers = {name.lower(): value for name, value in answer.headers.items()}
        go.set()
        assert (answer.status, headers["retry-after"], headers["refresh"]) == (503, "10", "10")
        server.until(lambda: server.ask("GET", "/reports/", headers=basic()).status == 200)


def test_a_bug_ends_the_process_and_its_successor_rests() -> None:
    shelf = ReportShelf()
    shelf.want(time.monotonic())

    def make() -> Mapping[str, bytes]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        make_reports(shelf, make, parent=os.getppid(), stop=threading.Event())
    assert not shelf.is_wanted(time.monotonic() + 4)
    assert shelf.take().failed


def test_password_is_not_taken_in_the_clear_from_elsewhere(readers: Path) -> None:
    import asyncio

    from chargepki.pki.services.http import Request

    async def ask(*, is_tls: bool, peer: str) -> int:
        shelf = ReportShelf()
        shelf.put(FORMS, until=time.monotonic() + 600)
        pages = ReportPages(shelf, lambda: read_accounts(readers), policy="x")
        headers = [(name.encode(), value.encode()) for name, value in basic().items()]
        try:
            request = Request("GET", b"/reports/", headers, peer=peer, is_tls=is_tls)
            return (await pages.answer(request)).status
        finally:
            pages.close()

    assert asyncio.run(ask(is_tls=False, peer="192.0.2.1:5")) == 403
    assert asyncio.run(ask(is_tls=True, peer="192.0.2.1:5")) == 200
    assert asyncio.run(ask(is_tls=False, peer="::1:5")) == 200


def test_shelf_is_shared_with_forked_processes_and_bounded() -> None:
    shelf = ReportShelf()
    assert shelf.take().forms == {}
    shelf.want(5.0)
    assert shelf.is_wanted(6.0)
    child = os.fork()
    if child == 0:
        shelf.put(FORMS, until=100.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = shelf.take()
    assert (found.forms, found.until, found.failed) == (FORMS, 100.0, False)
    assert not shelf.is_wanted(200.0)
    shelf.want(150.0)
    assert not shelf.is_wanted(99.0) and shelf.is_wanted(150.0)
    shelf.fail(until=300.0)
    assert (shelf.take().forms, shelf.take().failed) == (FORMS, True)
    shelf.put({"html": b"x"}, until=400.0)
    assert shelf.take().forms == {"html": b"x"}
    with pytest.raises(ValueError, match="size"):
        shelf.put({"html": b"x" * MAX_REPORT_BYTES}, until=500.0)


def test_accounts_are_kept_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "readers.txt"
    with pytest.raises(UnavailableError):
        read_accounts(path)
    put_account(path, "a", PASSWORD)
    put_account(path, "b", PASSWORD)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in path.read_bytes()
    first = read_accounts(path)
    put_account(path, "a", PASSWORD + b"!")
    second = read_accounts(path)
    assert set(second) == {"a", "b"} and second["a"] != first["a"] and second["b"] == first["b"]
    for name, password in (("x y", PASSWORD), ("", PASSWORD), ("a:b", PASSWORD), ("ok", b"short")):
        with pytest.raises(InputError):
            put_account(path, name, password)
    with pytest.raises(NotFound):
        remove_account(path, "nobody")
    remove_account(path, "a")
    with pytest.raises(InputError, match="last"):
        remove_account(path, "b")
    path.chmod(0o644)
    with pytest.raises(ChargePkiError):
        read_accounts(path)
