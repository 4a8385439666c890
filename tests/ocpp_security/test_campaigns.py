"""The step function of campaigns: waves, rate, stop condition, cancel; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargepki.ocpp_security.campaigns import (
    Begin,
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
    next_campaign_steps,
    operation_id_of,
    plan_stations,
)
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationState,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
S = CampaignStationState
WAITING = plan_stations("c", [f"CS-{number}" for number in range(1, 9)], Pace(), lambda: 0.0)
Counts = Mapping[int, Mapping[CampaignStationState, int]]


def view(
    counts: Counts, *, state: CampaignState = CampaignState.RUNNING, wave: int = 1, **more: object
) -> CampaignView:
    record = CampaignRecord(
        "c", "get-log", {}, {}, state, "alice", NOW, NOW + timedelta(days=1), NOW, wave, NOW - timedelta(hours=1)
    )
    judged = {key: sum(each.get(key, 0) for each in counts.values()) for key in (S.DONE, S.FAILED)}
    return replace(CampaignView(record, Pace(), counts, judged), **more)  # type: ignore[arg-type]  # fields of the view


def test_stations_begin_up_to_the_number_in_flight() -> None:
    steps = next_campaign_steps(view({1: {S.WAITING: 8, S.RUNNING: 47}}, turn=WAITING, has_connected=True), NOW)
    assert steps == (Begin(("CS-1", "CS-2", "CS-3")),)


@pytest.mark.parametrize(("ago", "begun", "expected"), [(0.5, 1, 0), (1, 1, 1), (1.9, 1, 1), (30, 1, 2), (30, 60, 0)])
def test_the_rate_is_kept_and_only_two_seconds_of_it_are_caught_up(ago: float, begun: int, expected: int) -> None:
    found = view(
        {1: {S.WAITING: 8}}, pace=Pace(per_minute=60), turn=WAITING, has_connected=True,
        last_began_at=NOW - timedelta(seconds=ago), begun_last_minute=begun,
    )  # fmt: skip
    steps = next_campaign_steps(found, NOW)
    assert sum(len(step.stations) for step in steps if isinstance(step, Begin)) == expected


@given(rate=st.integers(1, 600), seed=st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_no_minute_has_more_beginnings_than_the_rate_whenever_the_leader_looks(rate: int, seed: list[int]) -> None:
    begun: list[datetime] = []
    now = NOW
    for pause in seed:
        now += timedelta(milliseconds=pause)
        recent = sum(at > now - timedelta(minutes=1) for at in begun)
        found = view(
            {1: {S.WAITING: 10_000}}, pace=Pace(per_minute=rate, max_in_flight=10_000), has_connected=True,
            turn=WAITING * 20, last_began_at=begun[-1] if begun else None, begun_last_minute=recent,
        )  # fmt: skip
        begun += [now for step in next_campaign_steps(found, now) if isinstance(step, Begin) for _ in step.stations]
        assert sum(at > now - timedelta(minutes=1) for at in begun) <= rate


def test_failures_are_settled_before_anything_begins_and_stop_the_campaign_afterwards() -> None:
    ended = (replace(WAITING[0], state=S.RUNNING), Settlement(S.FAILED, {"why": "x"}))
    busy = view({1: {S.DONE: 4, S.RUNNING: 1, S.WAITING: 3}}, ended=[ended], turn=WAITING, has_connected=True)
    assert next_campaign_steps(busy, NOW) == (Settle("CS-1", ended[1]),)
    after = view({1: {S.DONE: 4, S.FAILED: 1, S.WAITING: 3}}, turn=WAITING, has_connected=True)
    assert next_campaign_steps(after, NOW) == (Stop("1 of 5 stations failed, which reaches 20 %"),)


def test_what_failed_before_a_person_let_it_go_on_stops_no_campaign_again() -> None:
    found = view({1: {S.DONE: 4, S.FAILED: 5, S.WAITING: 1}}, judged={}, turn=WAITING[:1], has_connected=True)
    assert next_campaign_steps(found, NOW) == (Begin(("CS-1",)),)


@pytest.mark.parametrize(
    ("counts", "pace"),
    [
        ({S.DONE: 3, S.FAILED: 1}, Pace()),  # fewer than five were judged
        ({S.DONE: 5, S.FAILED: 1}, Pace()),  # below a fifth
        ({S.FAILED: 9}, Pace(stop_percent=None)),
        ({S.UNREACHED: 9, S.SKIPPED: 9}, Pace()),  # they say nothing about what is done to the others
    ],
)
def test_a_campaign_goes_on_below_its_stop_condition(counts: dict[CampaignStationState, int], pace: Pace) -> None:
    found = view({1: {**counts, S.WAITING: 1}}, pace=pace, turn=WAITING[:1], has_connected=True)
    assert next_campaign_steps(found, NOW) == (Begin(("CS-1",)),)


def test_the_next_wave_opens_when_the_one_before_is_over_and_was_watched() -> None:
    counts = {1: {S.DONE: 5}, 2: {S.WAITING: 3}}
    pace = Pace(waves=(5,), between_waves_seconds=600)
    over = view(counts, pace=pace, last_ended_at=NOW - timedelta(seconds=599))
    assert next_campaign_steps(over, NOW) == ()
    assert next_campaign_steps(over, NOW + timedelta(seconds=1)) == (OpenWave(2),)
    running = replace(over, counts={1: {S.RUNNING: 1}, 2: {S.WAITING: 3}})
    assert next_campaign_steps(running, NOW + timedelta(hours=1)) == ()


def test_offline_stations_of_a_wave_do_not_hold_up_the_next_one() -> None:
    counts = {1: {S.DONE: 4, S.WAITING: 1}, 2: {S.WAITING: 3}}
    assert next_campaign_steps(view(counts), NOW) == (OpenWave(2),)
    assert next_campaign_steps(view(counts, has_connected=True), NOW) == ()


def test_a_wave_that_is_offline_as_a_whole_shows_nothing_and_opens_no_next_one() -> None:
    assert next_campaign_steps(view({1: {S.WAITING: 5}, 2: {S.WAITING: 3}}), NOW) == ()
    assert next_campaign_steps(view({1: {S.SKIPPED: 5}, 2: {S.WAITING: 3}}), NOW) == (OpenWave(2),)


def test_what_has_not_begun_in_time_is_given_up_and_the_campaign_ends() -> None:
    late = NOW + timedelta(days=1)
    assert next_campaign_steps(view({1: {S.WAITING: 2, S.RUNNING: 1}}, waiting=WAITING[:2]), late) == (
        GiveUp(("CS-1", "CS-2"), S.UNREACHED),
    )
    assert next_campaign_steps(view({1: {S.UNREACHED: 2, S.RUNNING: 1}}), late) == ()
    assert next_campaign_steps(view({1: {S.UNREACHED: 2, S.DONE: 1}}), late) == (Complete(CampaignState.DONE),)


@pytest.mark.parametrize("state", [CampaignState.PAUSED, CampaignState.STOPPED])
def test_a_campaign_that_rests_settles_and_begins_nothing(state: CampaignState) -> None:
    found = view({1: {S.WAITING: 8, S.RUNNING: 1}}, state=state, turn=WAITING, has_connected=True)
    assert next_campaign_steps(found, NOW) == ()
    ended = (replace(WAITING[0], state=S.RUNNING), Settlement(S.DONE, {}))
    assert next_campaign_steps(replace(found, ended=[ended]), NOW) == (Settle("CS-1", ended[1]),)


def test_a_cancelled_campaign_withdraws_what_was_not_sent_and_waits_for_the_rest() -> None:
    found = view(
        {1: {S.WAITING: 1, S.RUNNING: 2}}, state=CampaignState.CANCELLING, waiting=WAITING[:1], unsent=WAITING[1:2]
    )
    assert next_campaign_steps(found, NOW) == (GiveUp(("CS-1",), S.CANCELLED), Withdraw(("CS-2",)))
    assert next_campaign_steps(view({1: {S.RUNNING: 1}}, state=CampaignState.CANCELLING), NOW) == ()
    done = view({1: {S.CANCELLED: 2, S.DONE: 1}}, state=CampaignState.CANCELLING)
    assert next_campaign_steps(done, NOW) == (Complete(CampaignState.CANCELLED),)


def test_stations_are_laid_out_in_waves_with_a_turn_within_the_jitter() -> None:
    drawn = iter([0.0, 0.5, 0.999, 0.25, 0.1])
    planned = plan_stations("c", list("abcde"), Pace(waves=(1, 2), jitter_seconds=10), lambda: next(drawn))
    assert [(item.station, item.wave, item.delay_ms) for item in planned] == [
        ("a", 1, 0), ("b", 2, 5000), ("c", 2, 9990), ("d", 3, 2500), ("e", 3, 1000),
    ]  # fmt: skip


def test_an_operation_of_a_round_has_one_id_and_the_next_round_another() -> None:
    first = WAITING[0]
    assert operation_id_of(first) == operation_id_of(replace(first, state=S.RUNNING))
    others = [replace(first, round=2), replace(first, station="CS-9"), replace(first, campaign="d")]
    assert len({operation_id_of(item) for item in (first, *others)}) == 4


@pytest.mark.parametrize(
    "values", [{"per_minute": 0}, {"max_in_flight": 0}, {"stop_percent": 101}, {"waves": (0,)}, {"deadline_seconds": 0}]
)
def test_a_pace_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must lie between"):
        Pace(**values)  # type: ignore[arg-type]  # by name


def test_a_pace_survives_its_stored_form() -> None:
    pace = Pace(per_minute=3, waves=(1, 2), stop_percent=None)
    assert Pace.from_json(pace.to_json()) == pace


@pytest.mark.parametrize("stations", [[], ["a", "b", "a"]])
def test_a_selection_without_stations_or_with_one_twice_is_refused(stations: list[str]) -> None:
    with pytest.raises(InputError):
        plan_stations("c", stations, Pace(), lambda: 0.0)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65, "a\n"])
def test_a_name_that_a_command_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_campaign_name(name)


def test_a_naive_clock_is_refused() -> None:
    with pytest.raises(TypeError):
        next_campaign_steps(view({1: {S.WAITING: 1}}), NOW.replace(tzinfo=None))
