"""Create all roots and sub-CAs of a standard."""

from __future__ import annotations

import re
from collections.abc import Callable

from chargepki.pki import names
from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.creation import CaOrder, check_label
from chargepki.pki.errors import Conflict, InputError
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.policy import choose_subject
from chargepki.pki.profiles.base import Profile
from chargepki.pki.profiles.hierarchy import default_issuer, hierarchy
from chargepki.pki.template import Criticality

__all__ = ["create_hierarchy"]

_COUNTRY = re.compile(r"[A-Z]{2}\Z")


def create_hierarchy(
    authority: Authority,
    standard: str,
    *,
    prefix: str,
    organization: str,
    country: str,
    algorithm: KeyAlgorithm | None = None,
    criticality: Criticality = "profile",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CaRecord]:
    """Create ``PREFIX-ROLE`` for every CA role of *standard*, issuers first, and return them in that order.

    CAs that exist already with the same profile are left as they are, so an interrupted run is continued by the
    same call.

    Raises:
        InputError: no such standard, or a bad prefix, organisation or country; nothing was created.
        Conflict: a name is taken by a CA of another profile or with another subject; nothing was created.
    """
    check_label(prefix, "prefix")
    profiles = hierarchy(standard)
    _check_values(organization, country)
    # All of them before the first is created: a hierarchy half of one organisation helps nobody.
    for profile in profiles:
        _existing(authority, profile, prefix, _subject(profile, prefix, organization, country))
    created: list[CaRecord] = []
    told: dict[str, object] = {"standard": standard, "prefix": prefix, "organization": organization}
    told |= {"country": country, "key": algorithm, "criticality": criticality}
    now = authority.now()
    with authority.four_eyes.covering(authority.inventory, "ca.create", told, actor=authority.actor, now=now):
        for done, profile in enumerate(profiles):
            progress(done, len(profiles))
            created.append(_one(authority, profile, prefix, organization, country, algorithm, criticality))
    progress(len(profiles), len(profiles))
    return created


def _one(
    authority: Authority,
    profile: Profile,
    prefix: str,
    organization: str,
    country: str,
    algorithm: KeyAlgorithm | None,
    criticality: Criticality,
) -> CaRecord:
    subject = _subject(profile, prefix, organization, country)
    existing = _existing(authority, profile, prefix, subject)
    if existing is not None:
        return existing
    issuer = None if profile.is_root else f"{prefix}-{default_issuer(profile)}"
    return authority.create_ca(
        CaOrder(
            name=f"{prefix}-{profile.role}",
            profile=profile.id,
            issuer=issuer,
            subject=subject,
            key_algorithm=algorithm,
            criticality=criticality,
        )
    )


def _check_values(organization: str, country: str) -> None:
    if not _COUNTRY.match(country):
        raise InputError(
            f"{country[:40]!r} is no country code",
            why="X.520 has two capital letters of ISO 3166",
            fix="write for example DE",
        )
    names.build_name([("O", organization)])


def _subject(profile: Profile, prefix: str, organization: str, country: str) -> tuple[tuple[str, str], ...]:
    # The part before the colon names the role; what it is for would not fit into a CN (X.520: 64 characters).
    role_title = profile.title.partition(":")[0]
    values = {"CN": f"{prefix} {role_title}"[:64].strip(), "O": organization, "C": country}
    return tuple(
        (rule.attribute, rule.fixed or values[rule.attribute])
        for rule in profile.subject.attributes
        if rule.fixed or rule.attribute in values
    )


def _existing(
    authority: Authority, profile: Profile, prefix: str, subject: tuple[tuple[str, str], ...]
) -> CaRecord | None:
    """Return the active CA that an earlier run created for *profile*, if it is the one that is wanted now."""
    existing = authority.inventory.find_ca(f"{prefix}-{profile.role}")
    if existing is None or existing.state is not CaState.ACTIVE:
        return None
    if existing.profile != profile.id:
        raise Conflict(
            f"{existing.id} exists with profile {existing.profile}, not {profile.id}", fix="use another --prefix"
        )
    wanted = choose_subject(profile, None, override=names.build_name(list(subject)), defaults={})
    if existing.subject_der != names.name_der(wanted):
        raise Conflict(
            f"{existing.id} exists with another subject: {existing.subject}",
            why=f"wanted is {names.text(wanted)}",
            fix="repeat its --organization and --country to complete that hierarchy, or use another --prefix",
        )
    return existing
