"""A whole fleet on one machine: memory, a reconnect storm, and revocations that bite while everybody is connected."""

from __future__ import annotations

import os

import pytest

from benchmarks.fleet import measure_fleet
from benchmarks.harness import write_measured
from benchmarks.renewals import measure_wave

STATIONS = int(os.environ.get("CHARGEPKI_STATIONS", "10000"))
RENEWALS = 1000


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_ten_thousand_stations_fit_come_back_and_are_cut_off_when_revoked() -> None:
    found = measure_fleet(STATIONS, revocations=100)
    print(found)
    write_measured("fleet", found)
    assert found.resident_bytes <= 0.7 * 2**30
    assert found.storm_lost == 0
    assert found.revocation_p99 < 1


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_thousand_stations_of_ten_thousand_renew_in_one_wave_and_the_rest_notices_nothing() -> None:
    """Each is asked once, and settled when it has come back; nobody else loses the connection or waits."""
    renewals = min(RENEWALS, STATIONS // 10)
    found = measure_wave(STATIONS, renewals, patience=1800)
    print(found)
    write_measured("renewals", found)
    assert found.states == {"done": renewals} and found.in_use == renewals
    assert set(found.triggers.values()) == {1} and len(found.triggers) == renewals
    # The stations that beat share a processor with the thousand that make keys; 30 s is what stations wait for answers.
    assert found.closed == 0 and found.heartbeat_p99 < 30
    assert found.resident_after <= 0.8 * 2**30
