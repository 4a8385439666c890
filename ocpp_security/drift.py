"""Where what stations report differs from what we believe about their roots: the whole fleet at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chargepki.ocpp_security.estate import Recogniser, StationTrust, list_station_trust
from chargepki.ocpp_security.trust_facts import own_certificates
from chargepki.ocpp_security.trust_reconcile import RootFinding, RootStatus, reconcile
from chargepki.pki.inventory.reads import Reads

__all__ = ["StationDrift", "find_drift"]

_CHAIN = "v2g-chain"


@dataclass(frozen=True, slots=True)
class StationDrift:
    """One root of one station about which the station and we do not agree."""

    station: str
    status: RootStatus
    """As `station roots` shows it; never in step."""


def find_drift(reads: Reads, *, unchecked: bool = False) -> Iterator[StationDrift]:
    """Yield every disagreement, by station and use.

    Args:
        unchecked: also yield the roots that we installed on stations that were not asked since.
    """
    recogniser = Recogniser(reads)
    for trust in list_station_trust(reads):
        for status in _statuses(reads, recogniser, trust):
            if status.finding is RootFinding.IN_STEP or (status.finding is RootFinding.UNCHECKED and not unchecked):
                continue
            yield StationDrift(trust.station, status)


def _statuses(reads: Reads, recogniser: Recogniser, trust: StationTrust) -> list[RootStatus]:
    known = recogniser.known
    if any(report.use == _CHAIN for report in trust.reports):
        known = (*known, *own_certificates(reads, trust.station))
    return reconcile(trust.installed, trust.reports, known, diagnose=recogniser.diagnose)
