"""Liveness, readiness with its reasons, and the metrics page."""

from __future__ import annotations

import time
from collections.abc import Callable

from chargepki.pki.services.http import Request, Response, plain, refuse_method
from chargepki.pki.services.metrics import CONTENT_TYPE, Board, render
from chargepki.pki.services.tally import Tally

__all__ = ["Health"]


class Health:
    """What this process knows of its own condition.

    Args:
        board: counters of all processes that serve together; ``None`` for a process that serves alone.
    """

    def __init__(self, tally: Tally, *, board: Board | None = None) -> None:
        self._tally = tally
        self._board = board or Board(1)
        self._problems: dict[str, tuple[str, ...]] = {"start": ("the first self-probe is not through",)}
        self.started = time.monotonic()
        self.gauges: dict[str, float] = {}
        """By metric name; kept by whoever knows the value."""
        self.refresh: Callable[[], None] = lambda: None
        """Called before the metrics are shown."""

    def set_problems(self, source: str, *reasons: str) -> bool:
        """Say what is wrong according to *source* (nothing: all is well); true when that is news."""
        known = self._problems.get(source, ())
        if reasons:
            self._problems[source] = reasons
        else:
            self._problems.pop(source, None)
        return known != reasons

    @property
    def problems(self) -> list[str]:
        """Every reason why this process is not ready."""
        return [reason for source in sorted(self._problems) for reason in self._problems[source]]

    def answer(self, request: Request, path: bytes) -> Response:
        """Answer ``/healthz``, ``/readyz`` or ``/metrics``."""
        endpoint = path[1:].decode("ascii")
        if request.method not in ("GET", "HEAD"):
            return refuse_method("GET", endpoint)
        if endpoint == "healthz":
            # Whoever reads this has been answered by the event loop: that is what liveness means.
            return plain(200, "ok", endpoint=endpoint)
        if endpoint == "readyz":
            problems = self.problems
            return plain(503 if problems else 200, "\n".join(problems) or "ready", endpoint=endpoint)
        self.publish()
        body = render(self._board.read_all())
        return Response(200, body, (("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")), endpoint)

    def publish(self) -> None:
        """Put this process's counters where the others can add them up."""
        self.refresh()
        self.gauges["ready"] = 0.0 if self._problems else 1.0
        self._board.write(self._tally, self.gauges)
