"""Turn what the database drivers raise into errors that say what, why and how to go on; never a password."""

from __future__ import annotations

import sqlite3
from typing import Final

from chargepki.pki.errors import ChargePkiError, Conflict, StateError, UnavailableError
from chargepki.pki.inventory.address import DatabaseAddress, Dialect

__all__ = ["translate"]

# Fragments of SQLite's messages (sqlite3ErrStr); the extended codes are not exposed for every one of them.
_SQLITE: Final = (
    ("database is locked", "is locked by another process", "wait until that process is done, then try again"),
    ("database table is locked", "is locked by another process", "wait until that process is done, then try again"),
    ("unable to open database file", "cannot be opened", "check that the folder exists and may be written"),
    ("database or disk is full", "cannot grow: the disk is full", "free some space, then repeat the command"),
    ("attempt to write a readonly database", "is read-only", "check the permissions of the file and its folder"),
    ("file is not a database", "is not an SQLite database", "check the path, or restore the file from the backup"),
    ("disk image is malformed", "is damaged", "restore it from the backup, then run: chargepki audit verify"),
    (
        "disk i/o error",
        "cannot be read or written (I/O error)",
        "check the disk and its free space, then repeat the command",
    ),
    ("readonly", "is read-only", "check the permissions of the file and its folder"),
)

# PostgreSQL error codes (Appendix A of its manual), by the longest prefix that matches.
_POSTGRESQL: Final = (
    ("55P03", "is locked by another process", "wait until that process is done, then try again"),
    ("40", "gave up on a conflict between transactions", "try again"),
    ("53100", "cannot grow: the disk is full", "free some space, then repeat the command"),
    ("53", "is out of resources", "check its connections and memory"),
    ("25006", "is read-only", "use the primary server, not a standby"),
    ("28", "refuses this user", "check user, password and pg_hba.conf"),
    ("3D000", "does not exist", "create the database first: createdb NAME"),
    ("42501", "does not let this user do that", "grant the user the rights on schema and tables"),
    ("57", "is shutting down or was told to stop", "try again when it is back"),
    ("08", "cannot be reached", "check that the server runs and that host and port are right"),
    ("XX", "reports damage or an internal error", "see the log of the server"),
)


def translate(exc: BaseException, address: DatabaseAddress) -> ChargePkiError:
    """Return the error that stands for a driver's exception."""
    place = f"the inventory {address.shown}"
    reason = _first_line(exc, address)
    if address.dialect is Dialect.SQLITE:
        return _sqlite(exc, place, reason)
    return _postgresql(exc, place, reason)


def _sqlite(exc: BaseException, place: str, reason: str) -> ChargePkiError:
    lowered = reason.lower()
    if isinstance(exc, sqlite3.IntegrityError):
        return _integrity(place, reason)
    for fragment, what, fix in _SQLITE:
        if fragment in lowered:
            return UnavailableError(f"{place} {what}", why=reason, fix=fix)
    if "no such table" in lowered or "no such column" in lowered:
        return _foreign(place, reason)
    return UnavailableError(f"{place} cannot be used", why=reason)


def _postgresql(exc: BaseException, place: str, reason: str) -> ChargePkiError:
    code = getattr(exc, "sqlstate", None) or ""
    if code.startswith("23"):
        return _integrity(place, reason)
    if code in ("42P01", "42703"):
        return _foreign(place, reason)
    for prefix, what, fix in _POSTGRESQL:
        if code.startswith(prefix):
            return UnavailableError(f"{place} {what}", why=reason, fix=fix)
    if "does not exist" in reason and "database" in reason:
        return UnavailableError(f"{place} does not exist", why=reason, fix="create the database first: createdb NAME")
    return UnavailableError(
        f"{place} cannot be reached" if not code else f"{place} cannot be used",
        why=reason,
        fix="check that the server runs and that host, port, user and password are right",
    )


def _integrity(place: str, reason: str) -> ChargePkiError:
    return Conflict(f"{place} refuses a row that contradicts another one", why=reason)


def _foreign(place: str, reason: str) -> ChargePkiError:
    return StateError(
        f"{place} does not have our tables",
        why=reason,
        fix="check the database URL; to examine damage run: chargepki audit verify",
    )


def _first_line(exc: BaseException, address: DatabaseAddress) -> str:
    text = str(exc).strip()
    line = text.splitlines()[0] if text else type(exc).__name__
    return line.replace(address.secret, "***") if address.secret else line
