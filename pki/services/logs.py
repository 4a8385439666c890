"""What services say, a line each: text for people, JSON for collectors."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import IO, Final

from chargepki.pki.errors import printable

__all__ = ["JsonLines", "TextLines", "start_logging"]

_OURS: Final = (
    "request_id", "peer", "method", "endpoint", "status", "outcome", "bytes", "milliseconds", "duty", "alert",
)  # fmt: skip


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: record.__dict__[name] for name in _OURS if name in record.__dict__}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what a peer sent cannot break out of it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), "process": record.process, **_extras(record)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """Time, level, message, then what else is known."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters are escaped, those of a traceback's lines too."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        lines = [self.formatMessage(record) + extras]
        if record.exc_info:
            # What an exception says may come from a peer: its lines are set in, so that none passes for one of ours.
            lines += [f"  {line}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(map(printable, lines))


def start_logging(*, as_json: bool, level: int, stream: IO[str] | None = None) -> None:
    """Send what the library's loggers say to *stream* (stderr)."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logger = logging.getLogger("chargepki")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
