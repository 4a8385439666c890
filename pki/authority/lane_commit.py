"""The two commits of the fast lane: reserve a group of quick certificates, and record them once they are signed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from chargepki.pki.authority.issuance import put_together
from chargepki.pki.authority.lane_kind import Quick
from chargepki.pki.authority.orders import IssuedCertificate
from chargepki.pki.authority.shards import ShardTaken, claim_shard
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor
from chargepki.pki.policy_settings import Mode

__all__ = ["Signed", "Sorted", "issue_quick", "link_stations", "reserve_quick", "sign_quick", "sort_out"]

_PROFILES_OF_STATIONS = ("ocpp/charging-station",)


@dataclass(frozen=True, slots=True)
class Sorted:
    """The certificates of a group by how they are reserved."""

    plain: list[tuple[int, Quick]]
    doubtful: list[tuple[int, Quick]]
    """Something on record concerns them: `issuance.reserve` judges each."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate that is signed and not recorded yet."""

    position: int
    item: Quick
    der: bytes
    sha256: str

    def release(self, now: datetime) -> IssuedCertificate:
        """Return it to whoever ordered it, once it is recorded."""
        item = self.item
        # Not every caller looks at the record, and making one costs a tenth of what the certificate has cost so far.
        record = partial(item.to_record, self.der, self.sha256, now)
        return IssuedCertificate(record, self.der, (self.der, *item.issuer.chain), clamped=item.clamped)


def link_stations(inventory: Inventory, items: Iterable[Quick]) -> None:
    """Say of each certificate to which station it belongs, as `order_judge.station_for` does for one."""
    own = [item for item in items if item.order.profile in _PROFILES_OF_STATIONS]
    if not own:
        return
    found = inventory.find_stations_of_serial_numbers(item.common_name for item in own)
    for item in own:
        stations = found.get(item.common_name, ())
        # Two stations may have been registered with one serial number; then only an explicit station is believed.
        if len(stations) == 1:
            item.row.values["station"] = item.row.covered["station"] = stations[0].id


def sort_out(tx: Transaction, items: Sequence[tuple[int, Quick]], now: datetime) -> Sorted:
    """Ask the record about a group at once; runs in the transaction of the reservation, where nobody else writes."""
    keys_taken = tx.list_taken_keys(str(item.row.values["spki_sha256"]) for _, item in items)
    asked = [str(item.row.values["request_key"]) for _, item in items if not item.order.again]
    requests_taken = tx.list_taken_requests(asked) if asked else frozenset()
    plain: list[tuple[int, Quick]] = []
    doubtful: list[tuple[int, Quick]] = []
    seen: set[object] = {*keys_taken, *requests_taken}
    for position, item in items:
        values, shard = item.row.values, item.shard
        rated = item.policy.rate is not None and values["station"] is not None
        of_record = values["spki_sha256"] in seen or (not item.order.again and values["request_key"] in seen)
        # The first certificate of a new shard opens it, which is one of its effects in the audit log.
        opens = shard is not None and shard.opened_at == now
        seen |= {values["spki_sha256"], values["request_key"]}
        if of_record or opens or (rated and item.policy.mode_of("rate") is not Mode.OFF):
            doubtful.append((position, item))
        else:
            plain.append((position, item))
    return Sorted(plain, doubtful)


def reserve_quick(
    tx: Transaction, items: Sequence[tuple[int, Quick]], *, actor: Actor, now: datetime
) -> list[ChargePkiError | None]:
    """Reserve a group that `sort_out` found plain; return for each ``None``, or that its shard was taken.

    Raises:
        Conflict: a serial number is taken; nothing may be committed.
    """
    groups: dict[str, list[Quick]] = {}
    for _, item in items:
        if item.shard is not None:
            groups.setdefault(item.shard.id, []).append(item)
    taken: dict[str, ChargePkiError] = {}
    for name, group in groups.items():
        shard = group[0].shard
        assert shard is not None
        try:
            claim_shard(tx, shard, len(group))
        except ShardTaken as error:
            taken[name] = error
    answers = [taken.get(item.shard.id) if item.shard is not None else None for _, item in items]
    rows = [item.row for (_, item), refused in zip(items, answers, strict=True) if refused is None]
    if rows:
        tx.reserve_certificates(rows, actor, now=now)
    return answers


def sign_quick(items: Sequence[tuple[int, Quick]]) -> list[tuple[int, Signed | ChargePkiError]]:
    """Sign the bytes of reservations that are durable; return each, or why its key could not be used, by its place.

    All are signed before the first is put together, for the reason that `lane_fill` gives.
    """
    answers: list[tuple[int, Signed | ChargePkiError]] = []
    signatures: list[tuple[int, Quick, bytes]] = []
    for position, item in items:
        try:
            signatures.append((position, item, item.issuer.signer.sign(item.tbs)))
        except ChargePkiError as error:
            answers.append((position, error))
    for position, item, signature in signatures:
        try:
            der = put_together(item.id, item.tbs, signature, item.issuer)
            answers.append((position, Signed(position, item, der, hashlib.sha256(der).hexdigest())))
        except ChargePkiError as error:
            answers.append((position, error))
    return answers


def issue_quick(tx: Transaction, signed: Sequence[Signed], *, actor: Actor, now: datetime) -> None:
    """Record a group of signed certificates.

    Raises:
        ReservationChanged: somebody wrote to one of the reservations meanwhile; nothing may be committed.
    """
    rows = [each.item.row for each in signed]
    tx.issue_certificates(rows, [(each.der, each.sha256) for each in signed], actor, now=now)
