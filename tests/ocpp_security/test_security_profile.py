"""Security profiles: what connections use, and which changes are allowed."""

from __future__ import annotations

import pytest

from chargepki.ocpp_security.security_profile import (
    DEMANDS,
    ProfileTooLow,
    SecurityProfile,
    check_profile_allowed,
    choose_profile,
    judge_change,
    parse_profiles,
)
from chargepki.pki.errors import InputError

P0, P1, P2, P3 = SecurityProfile


def test_each_profile_demands_what_its_table_row_says() -> None:
    demanded = {p: (d.tls, d.basic_auth, d.client_certificate) for p, d in DEMANDS.items()}
    assert demanded == {
        P0: (False, False, False),
        P1: (False, True, False),
        P2: (True, True, False),
        P3: (True, False, True),
    }


@pytest.mark.parametrize("text", ["", "0,2", "0,1,2", "4", "1,2", "2,2", "2;3", "two"])
def test_a_senseless_set_of_profiles_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_profiles(text)


def test_profiles_2_and_3_may_share_a_port() -> None:
    assert parse_profiles("2,3") == {P2, P3}
    assert parse_profiles("0,1") == {P0, P1}


def test_no_profile_is_what_comes_without_credentials_where_it_is_offered() -> None:
    clear = {"tls": False, "client_certificate": False}
    assert choose_profile({P0, P1}, **clear, credentials=False) is P0
    assert choose_profile({P0, P1}, **clear, credentials=True) is P1
    assert choose_profile({P1}, **clear, credentials=False) is P1
    assert choose_profile({P0}, **clear, credentials=True) is P0
    assert choose_profile({P0}, tls=True, client_certificate=False) is None


@pytest.mark.parametrize(
    ("offered", "tls", "certificate", "expected"),
    [
        ({P2, P3}, True, True, P3),
        ({P2, P3}, True, False, P2),
        ({P2}, True, True, P2),
        ({P3}, True, False, None),
        ({P2, P3}, False, False, None),
        ({P1}, False, False, P1),
        ({P1}, True, False, None),
    ],
)
def test_a00_fr_001_a_connection_uses_exactly_one_of_the_offered_profiles(
    offered: set[SecurityProfile], tls: bool, certificate: bool, expected: SecurityProfile | None
) -> None:
    assert choose_profile(offered, tls=tls, client_certificate=certificate) is expected


def test_a00_fr_002_and_a05_fr_07_a_station_never_comes_in_below_its_profile() -> None:
    with pytest.raises(ProfileTooLow, match="below its expected profile 3"):
        check_profile_allowed(P2, 3)
    check_profile_allowed(P3, 2)
    check_profile_allowed(P2, 2)
    check_profile_allowed(P1, 0)


@pytest.mark.parametrize(
    ("active", "requested", "root", "certificate", "downgrade", "accepted", "clause"),
    [
        (1, P2, False, False, False, False, "A05.FR.02"),
        (2, P3, False, True, False, False, "A05.FR.02"),
        (2, P3, True, False, False, False, "A05.FR.03"),
        (2, P3, True, True, False, True, "A05.FR.04"),
        (2, P2, False, False, False, True, "A05.FR.04"),
        (0, P1, False, False, False, True, "A05.FR.04"),
        (3, P2, True, True, True, True, "A05.FR.08"),
        (3, P1, True, True, True, False, "A05.FR.09"),
        (2, P1, True, True, True, False, "A05.FR.09"),
        (3, P2, True, True, False, False, "A05.FR.10"),
    ],
)
def test_a05_fr_02_to_04_and_08_to_10_judge_a_change_of_profile(
    active: int,
    requested: SecurityProfile,
    root: bool,
    certificate: bool,
    downgrade: bool,
    accepted: bool,
    clause: str,
) -> None:
    verdict = judge_change(
        active,
        requested,
        csms_root_installed=root,
        station_certificate_installed=certificate,
        downgrade_allowed=downgrade,
    )
    assert (verdict.accepted, verdict.clause) == (accepted, clause)
