"""One check of everything: where it stands, so that it goes on after a kill, and what it has found so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from chargepki.pki import files
from chargepki.pki.checking.judge import RangeResult
from chargepki.pki.checking.tally import Tally
from chargepki.pki.errors import InputError, UnavailableError
from chargepki.pki.inventory.codec import decode_time, encode_time
from chargepki.pki.inventory.filters import Filter
from chargepki.pki.inventory.reads import Reads

__all__ = ["RANGE", "CheckRun", "list_ranges", "load_run", "run_key", "save_run"]

RANGE: Final = 1000
"""Certificates that are judged at one go: what a kill costs, for each process."""
_SCHEMA: Final = "chargepki/check-run"
_MAX_BYTES: Final = 256 << 20


@dataclass(slots=True)
class CheckRun:
    """A check that is under way."""

    key: str
    """What is checked, and how: a run goes on only for the same question (`run_key`)."""
    at: datetime
    """Instant at which everything is judged, fixed when the run begins."""
    tally: Tally
    position: str | None = None
    """Up to which id, inclusive, certificates have been judged."""
    judged: int = 0
    paths: int = 0
    resumed: bool = field(default=False, compare=False)
    """Whether it goes on where another process was ended."""

    def add(self, last: str, result: RangeResult) -> None:
        """Take in what came of the range that ends with the id *last*."""
        self.tally.merge(result.findings)
        self.position = last
        self.judged += result.judged
        self.paths += result.paths


def run_key(*parts: str) -> str:
    """Return a digest that is the same for the same *parts* alone: log id, program, filter, settings.

    >>> run_key("a", "b") == run_key("ab")
    False
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def list_ranges(
    reads: Reads, wanted: Filter, *, after: str | None, size: int = RANGE
) -> Iterator[tuple[str | None, str]]:
    """Yield the ranges of ids that are left: behind which id, and up to which, of *size* certificates each."""
    for page in reads.scan_certificates(wanted, ("id",), after=after, size=size):
        last = str(page[-1][0])
        yield after, last
        after = last


def load_run(path: Path, key: str, examples: int) -> CheckRun | None:
    """Return the run that *path* keeps, if it is one for *key*; ``None`` otherwise.

    Raises:
        InputError: the file is no kept run: it is left alone.
        UnavailableError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        kept = orjson.loads(files.read_limited(path, _MAX_BYTES, "kept check"))
        if kept["schema"] != _SCHEMA:
            raise ValueError("schema")
        if kept["key"] != key:
            return None
        tally = Tally(examples)
        tally.merge(kept["findings"])
        position = kept["position"]
        if not isinstance(position, str | None):
            raise TypeError("position")
        return CheckRun(
            *(key, decode_time(kept["at"]), tally, position, int(kept["judged"]), int(kept["paths"])), resumed=True
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no kept check", why=f"{type(error).__name__}: it was written by something else", fix="remove it"
        ) from error


def save_run(path: Path, run: CheckRun) -> None:
    """Keep *run* in *path*, durably; only its owner may read it.

    Raises:
        UnavailableError: it cannot be written.
    """
    kept: dict[str, Any] = {
        "schema": _SCHEMA,
        "schema_version": 1,
        "key": run.key,
        "at": encode_time(run.at),
        "position": run.position,
        "judged": run.judged,
        "paths": run.paths,
        "findings": run.tally.to_json(),
    }
    try:
        files.write_durable(path, orjson.dumps(kept), mode=0o600)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written", why=str(error)) from error
