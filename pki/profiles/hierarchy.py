"""Which CA may issue which profile, and the order in which the CAs of a standard are made."""

from __future__ import annotations

from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.profiles import list_profiles
from chargepki.pki.profiles.base import Profile, RoleKind, Standard

__all__ = ["check_issuer", "default_issuer", "hierarchy", "issuer_ids", "may_issue"]


def hierarchy(standard: Standard | str) -> tuple[Profile, ...]:
    """Return all roots and sub-CAs of *standard*, each after its default issuer.

    Cross-certificates are left out: they certify a CA that exists already.

    Raises:
        InputError: *standard* is unknown, or has no CAs of its own.
    """
    known = [each.value for each in Standard if each is not Standard.COMMON]
    if standard not in known:
        raise InputError(
            f"{str(standard)[:60]!r} is not a standard with a hierarchy", fix="choose one of " + ", ".join(known)
        )
    return tuple(
        profile
        for profile in list_profiles()
        if profile.standard == standard and profile.is_ca and profile.kind is not RoleKind.CROSS
    )


def default_issuer(profile: Profile) -> str | None:
    """Return the role that usually issues *profile*; its own role for a root, ``None`` where any CA may."""
    return profile.issuers[0] if profile.issuers else None


def issuer_ids(profile: Profile) -> tuple[str, ...]:
    """Return the full ids of the profiles that may issue *profile*; empty means any CA."""
    return tuple(role if "/" in role else f"{profile.standard.value}/{role}" for role in profile.issuers)


def may_issue(issuer: Profile, profile: Profile) -> bool:
    """Return whether a CA of profile *issuer* may issue a certificate of *profile*."""
    if not issuer.is_ca:
        return False
    return issuer.id in issuer_ids(profile) if profile.issuers else True


def check_issuer(issuer: Profile, profile: Profile) -> None:
    """Refuse a CA that is not allowed to issue *profile*.

    Raises:
        PolicyRefusal: the standard does not know *issuer* as an issuer of *profile*.
    """
    if may_issue(issuer, profile):
        return
    raise PolicyRefusal(
        f"a {issuer.id} CA does not issue {profile.id}",
        why=f"{profile.clause}: relying parties accept it below {', '.join(issuer_ids(profile)) or 'a CA'} alone",
        fix="name a CA of one of those profiles with --ca" if not profile.is_ca else "name such a CA with --issuer",
    )
