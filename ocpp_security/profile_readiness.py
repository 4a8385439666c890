"""Who would be locked out if a higher security profile were demanded today, and why; read from what is on record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from chargepki.ocpp_security.profile_needs import is_expiring
from chargepki.ocpp_security.unsecured import ALLOW, is_secured
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, PresenceRecord, StationRecord
from chargepki.pki.inventory.trust_records import StationRootState

__all__ = [
    "Obstacle",
    "ObstacleKind",
    "describe_steps",
    "find_csms_root",
    "find_obstacles",
    "needs_password",
    "needs_root",
]

_CERTIFICATE_PROFILE: Final = "ocpp/charging-station"


class ObstacleKind(StrEnum):
    """What stands between a station and a profile."""

    NEVER_SEEN = "never-seen"
    OFFLINE = "offline"
    NO_PASSWORD = "no-password"  # noqa: S105 - a name, not a password
    PASSWORD_UNRESOLVED = "password-unresolved"  # noqa: S105 - a name, not a password
    NO_ROOT = "no-root"
    NO_CERTIFICATE = "no-certificate"
    NOT_PROVEN = "not-proven"
    EXPIRING = "expiring"


_CERTIFICATE: Final = (ObstacleKind.NO_CERTIFICATE, ObstacleKind.EXPIRING)
_CHANGED: Final = (ObstacleKind.NO_ROOT, *_CERTIFICATE)
_UNSECURED: Final = ", and without TLS it gets none unless --allow-unsecured says so"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One of them."""

    kind: ObstacleKind
    why: str
    fix: str
    is_fetched: bool = False
    """Whether the operation that raises the profile sees to it by itself."""


def find_obstacles(
    reads: Reads,
    station: StationRecord,
    presence: PresenceRecord | None,
    profile: int,
    now: datetime,
    *,
    root: str | None = None,
    allow_unsecured: bool = False,
) -> tuple[Obstacle, ...]:
    """Return why *station* could not come in if *profile* were demanded from now on; empty when it can.

    Args:
        root: SHA-256 of the CSMS root that the operation would install (`find_csms_root`), if any.
        allow_unsecured: whether the operation may install it over a connection without TLS.

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
    if needs_root(presence, profile) and not _has_root(reads, station.id):
        fix = f"chargepki station install-root {station.id} --use csms FILE"
        why = "no CSMS root is known to be on it, so it could not judge our TLS certificate"
        found.append(Obstacle(ObstacleKind.NO_ROOT, why, fix, is_fetched=root is not None))
    if profile == 3:
        found += _certificate(reads, station, now)
    if is_secured(presence.security_profile) or allow_unsecured:
        return tuple(found)
    return tuple(replace(each, why=each.why + _UNSECURED) if each.kind in _CHANGED else each for each in found)


def needs_password(station: StationRecord, profile: int) -> bool:
    """Say whether *profile* asks for a password and none of the station's is on record (1.6 A05.FR.02)."""
    return profile in (1, 2) and station.password_hash is None


def needs_root(presence: PresenceRecord | None, profile: int) -> bool:
    """Say whether *profile* asks for a CSMS root and no TLS connection has shown that the station has one."""
    return profile in (2, 3) and (presence is None or presence.security_profile < 2)


def find_csms_root(reads: Reads, now: datetime) -> str | None:
    """Return the SHA-256 of the root above the valid `ocpp/csms` certificates of ours, where there is exactly one."""
    issuers = {
        item.ca
        for item in reads.list_certificates(profile="ocpp/csms", state=CertificateState.ISSUED)
        if item.not_before <= now < item.not_after
    }
    cas = {ca.id: ca for ca in reads.list_cas()}
    roots = set()
    for name in issuers:
        ca = cas[name]
        while ca.issuer is not None and ca.issuer in cas:
            ca = cas[ca.issuer]
        roots.add(ca)
    if len(roots) != 1:
        return None
    der = roots.pop().certificate_der
    return hashlib.sha256(der).hexdigest() if der is not None else None


def describe_steps(
    reads: Reads,
    station: StationRecord,
    presence: PresenceRecord | None,
    parameters: Mapping[str, object],
    now: datetime,
    *,
    with_password: bool,
) -> tuple[str, ...]:
    """Return in words what `set-profile` with these parameters does to *station*, in its order.

    Args:
        with_password: whether the operation brings a password of its own.
    """
    profile, root = int(str(parameters["profile"])), parameters.get("root")
    is_16 = presence is not None and presence.protocol == OcppVersion.V16.value
    steps = []
    unsecured = ""
    if presence is not None and not is_secured(presence.security_profile):
        unsecured = ", without TLS, which was allowed" if parameters.get(ALLOW) else "; refused while it has no TLS"
    if parameters.get("downgrade"):
        steps.append("ask whether it may be lowered: AllowSecurityProfileDowngrade (A05.FR.08)")
    if root is not None:
        there = "unless it lists that (M03, M05)"
        steps.append(f"read its CSMS roots, and install {str(root)[:16]}… {there}{unsecured}")
    has_own = with_password and profile < 3 and presence is not None and presence.protocol == OcppVersion.V21.value
    if with_password and not has_own:
        steps.append("give it a password of its own (A01)")
    if profile == 3 and any(item.kind in _CERTIFICATE for item in _certificate(reads, station, now)):
        steps.append(f"have it fetch a certificate (A02){unsecured}")
    if is_16:
        steps.append(f"set SecurityProfile to {profile}, after which it reconnects (1.6 A05.FR.05 to FR.07)")
    else:
        slot = parameters.get("slot") or "the first free slot"
        own = ", with a password of its own" if has_own else ""
        steps.append(
            f"write profile {profile} at {parameters.get('url')} to {slot}{own}, and put that first (B09, B10)"
        )
        steps.append("reset it when it is idle (A05)")
    steps.append(f"wait until it comes in on profile {profile}; from then on nothing lower is let in (A05.FR.07)")
    return tuple(steps)


def _password(station: StationRecord) -> list[Obstacle]:
    if station.password_hash is None:
        fix = f"chargepki station set-password {station.id}"
        return [Obstacle(ObstacleKind.NO_PASSWORD, "no password of it is on record", fix, is_fetched=True)]
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
    if is_expiring(newest, now):
        why = f"its certificate expires on {newest.not_after:%Y-%m-%d}"
        return [Obstacle(ObstacleKind.EXPIRING, why, renew, is_fetched=True)]
    if newest.delivery is not Delivery.IN_USE:
        why = "it took a certificate and has not come in with it yet"
        return [Obstacle(ObstacleKind.NOT_PROVEN, why, "let it connect with profile 3", is_fetched=True)]
    return []
