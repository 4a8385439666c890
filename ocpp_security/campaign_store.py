"""Campaigns in the inventory: create, steer, look, and carry out the steps; each with its audit entry."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.campaign_kinds import find_kind
from chargepki.ocpp_security.campaign_types import CampaignKind, Objection, Order, Subject
from chargepki.ocpp_security.campaigns import (
    BATCH,
    Begin,
    CampaignStep,
    CampaignView,
    Complete,
    GiveUp,
    OpenWave,
    Pace,
    Settle,
    Settlement,
    Stop,
    Withdraw,
    check_campaign_name,
    operation_id_of,
    plan_stations,
)
from chargepki.ocpp_security.operation_store import OperationStore, add_operation, end_operation
from chargepki.ocpp_security.operations import Finish
from chargepki.pki.errors import ChargePkiError, NotFound, StateError, UnavailableError
from chargepki.pki.inventory import Inventory, SealingKey, Transaction
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationRecord,
    CampaignStationState,
)
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor, OperationRecord, OperationState, StationState

__all__ = ["PRESENCE_STALE", "ROLE", "CampaignStore", "judge_station", "plan_station"]

ROLE: Final = "campaigns"
"""The leadership that whoever carries campaigns out must hold."""
PRESENCE_STALE: Final = timedelta(minutes=15)
"""A connection of which nothing was recorded for three heartbeat intervals is gone: its process was killed."""
_LOOK_AGAIN: Final = timedelta(seconds=30)
"""When a precondition that was not met is looked at again."""
_LOOK_AGAIN_LATER: Final = timedelta(minutes=5)
"""The same when it was not met the time before for the same reason."""
_AUDITED_AT_ONCE: Final = 500
"""Stations that one audit entry accounts for at most."""


def judge_station(
    reads: Reads, kind: CampaignKind, station: str, parameters: Mapping[str, object], now: datetime
) -> Objection | None:
    """Return the precondition of *kind* that *station* does not meet, or ``None``."""
    return plan_station(reads, kind, station, parameters, now)[0]


def plan_station(
    reads: Reads, kind: CampaignKind, station: str, parameters: Mapping[str, object], now: datetime
) -> tuple[Objection | None, tuple[str, ...]]:
    """Return the precondition of *kind* that *station* does not meet, or what would be done to it, step by step."""
    record = reads.find_station(station)
    if record is None or record.state is not StationState.ACTIVE:
        return Objection("the station is removed"), ()
    subject = Subject(reads, record, reads.find_presence(station), parameters, now)
    objection = kind.judge(subject)
    return objection, kind.describe(subject) if objection is None else ()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A station whose preconditions were looked at, with the operation that it gets."""

    station: str
    objection: Objection | None = None
    operation: OperationRecord | None = None
    order: Order | None = None


class CampaignStore:
    """The durable side of campaigns; every method is one transaction, or several of which each leaves a whole state."""

    def __init__(self, inventory: Inventory, sealing: SealingKey, *, owner: str, actor: Actor) -> None:
        """Set up.

        Args:
            owner: name of this process in leases, unique among all that share the inventory.
            actor: who acts, for the audit log.
        """
        self._inventory = inventory
        self._sealing = sealing
        # Not the name under which this process carries operations out: what it works on is not ours to withdraw.
        self._owner = f"{owner} (campaigns)"
        self._actor = actor
        self._operations = OperationStore(inventory, sealing, owner=self._owner, actor=actor)

    # -- what a person does -------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        kind: str,
        parameters: Mapping[str, object],
        stations: Sequence[str],
        pace: Pace,
        *,
        now: datetime,
        ends_at: datetime,
        paused: bool = False,
        check: Callable[[Transaction], None] = lambda tx: None,
        draw: Callable[[], float] = random.random,
    ) -> CampaignRecord:
        """Store a campaign; it begins at once unless *paused*.

        Args:
            check: raises, in the transaction that stores it, when what it was planned on is so no more.
            draw: gives random numbers in [0, 1) for the jitter; no secret hangs on them.

        Raises:
            InputError: unknown kind, no name of a campaign, or no stations.
            Conflict: the name is taken.
            NotFound: a station does not exist.
            StateError: it would end before it begins.
        """
        check_campaign_name(name)
        find_kind(kind).check(self._inventory, parameters, now)
        if ends_at <= now:
            raise StateError("the campaign would end before it begins", fix="give it more time")
        record = CampaignRecord(
            id=name,
            kind=kind,
            parameters=dict(parameters),
            pace=pace.to_json(),
            state=CampaignState.PAUSED if paused else CampaignState.RUNNING,
            requester=self._actor.name,
            created_at=now,
            ends_at=ends_at,
            changed_at=now,
            wave=1,
            wave_began_at=now,
            why="created so" if paused else None,
        )
        members = plan_stations(name, stations, pace, draw)

        def work(tx: Transaction) -> CampaignRecord:
            check(tx)
            tx.add_campaign(record)
            details: dict[str, object] = {"kind": kind, "stations": len(members), "state": record.state.value}
            for number, member in enumerate(members, start=1):
                tx.get_station(member.station)
                tx.add_campaign_station(member)
                if number % _AUDITED_AT_ONCE == 0 or number == len(members):
                    tx.audit(self._actor, "campaign.create", name, now=now, details=details)
            return record

        return self._inventory.write(work)

    def pause(self, name: str, why: str, *, now: datetime) -> CampaignRecord:
        """Begin nothing more; what has begun goes on. Pausing again changes nothing.

        Raises:
            NotFound: no such campaign.
            StateError: it has ended.
        """
        return self._steer(name, "pause", CampaignState.PAUSED, now, why, open_only=True)

    def resume(
        self, name: str, *, now: datetime, pace: Pace | None = None, ends_at: datetime | None = None
    ) -> CampaignRecord:
        """Go on after a pause or a stop; the open wave begins anew, with its jitter.

        Args:
            pace: replaces the one before; the waves stay as they were laid out.
            ends_at: replaces the one before.

        Raises:
            NotFound: no such campaign.
            StateError: it has ended, or is being cancelled.
        """
        return self._steer(name, "resume", CampaignState.RUNNING, now, None, pace=pace, ends_at=ends_at)

    def cancel(self, name: str, why: str, *, now: datetime) -> CampaignRecord:
        """Withdraw what has not begun, and what was not sent yet; the rest is waited for.

        Raises:
            NotFound: no such campaign.
            StateError: it has ended.
        """
        return self._steer(name, "cancel", CampaignState.CANCELLING, now, why, open_only=True)

    def retry(
        self, name: str, states: Sequence[CampaignStationState], *, now: datetime, ends_at: datetime
    ) -> tuple[CampaignRecord, int]:
        """Let the stations that ended in *states* take part once more; return how many.

        Raises:
            NotFound: no such campaign.
            StateError: it is being cancelled.
        """

        def work(tx: Transaction) -> tuple[CampaignRecord, int]:
            before = tx.get_campaign(name)
            if before.state is CampaignState.CANCELLING:
                raise StateError(f"campaign {name} is being cancelled", fix="wait until it is cancelled")
            members = [item for state in states for item in tx.list_campaign_stations(name, state=state)]
            if not members:
                return before, 0
            record = tx.change_campaign(
                name, state=CampaignState.RUNNING, changed_at=now, wave_began_at=now, ends_at=ends_at, why=None
            )
            for number, member in enumerate(members, start=1):
                tx.change_campaign_station(
                    name, member.station, expected=member.state, state=CampaignStationState.WAITING,
                    round=member.round + 1, not_before=None, ended_at=None, operation=None, outcome=None,
                )  # fmt: skip
                if number % _AUDITED_AT_ONCE == 0 or number == len(members):
                    tx.audit(self._actor, "campaign.retry", name, now=now, details={"stations": len(members)})
            return record, len(members)

        return self._inventory.write(work)

    def _steer(
        self,
        name: str,
        verb: str,
        state: CampaignState,
        now: datetime,
        why: str | None,
        *,
        open_only: bool = False,
        pace: Pace | None = None,
        ends_at: datetime | None = None,
    ) -> CampaignRecord:
        def work(tx: Transaction) -> CampaignRecord:
            before = tx.get_campaign(name)
            if before.state.is_final or (before.state is CampaignState.CANCELLING and state is not before.state):
                raise StateError(
                    f"campaign {name} is {before.state.value}, so it cannot {verb}",
                    fix=f"see what came of its stations: chargepki campaign show {name}",
                )
            if before.state is state and pace is None and ends_at is None:
                return before
            changed = tx.change_campaign(name, state=state, changed_at=now, why=why)
            if not open_only:
                if ends_at is not None:
                    tx.change_campaign(name, ends_at=ends_at)
                if pace is not None:
                    tx.change_campaign(name, pace=pace.to_json())
                changed = tx.change_campaign(name, wave_began_at=now)
            details = {"before": before.state.value, **({"why": why} if why else {})}
            tx.audit(self._actor, f"campaign.{verb}", name, now=now, details=details)
            return changed

        return self._inventory.write(work)

    # -- what the leader does -----------------------------------------------------------------------------------

    def view(self, campaign: CampaignRecord, now: datetime) -> CampaignView:
        """Read what `campaigns.next_campaign_steps` needs."""
        inventory, kind = self._inventory, find_kind(campaign.kind)
        seen_since = now - PRESENCE_STALE
        ended: list[tuple[CampaignStationRecord, Settlement]] = []
        for member in inventory.list_campaign_ended(campaign.id):
            settlement = kind.settle(
                inventory, campaign.parameters, inventory.get_operation(str(member.operation)), now
            )
            if settlement is not None:
                ended.append((member, settlement))
        unsent: tuple[CampaignStationRecord, ...] = ()
        if campaign.state is CampaignState.CANCELLING:
            running = inventory.list_campaign_stations(campaign.id, state=CampaignStationState.RUNNING)
            unsent = tuple(item for item in running if not inventory.list_attempts(str(item.operation)))
        began, last_ended = inventory.latest_in_campaign(campaign.id)
        is_over = campaign.state is CampaignState.CANCELLING or now >= campaign.ends_at
        is_running = campaign.state is CampaignState.RUNNING
        waiting = CampaignStationState.WAITING
        return CampaignView(
            campaign=campaign,
            pace=Pace.from_json(campaign.pace),
            counts=inventory.count_campaign_stations(campaign.id),
            judged=inventory.count_campaign_ended(campaign.id, campaign.changed_at) if is_running else {},
            ended=ended,
            turn=inventory.list_campaign_turn(campaign, now=now, seen_since=seen_since, limit=BATCH)
            if is_running
            else (),
            has_connected=inventory.has_campaign_connected(campaign, seen_since=seen_since),
            last_began_at=began,
            last_ended_at=last_ended,
            begun_last_minute=inventory.count_campaign_begun(campaign.id, now - timedelta(minutes=1)),
            waiting=tuple(inventory.list_campaign_stations(campaign.id, state=waiting, limit=BATCH)) if is_over else (),
            unsent=unsent,
        )

    def perform(self, campaign: CampaignRecord, steps: Sequence[CampaignStep], *, fence: int, now: datetime) -> None:
        """Carry *steps* out in one transaction; whatever has changed since they were chosen is left alone.

        Args:
            fence: of the leadership, which must still be held.

        Raises:
            Conflict: somebody else leads now; nothing was changed.
            UnavailableError: the inventory cannot be written; what came of it is read back with the next view.
        """
        prepared = {
            name: self._prepare(campaign, name, now)
            for step in steps
            if isinstance(step, Begin)
            for name in step.stations
        }

        def work(tx: Transaction) -> None:
            tx.check_leadership(ROLE, fence)
            current = tx.get_campaign(campaign.id)
            for step in steps:
                self._perform(tx, current, step, prepared, now)

        self._inventory.write(work)
        settled = (step.settlement.state for step in steps if isinstance(step, Settle))
        if CampaignStationState.DONE in settled and find_kind(campaign.kind).retire is not None:
            # The campaign goes on when no responder denies what it has revoked, as `Authority.revoke` does.
            self._inventory.wait_for_assent()

    def _prepare(self, campaign: CampaignRecord, station: str, now: datetime) -> _Prepared:
        """Look at the preconditions and make the operation; outside of the transaction, since a hash takes its time."""
        inventory, kind = self._inventory, find_kind(campaign.kind)
        objection = judge_station(inventory, kind, station, campaign.parameters, now)
        if objection is not None:
            return _Prepared(station, objection)
        member = inventory.find_campaign_station(campaign.id, station)
        assert member is not None, "its turn has come, so it is there"
        subject = Subject(
            inventory, inventory.get_station(station), inventory.find_presence(station), campaign.parameters, now
        )
        pace = Pace.from_json(campaign.pace)
        try:
            order = kind.order(subject, self._sealing)
            operation = self._operations.build(
                kind.operation,
                station,
                order.parameters,
                operation_id=operation_id_of(member),
                actor=self._actor,
                now=now,
                deadline=now + timedelta(seconds=pace.deadline_seconds),
                secret=order.secret,
            )
        except UnavailableError:
            raise
        except ChargePkiError as error:
            return _Prepared(station, Objection(str(error)))
        return _Prepared(station, operation=operation, order=order)

    def _perform(
        self,
        tx: Transaction,
        campaign: CampaignRecord,
        step: CampaignStep,
        prepared: Mapping[str, _Prepared],
        now: datetime,
    ) -> None:
        match step:
            case Begin(stations):
                for station in stations if campaign.state is CampaignState.RUNNING else ():
                    self._begin(tx, campaign, prepared[station], now)
            case Settle(station, settlement):
                self._end(tx, campaign, station, CampaignStationState.RUNNING, settlement, now)
            case GiveUp(stations, state):
                for station in stations:
                    self._give_up(tx, campaign, station, state, now)
            case Withdraw(stations):
                for station in stations:
                    self._withdraw(tx, campaign, station, now)
            case OpenWave(wave) if campaign.wave < wave and campaign.state is CampaignState.RUNNING:
                tx.change_campaign(campaign.id, wave=wave, wave_began_at=now)
                tx.audit(self._actor, "campaign.wave", campaign.id, now=now, details={"wave": wave})
            case Stop(why) if campaign.state is CampaignState.RUNNING:
                tx.change_campaign(campaign.id, state=CampaignState.STOPPED, changed_at=now, why=why)
                tx.audit(self._actor, "campaign.stop", campaign.id, now=now, details={"why": why})
            case Complete(state) if not campaign.state.is_final:
                tx.change_campaign(campaign.id, state=state, changed_at=now)
                counts = tx.count_campaign_stations(campaign.id).values()
                total = {key.value: sum(each.get(key, 0) for each in counts) for key in CampaignStationState}
                details = {"state": state.value, "stations": {key: count for key, count in total.items() if count}}
                tx.audit(self._actor, "campaign.finish", campaign.id, now=now, details=details)
            case _:
                pass

    def _begin(self, tx: Transaction, campaign: CampaignRecord, found: _Prepared, now: datetime) -> None:
        member = tx.find_campaign_station(campaign.id, found.station)
        if member is None or member.state is not CampaignStationState.WAITING:
            return
        objection = found.objection
        if found.operation is not None:
            try:
                within = found.order.within if found.order is not None else None
                add_operation(tx, found.operation, actor=self._actor, now=now, within=within)
            except (StateError, NotFound) as error:
                objection = Objection(str(error), is_final=False)
            else:
                tx.change_campaign_station(
                    campaign.id, member.station, expected=member.state, state=CampaignStationState.RUNNING,
                    began_at=now, not_before=None, operation=found.operation.id, outcome=None,
                )  # fmt: skip
                self._note(tx, "begin", campaign, member.station, now, {"operation": found.operation.id})
                return
        assert objection is not None
        if objection.is_final:
            settlement = Settlement(CampaignStationState.SKIPPED, {"why": objection.why})
            self._end(tx, campaign, member.station, member.state, settlement, now)
            return
        outcome = {"why": objection.why}
        later = _LOOK_AGAIN_LATER if member.outcome == outcome else _LOOK_AGAIN
        tx.change_campaign_station(
            campaign.id, member.station, expected=member.state, not_before=now + later, outcome=outcome
        )  # fmt: skip
        self._note(tx, "postpone", campaign, member.station, now, {"why": objection.why})

    def _end(
        self,
        tx: Transaction,
        campaign: CampaignRecord,
        station: str,
        expected: CampaignStationState,
        settlement: Settlement,
        now: datetime,
    ) -> None:
        member = tx.find_campaign_station(campaign.id, station)
        if member is None or member.state is not expected:
            return
        tx.change_campaign_station(
            campaign.id, station, expected=expected, state=settlement.state, ended_at=now,
            not_before=None, outcome=settlement.outcome,
        )  # fmt: skip
        details = {"state": settlement.state.value, **settlement.outcome}
        self._note(tx, "settle", campaign, station, now, details)
        retire = find_kind(campaign.kind).retire
        if settlement.state is CampaignStationState.DONE and retire is not None:
            retire(tx, campaign.parameters, station, self._actor, now)

    def _give_up(
        self, tx: Transaction, campaign: CampaignRecord, station: str, state: CampaignStationState, now: datetime
    ) -> None:
        outcome: dict[str, object] = {"why": "the campaign was cancelled"}
        if state is CampaignStationState.UNREACHED:
            member, presence = tx.find_campaign_station(campaign.id, station), tx.find_presence(station)
            why = "the station has never connected"
            if presence is not None:
                why = f"the station was last seen at {presence.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"
            if member is not None and member.outcome and member.outcome.get("why"):
                why = str(member.outcome["why"])
            outcome = {"why": why}
        self._end(tx, campaign, station, CampaignStationState.WAITING, Settlement(state, outcome), now)

    def _withdraw(self, tx: Transaction, campaign: CampaignRecord, station: str, now: datetime) -> None:
        member = tx.find_campaign_station(campaign.id, station)
        if member is None or member.operation is None or tx.list_attempts(member.operation):
            return
        # Whoever is about to send holds its lease, and ours is not given out then.
        leased = tx.lease_operation(owner=self._owner, until=now + timedelta(seconds=30), now=now, id=member.operation)
        if leased is None:
            return
        outcome = {"why": "the campaign was cancelled before anything was sent"}
        end_operation(tx, leased, Finish(OperationState.FAILED, outcome), actor=self._actor, now=now)
        settlement = Settlement(CampaignStationState.CANCELLED, outcome)
        self._end(tx, campaign, station, CampaignStationState.RUNNING, settlement, now)

    def _note(
        self,
        tx: Transaction,
        verb: str,
        campaign: CampaignRecord,
        station: str,
        now: datetime,
        details: Mapping[str, object],
    ) -> None:
        tx.audit(self._actor, f"campaign.{verb}", campaign.id, now=now, details={"station": station, **details})
