"""Hold what lists are made of, and the lists themselves, against the certificates; make the stored entries anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from chargepki.pki.authority.generations import check_serials
from chargepki.pki.crl import RevokedEntry, parse_crl
from chargepki.pki.crl_entry import ReasonCode, split_entries
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads_revocation import RevokedRow
from chargepki.pki.inventory.records import Actor, CaState, CrlRecord, CrlSegmentRecord
from chargepki.pki.inventory.writes_revocation import entry_of

__all__ = ["check_lists", "repair_entries"]


def check_lists(inventory: Inventory, ca_id: str) -> tuple[str, ...]:
    """Return what contradicts the certificates of a CA: in the stored entries, and in the newest lists.

    A list that is not the newest truth yet, because nothing was published since the last change, is no contradiction.
    The lists are decoded and compared entry by entry; nothing that made them is used to judge them.

    Raises:
        NotFound: there is no such CA.
    """
    ca = inventory.get_ca(ca_id)
    revoked = list(inventory.list_revoked_rows(ca.id))
    found = list(_check_segments(inventory, ca.id, revoked))
    last = inventory.last_change(ca.id)
    full = inventory.latest_crl(ca.id)
    others = [
        other.id
        for other in inventory.list_cas(name=ca.name)
        if other.id != ca.id and other.subject_der == ca.subject_der and other.state is not CaState.PENDING
    ]
    if full is not None and full.changes == last:
        found += _check_list(full, revoked, lambda serial: _is_of(inventory, serial, others))
    taken = check_serials(inventory, [row.serial for row in revoked], others)
    found += [f"{each} has the serial number of a revoked certificate of {ca.id}, under one name" for each in taken]
    changed = inventory.changed_shards(ca.id, 0)
    for shard in inventory.list_crl_shards(ca.id):
        crl = inventory.latest_shard_crl(ca.id, shard.number)
        if crl is None or (crl.changes or 0) < changed.get(shard.number, 0):
            continue
        found += _check_list(crl, (record for record in revoked if record.shard == shard.number))
    return tuple(found)


def _check_segments(inventory: Inventory, ca_id: str, revoked: Iterable[RevokedRow]) -> Iterator[str]:
    wanted: dict[int, set[bytes]] = {}
    for record in revoked:
        wanted.setdefault(record.shard or 0, set()).add(entry_of(record))
    stored: dict[int, list[bytes]] = {}
    segments = list(inventory.list_crl_segments(ca_id))
    if not segments and wanted:
        return  # From before entries were stored; the next list or revocation makes them.
    for segment in segments:
        yield from _check_segment(segment, stored.setdefault(segment.shard, []))
    for shard in sorted(wanted.keys() | stored.keys()):
        entries, have = wanted.get(shard, set()), stored.get(shard, [])
        where = f"{ca_id}, {f'shard {shard}' if shard else 'certificates that name the full list'}"
        if missing := len(entries.difference(have)):
            yield f"{where}: {missing} entries of revoked certificates are not stored"
        if more := len(set(have) - entries):
            yield f"{where}: {more} stored entries belong to no revoked certificate"
        if len(set(have)) != len(have):
            yield f"{where}: an entry is stored twice"


def _check_segment(segment: CrlSegmentRecord, entries: list[bytes]) -> Iterator[str]:
    if hashlib.sha256(segment.content).hexdigest() != segment.sha256:
        yield f"the stored entries {segment.id} do not have their digest"
    try:
        found = [segment.content[start:end] for start, end in split_entries(segment.content)]
    except InputError as error:
        yield f"the stored entries {segment.id}: {error.what}"
        return
    if len(found) != segment.count:
        yield f"the stored entries {segment.id} are {len(found)}, not {segment.count}"
    entries += found


def _is_of(inventory: Inventory, serial: int, others: Sequence[str]) -> bool:
    """Whether a certificate of another generation explains an entry: its own list is checked, too."""
    return any(inventory.find_certificate(f"{other}:{serial:x}") is not None for other in others)


def _check_list(
    crl: CrlRecord, revoked: Iterable[RevokedRow], is_explained: Callable[[int], bool] = lambda _: False
) -> Iterator[str]:
    wanted = {_as_listed(record) for record in revoked}
    try:
        listed = parse_crl(crl.der).entries
    except InputError as error:
        yield f"CRL {crl.id} cannot be decoded: {error.what}"
        return
    if hashlib.sha256(crl.der).hexdigest() != crl.sha256:
        yield f"CRL {crl.id} does not have its digest"
    if missing := len(wanted.difference(listed)):
        yield f"CRL {crl.id} does not tell of {missing} revoked certificates as they are"
    if more := sum(not is_explained(entry.serial) for entry in set(listed) - wanted):
        yield f"CRL {crl.id} has {more} entries that no revoked certificate explains"
    if len(listed) != crl.entries or len(set(listed)) != len(listed):
        yield f"CRL {crl.id} has {len(listed)} entries, {crl.entries} were recorded"


def _as_listed(row: RevokedRow) -> RevokedEntry:
    reason = ReasonCode(row.reason or ReasonCode.UNSPECIFIED.value)
    return RevokedEntry(
        serial=int(row.serial, 16),
        # Lists know no fractions of a second.
        revoked_at=row.revoked_at.replace(microsecond=0),
        reason=None if reason is ReasonCode.UNSPECIFIED else reason,
        invalidity_date=None if row.invalidity_date is None else row.invalidity_date.replace(microsecond=0),
    )


def repair_entries(inventory: Inventory, ca_id: str, *, actor: Actor, now: datetime) -> int:
    """Make the stored entries of a CA anew from its certificates, audited; return how many there are.

    Raises:
        NotFound: there is no such CA.
    """

    def work(tx: Transaction) -> int:
        ca = tx.get_ca(ca_id)
        count = tx.rebuild_crl_segments(ca.id)
        tx.audit(actor, "crl.rebuild", ca.id, now=now, details={"entries": count})
        return count

    return inventory.write(work)
