"""Typed writes on prepared OCSP responses, and the leadership of background work; none of them is audited."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from chargepki.pki.inventory.codec import decode_time, encode_time
from chargepki.pki.inventory.ocsp_records import OCSP_RESPONSE, OcspResponseRecord
from chargepki.pki.inventory.writes_operations import OperationWrites

__all__ = ["OcspWrites"]


class OcspWrites(OperationWrites):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def put_ocsp_responses(self, records: Iterable[OcspResponseRecord]) -> int:
        """Store responses in place of older ones and return how many were stored.

        One whose certificate has another status by now is left out: it was signed before that change was committed.
        """
        stored = 0
        for record in records:
            subject = self.find_ocsp_subject(record.certificate)
            if subject is None or subject.status != record.status:
                continue
            self._rows("ocsp_put", OCSP_RESPONSE.encode(record))
            stored += 1
        return stored

    def prune_ocsp_responses(self, now: datetime) -> None:
        """Delete the responses whose nextUpdate has passed."""
        self._rows("ocsp_prune", {"now": encode_time(now)})

    def take_leadership(self, role: str, *, owner: str, until: datetime, now: datetime) -> int | None:
        """Take or extend the lease on a *role* and return its fencing number; ``None`` while somebody else holds it.

        The number grows each time the role changes hands, so a leader that was away too long can be told from its
        successor.

        Args:
            until: exclusive end of the lease.
        """
        rows = self._rows("leadership", {"item": role})
        holder, ends, fence = rows[0] if rows else (None, None, 0)
        held = holder is not None and ends is not None and decode_time(ends) > now
        if held and holder != owner:
            return None
        if not held or holder != owner:
            fence = int(fence) + 1
        self._put_lease("leader", role, owner, until, int(fence), "leading")
        return int(fence)

    def check_leadership(self, role: str, fence: int) -> None:
        """Refuse the work of somebody who leads no more.

        Raises:
            Conflict: the role has changed hands since *fence* was given out.
        """
        self._check_fence("leader", role, fence)

    def resign_leadership(self, role: str, fence: int) -> None:
        """Give the role up, so that a successor need not wait for the end of the lease.

        Raises:
            Conflict: it has changed hands already.
        """
        self._check_fence("leader", role, fence)
        self._put_lease("leader", role, None, None, fence, "vacant")
