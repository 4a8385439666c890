"""Put a station's new password on record, with the grace that its operator allows the old one."""

from __future__ import annotations

from datetime import datetime, timedelta

from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import StationRecord

__all__ = ["promote_password"]


def promote_password(tx: Transaction, station: str, new_hash: str | None, now: datetime) -> StationRecord:
    """Make *new_hash* the password of *station*; the one before is refused from now on.

    Only where the operator set a grace for this very station the one before stays accepted until it has passed,
    against A01.FR.03. The caller writes the audit entry.

    Clause: A01.FR.03.
    """
    before = tx.get_station(station)
    terms = tx.find_station_terms(station)
    grace = terms.password_grace_seconds
    if grace is not None and before.password_hash is not None and before.password_hash != new_hash:
        tx.change_station_terms(
            station,
            previous_password_hash=before.password_hash,
            previous_password_until=now + timedelta(seconds=grace),
        )
    elif terms.previous_password_hash is not None:
        tx.change_station_terms(station, previous_password_hash=None, previous_password_until=None)
    return tx.update_station(station, password_hash=new_hash, pending_password_hash=None, password_changed_at=now)
