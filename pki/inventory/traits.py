"""What very many certificates have in common: kept in one column, so that counting by it reads no certificate.

A certificate's traits are derived from its row, so the audit log does not speak of them: `audit_replay` derives them
anew and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from chargepki.pki.algorithms import algorithms_of, algorithms_of_tbs
from chargepki.pki.inventory.filter_fields import attribute_of

__all__ = ["COLUMN", "SOURCES", "Traits", "derive_traits", "read_traits", "stored_traits", "text_of", "with_traits"]

COLUMN: Final = "traits"
SOURCES: Final = ("subject", "tbs", "der")
"""The columns that they are derived from."""
_MOST_OCTETS: Final = 1024
"""An entry of an index on PostgreSQL ends at 2,704 octets, and holds more than this."""


class Traits(NamedTuple):
    """What a certificate shares with many others; stored as a JSON array in this order."""

    country: str | None
    """The first C of its subject."""
    organization: str | None
    """The first O of its subject."""
    key: str | None
    """As `Algorithms.key`; ``None`` where there is neither a certificate nor its to-be-signed bytes."""
    signature: str | None


def derive_traits(subject: str, tbs: bytes | None, der: bytes | None) -> Traits:
    """Return the traits of a certificate: those of a reservation are those of what will be signed."""
    country, organization = attribute_of(subject, "C"), attribute_of(subject, "O")
    if der is None and tbs is None:
        return Traits(country, organization, None, None)
    found = algorithms_of(bytes(der)) if der is not None else algorithms_of_tbs(bytes(tbs or b""))
    return Traits(country, organization, found.key, found.signature)


@lru_cache(maxsize=1024)
def stored_traits(traits: Traits) -> str | None:
    """Return the text of the column; ``None`` for traits so long that no index holds them: readers derive them."""
    text = orjson.dumps(list(traits))
    return text.decode() if len(text) <= _MOST_OCTETS else None


@lru_cache(maxsize=1024)
def read_traits(text: str) -> Traits:
    """Return the traits of a column's text."""
    return Traits(*orjson.loads(text))


def with_traits(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored values of a certificate with those of the column."""
    return {**values, COLUMN: text_of(values)}


def text_of(values: Mapping[str, Any]) -> str | None:
    """Return the text of the column for the stored values of a certificate."""
    return stored_traits(derive_traits(values["subject"], values["tbs"], values["der"]))
