"""Certificate profiles as data: look one up by its id, or list them all.

The data is imported when the first profile is asked for: a path is validated without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from chargepki.pki.errors import NotFound
from chargepki.pki.profiles.base import Profile

__all__ = ["get_profile", "list_profiles"]


@cache
def _by_id() -> Mapping[str, Profile]:
    from chargepki.pki.profiles import common, iso15118_2, iso15118_20, ocpp

    every = (
        *iso15118_2.PROFILES,
        *iso15118_20.PROFILES_2022,
        *iso15118_20.PROFILES_A1,
        *ocpp.PROFILES,
        *common.PROFILES,
    )
    return MappingProxyType({profile.id: profile for profile in every})


def get_profile(profile_id: str) -> Profile:
    """Return the profile named ``STANDARD/ROLE``.

    The same object every time, so callers may compare by identity.

    Raises:
        NotFound: there is no such profile; the error names the closest ones.

    >>> get_profile("ocpp/charging-station").title
    'Charging station certificate: TLS client towards the CSMS'
    """
    profile = _by_id().get(profile_id)
    if profile is None:
        raise NotFound(f"there is no profile {profile_id[:100]!r}", fix=_suggestion(profile_id[:100]))
    return profile


def list_profiles() -> tuple[Profile, ...]:
    """Return every profile, standard by standard, issuers before what they issue."""
    return tuple(_by_id().values())


def _suggestion(profile_id: str) -> str:
    import difflib  # needed only here, on the way to an error

    close = difflib.get_close_matches(profile_id, _by_id(), n=3, cutoff=0.6)
    if not close:
        close = [known for known in _by_id() if known.partition("/")[2] == profile_id.strip().lower()]
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "`chargepki profile list` names them all"
