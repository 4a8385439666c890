"""The address of an inventory: an SQLAlchemy URL, read without SQLAlchemy and shown without its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from chargepki.pki.errors import InputError

__all__ = ["DatabaseAddress", "Dialect"]

_POSTGRESQL: Final = ("postgresql+psycopg", "postgresql")


class Dialect(StrEnum):
    """The databases that an inventory may live in."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the inventory is."""

    dialect: Dialect
    shown: str
    """For messages: no password, no query."""
    path: Path | None = None
    """File of an SQLite database."""
    dsn: str = field(default="", repr=False)
    """libpq connection URI of a PostgreSQL database; may hold a password."""
    secret: str = field(default="", repr=False)
    """The password, to be kept out of messages."""

    @classmethod
    def parse(cls, url: str) -> DatabaseAddress:
        """Read ``sqlite:///relative``, ``sqlite:////absolute`` or ``postgresql+psycopg://user:password@host/name``.

        Raises:
            InputError: another scheme, an SQLite database in memory, or something that is no URL.
        """
        scheme, separator, rest = url.partition("://")
        if separator and scheme in ("sqlite", "sqlite+pysqlite"):
            return cls._sqlite(rest)
        if separator and scheme in _POSTGRESQL:
            return cls._postgresql(rest)
        raise InputError(
            f"the database URL has the scheme {scheme[:40]!r}" if separator else "the database is not given as a URL",
            why="an inventory lives in SQLite or PostgreSQL",
            fix="use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME",
        )

    @classmethod
    def _sqlite(cls, rest: str) -> DatabaseAddress:
        path = rest[1:]
        if not rest.startswith("/") or not path or path == ":memory:" or path.startswith("file:"):
            raise InputError(
                "the inventory needs an SQLite file",
                why="several connections and processes share it, which a database in memory does not allow",
                fix="use sqlite:///relative/path or sqlite:////absolute/path",
            )
        if "?" in path or "\0" in path:
            raise InputError("the SQLite URL has a query or a NUL character", fix="give a plain file name")
        return cls(Dialect.SQLITE, f"sqlite:///{path}", path=Path(path))

    @classmethod
    def _postgresql(cls, rest: str) -> DatabaseAddress:
        try:
            parts = urlsplit(f"postgresql://{rest}")
            host, port = parts.hostname or "", parts.port
        except ValueError as exc:
            raise InputError(
                "the PostgreSQL URL cannot be read", fix="use postgresql+psycopg://USER@HOST/NAME"
            ) from exc
        place = f"{host}:{port}" if port else host
        user = f"{unquote(parts.username)}@" if parts.username else ""
        secret = unquote(parts.password or "")
        for item in parts.query.split("&"):
            name, _, value = item.partition("=")
            if name == "password":
                secret = unquote(value)
        return cls(
            Dialect.POSTGRESQL,
            f"postgresql+psycopg://{user}{place}{parts.path}",
            dsn=f"postgresql://{rest}",
            secret=secret,
        )
