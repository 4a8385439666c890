"""Issue many certificates at the price of two commits: judge all, reserve all, sign all, record all, release all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from chargepki.pki.authority.issuance import (
    Issuer,
    Prepared,
    check_may_issue,
    check_stored,
    complete,
    finish,
    prepare,
    released,
    reserve,
)
from chargepki.pki.authority.issuers import IssuerCache, NotOurs
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder
from chargepki.pki.authority.shards import ShardChooser, ShardTaken
from chargepki.pki.errors import ChargePkiError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateRecord, CertificateState
from chargepki.pki.policy_settings import PolicySettings

if TYPE_CHECKING:
    from chargepki.pki.authority.external import ExternalCas

__all__ = ["Batch"]

Answer = IssuedCertificate | ChargePkiError

_SHARD_ROUNDS: Final = 5
"""How often a certificate is built anew because another process took the last place of its CRL shard."""


@dataclass(frozen=True, slots=True)
class _Reserved:
    """An order whose certificate has its place in the inventory, and where it stands in the batch."""

    position: int
    item: Prepared
    record: CertificateRecord

    def release(self, recorded: CertificateRecord) -> IssuedCertificate:
        """Return the recorded certificate to whoever ordered it."""
        repeated = recorded.id != self.item.record.id
        return released(recorded, self.item.issuer, repeated=repeated, clamped=self.item.clamped)


class Batch:
    """The orders of one call and their answers.

    Args:
        publish_due: publishes those lists of a CA (by its id) that are missing.
        external: how to ask CAs whose keys are with somebody else; ``None`` when there are none.
        policy: which rules of the request policy warn and which refuse.
    """

    def __init__(
        self,
        orders: Sequence[IssueOrder],
        *,
        inventory: Inventory,
        issuers: IssuerCache,
        publish_due: Callable[[str], object],
        external: ExternalCas | None,
        policy: PolicySettings,
        actor: Actor,
        now: datetime,
    ) -> None:
        self._orders = orders
        self._inventory = inventory
        self._issuers = issuers
        self._publish_due = publish_due
        self._external = external
        self._policy = policy
        self._actor = actor
        self._now = now
        self._answers: list[Answer | None] = [None] * len(orders)

    def run(self) -> list[Answer]:
        """Answer the orders in their order; a refused one is answered by its error and the rest go on."""
        reservations = self._reserve_orders()
        self._publish_new_shards({each.item.record.ca for each in reservations if self._opened_a_shard(each.item)})
        signed: list[tuple[_Reserved, bytes]] = []
        for each in reservations:
            if each.record.state is not CertificateState.RESERVED:
                self._answers[each.position] = each.release(each.record)
                continue
            try:
                if each.record.id != each.item.record.id:
                    check_stored(each.record, each.item.issuer)
                signed.append((each, complete(each.record, each.item.issuer)))
            except ChargePkiError as error:
                # The reservation stays: the next run with a working key completes it, or voids it.
                self._answers[each.position] = error
        for (each, _), recorded in zip(signed, self._finish_all(signed), strict=True):
            self._answers[each.position] = recorded if isinstance(recorded, ChargePkiError) else each.release(recorded)
        return [answer for answer in self._answers if answer is not None]

    def _reserve_orders(self) -> list[_Reserved]:
        """Judge and reserve each order; a refused one is answered."""
        opened: dict[str, Issuer] = {}
        reservations: list[_Reserved] = []
        positions: Sequence[int] = range(len(self._orders))
        for _ in range(_SHARD_ROUNDS):
            sound = self._prepare_all(positions, opened)
            taken: list[int] = []
            for (position, item), reserved in zip(sound, self._reserve_all(sound), strict=True):
                if isinstance(reserved, ChargePkiError):
                    self._answers[position] = reserved
                    taken += [position] if isinstance(reserved, ShardTaken) else []
                else:
                    reservations.append(_Reserved(position, item, reserved))
            positions = taken
            if not positions:
                break
        return reservations

    def _prepare_all(self, positions: Sequence[int], opened: dict[str, Issuer]) -> list[tuple[int, Prepared]]:
        """Judge and build the certificates at *positions*.

        Args:
            opened: CAs that were looked up for this batch; `reserve` asks again, in the transaction, whether they may
                still issue.
        """
        sound: list[tuple[int, Prepared]] = []
        shards = ShardChooser(self._inventory, self._now)
        for position in positions:
            order = self._orders[position]
            try:
                issuer = opened.get(order.ca) or opened.setdefault(order.ca, self._issuers.open(order.ca))
                item = prepare(
                    order, issuer, self._inventory, actor=self._actor, now=self._now, shards=shards, policy=self._policy
                )
                sound.append((position, item))
            except NotOurs as outside:
                self._answers[position] = self._ask_outside(order, outside.ca)
            except ChargePkiError as error:
                self._answers[position] = error
        return sound

    def _ask_outside(self, order: IssueOrder, ca: CaRecord) -> Answer:
        from chargepki.pki.authority.external import enrol_outside

        try:
            if self._external is None:
                raise StateError(f"nothing here can ask {ca.name}", fix=f"set [est.ca.{ca.name}] in chargepki.toml")
            ask = self._external(ca)
            return enrol_outside(order, ca, self._inventory, ask, actor=self._actor, now=self._now)
        except ChargePkiError as error:
            return error

    def _opened_a_shard(self, item: Prepared) -> bool:
        # True of a shard that somebody else opened in this second too: publishing what is not due does nothing.
        return item.shard is not None and item.shard.opened_at == self._now

    def _publish_new_shards(self, cas: set[str]) -> None:
        """Publish the first list of shards that were opened just now, before a certificate leaves that names one."""
        for ca in cas:
            # The certificate is reserved, so a folder that cannot be written must not stop it: whoever keeps the
            # lists fresh finds this one missing.
            with contextlib.suppress(ChargePkiError):
                self._publish_due(ca)

    def _reserve_all(self, sound: Sequence[tuple[int, Prepared]]) -> list[CertificateRecord | ChargePkiError]:
        if not sound:
            return []

        def one(tx: Transaction, item: Prepared, may_issue: set[str]) -> CertificateRecord | ChargePkiError:
            try:
                if item.record.ca not in may_issue:
                    check_may_issue(tx, item.record.ca)
                    may_issue.add(item.record.ca)
                return reserve(tx, item, actor=self._actor, now=self._now)
            except ChargePkiError as error:
                return error

        def work(tx: Transaction) -> list[CertificateRecord | ChargePkiError]:
            # Nobody else writes while this runs, so one look at a CA holds for all its reservations.
            may_issue: set[str] = set()
            return [one(tx, item, may_issue) for _, item in sound]

        return self._inventory.write(work)

    def _finish_all(self, signed: Sequence[tuple[_Reserved, bytes]]) -> list[CertificateRecord | ChargePkiError]:
        if not signed:
            return []

        def one(tx: Transaction, record: CertificateRecord, der: bytes) -> CertificateRecord | ChargePkiError:
            try:
                return finish(tx, record, der, actor=self._actor, now=self._now)
            except StateError as error:
                return error

        return self._inventory.write(lambda tx: [one(tx, each.record, der) for each, der in signed])
