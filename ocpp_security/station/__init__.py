"""The simulated charging station: real keys, a real store on disk, against any CSMS."""

from __future__ import annotations

from chargepki.ocpp_security.station.csr import CsrForgery
from chargepki.ocpp_security.station.fleet import FleetMember, StationFleet, StationTally
from chargepki.ocpp_security.station.misbehaviour import MISBEHAVIOURS, Conduct, Misbehaviour, parse_conduct
from chargepki.ocpp_security.station.progress import Milestone, Progress
from chargepki.ocpp_security.station.simulator import RetryPolicy, StationSimulator
from chargepki.ocpp_security.station.store import StationStore

__all__ = [
    "MISBEHAVIOURS",
    "Conduct",
    "CsrForgery",
    "FleetMember",
    "Milestone",
    "Misbehaviour",
    "Progress",
    "RetryPolicy",
    "StationFleet",
    "StationSimulator",
    "StationStore",
    "StationTally",
    "parse_conduct",
]
