"""Reads of revocation lists: the lists themselves, their shards, stored entries, and what changed since when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import decode_time, encode_time
from chargepki.pki.inventory.records import (
    CrlDeltaRecord,
    CrlRecord,
    CrlSegmentRecord,
    CrlShardRecord,
    RevocationChangeRecord,
)

__all__ = ["ListState", "RevocationReads", "RevokedRow"]


class ListState(NamedTuple):
    """The newest list of one scope, without its bytes."""

    shard: int | None
    number: int
    this_update: datetime
    next_update: datetime
    changes: int | None
    sha256: str


class RevokedRow(NamedTuple):
    """What lists tell about one revoked certificate; there may be very many."""

    serial: str
    shard: int | None
    revoked_at: datetime
    reason: str | None
    invalidity_date: datetime | None


class RevocationReads(ABC):
    """Mixin of `Reads`."""

    __slots__ = ()

    @abstractmethod
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]:
        """Run a compiled statement by name."""

    def latest_crl(self, ca: str) -> CrlRecord | None:
        """Return the newest full CRL of a CA generation."""
        rows = self._rows("latest_crl", {"ca": ca})
        return codec.CRL.decode(rows[0]) if rows else None

    def latest_shard_crl(self, ca: str, shard: int) -> CrlRecord | None:
        """Return the newest CRL of one shard."""
        rows = self._rows("latest_shard_crl", {"ca": ca, "shard": shard})
        return codec.CRL.decode(rows[0]) if rows else None

    def latest_delta_crl(self, ca: str) -> CrlDeltaRecord | None:
        """Return the newest delta CRL of a CA generation."""
        rows = self._rows("latest_delta_crl", {"ca": ca})
        return codec.CRL_DELTA.decode(rows[0]) if rows else None

    def list_states(self, ca: str) -> dict[int | None, ListState]:
        """Return the newest complete list of every scope by shard; ``None`` is the full list."""
        return {
            row[0]: ListState(row[0], int(row[1]), decode_time(row[2]), decode_time(row[3]), row[4], row[5])
            for row in self._rows("crl_states", {"ca": ca})
        }

    def delta_state(self, ca: str) -> ListState | None:
        """Return the newest delta list, without its bytes."""
        rows = self._rows("crl_delta_state", {"ca": ca})
        if not rows:
            return None
        number, this_update, next_update, changes, sha256 = rows[0]
        return ListState(None, int(number), decode_time(this_update), decode_time(next_update), int(changes), sha256)

    def find_delta_base(self, ca: str, now: datetime) -> tuple[int, int] | None:
        """Return number and `changes` of the oldest full list that somebody may still rely on at *now*."""
        rows = self._rows("crl_delta_base", {"ca": ca, "now": encode_time(now)})
        return (int(rows[0][0]), int(rows[0][1])) if rows else None

    def list_crl_shards(self, ca: str) -> tuple[CrlShardRecord, ...]:
        """Return the shards of a CA generation, oldest first."""
        return tuple(codec.CRL_SHARD.decode(row) for row in self._rows("crl_shards", {"ca": ca}))

    def find_crl_shard(self, ca: str, number: int) -> CrlShardRecord | None:
        """Return one shard of a CA generation."""
        rows = self._rows("crl_shard_get", {"id": f"{ca}/{number}"})
        return codec.CRL_SHARD.decode(rows[0]) if rows else None

    def find_open_shard(self, ca: str, base_url: str) -> CrlShardRecord | None:
        """Return the newest shard whose URL begins with *base_url*."""
        rows = self._rows("crl_shard_open", {"ca": ca, "base_url": base_url})
        return codec.CRL_SHARD.decode(rows[0]) if rows else None

    def last_shard_number(self, ca: str) -> int:
        """Return the number of the newest shard; 0 when there is none."""
        return int(self._rows("crl_shard_last", {"ca": ca})[0][0] or 0)

    def count_in_shard(self, ca: str, shard: int) -> int:
        """Count the certificates of a shard, whatever became of them."""
        return int(self._rows("certificate_count_in_shard", {"ca": ca, "shard": shard})[0][0])

    def count_revoked(self, ca: str) -> int:
        """Count the revoked certificates of a CA generation, those on hold included."""
        return int(self._rows("certificate_count_revoked", {"ca": ca})[0][0])

    def list_revoked_rows(self, ca: str) -> Iterator[RevokedRow]:
        """List the revoked certificates of a CA generation by id, those on hold included, without their bytes."""
        for serial, shard, revoked_at, reason, invalidity in self._rows("certificate_revoked_rows", {"ca": ca}):
            at, since = decode_time(revoked_at), None if invalidity is None else decode_time(invalidity)
            yield RevokedRow(serial, shard, at, reason, since)

    def count_valid(self, ca: str, now: datetime) -> int:
        """Count the issued certificates of a CA generation that have not expired at *now*."""
        return int(self._rows("certificate_count_valid", {"ca": ca, "now": encode_time(now)})[0][0])

    def list_crl_segments(self, ca: str, shard: int | None = None) -> Iterator[CrlSegmentRecord]:
        """List the stored entries of a CA generation, in the order in which they stand in lists.

        Args:
            shard: only those of one shard; 0 has the certificates that point to the full list.
        """
        name = "crl_segments" if shard is None else "crl_segments_of_shard"
        parameters: dict[str, object] = {"ca": ca} if shard is None else {"ca": ca, "shard": shard}
        return (codec.CRL_SEGMENT.decode(row) for row in self._rows(name, parameters))

    def count_stored_entries(self, ca: str) -> int:
        """Count the stored entries of a CA generation, as its segments say."""
        return int(self._rows("crl_segment_count", {"ca": ca})[0][0] or 0)

    def last_change(self, ca: str) -> int:
        """Return the number of the last revocation, hold, release or correction of a CA generation; 0 for none."""
        return int(self._rows("revocation_change_last", {"ca": ca})[0][0] or 0)

    def changed_shards(self, ca: str, after: int) -> dict[int, int]:
        """Return the number of the last change of each shard that changed after change *after*."""
        rows = self._rows("revocation_change_shards", {"ca": ca, "after": after})
        return {int(shard): int(last) for shard, last in rows}

    def list_changes(self, ca: str, after: int) -> tuple[RevocationChangeRecord, ...]:
        """Return what changed after change *after*, in order."""
        rows = self._rows("revocation_changes", {"ca": ca, "after": after})
        return tuple(codec.REVOCATION_CHANGE.decode(row) for row in rows)
