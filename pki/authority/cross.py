"""Cross-certificates: the key of one root, certified by another root or by another generation of the same one.

Whoever trusts the one then believes what is below the other (RFC 5280 3.2; RFC 9810 4.4: *new with old*, *old with
new*).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from chargepki.pki import names
from chargepki.pki.authority.issuance import (
    Issuer,
    Prepared,
    check_may_issue,
    check_stored,
    complete,
    finish,
    prepare,
    reserve,
)
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.csr import build_csr
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor, CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile, RoleKind
from chargepki.pki.profiles.hierarchy import may_issue
from chargepki.pki.signer import Signer
from chargepki.pki.template import Criticality
from chargepki.pki.validity import BACKDATING

__all__ = [
    "CROSS_PROFILES",
    "CrossOrder",
    "cross_certificates_of",
    "cross_profile",
    "cross_request_id",
    "cross_sign",
    "links_to_earlier",
    "links_to_later",
    "prepare_cross",
]

CROSS_PROFILES = tuple(profile.id for profile in list_profiles() if profile.kind is RoleKind.CROSS)
"""Ids of the profiles of cross-certificates."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class CrossOrder:
    """A cross-certificate to make."""

    subject: CaRecord
    """The CA that is certified, with its own validity."""
    signer: Signer
    """Its key: the request proves that it is held."""
    validity: timedelta | None = None
    """``None`` takes the profile's default, cut where either CA ends."""
    criticality: Criticality = "profile"


def cross_profile(issuer: Profile) -> Profile:
    """Return the profile of the cross-certificates that a CA of profile *issuer* makes.

    Raises:
        PolicyRefusal: it is no root.
    """
    for profile_id in CROSS_PROFILES:
        profile = get_profile(profile_id)
        if may_issue(issuer, profile):
            return profile
    raise PolicyRefusal(
        f"a {issuer.id} CA issues no cross-certificates",
        why="a cross-certificate ties two roots together (RFC 5280 3.2; ISO 15118-20 B.9)",
        fix="name a root with --issuer",
    )


def cross_request_id(subject: CaRecord, issuer: CaRecord) -> str:
    """Return the request id under which the cross-certificate of *subject* by *issuer* is found again."""
    return f"cross:{subject.id}:{issuer.id}"


def cross_sign(
    order: CrossOrder,
    issuer: Issuer,
    inventory: Inventory,
    *,
    actor: Actor,
    now: datetime,
    approved: Callable[[Transaction], None],
) -> CertificateRecord:
    """Have *issuer* certify the key of another CA, or return the valid cross-certificate that is there already.

    The request rules on keys are those of the product, not the operator's: a cross-certificate always is a second
    certificate of its key.

    Args:
        approved: refuses where approvals are missing.

    Raises:
        PolicyRefusal: *issuer* is no root, is the CA itself, or one of the two has expired.
        ProfileViolation: it would break its profile.
    """
    prepared = prepare_cross(order, issuer, inventory, actor=actor, now=now)

    def hold(tx: Transaction) -> CertificateRecord:
        earlier = tx.find_certificate_by_request_key(prepared.record.request_key)
        if earlier is not None and _answers(earlier, now):
            # The request is signed anew each time, and most signatures differ: the pair of CAs is what is asked for.
            return earlier
        check_may_issue(tx, issuer.ca.id)
        approved(tx)
        return reserve(tx, prepared, actor=actor, now=now)

    record = inventory.write(hold)
    if record.state is not CertificateState.RESERVED:
        return record
    if record.id != prepared.record.id:
        check_stored(record, issuer)
    der = complete(record, issuer)
    return inventory.write(lambda tx: finish(tx, record, der, actor=actor, now=now))


def prepare_cross(order: CrossOrder, issuer: Issuer, inventory: Inventory, *, actor: Actor, now: datetime) -> Prepared:
    """Judge, build and lint what `cross_sign` would sign; nothing is written. Raises as that."""
    subject = order.subject
    profile = cross_profile(issuer.profile)
    _check_pair(subject, issuer)
    csr = build_csr(subject.subject_der, order.signer.spki_der, order.signer.algorithm, order.signer.sign)
    return prepare(
        IssueOrder(
            ca=issuer.ca.id,
            profile=profile.id,
            csr=csr,
            validity=_validity(order, profile, issuer, now),
            criticality=order.criticality,
            requester=actor.name,
            request_id=cross_request_id(subject, issuer.ca),
        ),
        issuer,
        inventory,
        actor=actor,
        now=now,
        policy=PolicySettings(),
    )


def _answers(record: CertificateRecord, now: datetime) -> bool:
    return record.state in (CertificateState.RESERVED, CertificateState.ISSUED) and record.not_after >= now


def _check_pair(subject: CaRecord, issuer: Issuer) -> None:
    if not get_profile(subject.profile).is_root:
        raise PolicyRefusal(
            f"{subject.id} is no root",
            why="a CA below a root is certified by that root, and by nobody across",
            fix=f"cross-sign the root above {subject.id}",
        )
    if subject.id == issuer.ca.id or subject.spki_sha256 == issuer.ca.spki_sha256:
        raise PolicyRefusal(f"{subject.id} has certified its own key already", fix="name two different roots")
    # A certificate whose subject is its issuer's name counts for no path length (RFC 5280 6.1.4 (l)): generations may.
    if issuer.profile.basic_constraints.path_length == 0 and subject.subject_der != issuer.ca.subject_der:
        raise PolicyRefusal(
            f"nothing below {subject.id} would be accepted under {issuer.ca.id}",
            why=f"{issuer.profile.id} has the path length 0: no CA stands below it ({issuer.profile.clause})",
            fix="name another root with --issuer",
        )
    if names.name_der(names.name_from_der(subject.subject_der)) != subject.subject_der:
        raise PolicyRefusal(
            f"the subject of {subject.id} is encoded in a way that is not written here",
            why="a cross-certificate repeats it octet by octet, or chains below it do not verify",
            fix="use a root of this installation",
        )


def _validity(order: CrossOrder, profile: Profile, issuer: Issuer, now: datetime) -> timedelta:
    """Return how long the cross-certificate lasts: never beyond either CA (ISO 15118-20 [V2G20-1853])."""
    ca = issuer.ca
    assert ca.not_before is not None and ca.not_after is not None and order.subject.not_after is not None
    begin = max(now - BACKDATING, ca.not_before)
    most = min(ca.not_after, order.subject.not_after) - begin + _SECOND
    if most <= BACKDATING:
        ended = ca if ca.not_after <= order.subject.not_after else order.subject
        raise PolicyRefusal(
            f"{ended.id} has expired", why="a cross-certificate is not valid beyond either CA (V2G20-1853)"
        )
    if order.validity is not None and order.validity > most:
        raise PolicyRefusal(
            f"a cross-certificate of {order.validity.days} days would outlive one of the two CAs",
            why="it is not valid beyond either CA (ISO 15118-20 [V2G20-1853]; RFC 9810 4.4)",
            fix=f"pass at most --validity {most.days}d",
        )
    return min(order.validity or profile.validity.default, most)


def links_to_earlier(reads: Reads, root: CaRecord, now: datetime) -> tuple[bytes, ...]:
    """Return *new with old* for each generation before *root* that is still valid, the newest first (DER).

    Behind a chain that ends below *root* each of them certifies what stands before it, so that whoever holds any of
    the generations finds its own.
    """
    links: list[bytes] = []
    while root.generation > 1:
        before = reads.find_ca(f"{root.name}@{root.generation - 1}")
        if before is None or before.not_after is None or before.not_after < now or before.state is CaState.REVOKED:
            break
        link = next((each for each in cross_certificates_of(reads, root, now) if each.ca == before.id), None)
        if link is None or link.der is None:
            break
        links.append(link.der)
        root = before
    return tuple(links)


def links_to_later(reads: Reads, root: CaRecord, now: datetime) -> tuple[bytes, ...]:
    """Return *old with new* for *root* and each generation after it, the oldest first (DER).

    Behind a chain that ends below *root*, whoever holds a newer generation alone finds its own.
    """
    links: list[bytes] = []
    while (after := reads.find_ca(f"{root.name}@{root.generation + 1}")) is not None:
        link = next((each for each in cross_certificates_of(reads, root, now) if each.ca == after.id), None)
        if link is None or link.der is None or after.state is CaState.REVOKED:
            break
        links.append(link.der)
        root = after
    return tuple(links)


def cross_certificates_of(reads: Reads, ca: CaRecord, now: datetime) -> Iterator[CertificateRecord]:
    """Yield the cross-certificates of the key of *ca* that are valid at *now* and not revoked, the longest-lived first.

    Those that it issued to others are not among them.
    """
    if ca.spki_sha256 is None:
        return
    found = [
        record
        for record in reads.list_certificates_of_key(ca.spki_sha256)
        if record.profile in CROSS_PROFILES
        and record.state is CertificateState.ISSUED
        and record.subject_der == ca.subject_der
        and record.not_before <= now <= record.not_after
    ]
    yield from sorted(found, key=lambda record: (record.not_after, record.id), reverse=True)
