"""Choose the shard of a CA's revocation list that a new certificate will point to, for the rest of its life.

Shards are filled one after the other. A shard never gets more certificates than `CaRecord.crl_shard_size`, so its list
stays small even if every certificate in it is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki.errors import Conflict, InputError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CrlShardRecord
from chargepki.pki.pointers import check_public_url

__all__ = [
    "FULL_LISTS",
    "MAX_SHARD_BYTES",
    "MAX_SHARD_SIZE",
    "CrlSettings",
    "ShardChooser",
    "ShardTaken",
    "check_crl_settings",
    "claim_shard",
    "configure_crls",
]

MAX_SHARD_BYTES: Final = 65536
"""What the CRL of a shard stays below."""
MAX_SHARD_SIZE: Final = 750
"""Certificates to a shard: an entry has 81 octets at most; names, URL and a long signature have room beside them."""
_MAX_DELTA_HOURS: Final = 7 * 24


class ShardTaken(Conflict):
    """Another process filled the chosen shard, or opened one of its number, in the meantime: choose again."""


@dataclass(frozen=True, slots=True)
class CrlSettings:
    """How the revocation lists of a CA are cut."""

    shard_size: int | None = None
    """Certificates to a shard; ``None`` has new certificates point to the full list."""
    delta_hours: int | None = None
    """For how long a delta list is valid; ``None`` publishes none."""


FULL_LISTS: Final = CrlSettings()
"""One full list, no shards, no deltas."""


def check_crl_settings(settings: CrlSettings) -> CrlSettings:
    """Return *settings* when lists can be cut so.

    Raises:
        InputError: a size or a validity out of range.
    """
    size, hours = settings.shard_size, settings.delta_hours
    if size is not None and not 1 <= size <= MAX_SHARD_SIZE:
        raise InputError(
            f"{size} certificates to a CRL shard are out of range",
            why=f"with up to {MAX_SHARD_SIZE} the list stays under {MAX_SHARD_BYTES >> 10} KiB if all are revoked",
            fix=f"use 1 to {MAX_SHARD_SIZE}",
        )
    if hours is not None and not 1 <= hours <= _MAX_DELTA_HOURS:
        raise InputError(
            f"a delta CRL cannot be valid for {hours} hours",
            why="it refreshes full lists that are valid for a week",
            fix=f"use 1h to {_MAX_DELTA_HOURS}h",
        )
    return settings


def configure_crls(inventory: Inventory, ca_id: str, settings: CrlSettings, *, actor: Actor, now: datetime) -> CaRecord:
    """Change how the lists of a CA are cut; certificates that were issued keep the shard that they name.

    Raises:
        InputError: see `check_crl_settings`.
        NotFound: there is no such CA.
    """
    check_crl_settings(settings)

    def work(tx: Transaction) -> CaRecord:
        ca = tx.get_ca(ca_id)
        if (ca.crl_shard_size, ca.crl_delta_hours) == (settings.shard_size, settings.delta_hours):
            return ca
        changed = tx.update_ca(ca.id, crl_shard_size=settings.shard_size, crl_delta_hours=settings.delta_hours)
        tx.audit(
            actor,
            "ca.configure-crl",
            ca.id,
            now=now,
            details={"shard_size": settings.shard_size, "delta_hours": settings.delta_hours},
        )
        return changed

    return inventory.write(work)


@dataclass(slots=True)
class _Open:
    shard: CrlShardRecord
    left: int


class ShardChooser:
    """Hands out places in shards for one batch of certificates; `claim_shard` makes sure of each."""

    def __init__(self, inventory: Inventory, now: datetime) -> None:
        self._inventory, self._now = inventory, now
        self._open: dict[str, _Open] = {}

    def choose(self, ca: CaRecord) -> CrlShardRecord | None:
        """Return the shard for the next certificate of *ca*; ``None`` when it points to the full list."""
        if ca.crl_shard_size is None or ca.public_url is None:
            return None
        base = check_public_url(ca.public_url)
        current = self._open.get(ca.id) or self._find(ca, base, ca.crl_shard_size)
        if current is None or current.left <= 0:
            number = current.shard.number if current else 0
            number = max(number, self._inventory.last_shard_number(ca.id)) + 1
            url = f"{base}/crl/{ca.id}/{number}.crl"
            shard = CrlShardRecord(f"{ca.id}/{number}", ca.id, number, base, url, self._now)
            current = _Open(shard, ca.crl_shard_size)
        current.left -= 1
        self._open[ca.id] = current
        return current.shard

    def _find(self, ca: CaRecord, base: str, size: int) -> _Open | None:
        # A shard belongs to one public URL: its list names the URL that its certificates have (RFC 5280 5.2.5).
        shard = self._inventory.find_open_shard(ca.id, base)
        if shard is None:
            return None
        return _Open(shard, size - self._inventory.count_in_shard(ca.id, shard.number))


def claim_shard(tx: Transaction, shard: CrlShardRecord, places: int = 1) -> bool:
    """Make sure, inside the transaction that reserves certificates, that *shard* has places; open it if it is new.

    Args:
        places: how many, at least one; no more than a shard has.

    Returns:
        Whether it was opened.

    Raises:
        ShardTaken: choose again.
    """
    ca = tx.get_ca(shard.ca)
    known = tx.find_crl_shard(shard.ca, shard.number)
    if known is None:
        if tx.last_shard_number(shard.ca) != shard.number - 1:
            raise ShardTaken(f"the shard {shard.id} is not the next one")
        tx.open_crl_shard(shard)
        return True
    if known.url != shard.url:
        raise ShardTaken(f"the shard {shard.id} was opened for {known.url}")
    if tx.count_in_shard(shard.ca, shard.number) + places > (ca.crl_shard_size or MAX_SHARD_SIZE):
        raise ShardTaken(f"the shard {shard.id} is full")
    return False
