"""Put the endpoint's questions to `authenticate`: its station table, its limits, and what it issues itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chargepki.ocpp_security.attempts import AttemptLimits, AuthenticationGuard
from chargepki.ocpp_security.authentication import (
    AuthenticatedStation,
    RefusedConnection,
    Restriction,
    UpgradeRequest,
    authenticate,
)
from chargepki.ocpp_security.csms.config import CsmsConfig
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.passwords import PasswordVerifier
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.sign_certificate import opens_link
from chargepki.ocpp_security.station_source import STATION_CERTIFICATE_PROFILES, InventoryStations
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, StationRecord

__all__ = ["Admission", "Admitted"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The connection may be upgraded."""

    station: StationRecord
    profile: SecurityProfile
    certificate: CertificateRecord | None
    """The one that opened a profile-3 connection, without its bytes: this is kept for as long as the connection."""
    pending_password: bool = False
    """The password was the pending one: the station has taken the change."""
    previous_password: bool = False
    """The password was the one before, within its grace."""
    restriction: Restriction | None = None
    """It is let in to get a certificate and for nothing else."""
    issue: Mapping[str, Any] | None = None
    """What signs its requests where that differs from the endpoint."""


class Admission:
    """The checks before the upgrade: `authenticate` over the inventory."""

    def __init__(self, config: CsmsConfig, inventory: Inventory, offload: Offload, verifier: PasswordVerifier) -> None:
        self._profiles = config.security_profiles
        # What issues certificates for the link here, and what `cert issue` makes for stations.
        planned = {plan.profile for use, plan in config.plans.items() if opens_link(use)}
        profiles = planned.union(STATION_CERTIFICATE_PROFILES)
        self._offload, self._quick = offload, inventory.quick_reads()
        self._stations = InventoryStations(inventory, profiles=profiles, run=offload.read, quick=self._quick)
        limits = config.limits
        attempts = AttemptLimits(
            window=limits.failed_window,
            per_identity_and_address=limits.failed_attempts,
            per_identity=limits.failed_attempts_per_identity,
            per_address=limits.failed_attempts_per_address,
        )
        self._is_proxied = config.proxy is not None
        self.client_trust = config.client_trust
        self._guard = AuthenticationGuard(attempts, verifier=verifier)

    async def start(self) -> None:
        """Open what is read in the event loop.

        Raises:
            UnavailableError: the database cannot be opened.
        """
        if self._quick is not None:
            await self._offload.run(self._quick.open)

    def close(self) -> None:
        """Give back what `start` opened. Idempotent."""
        if self._quick is not None:
            self._quick.close()

    async def judge(self, request: UpgradeRequest, now: datetime) -> Admitted | RefusedConnection:
        """Return who may come in, or the answer for who may not. Raises only when the database cannot be read."""
        trust = self.client_trust
        verdict = await authenticate(
            request,
            self._stations,
            now=now,
            guard=self._guard,
            profiles=self._profiles,
            trust=trust.anchors if trust.verify or trust.crls or self._is_proxied else (),
            crls=trust.crls,
        )
        if isinstance(verdict, AuthenticatedStation):
            return Admitted(
                verdict.station.record,
                verdict.profile,
                verdict.certificate,
                pending_password=verdict.pending_password,
                previous_password=verdict.previous_password,
                restriction=verdict.restriction,
                issue=verdict.station.issue,
            )
        return verdict
