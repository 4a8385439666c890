"""OCPP security profiles 1 to 3, and 1.6's none: what each demands, and which transitions are allowed (pure tables)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from chargepki.pki.errors import InputError, PolicyRefusal

__all__ = [
    "DEMANDS",
    "Change",
    "ChangeVerdict",
    "ProfileDemands",
    "ProfileTooLow",
    "SecurityProfile",
    "check_profile_allowed",
    "choose_profile",
    "judge_change",
    "parse_profiles",
]


class SecurityProfile(IntEnum):
    """The three profiles, and the "nothing configured yet" of 1.6, which is none."""

    NONE = 0
    """No profile at all: nobody proves anything. 1.6 only, and only where configured (white paper, 7.6)."""
    UNSECURED_BASIC = 1
    TLS_BASIC = 2
    TLS_CLIENT_CERTIFICATE = 3


@dataclass(frozen=True, slots=True)
class ProfileDemands:
    """What a connection of one profile must have."""

    profile: SecurityProfile
    title: str
    tls: bool
    basic_auth: bool
    client_certificate: bool
    clause: str


DEMANDS: Mapping[SecurityProfile, ProfileDemands] = MappingProxyType(
    {
        SecurityProfile.NONE: ProfileDemands(
            profile=SecurityProfile.NONE,
            title="No security profile",
            tls=False,
            basic_auth=False,
            client_certificate=False,
            clause="1.6 security white paper, edition 3, 7.6",
        ),
        SecurityProfile.UNSECURED_BASIC: ProfileDemands(
            profile=SecurityProfile.UNSECURED_BASIC,
            title="Unsecured Transport with Basic Authentication",
            tls=False,
            basic_auth=True,
            client_certificate=False,
            clause="A00.FR.201 to A00.FR.207",
        ),
        SecurityProfile.TLS_BASIC: ProfileDemands(
            profile=SecurityProfile.TLS_BASIC,
            title="TLS with Basic Authentication",
            tls=True,
            basic_auth=True,
            client_certificate=False,
            clause="A00.FR.301 to A00.FR.324",
        ),
        SecurityProfile.TLS_CLIENT_CERTIFICATE: ProfileDemands(
            profile=SecurityProfile.TLS_CLIENT_CERTIFICATE,
            title="TLS with Client Side Certificates",
            tls=True,
            basic_auth=False,
            client_certificate=True,
            clause="A00.FR.401 to A00.FR.429",
        ),
    }
)


class ProfileTooLow(PolicyRefusal):
    """A connection below the profile that the station is expected on (A00.FR.002, A05.FR.07)."""

    code = "profile-too-low"


def parse_profiles(text: str) -> frozenset[SecurityProfile]:
    """Parse what an endpoint offers: ``1``, ``2``, ``3`` or ``2,3``; ``0`` or ``0,1`` for stations of 1.6.

    Raises:
        InputError: another combination. What has no TLS cannot share a port with a TLS profile.

    Clause: A00.FR.006 (one profile a port; 2 and 3 may share one, the handshake tells them apart).

    >>> sorted(int(profile) for profile in parse_profiles("2,3"))
    [2, 3]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("0", "1", "2", "3") for part in parts) or len(set(parts)) != len(parts):
        raise InputError(f"not a set of security profiles: {text!r}", fix="use 1, 2, 3 or 2,3")
    profiles = frozenset(SecurityProfile(int(part)) for part in parts)
    if len({DEMANDS[profile].tls for profile in profiles}) > 1:
        raise InputError(
            "security profile 1 cannot share a port with a TLS profile",
            why="a port speaks TLS or it does not (A00.FR.006)",
            fix="start a second endpoint on another port",
        )
    return profiles


def choose_profile(
    offered: Collection[SecurityProfile], *, tls: bool, client_certificate: bool, credentials: bool = True
) -> SecurityProfile | None:
    """Say which of the *offered* profiles a connection uses, or ``None`` when it fits none.

    A client certificate makes it profile 3, whatever else the request carries: exactly one profile at a time
    (A00.FR.001). A connection without one is then profile 2 (TLS) or 1 (clear text), where offered; in clear text and
    without *credentials* it is none, where that is offered.

    >>> choose_profile({SecurityProfile.TLS_CLIENT_CERTIFICATE}, tls=True, client_certificate=False) is None
    True
    """
    if not tls:
        is_none = SecurityProfile.NONE in offered and (not credentials or len(offered) == 1)
        wanted = SecurityProfile.NONE if is_none else SecurityProfile.UNSECURED_BASIC
    elif client_certificate and SecurityProfile.TLS_CLIENT_CERTIFICATE in offered:
        wanted = SecurityProfile.TLS_CLIENT_CERTIFICATE
    else:
        wanted = SecurityProfile.TLS_BASIC
    return wanted if wanted in offered else None


def check_profile_allowed(actual: SecurityProfile, expected: int) -> None:
    """Refuse a connection below the profile that the station is expected on; a higher one is let in.

    Args:
        expected: the station's recorded profile; 0 stands for "none yet" (1.6) and lets every profile in.

    Raises:
        ProfileTooLow: *actual* is lower.

    Clause: A00.FR.002, A05.FR.07.
    """
    if actual < expected:
        raise ProfileTooLow(
            f"the station came in on security profile {int(actual)}, below its expected profile {expected}",
            why="a station that was once on a higher profile never goes back (A00.FR.002, A05.FR.07)",
            fix="let it connect on its profile, or correct the record with `station set-profile --record-only`",
        )


class Change(IntEnum):
    """Direction of a requested change of profile."""

    LOWER = -1
    SAME = 0
    HIGHER = 1


@dataclass(frozen=True, slots=True)
class ChangeVerdict:
    """Whether a station has to accept a change of profile."""

    accepted: bool
    change: Change
    clause: str
    reason_code: str | None = None
    """``statusInfo.reasonCode`` of the refusal, where the errata name one."""


def judge_change(
    active: int,
    requested: SecurityProfile,
    *,
    csms_root_installed: bool,
    station_certificate_installed: bool,
    downgrade_allowed: bool = False,
) -> ChangeVerdict:
    """Judge a change from *active* (0 for none yet) to *requested* as a station must.

    Args:
        downgrade_allowed: the variable AllowSecurityProfileDowngrade; it opens 3 to 2 and nothing else.

    Clause: A05.FR.02 to A05.FR.04 (1.6: A05.FR.02, FR.03), A05.FR.08 to A05.FR.10. The 2.1 text of A05.FR.10 says
    Accepted for a forbidden downgrade; that is a defect, and we refuse.
    """
    if requested < active:
        if not downgrade_allowed:
            return ChangeVerdict(False, Change.LOWER, "A05.FR.10", "NoSecurityDowngrade")
        if requested <= SecurityProfile.UNSECURED_BASIC:
            return ChangeVerdict(False, Change.LOWER, "A05.FR.09", "NoSecurityDowngrade")
        return ChangeVerdict(True, Change.LOWER, "A05.FR.08")
    change = Change.SAME if requested == active else Change.HIGHER
    if change is Change.HIGHER and DEMANDS[requested].tls and not csms_root_installed:
        return ChangeVerdict(False, change, "A05.FR.02")
    if (
        change is Change.HIGHER
        and requested is SecurityProfile.TLS_CLIENT_CERTIFICATE
        and not station_certificate_installed
    ):
        return ChangeVerdict(False, change, "A05.FR.03")
    return ChangeVerdict(True, change, "A05.FR.04")
