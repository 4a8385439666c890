"""A certificate on its way through a group commit: its stored values, and what its digest covers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from chargepki.pki.inventory.codec import CERTIFICATE, Value
from chargepki.pki.inventory.verdict_forms import VerdictForm

__all__ = ["RESERVED", "BulkRow"]

_TABLE: Final = CERTIFICATE.table
_LATER: Final = ("der", "sha256", "issued_at", "revoked_at", "revocation_reason", "delivery", "invalidity_date")
RESERVED: Final = tuple(column for column in CERTIFICATE.columns if column not in _LATER)
"""The columns of which a reservation may hold something: a driver takes its time over nothing, too."""


@dataclass(slots=True)
class BulkRow:
    """One row of ``certificate``, first as a reservation."""

    values: dict[str, Value]
    """Stored values of every column in the order of the columns; texts are ones that both databases can hold."""
    details: str
    """Of the audit entry of the reservation: canonical JSON."""
    covered: dict[str, object]
    """What the digest is taken over, in the order of the columns: the values, but octets as ``{"sha256": hex}``, and
    without the columns of later days that hold nothing (`codec.row_digest`)."""
    form: VerdictForm
    """What the verdict in `values` names; stored with the first row that needs it."""
    traits: str | None
    """Text of the column of that name (`traits`)."""
    digest: str = ""
    """Of the reservation, once it is written."""

    def digest_with(self, changes: Mapping[str, object]) -> str:
        """Return the digest of the row with *changes*, as `codec.row_digest` takes it."""
        covered = {**self.covered, **changes} if changes else self.covered
        return hashlib.sha256(orjson.dumps((_TABLE, covered))).hexdigest()
