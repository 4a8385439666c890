"""What every connection of one endpoint shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from chargepki.ocpp_security.contract_check import ContractChecker
from chargepki.ocpp_security.csms.background import Background
from chargepki.ocpp_security.csms.config import CsmsConfig
from chargepki.ocpp_security.csms.journal import SecurityJournal
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.csms.registry import Registry
from chargepki.ocpp_security.status import StatusGateway
from chargepki.ocpp_security.unsecured import UnsecuredLinks
from chargepki.pki.aio import Issuer
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import Actor, ActorKind

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.renewal import Renewals

__all__ = ["Services", "station_actor"]


@dataclass(frozen=True, slots=True)
class Services:
    """Handed to connections and workers in place of a dozen arguments."""

    config: CsmsConfig
    inventory: Inventory
    issuer: Issuer
    offload: Offload
    journal: SecurityJournal
    registry: Registry
    renewals: Renewals
    background: Background
    status: StatusGateway
    contracts: ContractChecker | None
    unsecured: UnsecuredLinks

    @property
    def clock(self) -> Callable[[], datetime]:
        """The endpoint's clock; timezone-aware UTC."""
        return self.config.clock

    @property
    def actor(self) -> Actor:
        """Who acts when nobody asked: this process."""
        return Actor(f"csms {self.config.owner}", ActorKind.SYSTEM, authenticated=True)


def station_actor(station: str) -> Actor:
    """Return the actor for what an authenticated station does."""
    return Actor(station, ActorKind.STATION, authenticated=True)
