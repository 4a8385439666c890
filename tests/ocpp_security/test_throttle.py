"""Sliding windows and repetition filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from chargepki.ocpp_security.throttle import RepeatFilter, WindowCounter

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_the_limit_is_reached_within_the_window_and_left_after_it() -> None:
    counter = WindowCounter(10 * SECOND, 3)
    assert [counter.add("a", NOW + index * SECOND) for index in range(3)] == [1, 2, 3]
    assert counter.reached("a", NOW + 10 * SECOND)
    assert not counter.reached("a", NOW + 11 * SECOND)
    assert not counter.reached("b", NOW)


def test_a_key_that_proved_right_starts_afresh() -> None:
    counter = WindowCounter(10 * SECOND, 1)
    counter.add("a", NOW)
    counter.forget("a")
    assert not counter.reached("a", NOW)


@given(st.lists(st.integers(0, 50), max_size=200))
def test_every_flood_of_keys_keeps_memory_bounded(keys: list[int]) -> None:
    counter, repeats = WindowCounter(SECOND, 2, max_keys=5), RepeatFilter(SECOND, max_keys=5)
    for key in keys:
        counter.add(key, NOW)
        repeats.admit(key, NOW)
    assert len(counter._events) <= 5
    assert len(repeats._seen) <= 5


@given(st.lists(st.integers(0, 3600), min_size=1, max_size=100))
def test_every_repetition_is_let_through_or_counted(seconds: list[int]) -> None:
    repeats = RepeatFilter(60 * SECOND)
    through, told, last = 0, 0, None
    for second in sorted(seconds):
        held_back = repeats.admit("key", NOW + second * SECOND)
        if held_back is None:
            assert last is not None and second - last < 60
        else:
            through, told, last = through + 1, told + held_back, second
    assert through + told <= len(seconds)
    assert through >= 1
