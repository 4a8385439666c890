"""Who would be locked out if a higher security profile were demanded today, and why; read from what is on record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, PresenceRecord, StationRecord
from chargepki.pki.inventory.trust_records import StationRootState

__all__ = ["Obstacle", "ObstacleKind", "find_obstacles"]

_SOON: Final = timedelta(days=7)
_CERTIFICATE_PROFILE: Final = "ocpp/charging-station"


class ObstacleKind(StrEnum):
    """What stands between a station and a profile."""

    NEVER_SEEN = "never-seen"
    OFFLINE = "offline"
    NO_PASSWORD = "no-password"  # noqa: S105 - a name, not a password
    PASSWORD_UNRESOLVED = "password-unresolved"  # noqa: S105 - the same
    NO_ROOT = "no-root"
    NO_CERTIFICATE = "no-certificate"
    NOT_PROVEN = "not-proven"
    EXPIRING = "expiring"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One of them."""

    kind: ObstacleKind
    why: str
    fix: str
    is_fetched: bool = False
    """Whether the operation that raises the profile sees to it by itself."""


def find_obstacles(
    reads: Reads, station: StationRecord, presence: PresenceRecord | None, profile: int, now: datetime
) -> tuple[Obstacle, ...]:
    """Return why *station* could not come in if *profile* were demanded from now on; empty when it can.

    Clause: A05.FR.02, A05.FR.03 (1.6: A05.FR.02 to A05.FR.04), A05.FR.07.
    """
    if presence is None:
        fix = "let it connect on the profile that it has"
        return (Obstacle(ObstacleKind.NEVER_SEEN, "it has never connected: nothing shows what it can do", fix),)
    if presence.connected and presence.security_profile >= profile:
        return ()
    found: list[Obstacle] = []
    if not presence.connected:
        seen = f"{presence.last_seen_at:%Y-%m-%d %H:%M} UTC"
        why = f"it is offline since {seen}, where it used profile {presence.security_profile}"
        found.append(Obstacle(ObstacleKind.OFFLINE, why, "wait until it connects"))
    if profile in (1, 2):
        found += _password(station)
    if profile in (2, 3) and presence.security_profile < 2 and not _has_root(reads, station.id):
        fix = f"chargepki station install-root {station.id} --use csms FILE"
        why = "no CSMS root is known to be on it, so it could not judge our TLS certificate"
        found.append(Obstacle(ObstacleKind.NO_ROOT, why, fix))
    if profile == 3:
        found += _certificate(reads, station, now)
    return tuple(found)


def _password(station: StationRecord) -> list[Obstacle]:
    if station.password_hash is None:
        fix = f"chargepki station set-password {station.id}"
        return [Obstacle(ObstacleKind.NO_PASSWORD, "no password of it is on record", fix)]
    if station.pending_password_hash is not None:
        why = "a change of its password is unresolved: it may hold either one"
        return [Obstacle(ObstacleKind.PASSWORD_UNRESOLVED, why, "let it reconnect: that shows which one it holds")]
    return []


def _has_root(reads: Reads, station: str) -> bool:
    """Say whether a CSMS root was installed by us, or listed by the station."""
    installed = any(
        item.use == "csms" and item.state is StationRootState.INSTALLED for item in reads.list_station_roots(station)
    )
    return installed or any(
        report.use == "csms" and report.listed.get("entries") for report in reads.list_root_reports(station)
    )


def _certificate(reads: Reads, station: StationRecord, now: datetime) -> list[Obstacle]:
    held = [
        item
        for item in reads.list_certificates(
            station=station.id, profile=_CERTIFICATE_PROFILE, state=CertificateState.ISSUED
        )
        if item.delivery in (Delivery.DELIVERED, Delivery.IN_USE) and item.not_before <= now < item.not_after
    ]
    renew = f"chargepki station trigger-renewal {station.id}"
    if not held:
        why = "it has no valid certificate of ours"
        return [Obstacle(ObstacleKind.NO_CERTIFICATE, why, renew, is_fetched=True)]
    newest: CertificateRecord = max(held, key=lambda item: (item.delivery is Delivery.IN_USE, item.not_after))
    if newest.not_after - now < _SOON:
        why = f"its certificate expires on {newest.not_after:%Y-%m-%d}"
        return [Obstacle(ObstacleKind.EXPIRING, why, renew)]
    if newest.delivery is not Delivery.IN_USE:
        why = "it took a certificate and has not come in with it yet"
        return [Obstacle(ObstacleKind.NOT_PROVEN, why, "let it connect with profile 3", is_fetched=True)]
    return []
