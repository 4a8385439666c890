"""A whole fleet on one machine: memory, a reconnect storm, and revocations that bite while everybody is connected."""

from __future__ import annotations

import os

import pytest

from benchmarks.fleet import measure_fleet

STATIONS = int(os.environ.get("CHARGEPKI_STATIONS", "10000"))


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_ten_thousand_stations_fit_come_back_and_are_cut_off_when_revoked() -> None:
    found = measure_fleet(STATIONS, revocations=100)
    print(found)
    assert found.resident_bytes <= 0.7 * 2**30
    assert found.storm_lost == 0
    assert found.revocation_p99 < 1
