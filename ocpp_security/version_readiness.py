"""What a station of OCPP 1.6 carries over to 2.x, what stands in the way, and the order of steps there and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from chargepki.ocpp_security.profile_needs import is_expiring
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateState, Delivery, PresenceRecord, StationRecord
from chargepki.pki.inventory.trust_records import StationRootState

__all__ = ["VersionPlan", "plan_version"]


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """How one station gets from 1.6 to another version."""

    is_there: bool
    """Whether it spoke that version last."""
    obstacles: tuple[str, ...]
    carried: tuple[str, ...]
    """What it keeps, and has to hold after the switch."""
    steps: tuple[str, ...]
    """In their order; the last is the way back."""


def plan_version(
    reads: Reads, station: StationRecord, presence: PresenceRecord | None, version: OcppVersion, now: datetime
) -> VersionPlan:
    """Plan the way of *station* to *version* (2.0.1 or 2.1).

    Nothing of what we have on record belongs to one version: an identity (held to the rules of 2.x in any case) opens
    the same endpoint in both with the same password or certificate, and a root that was installed in one is expected
    to be listed in the other.
    """
    if presence is not None and presence.protocol == version.value:
        return VersionPlan(True, (), (), ())
    carried, obstacles = [f"identity {station.id}"], list(_obstacles(station, presence))
    if station.password_hash is not None:
        carried.append("password")
    certificates = [
        item
        for item in reads.list_certificates(station=station.id, state=CertificateState.ISSUED)
        if item.delivery is Delivery.IN_USE and item.not_before <= now < item.not_after
    ]
    carried += [f"certificate {item.id} until {item.not_after:%Y-%m-%d}" for item in certificates]
    if station.password_hash is None and not certificates:
        obstacles.append("it has neither a password nor a certificate in use: nothing would let it in")
    if certificates and station.password_hash is None and all(is_expiring(item, now) for item in certificates):
        obstacles.append("its certificate is about to expire: chargepki station trigger-renewal " + station.id)
    roots = [item for item in reads.list_station_roots(station.id) if item.state is StationRootState.INSTALLED]
    carried += [f"{item.use} root {item.certificate[:16]}" for item in roots]
    return VersionPlan(False, tuple(obstacles), tuple(carried), _steps(station, version))


def _obstacles(station: StationRecord, presence: PresenceRecord | None) -> list[str]:
    found = []
    if presence is None:
        found.append("it has never connected: nothing shows what it holds")
    if station.pending_password_hash is not None:
        found.append("a change of its password is unresolved: let it reconnect first")
    if station.security_profile == 0:
        found.append(
            f"it uses no security profile, which 2.x does not know: chargepki station set-profile {station.id} 1"
        )
    return found


def _steps(station: StationRecord, version: OcppVersion) -> tuple[str, ...]:
    steps = [f"chargepki station roots {station.id} --refresh"]
    if station.password_hash is not None:
        # In 1.6 it may be any octets; the ones that this makes fit every version (A00.FR.205, 1.6 A00.FR.205).
        steps.append(f"chargepki station set-password {station.id}")
    steps += [
        f"give it firmware that speaks {version.value}: chargepki station update-firmware {station.id} --release R",
        f"chargepki station roots {station.id} --refresh",
        f"chargepki station trigger-renewal {station.id}",
        "back: its older firmware; what is on record here opens both",
    ]
    return tuple(steps)
