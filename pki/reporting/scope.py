"""What a report is about, and the command that repeats each of its figures."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

__all__ = ["Scope", "shell_word"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_EXPANDED: Final = frozenset('"$`\\!\n')


@dataclass(frozen=True, slots=True)
class Scope:
    """The certificates of a report, as its commands name them."""

    at: datetime
    """Instant of all figures, in whole seconds: `now` of every filter."""
    where: str | None = None
    """A filter; ``None`` for every certificate."""
    query: str | None = None
    """Name of a saved query; a certificate must keep both."""

    @property
    def is_everything(self) -> bool:
        """Whether the report is about every certificate."""
        return self.where is None and self.query is None

    def command(self, words: str, *, where: str | None = None) -> str:
        """Return the command line that asks for a figure of this report again.

        Args:
            words: the command with options of its own, for example ``inventory census --by key``.
            where: what the figure asks for besides the report's own filter.

        >>> scope = Scope(datetime(2026, 3, 1, tzinfo=UTC), "country = 'DE'")
        >>> print(scope.command("cert count", where="state = 'revoked'"))
        chargepki cert count --where "(country = 'DE') and (state = 'revoked')" --at 2026-03-01T00:00:00Z
        """
        parts = [each for each in (self.where, where) if each is not None]
        chosen = parts[0] if len(parts) == 1 else " and ".join(f"({each})" for each in parts)
        options = [("--query", self.query), ("--where", chosen or None), ("--at", self._instant)]
        told = [f"{name} {shell_word(value)}" for name, value in options if value is not None]
        return " ".join(("chargepki", words, *told))

    @property
    def _instant(self) -> str:
        return self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shell_word(text: str) -> str:
    """Return *text* as one word of a POSIX shell; filters, which hold single quotes, stay legible.

    >>> print(shell_word("soon"), shell_word("a = 'b'"), shell_word("$a"))
    soon "a = 'b'" '$a'
    """
    if _PLAIN.fullmatch(text):
        return text
    return shlex.quote(text) if _EXPANDED & set(text) else f'"{text}"'
