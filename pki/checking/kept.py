"""The result of the last check of everything, kept in the workspace for reports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import orjson

from chargepki.pki import files
from chargepki.pki.checking.report import CheckReport
from chargepki.pki.checking.tally import Tally
from chargepki.pki.errors import InputError, UnavailableError
from chargepki.pki.inventory.codec import decode_time, encode_time

__all__ = ["KeptCheck", "keep_check", "load_kept"]

_SCHEMA: Final = "chargepki/kept-check"
_MAX_BYTES: Final = 64 << 20
_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class KeptCheck:
    """A finished check, and of which state of the inventory it speaks."""

    report: CheckReport
    log_id: str
    count: int | None
    """Entries of the audit log when it began; ``None`` for one that was killed in between and went on."""
    settings: str
    """Digest of the program's version and the linter's settings."""

    @property
    def at(self) -> datetime:
        """Instant at which everything was judged."""
        return self.report.at


def keep_check(path: Path, kept: KeptCheck) -> None:
    """Write *kept* to *path*, durably; only its owner may read it.

    Raises:
        UnavailableError: it cannot be written.
    """
    tally = Tally(_EXAMPLES)
    for group in kept.report.findings:
        tally.take(group)
    content = {
        "schema": _SCHEMA,
        "schema_version": 1,
        "at": encode_time(kept.at),
        "log_id": kept.log_id,
        "count": kept.count,
        "settings": kept.settings,
        "certificates": kept.report.judged,
        "paths": kept.report.paths,
        "findings": tally.to_json(),
    }
    try:
        files.write_durable(path, orjson.dumps(content), mode=0o600)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written", why=str(error)) from error


def load_kept(path: Path) -> KeptCheck | None:
    """Return the check that *path* keeps; ``None`` when there is none.

    Raises:
        InputError: the file is no kept check.
        UnavailableError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        content = orjson.loads(files.read_limited(path, _MAX_BYTES, "kept check"))
        if content["schema"] != _SCHEMA:
            raise ValueError("schema")
        tally = Tally(_EXAMPLES)
        tally.merge(content["findings"])
        report = CheckReport(
            decode_time(content["at"]), int(content["certificates"]), int(content["paths"]), tally.groups()
        )
        count = content["count"]
        return KeptCheck(report, str(content["log_id"]), None if count is None else int(count), content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no kept check",
            why=f"{type(error).__name__}: it was written by something else",
            fix="remove it, then run: chargepki inventory check",
        ) from error
