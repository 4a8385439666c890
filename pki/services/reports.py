"""The report on the inventory as pages of `serve`: read-only, behind a password, and never made for one request alone.

A process of its own makes reports (`make_reports`). However many ask, it makes one at a time, and rests afterwards ten
times as long as that took: requests cost others no more than a tenth of a processor, and reloading nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from chargepki.pki.errors import ChargePkiError, InputError, SignerError, UnavailableError
from chargepki.pki.services.accounts import AccountGuard, TooManyFailures, parse_basic
from chargepki.pki.services.failures import SharedFailures
from chargepki.pki.services.http import Handler, Request, Response, plain, refuse_method
from chargepki.pki.services.report_shelf import ReportShelf, Shelved
from chargepki.pki.services.staples import is_loopback

__all__ = ["ReportPages", "make_reports"]

_log = logging.getLogger(__name__)

_ENDPOINT: Final = "reports"
_PATIENCE_SECONDS: Final = 15.0
"""How long a request waits for a newer report before it is given the last one."""
_LOOK_SECONDS: Final = 0.1
_MOST_WAITING: Final = 64
_LEAST_REST_SECONDS: Final = 5.0
_REST: Final = 10
_PATHS: Final[Mapping[bytes, str]] = {
    b"/reports": "html",
    b"/reports/": "html",
    b"/reports/report.json": "json",
    b"/reports/report.csv": "csv",
}
_TYPES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "html": (("Content-Type", "text/html; charset=utf-8"),),
    "json": (("Content-Type", "application/json"),),
    "csv": (
        ("Content-Type", "text/csv; charset=utf-8; header=present"),
        ("Content-Disposition", 'attachment; filename="report.csv"'),
    ),
}
_SAFE: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


class ReportPages:
    """Answers below ``/reports``; for one event loop.

    Args:
        accounts: returns password hashes by name; asked at each request, so that a change counts at once.
        policy: the page's Content-Security-Policy.
        failures: wrong passwords, counted together with other processes that serve.
    """

    def __init__(
        self,
        shelf: ReportShelf,
        accounts: Callable[[], Mapping[str, str]],
        *,
        policy: str,
        failures: SharedFailures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf, self._accounts, self._clock = shelf, accounts, clock
        self._guard = AccountGuard(failures)
        self._headers = (*_SAFE, ("Content-Security-Policy", f"{policy}; frame-ancestors 'none'"))
        self._waiting = 0

    def routes(self) -> Mapping[bytes, Handler]:
        """Return the handler by path prefix."""
        return {b"/reports": self.answer}

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        if not (request.is_tls or is_loopback(request.peer)):
            return self._plain(403, "reports are handed out over TLS: a password would be read on the way")
        if (refusal := await self._refuse(request)) is not None:
            return refusal
        form = _PATHS.get(request.path)
        if form is None:
            return self._plain(404, "there is /reports/, /reports/report.json and /reports/report.csv")
        if request.method not in ("GET", "HEAD"):
            return refuse_method("GET", _ENDPOINT)
        found = await self._newest()
        if form not in found.forms:
            if found.failed:
                return self._plain(503, "no report can be made; the log of the server tells why", ("Retry-After", "30"))
            return self._plain(503, "the report is being made; come again", ("Retry-After", "10"), ("Refresh", "10"))
        return Response(200, found.forms[form], (*_TYPES[form], *self._headers), _ENDPOINT)

    async def _refuse(self, request: Request) -> Response | None:
        """Return the answer to who shows no right password."""
        header = request.header(b"authorization")
        given = parse_basic(None if header is None else header.decode("latin-1"))
        if given is None:
            return self._challenge()
        name, password = given
        try:
            stored = self._accounts().get(name)
        except (InputError, SignerError, UnavailableError) as error:
            _log.warning("reports: %s", error)
            return self._plain(503, "the accounts cannot be read", ("Retry-After", "30"))
        peer = request.peer.rpartition(":")[0]
        try:
            right = await self._guard.verify(stored, password, account=name, peer=peer, now=self._clock())
        except TooManyFailures as error:
            return self._plain(429, error.what, ("Retry-After", "60"))
        if not right:
            _log.info("reports: wrong name or password from %s", peer)
            return self._challenge()
        return None

    async def _newest(self) -> Shelved:
        """Return the newest report that there can be now, or the last one when that takes too long."""
        until = self._shelf.until()
        if until <= self._clock() and self._waiting < _MOST_WAITING:
            self._shelf.want(self._clock())
            await self._wait(until)
        return self._shelf.take()

    async def _wait(self, until: float) -> None:
        """Wait for another report than that which was the newest *until* then."""
        self._waiting += 1
        give_up = self._clock() + _PATIENCE_SECONDS
        try:
            while self._shelf.until() == until and self._clock() < give_up:  # noqa: ASYNC110  # other processes wake nobody
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._waiting -= 1

    def _challenge(self) -> Response:
        return self._plain(401, "show a name and its password", ("WWW-Authenticate", _REALM))

    def _plain(self, status: int, text: str, *headers: tuple[str, str]) -> Response:
        return plain(status, text, endpoint=_ENDPOINT, headers=(*_SAFE[1:], *headers))

    def close(self) -> None:
        """Let go of the threads."""
        self._guard.close()


_REALM: Final = 'Basic realm="chargepki reports", charset="UTF-8"'


def make_reports(
    shelf: ReportShelf, make: Callable[[], Mapping[str, bytes]], *, parent: int, stop: threading.Event | None = None
) -> None:
    """Make a report whenever one is wanted, until SIGTERM or SIGINT, or until process *parent* is gone.

    Args:
        make: returns a report in each of its forms.
        stop: ends it too; with it no signals are waited for.
    """
    if stop is None:
        stop = threading.Event()
        _end_on_signals()
    while not stop.wait(_LOOK_SECONDS) and os.getppid() == parent:
        if not shelf.is_wanted(time.monotonic()):
            continue
        began = time.monotonic()
        try:
            shelf.put(make(), until=_rested(began))
        except ChargePkiError as error:
            _log.error("no report could be made: %s", error)
            shelf.fail(until=_rested(began))
        except BaseException:
            # The process that takes this one's place rests as well: a bug must not cost a processor.
            shelf.fail(until=_rested(began))
            raise


def _end_on_signals() -> None:
    def end(number: int, frame: object) -> None:
        # A report of a large inventory takes minutes, and nothing is lost with it.
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _rested(began: float) -> float:
    now = time.monotonic()
    return now + max(_LEAST_REST_SECONDS, _REST * (now - began))
