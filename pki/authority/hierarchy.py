"""Create all roots and sub-CAs of a standard."""

from __future__ import annotations

from collections.abc import Callable

from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.creation import CaOrder, check_label
from chargepki.pki.errors import Conflict
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles.base import Profile
from chargepki.pki.profiles.hierarchy import default_issuer, hierarchy
from chargepki.pki.template import Criticality

__all__ = ["create_hierarchy"]


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
        InputError: no such standard, or a bad prefix.
        Conflict: a name is taken by a CA of another profile.
    """
    check_label(prefix, "prefix")
    profiles = hierarchy(standard)
    created: list[CaRecord] = []
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
    name = f"{prefix}-{profile.role}"
    existing = authority.inventory.find_ca(name)
    if existing is not None and existing.state is CaState.ACTIVE:
        if existing.profile != profile.id:
            raise Conflict(
                f"{existing.id} exists with profile {existing.profile}, not {profile.id}", fix="use another --prefix"
            )
        return existing
    # The part before the colon names the role; what it is for would not fit into a CN (X.520: 64 characters).
    role_title = profile.title.partition(":")[0]
    values = {"CN": f"{prefix} {role_title}"[:64].strip(), "O": organization, "C": country}
    subject = tuple(
        (rule.attribute, rule.fixed or values[rule.attribute])
        for rule in profile.subject.attributes
        if rule.fixed or rule.attribute in values
    )
    issuer = None if profile.is_root else f"{prefix}-{default_issuer(profile)}"
    return authority.create_ca(
        CaOrder(
            name=name,
            profile=profile.id,
            issuer=issuer,
            subject=subject,
            key_algorithm=algorithm,
            criticality=criticality,
        )
    )
