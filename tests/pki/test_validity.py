"""Windows are inclusive, back-dated by five minutes, and never pass the issuer's end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.errors import ClockBehind, InputError, IssuerOutlived
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile
from chargepki.pki.validity import BACKDATING, CLOCK_TOLERANCE, Window, choose_window
from testkit.effort import examples

NOW = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
WHOLE = NOW.replace(microsecond=0)
SECOND = timedelta(seconds=1)
ISSUER = Window(WHOLE - timedelta(days=365), WHOLE + timedelta(days=365))
SECC = get_profile("iso15118-2/secc")


def test_a_root_counts_both_bounds_and_is_back_dated() -> None:
    window, clamped = choose_window(get_profile("iso15118-2/v2g-root"), NOW, None, None)
    assert window.not_before == WHOLE - timedelta(minutes=5)
    assert window.not_after == window.not_before + timedelta(days=40 * 365) - SECOND
    assert window.duration == timedelta(days=40 * 365)
    assert not clamped


def test_not_before_never_lies_before_the_issuer() -> None:
    young = Window(WHOLE - timedelta(minutes=1), WHOLE + timedelta(days=365))
    window, _ = choose_window(SECC, NOW, young, None)
    assert window.not_before == young.not_before


def test_a_clock_that_is_far_behind_the_issuer_dates_nothing() -> None:
    young = Window(WHOLE + CLOCK_TOLERANCE, WHOLE + timedelta(days=365))
    assert choose_window(SECC, NOW, young, None)[0].not_before == young.not_before
    with pytest.raises(ClockBehind, match="clock says 2026-03-01 11:59:59 UTC"):
        choose_window(SECC, NOW - SECOND, young, None)


def test_a_default_beyond_the_issuer_is_clamped_and_said_so() -> None:
    short = Window(WHOLE - timedelta(days=1), WHOLE + timedelta(days=3))
    assert choose_window(SECC, NOW, short, None) == (Window(WHOLE - BACKDATING, short.not_after), True)


def test_an_explicit_validity_beyond_the_issuer_is_refused() -> None:
    with pytest.raises(IssuerOutlived, match="after its issuer") as caught:
        choose_window(SECC, NOW, ISSUER, timedelta(days=366))
    assert "V2G20-1004" in caught.value.why
    assert "--validity" in caught.value.fix


def test_an_explicit_validity_that_ends_with_the_issuer_is_granted() -> None:
    exact = ISSUER.not_after - (WHOLE - BACKDATING) + SECOND
    window, clamped = choose_window(SECC, NOW, ISSUER, exact)
    assert (window.not_after, clamped) == (ISSUER.not_after, False)
    with pytest.raises(IssuerOutlived):
        choose_window(SECC, NOW, ISSUER, exact + SECOND)


def test_an_expired_issuer_signs_nothing() -> None:
    gone = Window(WHOLE - timedelta(days=9), WHOLE - timedelta(minutes=1))
    for requested in (None, timedelta(minutes=1)):
        with pytest.raises(IssuerOutlived, match="expired on"):
            choose_window(SECC, NOW, gone, requested)


def test_an_issuer_signs_until_the_end_of_its_last_second() -> None:
    last = Window(WHOLE - timedelta(days=9), WHOLE)
    assert choose_window(SECC, NOW, last, None) == (Window(WHOLE - BACKDATING, WHOLE), True)
    with pytest.raises(IssuerOutlived):
        choose_window(SECC, WHOLE + SECOND, last, None)


@pytest.mark.parametrize("requested", [timedelta(0), timedelta(days=-1), timedelta(milliseconds=999)])
def test_less_than_a_second_is_no_validity(requested: timedelta) -> None:
    with pytest.raises(InputError, match="no validity"):
        choose_window(SECC, NOW, ISSUER, requested)


def test_a_validity_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(InputError, match="9999"):
        choose_window(SECC, NOW, None, timedelta(days=365 * 9000))


def test_naive_times_are_a_programming_error() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of this test
    with pytest.raises(TypeError):
        choose_window(SECC, naive, None, None)
    with pytest.raises(TypeError):
        Window(naive, naive)


def test_a_window_is_in_order_and_in_whole_seconds() -> None:
    with pytest.raises(ValueError, match="ends before"):
        Window(WHOLE, WHOLE - SECOND)
    with pytest.raises(ValueError, match="whole seconds"):
        Window(WHOLE, NOW)


def test_the_last_second_counts_to_its_end() -> None:
    window = Window(WHOLE, WHOLE)
    assert window.duration == SECOND
    assert window.contains(WHOLE + timedelta(milliseconds=999))
    assert not window.contains(WHOLE + SECOND)
    assert not window.contains(WHOLE - timedelta(milliseconds=1))


@settings(max_examples=examples(200))
@given(
    profile=st.sampled_from(list_profiles()),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone(timedelta(hours=5)))),  # noqa: DTZ001 - hypothesis wants naive bounds
    age=st.timedeltas(timedelta(0), timedelta(days=4000)),
    left=st.timedeltas(timedelta(0), timedelta(days=20000)),
    requested=st.none() | st.timedeltas(SECOND, timedelta(days=20000)),
)
def test_every_window_lies_inside_its_issuer_and_lasts_what_was_asked(
    profile: Profile, now: datetime, age: timedelta, left: timedelta, requested: timedelta | None
) -> None:
    issuer = Window((now - age).replace(microsecond=0), (now + left).replace(microsecond=0) + SECOND)
    try:
        window, clamped = choose_window(profile, now, issuer, requested)
    except IssuerOutlived:
        assert requested is not None
        return
    assert max(issuer.not_before, now.replace(microsecond=0) - BACKDATING) == window.not_before <= now
    assert window.not_after <= issuer.not_after
    wanted = requested or profile.validity.default
    assert clamped == (window.duration < timedelta(seconds=int(wanted.total_seconds())))
    assert window.not_before.utcoffset() == timedelta(0)
