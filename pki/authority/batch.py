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
    chain_of,
    check_may_issue,
    check_stored,
    complete,
    finish,
    prepare,
    released,
    reserve,
)
from chargepki.pki.authority.issuers import IssuerCache, NotOurs
from chargepki.pki.authority.lane import Lane
from chargepki.pki.authority.lane_commit import (
    Signed,
    issue_quick,
    link_stations,
    reserve_quick,
    sign_quick,
    sort_out,
)
from chargepki.pki.authority.lane_fill import prepare_known
from chargepki.pki.authority.lane_kind import Known, Quick
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder
from chargepki.pki.authority.shards import ShardChooser, ShardTaken
from chargepki.pki.errors import ChargePkiError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.bulk_writes import ReservationChanged
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateRecord, CertificateState
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles import get_profile

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

    def release(self, recorded: CertificateRecord, inventory: Inventory) -> IssuedCertificate:
        """Return the recorded certificate to whoever ordered it."""
        repeated = recorded.id != self.item.record.id
        if recorded.ca != self.item.record.ca:  # of a generation before
            assert recorded.der is not None
            chain = chain_of(inventory, inventory.get_ca(recorded.ca))
            return IssuedCertificate(recorded, recorded.der, (recorded.der, *chain), repeated=repeated)
        return released(recorded, self.item.issuer, repeated=repeated, clamped=self.item.clamped)


class Batch:
    """The orders of one call and their answers.

    Args:
        lane: what was learnt of earlier orders.
        publish_due: publishes those lists of a CA (by its id) that are missing.
        external: how to ask CAs whose keys are with somebody else; ``None`` when there are none.
        policy: which rules of the request policy warn and which refuse.
        check_ca_profile: refuses a profile of CAs where certifying them needs approvals.
    """

    def __init__(
        self,
        orders: Sequence[IssueOrder],
        *,
        inventory: Inventory,
        issuers: IssuerCache,
        lane: Lane,
        publish_due: Callable[[str], object],
        external: ExternalCas | None,
        policy: PolicySettings,
        check_ca_profile: Callable[[str], None],
        actor: Actor,
        now: datetime,
    ) -> None:
        self._check_ca_profile = check_ca_profile
        self._orders = orders
        self._inventory = inventory
        self._issuers = issuers
        self._lane = lane
        self._publish_due = publish_due
        self._external = external
        self._policy = policy
        self._actor = actor
        self._now = now
        self._answers: list[Answer | None] = [None] * len(orders)

    def run(self) -> list[Answer]:
        """Answer the orders in their order; a refused one is answered by its error and the rest go on."""
        reservations, quick = self._reserve_orders()
        self._publish_new_shards({each.item.record.ca for each in reservations if self._opened_a_shard(each.item)})
        signed: list[tuple[_Reserved, bytes]] = []
        for each in reservations:
            if each.record.state is not CertificateState.RESERVED:
                self._answers[each.position] = each.release(each.record, self._inventory)
                continue
            try:
                if each.record.id != each.item.record.id:
                    check_stored(each.record, each.item.issuer)
                signed.append((each, complete(each.record, each.item.issuer)))
            except ChargePkiError as error:
                # The reservation stays: the next run with a working key completes it, or voids it.
                self._answers[each.position] = error
        quickly: list[Signed] = []
        for position, outcome in sign_quick(quick):
            if isinstance(outcome, Signed):
                quickly.append(outcome)
            else:
                self._answers[position] = outcome  # as above
        for (each, _), recorded in zip(signed, self._finish_all(signed, quickly), strict=True):
            self._answers[each.position] = (
                recorded if isinstance(recorded, ChargePkiError) else each.release(recorded, self._inventory)
            )
        return [answer for answer in self._answers if answer is not None]

    def _released(self, reserved: _Reserved, recorded: CertificateRecord | ChargePkiError) -> Answer:
        return recorded if isinstance(recorded, ChargePkiError) else reserved.release(recorded, self._inventory)

    def _reserve_orders(self) -> tuple[list[_Reserved], list[tuple[int, Quick]]]:
        """Judge and reserve each order; a refused one is answered.

        Returns:
            what went the careful way, and what went the fast lane, with its places in the batch.
        """
        opened: dict[str, Issuer] = {}
        reservations: list[_Reserved] = []
        reserved_quick: list[tuple[int, Quick]] = []
        positions: Sequence[int] = range(len(self._orders))
        for _ in range(_SHARD_ROUNDS):
            sound, quick = self._prepare_all(positions, opened)
            taken: list[int] = []
            for position, item, reserved in self._reserve_all(sound, quick):
                if isinstance(reserved, ChargePkiError):
                    self._answers[position] = reserved
                    taken += [position] if isinstance(reserved, ShardTaken) else []
                elif isinstance(item, Quick):
                    reserved_quick.append((position, item))
                else:
                    assert reserved is not None
                    reservations.append(_Reserved(position, item, reserved))
            positions = sorted(taken)
            if not positions:
                break
        return reservations, reserved_quick

    def _prepare_all(
        self, positions: Sequence[int], opened: dict[str, Issuer]
    ) -> tuple[list[tuple[int, Prepared]], list[tuple[int, Quick]]]:
        """Judge and build the certificates at *positions*, on the fast lane where they are of a known kind.

        Args:
            opened: CAs that were looked up for this batch; `reserve` asks again, in the transaction, whether they may
                still issue.
        """
        sound: list[tuple[int, Prepared]] = []
        quick: list[tuple[int, Quick]] = []
        lot: list[tuple[int, Known]] = []
        shards = ShardChooser(self._inventory, self._now)
        for position in positions:
            order = self._orders[position]
            try:
                if get_profile(order.profile).is_ca:
                    self._check_ca_profile(order.profile)
                issuer = opened.get(order.ca) or opened.setdefault(order.ca, self._issuers.open(order.ca))
                known = self._lane.find(order, issuer, actor=self._actor, policy=self._policy)
                if known is not None:
                    lot.append((position, known))
                else:
                    sound.append((position, self._prepare_with_care(order, issuer, shards)))
            except NotOurs as outside:
                self._answers[position] = self._ask_outside(order, outside.ca)
            except ChargePkiError as error:
                self._answers[position] = error
        made = prepare_known([known for _, known in lot], now=self._now, choose_shard=shards.choose)
        for (position, known), item in zip(lot, made, strict=True):
            if isinstance(item, Quick):
                quick.append((position, item))
                continue
            try:
                if item is not None:
                    raise item
                sound.append((position, self._prepare_with_care(known.order, known.kind.issuer, shards)))
            except ChargePkiError as error:
                self._answers[position] = error
        link_stations(self._inventory, [item for _, item in quick])
        return sound, quick

    def _prepare_with_care(self, order: IssueOrder, issuer: Issuer, shards: ShardChooser) -> Prepared:
        """Judge and build one certificate, and take note of its kind."""
        item = prepare(
            order, issuer, self._inventory, actor=self._actor, now=self._now, shards=shards, policy=self._policy
        )
        self._lane.learn(item, actor=self._actor, now=self._now)
        return item

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

    def _reserve_all(
        self, sound: Sequence[tuple[int, Prepared]], quick: Sequence[tuple[int, Quick]]
    ) -> list[tuple[int, Prepared | Quick, CertificateRecord | ChargePkiError | None]]:
        """Reserve all; return each with its place and its reservation, its error, or ``None`` on the fast lane."""
        if not sound and not quick:
            return []
        # Nobody else writes while this runs, so one look at a CA holds for all its reservations.
        return self._inventory.write(lambda tx: self._reserve_in(tx, sound, quick))

    def _reserve_in(
        self, tx: Transaction, sound: Sequence[tuple[int, Prepared]], quick: Sequence[tuple[int, Quick]]
    ) -> list[tuple[int, Prepared | Quick, CertificateRecord | ChargePkiError | None]]:
        answers: list[tuple[int, Prepared | Quick, CertificateRecord | ChargePkiError | None]] = []
        stopped: dict[str, ChargePkiError] = {}
        for ca in {item.record.ca for _, item in sound} | {item.issuer.ca.id for _, item in quick}:
            try:
                check_may_issue(tx, ca)
            except ChargePkiError as error:
                stopped[ca] = error
        answers += [(place, item, stopped[item.issuer.ca.id]) for place, item in quick if item.issuer.ca.id in stopped]
        quick = [each for each in quick if each[1].issuer.ca.id not in stopped]
        careful = list(sound)
        if quick:
            found = sort_out(tx, quick, self._now)
            refusals = reserve_quick(tx, found.plain, actor=self._actor, now=self._now)
            answers += [(place, item, refused) for (place, item), refused in zip(found.plain, refusals, strict=True)]
            careful += [(place, item.to_prepared()) for place, item in found.doubtful]
        # In the order of the batch: of two orders with one key the first is the one that nothing is said of.
        for place, item in sorted(careful, key=lambda each: each[0]):
            try:
                if item.record.ca in stopped:
                    raise stopped[item.record.ca]
                answers.append((place, item, reserve(tx, item, actor=self._actor, now=self._now)))
            except ChargePkiError as error:
                answers.append((place, item, error))
        return answers

    def _finish_all(
        self, signed: Sequence[tuple[_Reserved, bytes]], quick: Sequence[Signed]
    ) -> list[CertificateRecord | ChargePkiError]:
        """Record all; those of the fast lane are answered here."""
        if not signed and not quick:
            return []

        def one(tx: Transaction, record: CertificateRecord, der: bytes) -> CertificateRecord | ChargePkiError:
            try:
                return finish(tx, record, der, actor=self._actor, now=self._now)
            except StateError as error:
                return error

        def work(tx: Transaction) -> list[CertificateRecord | ChargePkiError]:
            if quick:
                issue_quick(tx, quick, actor=self._actor, now=self._now)
            return [one(tx, each.record, der) for each, der in signed]

        try:
            recorded = self._inventory.write(work)
        except ReservationChanged:
            # Somebody wrote to a reservation of the fast lane: look at each of them.
            aside: list[tuple[_Reserved, bytes]] = []
            for each in quick:
                item = each.item.to_prepared()
                aside.append((_Reserved(each.position, item, item.record), each.der))
            both = self._finish_all([*signed, *aside], [])
            for (held, _), found in zip(aside, both[len(signed) :], strict=True):
                self._answers[held.position] = (
                    found if isinstance(found, ChargePkiError) else held.release(found, self._inventory)
                )
            return both[: len(signed)]
        for done in quick:
            self._answers[done.position] = done.release(self._now)
        return recorded
