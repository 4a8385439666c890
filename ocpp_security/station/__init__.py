"""The simulated charging station: real keys, a real store on disk, against any CSMS."""

from __future__ import annotations

from chargepki.ocpp_security.station.csr import CsrForgery
from chargepki.ocpp_security.station.progress import Milestone, Progress
from chargepki.ocpp_security.station.simulator import RetryPolicy, StationSimulator
from chargepki.ocpp_security.station.store import StationStore

__all__ = ["CsrForgery", "Milestone", "Progress", "RetryPolicy", "StationSimulator", "StationStore"]
